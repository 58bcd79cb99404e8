"""Forgotten, still remembered, over-unlearned, or not to be told."""

from __future__ import annotations

import numpy as np
import pytest

from repromia.errors import ConfigError, RepromiaError
from repromia.result import Estimate
from repromia.unlearning import SetScores, UnlearningEvidence, unlearning_check


def check(shift: float, power: float = 1.0, size: int = 1500, seed: int = 0, **options: float) -> UnlearningEvidence:
    generator = np.random.default_rng(seed)
    sets = [SetScores(generator.normal(size=size) + by) for by in (shift, 0.0, power)]
    return unlearning_check(*sets, **options)  # type: ignore[arg-type]


def test_each_verdict_has_its_case() -> None:
    assert check(0).outcome == "forgotten"
    assert check(0.4).outcome == "still_remembered"
    assert check(-0.4).outcome == "over_unlearned"
    assert check(0, power=0).outcome == "could_not_be_measured"
    assert check(0, size=150, seed=1).outcome == "not_shown"
    assert check(0, size=150, seed=1, margin=0.2).outcome == "forgotten"
    assert "as far as this attack can tell" in check(0).sentence
    assert "a leak as well" in check(-0.4).sentence


def test_no_power_beyond_the_margin_shows_nothing() -> None:
    """Retained records themselves are within .05 of .5: that forget records are so too says nothing."""
    weak = check(0, power=0.1, size=6000)
    assert weak.retained.low > 0.5
    assert weak.outcome == "could_not_be_measured"


def test_a_few_records_that_stand_out_are_remembered() -> None:
    generator = np.random.default_rng(1)
    forget, never = generator.normal(size=1000), generator.normal(size=1000)
    forget[:60] = 6  # named without a false alarm
    forget[60:] -= 0.05  # and the rest a little below: no trace on average
    found = unlearning_check(SetScores(forget), SetScores(never), SetScores(generator.normal(size=1000) + 1))
    assert found.forget.low < 0.5 < found.forget.high
    assert found.outcome == "still_remembered"
    assert "not on average, but" in found.sentence


def test_shifted_sets_measure_nothing() -> None:
    blind = Estimate(estimate=0.7, low=0.6, high=0.8, method="blind")
    generator = np.random.default_rng(2)
    sets = [SetScores(generator.normal(size=500) + by) for by in (0.5, 0.0, 1.0)]
    for options in ({"blind": blind}, {"blind_retained": blind}):
        found = unlearning_check(*sets, **options)
        assert found.outcome == "could_not_be_measured"
        assert "never sees the model" in found.sentence


def test_false_verdicts_are_as_rare_as_said() -> None:
    """200 draws each. Forgotten for good: at most 5.25 % called remembered or over-unlearned, above 23 once in 1,000
    runs. At the margin (AUC .55): at most 2.5 % called forgotten, above 13 once in 1,000."""
    shift = 0.05 * np.sqrt(4 * np.pi)  # AUC .55
    true = [check(0, size=500, seed=seed).outcome for seed in range(200)]
    assert sum(one in ("still_remembered", "over_unlearned") for one in true) <= 23
    edge = [check(shift, size=500, seed=seed).outcome for seed in range(200)]
    assert edge.count("forgotten") <= 13
    blind = [check(0, power=0, size=500, seed=seed).outcome for seed in range(200)]
    assert blind.count("forgotten") == 0


def test_groups_widen_the_interval() -> None:
    generator = np.random.default_rng(3)
    values = [np.repeat(generator.normal(size=100), 5) + by for by in (0.0, 0.0, 2.0)]
    groups = [tuple(f"{name}{row // 5}" for row in range(500)) for name in "abc"]
    tied = unlearning_check(*(SetScores(one, own) for one, own in zip(values, groups, strict=True)))
    plain = unlearning_check(*map(SetScores, values))
    assert tied.forget.high - tied.forget.low > 1.5 * (plain.forget.high - plain.forget.low)


def test_wrong_use_is_an_error() -> None:
    with pytest.raises(ConfigError, match="margin"):
        check(0, margin=0.5)
    with pytest.raises(RepromiaError, match="one class is empty"):
        check(0, size=0)


def test_groups_that_are_told_without_error_still_have_an_interval() -> None:
    values = [np.repeat(np.arange(20.0), 5) + by for by in (0.0, 0.0, 100.0)]
    groups = [tuple(f"{name}{row // 5}" for row in range(100)) for name in "abc"]
    found = unlearning_check(*(SetScores(one, own) for one, own in zip(values, groups, strict=True)))
    assert found.retained.estimate == 1
    assert found.retained.low == pytest.approx(0.025 ** (1 / 20))  # 20 groups of 20 right
