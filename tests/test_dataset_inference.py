"""Was this set used: false alarms, power, refusals; once, and again and again."""

from __future__ import annotations

import numpy as np
import pytest

import repromia
from repromia.dataset_inference import Units, blind_check, dataset_inference, permutation_p_value, units_of
from repromia.dataset_sequence import sequential_evidence
from repromia.errors import RecordsError, RepromiaError
from repromia.result import Estimate

SIZE = 60
SUSPECT = np.arange(2 * SIZE) < SIZE
FOUND = Estimate(estimate=0.6, low=0.55, high=0.65, method="blind")
NOTHING = Estimate(estimate=0.5, low=0.45, high=0.55, method="blind")


def draw(generator: np.random.Generator, shift: float) -> np.ndarray:
    return generator.normal(size=2 * SIZE) + shift * SUSPECT


def p_of(scores: np.ndarray, generator: np.random.Generator, groups: list[str] | None = None) -> float:
    return permutation_p_value(units_of(scores, SUSPECT, groups), permutations=199, generator=generator)


def test_p_values_of_unused_sets_are_valid_also_with_heavy_tails() -> None:
    """400 sets: at most .05 expected below .05, standard error .011; above .085 once in 1,000 runs."""
    generator = np.random.default_rng(0)
    for heavy in (False, True):
        found = [
            p_of(generator.standard_cauchy(2 * SIZE) if heavy else draw(generator, 0), generator) for _ in range(400)
        ]
        assert np.mean(np.array(found) <= 0.05) < 0.085


def test_p_value_is_the_share_of_all_divisions() -> None:
    """5 + 5 distinct values, the suspects highest: of 252 divisions only theirs is as large."""
    units = Units(np.arange(10.0), np.arange(10) >= 5)
    found = permutation_p_value(units, permutations=20000, generator=np.random.default_rng(0))
    assert found == pytest.approx(1 / 252, abs=0.0015)
    assert (
        permutation_p_value(Units(np.ones(10), units.suspect), permutations=99, generator=np.random.default_rng(0)) == 1
    )


def test_groups_are_permuted_together() -> None:
    """Ten records a group with one score each: as single records, 6 + 6 groups look like proof in half of null sets."""
    generator = np.random.default_rng(1)
    groups = [str(row // 5) for row in range(2 * SIZE)]
    alarms = np.zeros(2)
    for _ in range(200):
        scores = np.repeat(generator.normal(size=2 * SIZE // 5), 5)
        alarms += [p_of(scores, generator, groups) <= 0.05, p_of(scores, generator) <= 0.05]
    assert alarms[0] <= 21  # of 200 at .05: more once in 1,000 runs
    assert alarms[1] >= 35  # the planted mistake


def test_a_used_set_is_found() -> None:
    scores = draw(np.random.default_rng(2), 0.9)  # 4.9 standard errors
    found = dataset_inference(scores, SUSPECT, blind=NOTHING, permutations=999)
    assert found.outcome == "used"
    assert found.p_value == pytest.approx(0.001)
    assert found.interval[0] > 0.5
    assert "was trained on this set" in found.sentence
    assert "one look" in found.sentence
    assert found.false_positive_rate.low <= 0.05
    assert dataset_inference(scores, ~SUSPECT, blind=NOTHING, permutations=999).outcome == "not_shown"  # one-sided
    assert dataset_inference(np.exp(3 * scores), SUSPECT, statistic="ranks", permutations=999).outcome == "used"
    assert "No blind baseline was given" in dataset_inference(scores, SUSPECT, permutations=999).sentence


def test_shifted_data_is_refused() -> None:
    scores = draw(np.random.default_rng(2), 0.9)
    found = dataset_inference(scores, SUSPECT, blind=FOUND, permutations=999)
    assert (found.outcome, found.p_value) == ("shifted", None)
    assert "Cannot be told from data shift" in found.sentence
    again = sequential_evidence(scores[SUSPECT], scores[~SUSPECT], blind=FOUND)
    assert again.p_value is None
    assert again.crossed_at is None
    wide = Estimate(estimate=0.55, low=0.4, high=0.8, method="blind")
    assert "a shift as large as the effect" in dataset_inference(scores, SUSPECT, blind=wide, permutations=999).sentence


def test_blind_check_finds_dates_and_nothing_where_nothing_is() -> None:
    generator = np.random.default_rng(3)
    words = np.array(["river", "stone", "cloud", "green", "under", "while", "letter", "number", "garden", "window"])
    texts = [" ".join(generator.choice(words, 30)) for _ in range(200)]
    dated = [f"In {2020 + row % 3} {text}" for row, text in enumerate(texts[:100])]
    shifted = repromia.load_records(dated, [f"In {2010 + row % 3} {text}" for row, text in enumerate(texts[100:])])
    assert blind_check(shifted).low > 0.5
    assert blind_check(repromia.load_records(texts[:100], texts[100:])).low <= 0.5


def test_drifting_held_out_records_are_told() -> None:
    scores = draw(np.random.default_rng(4), 0.9)
    scores[SIZE : SIZE + SIZE // 2] += 2  # the first half of the held-out records
    scores[:SIZE] += 2
    found = dataset_inference(scores, SUSPECT, blind=NOTHING, permutations=999)
    assert found.order_p_value < 0.01
    assert "in the order given, differ too" in found.sentence


def test_what_cannot_be_tested_is_an_error() -> None:
    scores = draw(np.random.default_rng(5), 0)
    with pytest.raises(RecordsError, match="lie in both sets"):
        dataset_inference(scores, SUSPECT, ["same"] * (2 * SIZE))
    with pytest.raises(RecordsError, match="119 groups"):
        dataset_inference(scores, SUSPECT, [str(row) for row in range(119)])
    with pytest.raises(RecordsError, match="too few independent records"):
        dataset_inference(scores, SUSPECT, [str(row // 10) for row in range(2 * SIZE)])
    with pytest.raises(RepromiaError, match="not numbers"):
        dataset_inference(np.where(SUSPECT, np.nan, scores), SUSPECT)


def test_looking_after_every_record_alarms_no_more_often_than_said() -> None:
    """300 unused sets watched over 200 records: 15 crossings expected at most; above 27 once in 500 runs."""
    generator = np.random.default_rng(6)
    crossed = [
        sequential_evidence(generator.normal(size=200), generator.normal(size=200), seed=seed).crossed_at is not None
        for seed in range(300)
    ]
    assert sum(crossed) <= 27


def test_a_used_set_is_found_while_it_comes_in() -> None:
    generator = np.random.default_rng(7)
    suspect, heldout = generator.normal(size=400) + 0.6, generator.normal(size=300)
    found = sequential_evidence(suspect, heldout, seed=1)
    assert found.crossed_at is not None
    assert found.crossed_at < 400
    assert found.p_value is not None
    assert found.p_value <= 0.05
    part = sequential_evidence(suspect[:100], heldout, seed=1)
    np.testing.assert_allclose(part.e_values, found.e_values[:100])
    tied = sequential_evidence(np.round(suspect), np.round(heldout), seed=1)
    assert tied.crossed_at is not None
    none = sequential_evidence(suspect - 0.6 - 0.6, heldout)
    assert none.crossed_at is None
    assert "could not be shown" in none.sentence


def test_groups_arrive_whole() -> None:
    generator = np.random.default_rng(8)
    suspect, heldout = generator.normal(size=100), generator.normal(size=100)
    groups = ([f"a{row // 5}" for row in range(100)], [f"b{row // 5}" for row in range(100)])
    assert sequential_evidence(suspect, heldout, groups=groups).e_values.shape == (20,)


def test_a_test_that_alarms_on_held_out_halves_gives_no_p_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted failure: a p-value that is always small."""
    from repromia import dataset_inference as module

    monkeypatch.setattr(module, "permutation_p_value", lambda units, **_: 0.01)
    found = dataset_inference(draw(np.random.default_rng(9), 0), SUSPECT, permutations=99)
    assert (found.outcome, found.p_value) == ("unsound", None)
    assert "alarms on held-out against held-out" in found.sentence
