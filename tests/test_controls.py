"""Every control catches the failure it is there for: each one is planted here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest

from repromia.attacks import Ask, Attack, Chosen, Fact, Plain, parse
from repromia.config import Settings
from repromia.controls import blind_results, check_masks, null_target, permuted_head, permuted_program
from repromia.errors import RecordsError
from repromia.evaluate import Judge, all_records
from repromia.findings import _reprogramming, other_findings
from repromia.gains import null_gains
from repromia.heads import fit_with
from repromia.learn import RECIPES, learn_soft_prompt
from repromia.pictures import pictures_from_objects
from repromia.pipeline import run_audit
from repromia.programs import Binding
from repromia.programs.saved import save_program
from repromia.programs.soft_prompt import SoftPrompt
from repromia.progress import Silent
from repromia.records import LabelledRecords, Records
from repromia.result import AuditResult, Duplicates, Estimate, Gain, NullTarget, Permuted, RecordsSummary
from repromia.roles import Roles, assign_roles, role_sizes
from repromia.scoring import Scored, run_attack
from repromia.signals import Scores, TokenSignals
from repromia.store import Store
from repromia.supervision import Supervised, supervised_rows
from repromia.targets.language import LanguageModel
from repromia.verdict import Evidence, verdict
from repromia.views import Views
from small import SmallModels
from test_report import row


def labelled(members: list[str], nonmembers: list[str]) -> LabelledRecords:
    texts = (*members, *nonmembers)
    ids = tuple(f"r{row}" for row in range(len(texts)))
    return LabelledRecords(Records(ids, texts, ids), np.arange(len(texts)) < len(members))


def audited(target: LanguageModel, records: LabelledRecords, attacks: str, headline: str) -> AuditResult:
    settings = Settings(attacks=(attacks,), headline=headline, bootstrap=200, controls=False)
    return run_audit((target, None, None), records, settings, store=Store(None), progress=Silent()).result


@pytest.fixture(scope="module")
def roles(models: SmallModels) -> Roles:
    return assign_roles(labelled(models.members, models.nonmembers))


@pytest.fixture(scope="module")
def judge(roles: Roles) -> Judge:
    return Judge(roles, (0.05,), 400, 0)


def views_of(target: LanguageModel, roles: Roles) -> Views:
    binding = Binding(target, roles.fit, roles.select, 0, Silent(), 128)
    return Views({"target": target}, all_records(roles), binding, Store(None))


def chosen(function: object, kind: str = "passive") -> Chosen:
    return Chosen("planted", Attack("planted", function, kind, "labels", (), "planted", False), {})  # type: ignore[arg-type]


def findings_codes(null: NullTarget, permuted: tuple[Permuted, ...], roles: Roles) -> list[str]:
    summary = RecordsSummary(
        n_members=0, n_nonmembers=0, grouped=False, roles=role_sizes(roles), duplicates=Duplicates(), digest=""
    )
    return [one.code for one in other_findings((), (), (), null, permuted, summary)]


def knows(leaked: set[str]) -> Chosen:
    """An attack to which the labels of some members leaked."""

    def cheat(plain: Plain, texts: Annotated[list[str], Fact("texts")]) -> Scores:
        return plain.average(plain.logprob) + 10.0 * np.array([text in leaked for text in texts])

    return chosen(cheat)


def null_of(one: Chosen, models: SmallModels, roles: Roles) -> tuple[NullTarget, dict[str, Scores]]:
    return null_target([one], views_of(models.base, roles), Judge(roles, (0.05,), 400, 0), name="base", reference="")


def test_a_leaked_label_shows_on_a_model_that_cannot_have_seen_the_records(models: SmallModels, roles: Roles) -> None:
    """Half of the members' labels leak. The honest attack beside it: false alarm 1 in 100, at a fixed seed."""
    caught, _ = null_of(knows(set(models.members[::2])), models, roles)
    honest, _ = null_of(parse("loss"), models, roles)
    row = next(row for row in caught.rows if row.name == "planted")
    assert row.auc is not None
    assert row.auc.low > 0.6
    assert caught.joint_p is not None
    assert honest.joint_p is not None
    assert caught.joint_p < 0.01 < honest.joint_p
    assert "null_above_chance" in findings_codes(caught, (), roles)
    assert "null_above_chance" not in findings_codes(honest, (), roles)


def test_an_attack_that_does_as_well_on_the_null_target_is_not_attributed_to_the_model(
    models: SmallModels, roles: Roles, judge: Judge
) -> None:
    codes = {}
    for name, one in (("leaked", knows(set(models.members))), ("honest", parse("loss"))):
        table, null_scores = null_of(one, models, roles)
        scored = run_attack(one, views_of(models.leaky, roles))
        assert scored.scores is not None
        row = judge.row(one.name, scored)
        gains = null_gains([row], {one.name: scored.scores}, null_scores, judge, row)
        codes[name] = verdict(Evidence(row, [row], (), gains, table)).code
    assert codes == {"leaked": "not_separable_from_null", "honest": "found"}


def test_reference_attacks_on_the_null_target_need_a_second_reference(models: SmallModels, roles: Roles) -> None:
    table, scores = null_of(parse("reference"), models, roles)
    assert [row.status for row in table.rows] == ["not_available"]
    assert "--null-reference" in table.rows[0].reason
    assert table.joint_p is None
    assert scores == {}


def test_shifted_data_is_not_attributable_to_the_model(models: SmallModels) -> None:
    """The model never saw the records, and the attack works: the two sides are different kinds of text."""
    shouted = [text.upper() for text in models.nonmembers]
    result = audited(models.base, labelled(models.members, shouted), "loss", "loss")
    row = result.attack("loss")
    assert row.auc is not None
    assert row.auc.low > 0.9
    assert result.findings[0].code == "not_attributable"
    assert "blind_above_chance" in [one.code for one in result.findings]


def test_swapped_sides_are_reversed_and_not_low_risk(models: SmallModels) -> None:
    result = audited(models.leaky, labelled(models.nonmembers, models.members), "loss", "loss")
    row = result.attack("loss")
    assert row.auc is not None
    assert row.auc.high < 0.5
    assert result.findings[0].code == "reversed"


def test_a_program_that_does_nothing_gains_exactly_nothing_and_is_said_not_to_help(
    models: SmallModels, tmp_path: Path
) -> None:
    path = tmp_path / "nothing.safetensors"
    save_program(SoftPrompt(np.zeros((0, 64), np.float32), {"kept": "identity"}), path)
    spec = f"reprogram:program={path}"
    result = audited(models.leaky, labelled(models.members, models.nonmembers), f"loss,{spec}", "loss")
    (gain,) = [one for one in result.gains if one.role == "identity"]
    assert (gain.auc.estimate, gain.auc.low, gain.auc.high) == (0, 0, 0)
    assert result.attack(spec).auc == result.attack("loss").auc
    (finding,) = [one for one in result.findings if one.code.startswith("reprogramming")]
    assert finding.code == "reprogramming_did_not_help"
    assert "did not" in finding.sentence
    assert "nothing that was learned is used" in finding.sentence


@pytest.mark.parametrize("turned", [False, True])
def test_reprogramming_must_beat_every_blind_baseline(turned: bool) -> None:
    def gain(role: str, over: str, low: float) -> Gain:
        return Gain(
            attack="bank", over=over, role=role, auc=Estimate(estimate=low + 0.1, low=low, high=low + 0.2, method="")
        )

    fair = [gain("best_passive", "loss", 0.1), gain("same_supervision", "same_supervision", 0.1)]
    blind = [gain("blind", "blind:tfidf", -0.3), gain("blind", "blind:dates", 0.1)]
    bank = row("bank", "reprogrammed", 0.7)
    found = _reprogramming(bank, [*fair, *(blind[::-1] if turned else blind)])
    assert found.code == "reprogramming_did_not_help"
    assert _reprogramming(bank, [*fair, blind[1]]).code == "reprogramming_helped"


def test_a_head_that_sees_true_labels_fails_on_permuted_ones(judge: Judge, roles: Roles) -> None:
    """The features carry nothing; the cheating head looks the truth up, whatever labels it is given."""
    generator = np.random.default_rng(0)
    features = generator.normal(size=(len(all_records(roles)), 3))
    truth = np.concatenate([roles.fit.member, roles.select.member, judge.member])
    everything = np.ones(len(roles.fit), dtype=bool)
    nobody = Scored(parse("loss"), None)

    def learn(member: np.ndarray) -> Scores:
        return fit_with(features[judge.fit_rows], member, 1.0)(features)

    honest = permuted_head(Supervised("head", nobody, learn, everything), judge, repeats=10, seed=0)
    assert honest.passed

    def cheat(member: np.ndarray) -> Scores:
        noise = np.random.default_rng(len(calls)).normal(size=len(truth))
        calls.append(member)
        return truth + noise

    calls: list[np.ndarray] = []
    caught = permuted_head(Supervised("head", nobody, cheat, everything), judge, repeats=10, seed=0)
    assert caught.low > 0.6
    assert not caught.passed
    assert findings_codes(NullTarget(status="not_available"), (caught,), roles) == ["no_null", "permuted_labels"]
    assert all(call.sum() == roles.fit.member.sum() for call in calls)
    assert len({call.tobytes() for call in calls}) == 10  # another permutation each time


def test_a_program_that_sees_true_labels_fails_on_permuted_ones(
    models: SmallModels, roles: Roles, judge: Judge
) -> None:
    inside = set(models.members)

    def cheat(
        plain: Plain,
        asked: Annotated[TokenSignals, Ask("lower_case")],
        texts: Annotated[list[str], Fact("texts")],
    ) -> Scores:
        truth = np.array([text in inside for text in texts])
        programmed = plain.offsets.tolist() != asked.offsets.tolist()
        return plain.average(plain.logprob) + 10.0 * truth * programmed

    caught = permuted_program(chosen(cheat, "reprogrammed"), views_of(models.base, roles), judge, repeats=2)
    assert caught is not None
    assert (caught.compared_with, caught.repeats) == (0.0, 2)
    assert caught.low > 0
    assert not caught.passed


def test_a_program_learned_on_permuted_labels_may_not_gain(models: SmallModels, roles: Roles, judge: Judge) -> None:
    """At a fixed seed; one-sided false alarm 2.5 %."""
    control = permuted_program(parse("reprogram:length=4:steps=1"), views_of(models.leaky, roles), judge, repeats=2)
    assert control is not None
    assert control.passed


def test_what_learns_cannot_open_sealed_labels(models: SmallModels, roles: Roles) -> None:
    smuggled = LabelledRecords(roles.eval, roles.eval_labels)  # type: ignore[arg-type]
    with pytest.raises((TypeError, AttributeError)):
        learn_soft_prompt(models.leaky, smuggled, roles.select, RECIPES["forgetting"], seed=0, progress=Silent())
    with pytest.raises((TypeError, AttributeError)):
        learn_soft_prompt(
            models.leaky,
            roles.fit,
            smuggled,
            replace(RECIPES["forgetting"], steps=0, length=2),
            seed=0,
            progress=Silent(),
        )
    with pytest.raises((TypeError, AttributeError)):
        supervised_rows([Scored(parse("loss"), np.zeros(4))], smuggled, seed=0)


def test_heads_are_permuted_each_in_its_own_way(judge: Judge, roles: Roles) -> None:
    """Shared permutations would make the controls of all heads fail together."""
    everything = np.ones(len(roles.fit), dtype=bool)

    def labels_of(name: str) -> list[bytes]:
        told: list[bytes] = []

        def learn(member: np.ndarray) -> Scores:
            told.append(member.tobytes())
            return np.zeros(len(all_records(roles)))

        permuted_head(Supervised(name, Scored(parse("loss"), None), learn, everything), judge, repeats=4, seed=0)
        return told

    first = labels_of("same_supervision")
    assert first == labels_of("same_supervision")
    assert not set(first) & set(labels_of("probe_bank"))


@pytest.mark.parametrize("honest", [True, False])
def test_what_learns_freely_must_average_a_half_on_permuted_labels(
    honest: bool, models: SmallModels, roles: Roles, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The honest learner follows whatever labels it is given, in one direction: far from .5 each time, .5 on average.

    The other one follows the truth, and is no better than its identity: a comparison with that would not tell.
    """
    inside, told = set(models.members), []

    def attack(texts: Annotated[list[str], Fact("texts")]) -> Scores:
        return np.array([text in inside for text in texts]) * 1.0

    def learned(_: Chosen, views: Views, rows: np.ndarray) -> Scored:
        told.append(views.binding.fit.member)
        truth = np.concatenate([roles.fit.member, roles.select.member, judge.member])
        sign = 1.0 if not honest or told[-1][0] else -1.0
        return Scored(parse("loss"), sign * truth[rows])

    monkeypatch.setattr("repromia.controls.run_attack", learned)
    views = views_of(models.base, roles)
    control = permuted_program(chosen(attack, "head"), views, judge, repeats=2)
    assert control is not None
    assert (control.compared_with, control.repeats) == (0.5, 2)
    assert control.passed == honest
    assert control.mean == (0.5 if honest else 1.0)
    assert np.array_equal(told[0], ~told[1])


def test_captions_are_no_baseline_where_the_model_is_not_told_them() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (80, 8, 8, 3), dtype=np.uint8)
    rows = [{"image": one, "caption": f"a photo {row % 2}"} for row, one in enumerate(pixels)]
    pictures = pictures_from_objects(rows[::2], rows[1::2])
    one = Judge(assign_roles(pictures, fit=0.3, select=0.3), (0.05,), 200, 0)
    told, scores = blind_results(pictures, one, 0)
    untold, fewer = blind_results(pictures, one, 0, captions=False)
    assert {row.name for row in told} - {row.name for row in untold} == {"captions"}
    assert scores.keys() - fewer.keys() == {"blind:captions"}
    assert len(untold) == 3


def shadow_halves(models: int, seed: int, *, together: bool) -> tuple[np.ndarray, np.ndarray]:
    """Which of 400 records each shadow model saw, and the target's members. together: each record is in half of all
    models, the target among them, as published code draws them; else members are drawn by themselves."""
    generator = np.random.default_rng(seed)
    order = generator.permuted(np.tile(np.arange(models + 1), (400, 1)), axis=1).T
    inside = order < (models + 1) // 2
    return inside[1:], inside[0] if together else generator.random(400) < 0.5


@pytest.mark.parametrize("models", [3, 7, 15])
def test_shadow_models_that_were_drawn_together_with_the_target_are_refused(models: int) -> None:
    saw, member = shadow_halves(models, 0, together=True)
    with pytest.raises(RecordsError, match="tells who is a member") as caught:
        check_masks(saw, member)
    assert f"of {models} models" in str(caught.value)


@pytest.mark.parametrize(("models", "together"), [(3, False), (7, False), (15, False), (31, True)])
def test_other_shadow_models_are_not_refused(models: int, together: bool) -> None:
    """Drawn by themselves: a false alarm in less than 1 of 10,000. Or so many that one more says nothing."""
    for seed in range(20):
        check_masks(*shadow_halves(models, seed, together=together))
