"""Attacks on models of nodes, on answers of known distribution and on small real networks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from classifier.synthetic import Case, answers, case, models, reordered, sure_of

from repromia.attacks import AskReferences, Variants, choose, parse, registry
from repromia.attacks.graph.probe_bank import PRESETS
from repromia.errors import AttackError
from repromia.metrics import auc
from repromia.programs.feature_prompt import LearnedFeaturePrompt
from repromia.programs.graph import PLANS
from repromia.programs.registry import plan_for
from repromia.signals import ClassSignals, GainSignals, ReferenceGains

OWN = ("g_base", "hop_posteriors", "probe_bank", "reprogram")
COUNT = 600


def two_queries(records: int = COUNT, count: int = 8, gain: float = 3.0, seed: int = 0) -> Case:
    """The node on the whole graph, and alone."""
    return case(records, count, 2, gain, seed)


def posteriors(found: Case, **options: object) -> np.ndarray:
    one = registry("graph")["hop_posteriors"]
    scores = one.function(found.views["augmented"], found.references, **{**one.options, **options})
    assert not isinstance(scores, Variants)
    return scores


def chance(count: int) -> float:
    """Four standard deviations of the AUC of a score without information: 1 false alarm in 16,000 draws."""
    return 4 * float(np.sqrt((count + 1) / (12 * (count / 2) ** 2)))


def test_the_registry_of_graphs_holds_attacks_on_classifiers_and_its_own() -> None:
    graph, classifier = registry("graph"), registry("classifier")
    assert set(graph) == {*classifier, *OWN}
    assert "hop_posteriors" not in classifier
    assert {name for name, one in graph.items() if one.modality == "graph"} == set(OWN)
    for name in set(classifier) - set(OWN):
        assert graph[name] is classifier[name]
    for name in ("probe_bank", "reprogram"):  # its own in place of another
        assert classifier[name].modality == "classifier"
        assert graph[name].function.__module__ == f"repromia.attacks.graph.{name}"


@pytest.mark.parametrize("name", OWN)
def test_says_where_it_comes_from_and_what_it_does(name: str) -> None:
    one = registry("graph")[name]
    assert len(one.citation) > 10
    assert one.access in ("probabilities", "gradients", "probabilities; or labels alone")
    assert one.function.__doc__
    assert any(isinstance(mark, AskReferences) for mark, _ in one.inputs.values()) == (one.kind == "reference")


def listed(*specs: str, **there: bool) -> set[str]:
    return {one.name for one in choose(specs, **{"reference": False, **there}, modality="graph")}


def test_lists_of_attacks() -> None:
    assert {"loss", "augmented", "noise_votes", "probe_bank", "reprogram"} <= listed("default")
    assert "hop_posteriors" not in listed("default", reference=True)
    assert {"hop_posteriors", "lira", "rmia"} <= listed("default", reference=True, shadows=True)
    assert "g_base" not in listed("default", reference=True, shadows=True)  # shadows are trained once more for it
    copies = "rmia:reference=noise_and_repair"
    assert copies not in listed("default", copies=True)  # of graph models they are no default
    assert listed(copies) == {copies, *listed("reprogram")} - {"reprogram"}
    assert listed("hop_posteriors") == {"hop_posteriors"}  # named: kept, and fails visibly
    assert "loss" in listed("reprogram")  # its rivals come by themselves


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("queries", ["both", "whole", "alone"])
def test_planted_shadows_are_told_apart_and_null_ones_are_not(queries: str, seed: int) -> None:
    planted, null = two_queries(seed=seed), two_queries(gain=0.0, seed=seed)
    assert auc(posteriors(planted, queries=queries), planted.member) > 0.5 + 2 * chance(COUNT)
    assert abs(auc(posteriors(null, queries=queries), null.member) - 0.5) < chance(COUNT)


def test_answers_of_both_queries_are_used_where_only_their_difference_tells() -> None:
    """Members answer higher alone than on the graph, by 2 of a spread of 6 that both share: one query tells little."""
    generator = np.random.default_rng(0)
    inside = generator.permuted(np.arange(8)[:, None].repeat(COUNT, axis=1) < 4, axis=0)
    member = generator.permutation(COUNT) < COUNT // 2

    def draw(saw: np.ndarray) -> np.ndarray:
        shared = generator.normal(0, 6, saw.shape)
        return np.stack([shared, shared + 2 * saw + generator.normal(0, 0.5, saw.shape)], axis=-1)

    own = draw(member)
    views = {"augmented": (answers(own[:, 0]), answers(own[:, 1], 1))}
    found = Case(views, models(draw(inside), inside), member)
    both, alone = (auc(posteriors(found, queries=one), member) for one in ("both", "alone"))
    assert both > 0.9
    assert alone < 0.7


def test_the_order_of_records_and_of_models_plays_no_part() -> None:
    found = two_queries(60)
    scores = posteriors(found)
    order = np.random.default_rng(0).permutation(60)
    np.testing.assert_allclose(posteriors(found.take(order)), scores[order], rtol=1e-9)
    other = reordered(found.references, [3, 1, 7, 0, 2, 6, 5, 4])
    np.testing.assert_allclose(posteriors(replace(found, references=other)), scores, rtol=1e-9)
    np.testing.assert_array_equal(posteriors(found), scores)
    assert (posteriors(found, seed=1) != scores).any()


def test_the_members_of_the_target_play_no_part() -> None:
    """It is learned on shadow models alone: the score of a record follows from its own answers."""
    found = two_queries(60)
    some = tuple(one.take(range(20)) for one in found.views["augmented"])
    filled = tuple(
        ClassSignals(
            np.concatenate([one.logprobs, one.logprobs[::-1][:40]]),
            np.concatenate([one.predicted, one.predicted[::-1][:40]]),
            np.concatenate([one.label, one.label[::-1][:40]]),
        )
        for one in (each.take([*range(20), *range(20)]) for each in some)
    )
    other = Case({"augmented": tuple(one.take(range(60)) for one in filled)}, found.references, found.member)
    np.testing.assert_allclose(posteriors(other)[:20], posteriors(found)[:20], rtol=1e-9)


def test_sure_answers_stay_finite() -> None:
    found = two_queries(40)
    sure = np.full((40, 4), -103.0, dtype=np.float32)
    sure[np.arange(40), found.plain.label] = 0.0
    sure[::4] = np.roll(sure[::4], 1, axis=1)
    views = {"augmented": tuple(ClassSignals(sure, sure.argmax(1), one.label) for one in found.views["augmented"])}
    flat, plain = np.zeros_like(found.references.logprob), [views["augmented"][0]] * found.references.models
    for references in (found.references, sure_of(flat, flat - 103, found.references.inside, plain)):
        assert np.isfinite(posteriors(Case(views, references, found.member))).all()


def test_what_the_shadows_must_be() -> None:
    found = two_queries(40)
    with pytest.raises(AttackError, match="queries cannot be 'none'"):
        posteriors(found, queries="none")
    for everyone, message in ((True, "did not see it"), (False, "saw it")):
        inside = found.references.inside.copy()
        inside[:, 3] = everyone
        with pytest.raises(AttackError, match=rf"no reference model that {message}(.|\n)*1 of 40 records"):
            posteriors(found.seen_by(inside))
    one = models(found.theirs[:, :, :1], found.references.inside)
    with pytest.raises(AttackError, match=r"other queries(.|\n)*2 augmentations(.|\n)*1"):
        posteriors(replace(found, references=one))


def gained(records: int = 300, gain: float = 1.0) -> tuple[GainSignals, ReferenceGains, np.ndarray]:
    """Gains, normal with each record's own mean; of models that saw it so much higher."""
    generator = np.random.default_rng(0)
    inside = generator.permuted(np.arange(6)[:, None].repeat(records, axis=1) < 3, axis=0)
    member, centre = generator.permutation(records) < records // 2, generator.normal(0, 2, (records, 1))
    own, theirs = (centre + gain * saw[..., None] + generator.normal(size=(*saw.shape, 4)) for saw in (member, inside))
    return GainSignals(own), ReferenceGains(inside, theirs), member


def g_base(own: GainSignals, theirs: ReferenceGains, **options: object) -> np.ndarray:
    one = registry("graph")["g_base"]
    found = one.function(own, theirs, **{**one.options, **options})
    assert isinstance(found, np.ndarray)
    return found


@pytest.mark.parametrize("models", ["all", "outside"])
@pytest.mark.parametrize("scale", [1.0, 0.7])
def test_g_base_is_its_formula(models: str, scale: float) -> None:
    own, theirs, _ = gained(20)
    scores = g_base(own, theirs, models=models, scale=scale)
    for row in range(20):
        saw = [at for at in range(6) if models == "all" or not theirs.inside[at, row]]
        chances = []
        for draw in range(4):
            mean = np.mean([np.exp(theirs.gain[at, row, draw]) for at in saw])
            chances.append(1 / (1 + np.exp(-(own.gain[row, draw] - scale * np.log(mean)))))
        np.testing.assert_allclose(scores[row], np.log(np.mean(chances) / (1 - np.mean(chances))), rtol=1e-9)


def test_g_base_tells_planted_members_and_no_others() -> None:
    own, theirs, member = gained()
    assert auc(g_base(own, theirs), member) > 0.5 + 2 * chance(300)
    own, theirs, member = gained(gain=0.0)
    assert abs(auc(g_base(own, theirs), member) - 0.5) < chance(300)


def test_g_base_keeps_far_scores_apart_and_needs_models_on_both_sides() -> None:
    own, theirs, _ = gained(6)
    far = GainSignals(np.arange(6)[:, None] * 300.0 - 900)
    level = ReferenceGains(theirs.inside, np.zeros((6, 6, 1)))
    assert (np.diff(g_base(far, level)) > 0).all()
    everywhere = ReferenceGains(np.ones_like(theirs.inside), theirs.gain)
    with pytest.raises(AttackError, match="did not see it"):
        g_base(own, everywhere)
    nowhere = ReferenceGains(np.zeros_like(theirs.inside), theirs.gain)
    with pytest.raises(AttackError, match="no reference model that saw it"):
        g_base(own, nowhere)
    assert np.isfinite(g_base(own, nowhere, models="outside")).all()


def test_reprogram_is_its_formula() -> None:
    function = registry("graph")["reprogram"].function
    plain, probed = two_queries(30).views["augmented"]
    share, other = (np.exp([one.logprobs[at, one.label[at]] for at in range(30)]) for one in (plain, probed))
    s, t = np.log(share / (1 - share)), np.log(other / (1 - other))
    np.testing.assert_allclose(function(plain, probed), 2 * s - t, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(function(plain, probed, recipe="paper"), t, rtol=1e-6, atol=1e-6)


def test_options_of_reprogram_reach_its_program() -> None:
    chosen = parse("reprogram:prompts=4:bound=0.2:recipe=paper:steps=3:rate=0.5:per_class=7", "graph")
    plan = plan_for("learned_feature_prompt", chosen.options, "graph")
    assert plan == LearnedFeaturePrompt(prompts=4, bound=0.2, recipe="paper", steps=3, rate=0.5, per_class=7)
    default = plan_for("learned_feature_prompt", {}, "graph")
    assert plan_for("learned_feature_prompt", registry("graph")["reprogram"].options, "graph") == default


@pytest.mark.parametrize("preset", PRESETS)
def test_banks_name_programs_of_graphs(preset: str) -> None:
    chosen = parse(f"probe_bank:preset={preset}", "graph")
    assert chosen.programs() == PRESETS[preset]
    assert {one.split("/")[0] for one in chosen.programs()} <= set(PLANS)
    keys = [repr(plan_for(one, {}, "graph")) for one in chosen.programs()]
    assert len(set(keys)) == len(keys)
    own = parse("probe_bank:programs=hops/far=1+noisy+hops/far=1", "graph")
    assert own.programs() == ("hops/far=1", "noisy")
    with pytest.raises(AttackError, match="no preset 'huge'"):
        parse("probe_bank:preset=huge", "graph").programs()
