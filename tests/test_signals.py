"""Ragged reductions against loops over records; what is not finite is refused."""

from __future__ import annotations

from math import floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from repromia.errors import TargetError
from repromia.signals import TOKEN_FIELDS, TokenSignals, from_token_arrays, join

SHARES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.99, 1.0)


def signals_of(lengths: list[int], seed: int = 0) -> TokenSignals:
    generator = np.random.default_rng(seed)
    count = sum(lengths)
    arrays = {
        name: generator.integers(0, 9, count).astype(np.int32)
        if name in ("token", "top_token", "rank")
        else generator.normal(size=count).astype(np.float32)
        for name in TOKEN_FIELDS
    }
    return from_token_arrays(lengths, arrays)


LENGTHS = st.lists(st.integers(1, 25), min_size=1, max_size=12)
SEEDS = st.integers(0, 1000)


def parts(signals: TokenSignals) -> list[np.ndarray]:
    return np.split(signals.logprob.astype(np.float64), signals.offsets[1:-1])


def equal(left: TokenSignals, right: TokenSignals) -> bool:
    return all(np.array_equal(getattr(left, name), getattr(right, name)) for name in ("offsets", *TOKEN_FIELDS))


@given(LENGTHS, SEEDS)
def test_sums_means_and_order_equal_loops(lengths: list[int], seed: int) -> None:
    signals = signals_of(lengths, seed)
    loops = parts(signals)
    np.testing.assert_allclose(signals.total(signals.logprob), [part.sum() for part in loops], atol=1e-9)
    np.testing.assert_allclose(signals.average(signals.logprob), [part.mean() for part in loops], atol=1e-9)
    np.testing.assert_array_equal(signals.ordered(signals.logprob), np.concatenate([np.sort(part) for part in loops]))
    assert signals.lengths.tolist() == [len(part) for part in loops]
    assert signals.record_of_token.tolist() == [row for row, part in enumerate(loops) for _ in part]


@given(LENGTHS, SEEDS, st.sampled_from(SHARES))
def test_tail_means_equal_loops(lengths: list[int], seed: int, share: float) -> None:
    signals = signals_of(lengths, seed)

    def tail(part: np.ndarray, sign: int) -> float:
        kept = max(1, floor(round(share * len(part), 6)))
        return float(sign * np.mean(sorted(sign * part)[:kept]))

    loops = parts(signals)
    np.testing.assert_allclose(
        signals.average_lowest(signals.logprob, share), [tail(part, 1) for part in loops], atol=1e-9
    )
    np.testing.assert_allclose(
        signals.average_highest(signals.logprob, share), [tail(part, -1) for part in loops], atol=1e-9
    )


@pytest.mark.parametrize(
    ("length", "share", "kept"),
    [(1, 0.2, 1), (4, 0.2, 1), (5, 0.2, 1), (9, 0.2, 1), (10, 0.2, 2), (10, 0.3, 3), (100, 0.29, 29), (10, 1.0, 10)],
)
def test_floor_is_exact_where_binary_fractions_fall_short(length: int, share: float, kept: int) -> None:
    """0.29 * 100 is 28.999…96 in binary; the floor must be 29."""
    signals = signals_of([length])
    lowest = signals.average_lowest(np.arange(length, dtype=np.float64), share)
    assert lowest[0] == pytest.approx(np.arange(kept).mean())


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5, 20.0, float("nan")])
def test_impossible_share_is_refused(share: float) -> None:
    signals = signals_of([3, 4])
    with pytest.raises(ValueError, match="share"):
        signals.average_lowest(signals.logprob, share)


@given(LENGTHS, SEEDS, st.data())
def test_take_and_join_go_back_and_forth(lengths: list[int], seed: int, data: st.DataObject) -> None:
    signals = signals_of(lengths, seed)
    cut = data.draw(st.integers(1, len(signals)))
    first = signals.take(range(cut))
    halves = [first, signals.take(range(cut, len(signals)))] if cut < len(signals) else [first]
    assert equal(join(halves), signals)
    order = data.draw(st.permutations(range(len(signals))))
    shuffled = signals.take(order)
    for place, row in enumerate(order):
        np.testing.assert_array_equal(parts(shuffled)[place], parts(signals)[row])
    assert equal(shuffled.take(np.argsort(order)), signals)


@pytest.mark.parametrize("name", ["logprob", "mean", "std", "top_logprob"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_figures_that_are_not_finite_are_refused_with_a_count_of_records(name: str, value: float) -> None:
    good = signals_of([3, 1, 4, 2])
    arrays = {field: getattr(good, field).copy() for field in TOKEN_FIELDS}
    arrays[name][[0, 2, 3]] = value  # two tokens of record 0, the only one of record 1
    with pytest.raises(TargetError, match=r"3 of 10 tokens, in 2 records") as refused:
        from_token_arrays([3, 1, 4, 2], arrays)
    assert name in str(refused.value)
