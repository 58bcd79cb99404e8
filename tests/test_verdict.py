"""The first sentence, on planted situations and on null data. No model: scores are drawn, blind baselines are real.

Rates are of fixed seeds; the bounds leave a chance below 1e-4 of failing under the stated rates.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
from jaxtyping import Float

from repromia.areas import beyond_chance
from repromia.attacks import Modality, parse
from repromia.controls import null_name
from repromia.evaluate import Judge, best_on_select
from repromia.intervals import tpr_figures
from repromia.records import LabelledRecords, Records
from repromia.result import BlindResult, Estimate, NullRow, NullTarget, TprAtFpr
from repromia.roles import assign_roles
from repromia.scoring import Scored
from repromia.verdict import Evidence, verdict
from test_report import failed, row

FPRS = (0.05, 0.01)
NO_NULL = NullTarget(status="not_available", reason="none")


def judge_of(per_class: int, seed: int) -> tuple[Judge, np.ndarray]:
    """A judge of `per_class` eval records a class, and the labels in its order (fit, select, eval)."""
    total = int(per_class / 0.7) + 1
    ids = tuple(f"r{row}" for row in range(2 * total))
    labelled = LabelledRecords(Records(ids, ids, ids), np.arange(2 * total) < total)
    roles = assign_roles(labelled, seed=seed)
    judge = Judge(roles, FPRS, 200, seed)
    return judge, np.concatenate([roles.fit.member, roles.select.member, judge.member])


def concluded(
    judge: Judge,
    scores: dict[str, Float[np.ndarray, " record"]],
    *,
    blind: dict[str, Float[np.ndarray, " record"]],
    null: Float[np.ndarray, " record"] | None = None,
    headline: str = "",
    repaired: bool = False,
    modality: Modality = "language",
    nulls: dict[str, Float[np.ndarray, " record"]] | None = None,
    by_lot: bool = False,
) -> str:
    """The verdict's code for these attack scores, blind scores and (for the headline, and others) null scores."""
    rows = [judge.row(name, Scored(parse(name, modality), one)) for name, one in scores.items()]
    row = next((one for one in rows if one.name == headline), None) or best_on_select(rows)
    assert row is not None
    results, gains = [], []
    for name, one in blind.items():
        fitted = judge.row(name, Scored(parse("loss"), one))
        assert fitted.auc is not None
        results.append(BlindResult(name=name, cross_validated_auc=fitted.auc, fitted=fitted))
        gains.append(judge.gain("blind", (row.name, scores[row.name]), (name, one)))
    table = NO_NULL
    if null is not None:
        area: Estimate = judge.auc(null_name(row.name), null[judge.eval_rows])[0]
        found = [NullRow(name=row.name, status="measured", auc=area)]
        found += [
            NullRow(name=name, status="measured", auc=judge.auc(null_name(name), one[judge.eval_rows])[0])
            for name, one in (nulls or {}).items()
        ]
        table = NullTarget(status="measured", rows=tuple(found), repaired=repaired)
        gains.append(judge.gain("null_target", (row.name, scores[row.name]), (null_name(row.name), null)))
    return verdict(Evidence(row, rows, results, gains, table, by_lot=by_lot)).code


def noise(size: int, generator: np.random.Generator, count: int) -> dict[str, Float[np.ndarray, " record"]]:
    return {f"blind{row}": generator.normal(size=size) for row in range(count)}


def test_null_data_is_seldom_called_a_leak_or_a_shift() -> None:
    """By design at most 3.3 % `found`, 2.5 % `not_attributable`, 2.5 % `reversed`: of 60 audits, 12 in all is 1e-4."""
    codes = []
    for seed in range(60):
        judge, member = judge_of(300, seed)
        generator = np.random.default_rng(seed)
        blind = noise(len(member), generator, 4)
        codes.append(concluded(judge, {"loss": generator.normal(size=len(member))}, blind=blind))
    assert codes.count("nothing_found") >= 48, codes


def test_a_leak_in_the_tail_is_found_although_the_auc_hardly_moves() -> None:
    """5 % of the members stand out completely; four blind baselines at chance do not veto. Power about 1."""
    codes = []
    for seed in range(10):
        judge, member = judge_of(500, seed)
        generator = np.random.default_rng(seed)
        scores = generator.normal(size=len(member)) + 6 * (member & (generator.random(len(member)) < 0.05))
        codes.append(concluded(judge, {"loss": scores}, blind=noise(len(member), generator, 4)))
    assert codes.count("found") >= 8, codes


@pytest.mark.parametrize("null_shift", [None, 1.0, 0.0])
def test_a_shift_that_the_blind_baselines_see_only_in_part_is_not_credited_to_the_model(
    null_shift: float | None,
) -> None:
    """Without a null, or with one that does as well, the figure is not the model's; with a clean null it is."""
    judge, member = judge_of(400, 1)
    generator = np.random.default_rng(1)
    size = len(member)
    blind = {"shift": generator.normal(size=size) + 0.5 * member, **noise(size, generator, 1)}
    scores = {"loss": generator.normal(size=size) + 1.0 * member}
    null = None if null_shift is None else generator.normal(size=size) + null_shift * member
    expected = {None: "shifted_data_no_null", 1.0: "not_separable_from_null", 0.0: "found"}[null_shift]
    assert concluded(judge, scores, blind=blind, null=null) == expected


def test_data_that_gives_it_away_comes_first() -> None:
    judge, member = judge_of(300, 2)
    generator = np.random.default_rng(2)
    blind = {"blind0": generator.normal(size=len(member)) + 3.0 * member}
    for leak in (0.0, 1.0):
        scores = {"loss": generator.normal(size=len(member)) + leak * member}
        assert concluded(judge, scores, blind=blind) == "not_attributable"


def test_a_leak_that_the_headline_missed_is_not_read_as_safe() -> None:
    judge, member = judge_of(300, 3)
    generator = np.random.default_rng(3)
    scores = {"min_k": generator.normal(size=len(member)), "loss": generator.normal(size=len(member)) + member}
    code = concluded(judge, scores, blind=noise(len(member), generator, 4), headline="min_k")
    assert code == "found_by_another_attack"


def test_swapped_files_are_reversed() -> None:
    judge, member = judge_of(300, 4)
    generator = np.random.default_rng(4)
    scores = {"loss": generator.normal(size=len(member)) - member}
    assert concluded(judge, scores, blind=noise(len(member), generator, 4)) == "reversed"


@pytest.mark.parametrize(("loss_on_null", "expected"), [(-1.5, "found"), (0.0, "reversed")])
def test_harder_members_are_not_taken_for_swapped_files_where_the_null_shows_it(
    loss_on_null: float, expected: str
) -> None:
    """Members are harder text (loss below .5 on a model that never saw them, too), and the target did memorise."""
    judge, member = judge_of(400, 5)
    generator = np.random.default_rng(5)
    size = len(member)
    scores = {
        "loss": generator.normal(size=size) - 0.8 * member,
        "probe_bank": generator.normal(size=size) + 2 * member,
    }
    nulls = {"loss": generator.normal(size=size) + loss_on_null * member}
    null = generator.normal(size=size) + 0.2 * member
    blind = noise(size, generator, 4)
    code = concluded(judge, scores, blind=blind, null=null, headline="probe_bank", nulls=nulls)
    assert code == expected


@pytest.mark.parametrize(("repaired", "expected"), [(True, "shifted_data_no_null"), (False, "found")])
def test_a_repaired_copy_as_the_nulls_reference_does_not_acquit_shifted_data(repaired: bool, expected: str) -> None:
    judge, member = judge_of(400, 6)
    generator = np.random.default_rng(6)
    size = len(member)
    blind = {"shift": generator.normal(size=size) + 0.5 * member, **noise(size, generator, 1)}
    scores = {"wbc": generator.normal(size=size) + 1.5 * member}
    null = generator.normal(size=size)
    assert concluded(judge, scores, blind=blind, null=null, repaired=repaired) == expected


@pytest.mark.parametrize("naive", [-1.0, 0.0])
def test_swapped_folders_of_images_are_recognised_by_the_denoising_loss(naive: float) -> None:
    """A head learns the sign from the labels, so that its AUC is high on swapped folders as well."""
    judge, member = judge_of(300, 7)
    generator = np.random.default_rng(7)
    size = len(member)
    scores = {
        "naive": generator.normal(size=size) + naive * member,
        "secmi_nns": generator.normal(size=size) + 2 * member,
    }
    blind = noise(size, generator, 4)
    code = concluded(judge, scores, blind=blind, headline="secmi_nns", modality="diffusion")
    assert code == ("reversed" if naive else "found")


@pytest.mark.parametrize(
    ("baseline", "null_shift", "expected"),
    [
        ("file_properties", None, "not_attributable"),
        ("file_properties", 0.0, "found"),
        ("file_properties", 3.0, "not_attributable"),
        ("pixels", 0.0, "not_attributable"),
    ],
)
def test_what_no_model_is_given_does_not_veto_beside_a_clean_null(
    baseline: str, null_shift: float | None, expected: str
) -> None:
    """All members are JPEG. The model sees pixels alone, which the null target shows; of pixels it does not acquit."""
    judge, member = judge_of(300, 8)
    generator = np.random.default_rng(8)
    size = len(member)
    blind = {baseline: generator.normal(size=size) + 5.0 * member}
    scores = {"naive": generator.normal(size=size) + 1.5 * member}
    null = None if null_shift is None else generator.normal(size=size) + null_shift * member
    assert concluded(judge, scores, blind=blind, null=null, modality="diffusion") == expected


def test_of_equally_good_attacks_the_cheaper_one_is_the_headline() -> None:
    rows = [row("bank", "reprogrammed", 0.6, forward_passes=9.0), row("passive", "head", 0.6, forward_passes=2.0)]
    assert best_on_select(rows) == rows[1]
    assert best_on_select([*rows, row("better", "reprogrammed", 0.61, forward_passes=99.0)]).name == "better"  # type: ignore[union-attr]
    assert best_on_select([rows[1], row("first", "head", 0.6, forward_passes=2.0)]).name == "first"  # type: ignore[union-attr]


def test_a_shift_that_no_baseline_sees_is_seldom_credited_to_the_model_beside_a_null() -> None:
    """Both models have AUC .55 on it. By design at most 3.3 % `found`: of 60 audits, 10 or more is 1e-5."""
    codes = []
    for seed in range(60):
        judge, member = judge_of(300, seed)
        generator = np.random.default_rng([seed, 9])
        size = len(member)
        common = 0.18 * member + 0.7 * generator.normal(size=size)
        target, null = (common + 0.7 * generator.normal(size=size) for _ in range(2))
        codes.append(concluded(judge, {"loss": target}, blind=noise(size, generator, 4), null=null))
    assert codes.count("found") < 10, codes
    assert codes.count("not_beyond_null") > 10, codes


@pytest.mark.parametrize(("by_lot", "expected"), [(True, "found"), (False, "not_beyond_null")])
def test_a_small_figure_must_be_beyond_the_null_unless_members_were_drawn_by_lot(by_lot: bool, expected: str) -> None:
    judge, member = judge_of(300, 1)
    generator = np.random.default_rng(1)
    size = len(member)
    scores = {"loss": generator.normal(size=size) + 0.25 * member}
    null = generator.normal(size=size) + 0.1 * member
    assert concluded(judge, scores, blind={}, null=null, by_lot=by_lot) == expected


@pytest.mark.parametrize(
    ("tpr", "low", "said"),
    [(0.013, 0.003, "not told apart from chance, which names 12"), (0.1, 0.0, "chance names 12")],
)
def test_few_named_members_are_not_told_as_if_they_were_more_than_chance(tpr: float, low: float, said: str) -> None:
    """Of 500 non-members the 6th highest has on average 6 of 501 above or at it, not 1 %."""
    at = TprAtFpr(fpr=0.01, status="measured", tpr=tpr, low=low, high=2 * tpr)
    headline = row("loss", "passive", 0.6, n_members=500, n_nonmembers=500, tpr_at_fpr=(at,))
    sentence = verdict(Evidence(headline, (headline,), (), (), NO_NULL)).sentence
    assert sentence.endswith(f"{1000 * tpr:.0f} of 1,000 members [{1000 * low:.0f}, {2000 * tpr:.0f}]; {said}.")


def test_a_leak_at_another_rate_than_one_percent_is_shown_where_it_is() -> None:
    five = TprAtFpr(fpr=0.05, status="measured", tpr=0.119, low=0.09, high=0.15)
    one = TprAtFpr(fpr=0.01, status="measured", tpr=0.013, low=0.003, high=0.04)
    alike = Estimate(estimate=0.5, low=0.47, high=0.53, method="")
    headline = row("loss", "passive", 0.5, n_members=700, n_nonmembers=700, tpr_at_fpr=(five, one))
    headline = headline.model_copy(update={"auc": alike})
    sentence = verdict(Evidence(headline, (headline,), (), (), NO_NULL)).sentence
    assert "at 5 false alarms in 100 'loss' names 119 of 1,000 members [90, 150]; chance names 51." in sentence
    assert "On average members and others look alike (AUC 0.500 [0.470, 0.530])" in sentence


def test_what_nothing_found_says_would_have_been_found_would_have_been() -> None:
    """Of 800 audits with that true TPR, beyond chance at 5 % FPR: .80, standard error .014."""
    judge, member = judge_of(139, 1)
    generator = np.random.default_rng(1)
    headline = judge.row("loss", Scored(parse("loss"), generator.normal(size=len(member))))
    said = verdict(Evidence(headline, (headline,), (), (), NO_NULL)).sentence
    (percent,) = re.findall(r"A true TPR of (\d+\.\d) % at 5 % FPR would have been found in eight of ten", said)
    leak = (float(percent) / 100 - 0.05) / 0.95  # as many beyond all others, the rest like non-members
    found = []
    for _ in range(800):
        scores = generator.random(278) + 2 * ((np.arange(278) < 139) & (generator.random(278) < leak))
        at = tpr_figures(scores, np.arange(278) < 139, 0.05)
        found.append(beyond_chance(at, 139, 139))
    assert 0.74 < np.mean(found) < 0.86


def test_an_audit_without_a_figure_says_why() -> None:
    none = failed("reference").model_copy(update={"reason": "There is no reference model."})
    sentence = verdict(Evidence(None, (none,), (), (), NO_NULL)).sentence
    assert sentence == (
        "The audit could not be carried out: There is no reference model. This says nothing about the risk."
    )
