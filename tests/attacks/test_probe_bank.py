"""Statistics of the bank against a few lines of numpy a record; its presets and options."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from repromia.attacks import parse
from repromia.attacks.probe_bank import FAMILIES, PRESETS, RECIPE, bank_specs, bank_statistics
from repromia.bank import ask_bank
from repromia.errors import AttackError
from repromia.programs.registry import PLANS, plan_for
from repromia.programs.weights import NoiseAndRepair
from repromia.scoring import run_attack
from repromia.signals import TokenSignals, from_token_arrays
from repromia.targets.copies import noised_copy
from repromia.targets.load import LoadOptions, wrap_language_model
from small import SmallModels
from targets.architectures import tiny

LENGTHS = [1, 2, 3, 4, 5, 9, 10, 37, 128]
DEFAULT = "mean+lowest+highest+q25+q50+q75+errors"


def signals_of(seed: int, lengths: list[int] = LENGTHS) -> TokenSignals:
    generator = np.random.default_rng(seed)
    count = sum(lengths)
    first = generator.random(count) < 0.5
    return from_token_arrays(
        lengths,
        {
            "token": np.arange(count),
            "logprob": -generator.exponential(2, count).astype(np.float32),
            "mean": -generator.exponential(3, count).astype(np.float32),
            "std": generator.choice([0, 0.004, 0.5, 2.0], count).astype(np.float32),
            "top_token": np.arange(count),
            "top_logprob": -generator.exponential(1, count).astype(np.float32),
            "rank": np.where(first, 0, generator.integers(1, 100, count)),
        },
    )


@pytest.fixture
def plain() -> TokenSignals:
    return signals_of(0)


@pytest.fixture
def probed() -> TokenSignals:
    return signals_of(1)


def mean_of(values: np.ndarray, largest: bool, share: float = 0.2) -> float:
    ordered = sorted(values.tolist(), reverse=largest)
    return float(np.mean(ordered[: max(1, math.floor(share * len(values) + 1e-9))]))


def errors_of(change: np.ndarray, rank: np.ndarray) -> float:
    """What the target has over the probed model, on the tokens that it gets wrong."""
    change = -change
    wrong = change[rank > 0] if (rank > 0).any() else change
    return math.log((wrong[wrong > 0].sum() + 0.1) / (-wrong[wrong < 0].sum() + 0.1))


# (change of each token, standard deviation of the plain view, its rank) -> one figure
ORACLES: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], float]] = {
    "mean": lambda change, std, rank: change.mean(),
    "std": lambda change, std, rank: change.std(),
    "lowest": lambda change, std, rank: mean_of(change, largest=False),
    "highest": lambda change, std, rank: mean_of(change, largest=True),
    "scaled": lambda change, std, rank: np.mean([c / max(s, 0.01) for c, s in zip(change, std, strict=True)]),
    "errors": lambda change, std, rank: errors_of(change, rank),
    "q1": lambda change, std, rank: np.quantile(change, 0.01),
    "q25": lambda change, std, rank: np.quantile(change, 0.25),
    "q50": lambda change, std, rank: np.median(change),
    "q99": lambda change, std, rank: np.quantile(change, 0.99),
}


@pytest.mark.parametrize("name", ORACLES)
def test_a_statistic_is_numpys(name: str, plain: TokenSignals, probed: TokenSignals) -> None:
    got = bank_statistics(name)(plain, probed, False)
    assert got.shape == (len(LENGTHS), 1)
    for row, (start, end) in enumerate(zip(plain.offsets[:-1], plain.offsets[1:], strict=True)):
        here = slice(start, end)
        change = probed.logprob[here].astype(np.float64) - plain.logprob[here].astype(np.float64)
        expected = ORACLES[name](change, plain.std[here].astype(np.float64), plain.rank[here])
        np.testing.assert_allclose(got[row, 0], expected, rtol=1e-6, atol=1e-7, err_msg=f"{LENGTHS[row]} tokens")


def test_records_with_only_or_without_errors(plain: TokenSignals, probed: TokenSignals) -> None:
    for rank in (0, 3):
        object.__setattr__(plain, "rank", np.full_like(plain.rank, rank))
        got = bank_statistics("errors")(plain, probed, False)[:, 0]
        change = np.split(probed.logprob.astype(np.float64) - plain.logprob, plain.offsets[1:-1])
        np.testing.assert_allclose(got, [errors_of(one, np.ones(len(one))) for one in change], atol=1e-9)


def test_statistics_stand_in_the_order_given(plain: TokenSignals, probed: TokenSignals) -> None:
    names = ["q75", "errors", "mean", "std"]
    got = bank_statistics("+".join(names))(plain, probed, False)
    for column, name in enumerate(names):
        assert np.array_equal(got[:, column], bank_statistics(name)(plain, probed, False)[:, 0])


def test_no_change_is_nothing(plain: TokenSignals) -> None:
    assert np.array_equal(bank_statistics(f"{DEFAULT}+std+scaled")(plain, plain, False), np.zeros((len(LENGTHS), 9)))


def test_other_tokens_are_compared_as_whole_records(plain: TokenSignals) -> None:
    edited = signals_of(2, [3] * len(LENGTHS))
    got = bank_statistics(DEFAULT)(plain, edited, True)
    parts = [np.split(one.logprob.astype(np.float64), one.offsets[1:-1]) for one in (plain, edited)]
    expected = [
        [after.mean() - before.mean(), mean_of(after, largest=False) - mean_of(before, largest=False)]
        for before, after in zip(*parts, strict=True)
    ]
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_other_tokens_than_asked_are_an_error(plain: TokenSignals) -> None:
    other = signals_of(1)
    object.__setattr__(other, "token", other.token[::-1].copy())
    for probed in (other, signals_of(1, LENGTHS[::-1])):
        with pytest.raises(AttackError, match="came back with others"):
            bank_statistics(DEFAULT)(plain, probed, False)


@pytest.mark.parametrize("names", ["", "median", "q", "q0", "q100", "q-5", "q2.5", "mean+nope", "mean+", "MEAN"])
def test_an_unknown_statistic_is_named(names: str) -> None:
    with pytest.raises(AttackError, match=r"no statistic[\s\S]*errors, windows, q10"):
        bank_statistics(names)


def test_an_unknown_preset_is_named() -> None:
    with pytest.raises(AttackError, match=r"no preset 'tiny'[\s\S]*small, inference_only, full, text_only"):
        bank_specs("tiny", "")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("bend", r"no program 'bend'[\s\S]*band"),
        ("band/with=2", r"'band' has no option 'with'[\s\S]*width=1"),
        ("band/width=two", r"band/width cannot be 'two'[\s\S]*1"),
        ("identity/x=1", r"no option 'x'"),
    ],
)
def test_an_unknown_program_or_option_is_named(spec: str, says: str) -> None:
    with pytest.raises(AttackError, match=says):
        plan_for(spec, {})


def test_an_unknown_name_fails_the_row_with_its_reason(
    models: SmallModels, make_views: Callable[..., Any], measured_records: Any
) -> None:
    records = measured_records.records.take([0, 1])
    for option, says in (
        ("preset=tiny", "no preset"),
        ("statistics=nope", "no statistic"),
        ("programs=bend", "no program 'bend'"),
        ("programs=band/with=2", "no option 'with'"),
    ):
        views = make_views(models.leaky, models.base, records)
        scored = run_attack(parse(f"probe_bank:{option}"), views)
        assert scored.bank is None
        assert scored.scores is None
        assert says in scored.reason


def test_programs_may_be_given_in_place_of_a_preset() -> None:
    given = "band/width=1+embedding_noise/scale=0.6+band/width=1"
    assert bank_specs("small", given) == ("band/width=1", "embedding_noise/scale=0.6")
    assert bank_specs("small", "") == PRESETS["small"]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_plans_that_differ(preset: str) -> None:
    plans = [plan_for(spec, {}) for spec in PRESETS[preset]]
    assert len({repr(one) for one in plans}) == len(plans)
    assert all(hasattr(one, "bind") for one in plans)
    assert parse(f"probe_bank:preset={preset}").options["preset"] == preset


def test_families_are_of_programs_there_are() -> None:
    assert set(FAMILIES) <= set(PLANS)


def test_the_text_only_preset_needs_no_weights() -> None:
    assert {spec.split("/")[0] for spec in PRESETS["text_only"]} <= {
        "nonmember_shots",
        "member_shots",
        "generated_prefix",
        "lower_case",
        "word_swaps",
    }


def test_the_small_preset_is_seventeen_passes_on_five_layers(
    models: SmallModels, make_views: Callable[..., Any], measured_records: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(  # how long a copy is repaired plays no part here
        NoiseAndRepair,
        "copy_of",
        lambda self, binding: (noised_copy(binding.target, self.noise, seed=binding.seed), {}),
    )
    target = wrap_language_model(
        tiny("llama", num_hidden_layers=5), models.base.tokenizer, options=LoadOptions(max_tokens=64)
    )
    views = make_views(target, models.base, measured_records.records.take(range(4)))
    bank = ask_bank(views, bank_specs("small", ""), RECIPE, {"statistics": DEFAULT})
    assert not any(probe.reason for probe in bank.probes)
    assert bank.passes == 17
    assert bank.features.shape == (4, 17 * 7)
    assert {probe.family for probe in bank.probes} == {
        "context",
        "embedding_noise",
        "prefixes",
        "skipped_layers",
        "noise_and_repair",
    }
