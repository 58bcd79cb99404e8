"""What models of known training data answer, and what is expected of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int

from repromia.errors import AttackError, TargetError
from repromia.signals.classes import ClassSignals


@dataclass(frozen=True)
class ReferenceSignals:
    """What models of known training data say of the records: all that attacks need of them.

    inside: whether the record was in the model's training data. query: the variants of the program `augmented`, of
    which the first is the plain record. logprob: log p of the record's own class; other: log(1 - p). top, top_classes:
    log p of the plain record's most probable classes, and which they are.
    """

    inside: Bool[np.ndarray, "model record"]
    logprob: Float[np.ndarray, "model record query"]
    other: Float[np.ndarray, "model record query"]
    top: Float[np.ndarray, "model record rank"]
    top_classes: Int[np.ndarray, "model record rank"]

    def __len__(self) -> int:
        return self.inside.shape[1]

    def __post_init__(self) -> None:
        broken = ~(np.isfinite(self.logprob) & np.isfinite(self.other)).all(axis=(1, 2))
        broken |= ~np.isfinite(self.top).all(axis=(1, 2))
        if broken.any():
            raise TargetError(
                "A reference model answered with numbers that are not finite.",
                expected="finite log-probabilities",
                found=f"{int(broken.sum())} of {len(broken)} models",
                hint="check how they were trained",
            )

    @property
    def models(self) -> int:
        """Number of models."""
        return len(self.inside)

    @property
    def scaled_logit(self) -> Float[np.ndarray, "model record query"]:
        """As of `ClassSignals`."""
        return self.logprob.astype(np.float64) - self.other

    def take(self, rows: Sequence[int] | Int[np.ndarray, " row"]) -> ReferenceSignals:
        """The signals on these records, in this order."""
        index = np.asarray(rows, dtype=np.int64)
        return ReferenceSignals(**{one.name: getattr(self, one.name)[:, index] for one in fields(self)})


def told_by(variants: Sequence[ClassSignals], inside: Bool[np.ndarray, " record"]) -> ReferenceSignals:
    """What one model says of records of which it saw those `inside`, from its answers under `augmented`."""
    logprob, other = (
        np.stack([getattr(one, name) for one in variants], axis=1).astype(np.float32) for name in ("logprob", "other")
    )
    top, classes = variants[0].top.astype(np.float32), variants[0].top_classes.astype(np.int32)
    return ReferenceSignals(inside[None], logprob[None], other[None], top[None], classes[None])


@dataclass(frozen=True)
class GainSignals:
    """What a node's being there changes in a graph model's answers, one row a node and one column a sampled graph.

    gain: log-likelihood of the known classes around and of the node, with it, less that around it without it; nats.
    """

    gain: Float[np.ndarray, "record graph"]

    def __len__(self) -> int:
        return len(self.gain)

    def take(self, rows: Sequence[int] | Int[np.ndarray, " row"]) -> GainSignals:
        """The signals of these records, in this order."""
        return GainSignals(self.gain[np.asarray(rows, dtype=np.int64)])


@dataclass(frozen=True)
class ReferenceGains:
    """The same of models of known training data. inside: whether the record was in the model's training data."""

    inside: Bool[np.ndarray, "model record"]
    gain: Float[np.ndarray, "model record graph"]

    def __len__(self) -> int:
        return self.inside.shape[1]

    @property
    def models(self) -> int:
        """Number of models."""
        return len(self.inside)

    def take(self, rows: Sequence[int] | Int[np.ndarray, " row"]) -> ReferenceGains:
        """The signals on these records, in this order."""
        index = np.asarray(rows, dtype=np.int64)
        return ReferenceGains(self.inside[:, index], self.gain[:, index])


References = TypeVar("References", ReferenceSignals, ReferenceGains)


def stack(parts: Sequence[References]) -> References:
    """The models of several, one after the other, on the same records."""
    arrays = {one.name: np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(parts[0])}
    return type(parts[0])(**arrays)


@dataclass(frozen=True)
class ForecastSignals:
    """What a regressor expects a model to score on each record that it was not trained on: mean and standard
    deviation."""

    mean: Float[np.ndarray, " record"]
    spread: Float[np.ndarray, " record"]

    def __len__(self) -> int:
        return len(self.mean)

    def __post_init__(self) -> None:
        broken = ~(np.isfinite(self.mean) & np.isfinite(self.spread) & (self.spread > 0))
        if broken.any():
            raise AttackError(
                "The regressor's forecast is not finite.",
                expected="a mean and a standard deviation above 0",
                found=f"{int(broken.sum())} of {len(broken)} records",
                hint="look for records whose features are extreme",
            )

    def take(self, rows: Sequence[int] | Int[np.ndarray, " row"]) -> ForecastSignals:
        """The forecasts of these records, in this order."""
        index = np.asarray(rows, dtype=np.int64)
        return ForecastSignals(self.mean[index], self.spread[index])
