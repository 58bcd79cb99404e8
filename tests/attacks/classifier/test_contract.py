"""What holds for every registered attack on classifiers that scores signals, new ones included."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repromia.attacks import Ask, AskReferences, choose, parse, registry
from repromia.errors import AttackError
from repromia.metrics import auc
from repromia.signals import ClassSignals

from .synthetic import Case, case, figures, models, names, reordered, sure_of

NAMES, WITH_REFERENCES = names(), names(reference=True)
NEED_INSIDE = [name for name in WITH_REFERENCES if "shadows" in registry("classifier")[name].needs]
LABEL_ONLY = [name for name in NAMES if registry("classifier")[name].access == "label"]
BY_QUERY = [
    name
    for name in WITH_REFERENCES
    if Ask("augmented") in [mark for mark, _ in registry("classifier")[name].inputs.values()]
]
RECORDS, MODELS = 12, 6


@pytest.mark.parametrize("name", NAMES)
def test_says_where_it_comes_from_and_what_it_does(name: str) -> None:
    one = registry("classifier")[name]
    assert one.modality == "classifier"
    assert len(one.citation) > 10
    assert one.access in ("probabilities", "label")
    assert one.function.__doc__
    looks = any(
        isinstance(mark, AskReferences) or getattr(mark, "of", "") == "reference" for mark, _ in one.inputs.values()
    )
    assert looks == (one.kind == "reference") == bool({"reference", "shadows"} & {*one.needs})
    assert not {"reference", "shadows"} <= {*one.needs}


@pytest.mark.parametrize("name", NAMES)
def test_one_finite_number_a_record_and_the_signals_are_left_alone(name: str) -> None:
    found, untouched = case(), case()
    scores = figures(name, found)
    assert scores.shape[0] == len(found.member)
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(found.plain.logprobs, untouched.plain.logprobs)
    np.testing.assert_array_equal(found.references.logprob, untouched.references.logprob)
    np.testing.assert_array_equal(figures(name, found), scores)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), order=st.permutations(range(RECORDS)))
def test_the_order_of_records_plays_no_part(name: str, seed: int, order: list[int]) -> None:
    found = case(RECORDS, MODELS, seed=seed)
    np.testing.assert_allclose(figures(name, found.take(order)), figures(name, found)[order], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", WITH_REFERENCES)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), order=st.permutations(range(MODELS)))
def test_the_order_of_models_plays_no_part(name: str, seed: int, order: list[int]) -> None:
    found = case(RECORDS, MODELS, seed=seed)
    other = Case(found.views, reordered(found.references, order), found.member)
    np.testing.assert_allclose(figures(name, other), figures(name, found), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_probabilities_of_exactly_one_and_next_to_nothing_stay_finite(name: str) -> None:
    """What single precision leaves of a network that is sure: log p of 0 beside -103, or the other way round."""
    found = case()
    sure = np.full((len(found.member), 4), -103.0, dtype=np.float32)
    sure[np.arange(len(sure)), found.plain.label] = 0.0
    sure[::4] = np.roll(sure[::4], 1, axis=1)
    views = {
        plan: tuple(ClassSignals(sure, sure.argmax(axis=1), one.label) for one in each)
        for plan, each in found.views.items()
    }
    flat = np.zeros_like(found.references.logprob)
    for references in (
        found.references,
        sure_of(flat, flat - 103, found.references.inside, views["identity"] * len(flat)),
        sure_of(flat - 103, flat, found.references.inside, views["identity"] * len(flat)),
    ):
        assert np.isfinite(figures(name, Case(views, references, found.member))).all()


@pytest.mark.parametrize("name", NAMES)
def test_higher_means_member(name: str) -> None:
    """The seed is fixed. A score without information would pass with probability 1 in 30,000 (300 + 300 records)."""
    found = case(600, 12, gain=3.0)
    chance = np.sqrt((300 + 300 + 1) / (12 * 300 * 300))
    for scores in figures(name, found).T:
        assert auc(scores, found.member) > 0.5 + 4 * chance


@pytest.mark.parametrize("name", WITH_REFERENCES)
def test_nothing_is_found_where_nothing_was_learned(name: str) -> None:
    """Of 300 + 300 records whose mean is their own: 4 standard deviations, 1 false alarm in 16,000 runs."""
    found = case(600, 12, gain=0.0)
    for scores in figures(name, found).T:
        assert abs(auc(scores, found.member) - 0.5) < 4 * np.sqrt((300 + 300 + 1) / (12 * 300 * 300))


@pytest.mark.parametrize("name", WITH_REFERENCES)
def test_a_record_that_every_model_saw_is_an_error(name: str) -> None:
    found = case()
    inside = found.references.inside.copy()
    inside[:, 3] = True
    with pytest.raises(AttackError, match=r"no reference model that did not see it(.|\n)*1 of 40 records"):
        figures(name, found.seen_by(inside))


@pytest.mark.parametrize("name", WITH_REFERENCES)
def test_a_record_that_no_model_saw_is_an_error_where_that_matters(name: str) -> None:
    found = case()
    inside = found.references.inside.copy()
    inside[:, 3] = False
    if name in NEED_INSIDE:
        with pytest.raises(AttackError, match=r"no reference model that saw it(.|\n)*1 of 40 records"):
            figures(name, found.seen_by(inside))
    else:
        assert np.isfinite(figures(name, found.seen_by(inside))).all()


@pytest.mark.parametrize("name", [name for name in WITH_REFERENCES if name not in NEED_INSIDE])
def test_what_models_say_of_their_own_training_data_plays_no_part_offline(name: str) -> None:
    found = case()
    theirs = found.references
    logits = np.where(theirs.inside[:, :, None], 77.0, theirs.scaled_logit)
    changed = Case(found.views, models(logits, theirs.inside), found.member)
    np.testing.assert_allclose(figures(name, changed), figures(name, found), rtol=1e-9)


@pytest.mark.parametrize("name", [name for name in WITH_REFERENCES if name not in NEED_INSIDE])
def test_one_reference_that_saw_nothing_suffices(name: str) -> None:
    """Of one query, any number of models' summary is the model itself: the order is that of a difference."""
    found = case(40, 1, queries=1)
    scores = figures(name, found.seen_by(np.zeros((1, 40), dtype=bool)))
    assert np.isfinite(scores).all()
    if name in ("lira_offline", "bavaria_offline"):
        assert np.argsort(scores[:, 0]).tolist() == np.argsort((found.logits - found.theirs[0])[:, 0]).tolist()


@pytest.mark.parametrize("name", BY_QUERY)
def test_other_queries_than_the_targets_are_an_error(name: str) -> None:
    found = case()
    few = replace(found, views={**found.views, "augmented": found.views["augmented"][:2]})
    with pytest.raises(AttackError, match=r"other queries(.|\n)*2 augmentations(.|\n)*3"):
        figures(name, few)


@pytest.mark.parametrize("name", LABEL_ONLY)
def test_label_only_attacks_look_at_no_probability(name: str) -> None:
    found = case()
    views = {
        plan: tuple(ClassSignals(np.full_like(one.logprobs, np.nan), one.predicted, one.label) for one in each)
        for plan, each in found.views.items()
    }
    np.testing.assert_array_equal(figures(name, replace(found, views=views)), figures(name, found))


def listed(*specs: str, **there: bool) -> set[str]:
    return {one.name for one in choose(specs, **{"reference": False, **there}, modality="classifier")}


def test_lists_of_attacks_leave_out_what_there_are_no_models_for() -> None:
    by_reference = {*WITH_REFERENCES} - {*NEED_INSIDE}
    assert {"rmia", "lira_offline", "base", "watson", "bavaria_offline"} <= by_reference
    assert {"lira", "rmia_online", "bavaria", "shokri", "salem", "ldc_mia"} <= {*NEED_INSIDE}
    assert not listed("passive") & {*WITH_REFERENCES}
    assert listed("passive", reference=True) - listed("passive") == by_reference
    assert listed("passive", reference=True, shadows=True) - listed("passive") == {*WITH_REFERENCES}
    assert listed("lira") == {"lira"}  # named: kept, and fails visibly


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("lira:variance=some", "variance cannot be 'some'"),
        ("lira:centre=mode", "centre cannot be 'mode'"),
        ("bavaria:queries=some", "queries cannot be 'some'"),
        ("lira_offline:sides=three", "sides cannot be 'three'"),
        ("base:models=none", "models cannot be 'none'"),
        ("rmia:a=2", "a cannot be read"),
        ("rmia:a=x", "a cannot be read"),
        ("rmia:gamma=0", "gamma must be positive"),
        ("rmia_online:gamma=-1", "gamma must be positive"),
        ("salem:models=-1", "models is at least 0"),
        ("ldc_mia:similar=1", "similar lies between 0 and 1"),
    ],
)
def test_values_that_an_option_does_not_have_are_refused(spec: str, message: str) -> None:
    chosen = parse(spec, "classifier")
    with pytest.raises(AttackError, match=message):
        figures(chosen.attack.name, case(), **chosen.options)


def test_a_variance_of_one_model_is_refused_where_it_was_asked_for() -> None:
    with pytest.raises(AttackError, match=r"variance of some records(.|\n)*40 of 40"):
        figures("lira", case(count=2), variance="record")
    assert np.isfinite(figures("lira", case(count=2))).all()
    with pytest.raises(AttackError, match="no reference model that saw it"):
        figures("base", case(count=4).seen_by(np.zeros((4, 40), dtype=bool)), models="all")
