"""What a causal language model answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float, Int

from repromia.errors import TargetError

Scores = Float[np.ndarray, " record"]


@dataclass(frozen=True)
class TokenSignals:
    """Per-token answers of a causal language model, records laid end to end.

    A target that tells no more than log-probabilities leaves `mean`, `std` and `top_logprob` NaN throughout, and
    `top_token` and `rank` -1. `logprob` is always told; `token` may then be a stable number for the token's text.

    offsets: record r owns tokens offsets[r]:offsets[r + 1]; every record has at least one token.
    token: the scored token's id.
    logprob: log p(token | what came before), nats.
    mean, std: of log p(v) when v is drawn from the model's own next-token distribution; -mean is the entropy.
    top_token, top_logprob: the model's own first choice.
    rank: number of vocabulary entries that the model prefers to the token (0 = first choice).
    """

    offsets: Int[np.ndarray, " record_plus_1"]
    token: Int[np.ndarray, " token"]
    logprob: Float[np.ndarray, " token"]
    mean: Float[np.ndarray, " token"]
    std: Float[np.ndarray, " token"]
    top_token: Int[np.ndarray, " token"]
    top_logprob: Float[np.ndarray, " token"]
    rank: Int[np.ndarray, " token"]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Int[np.ndarray, " record"]:
        """Scored tokens of each record."""
        return np.diff(self.offsets)

    @property
    def record_of_token(self) -> Int[np.ndarray, " token"]:
        """The record that each token belongs to."""
        return np.repeat(np.arange(len(self)), self.lengths)

    @property
    def told(self) -> bool:
        """Whether the target told more than the log-probabilities of the records' own tokens."""
        return bool(np.isfinite(self.mean).all() and (self.rank >= 0).all())

    def total(self, values: Float[np.ndarray, " token"]) -> Scores:
        """Sum over each record's tokens."""
        return np.add.reduceat(values.astype(np.float64), self.offsets[:-1])

    def average(self, values: Float[np.ndarray, " token"]) -> Scores:
        """Mean over each record's tokens."""
        return self.total(values) / self.lengths

    def ordered(self, values: Float[np.ndarray, " token"]) -> Float[np.ndarray, " token"]:
        """Values sorted upwards within each record."""
        return values[np.lexsort((values, self.record_of_token))].astype(np.float64)

    def average_lowest(self, values: Float[np.ndarray, " token"], share: float) -> Scores:
        """Mean of the lowest max(1, floor(share * n)) of each record's n values. share: above 0, at most 1."""
        if not 0 < share <= 1:
            raise ValueError(f"a share lies above 0 and at most at 1, not at {share}")
        kept = np.maximum(1, np.floor(share * self.lengths + 1e-9)).astype(np.int64)
        position = np.arange(len(values)) - np.repeat(self.offsets[:-1], self.lengths)
        low = position < np.repeat(kept, self.lengths)
        return self.total(np.where(low, self.ordered(values), 0.0)) / kept

    def quantile(self, values: Float[np.ndarray, " token"], share: float) -> Scores:
        """The `share` quantile of each record's values, linear between neighbours (as numpy's default)."""
        ordered, place = self.ordered(values), share * (self.lengths - 1)
        below = np.floor(place).astype(np.int64)
        above = np.minimum(below + 1, self.lengths - 1)
        low, high = ordered[self.offsets[:-1] + below], ordered[self.offsets[:-1] + above]
        return low + (high - low) * (place - below)

    def average_highest(self, values: Float[np.ndarray, " token"], share: float) -> Scores:
        """Mean of the highest max(1, floor(share * n)) of each record's n values."""
        return -self.average_lowest(-values, share)

    def take(self, rows: Sequence[int] | Int[np.ndarray, " row"]) -> TokenSignals:
        """The signals of these records, in this order."""
        picked = [np.arange(self.offsets[row], self.offsets[row + 1]) for row in rows]
        index = np.concatenate(picked) if picked else np.zeros(0, dtype=np.int64)
        return from_token_arrays(
            [len(part) for part in picked], {name: getattr(self, name)[index] for name in TOKEN_FIELDS}
        )


TOKEN_FIELDS = tuple(field.name for field in fields(TokenSignals) if field.name != "offsets")


def from_token_arrays(lengths: Sequence[int], arrays: dict[str, np.ndarray]) -> TokenSignals:
    """Signals from token counts and one flat array a field. Raises TargetError where a figure is not finite.

    A field other than `logprob` may be NaN throughout: it was not told.
    """
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    for name in ("logprob", "mean", "std", "top_logprob"):
        broken = ~np.isfinite(arrays[name])
        if broken.any() and (name == "logprob" or not np.isnan(arrays[name]).all()):
            records = np.unique(np.searchsorted(offsets, np.flatnonzero(broken), side="right"))
            raise TargetError(
                "The model answered with numbers that are not finite.",
                expected=f"finite {name} for every token",
                found=f"{int(broken.sum())} of {len(broken)} tokens, in {len(records)} records",
                hint="check the checkpoint, or load it in float32 (--dtype float32)",
            )
    return TokenSignals(offsets=offsets, **{name: arrays[name] for name in TOKEN_FIELDS})
