"""What a target answers about records under one program: typed, per-record arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int

from repromia.errors import AttackError, TargetError

Scores = Float[np.ndarray, " record"]
TOP = 3  # of a reference model's classes, which are kept of every record


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


@dataclass(frozen=True)
class DenoiseSignals:
    """Figures of a denoiser's answers, one row a record and one column an evaluation.

    What an answer is compared with depends on how the denoiser was asked (`repromia.programs.denoising`): the noise
    that was added, its own prediction at the clean image, or nothing.

    t: timestep index of each evaluation, counted from the clean image; draw: which noise, -1 for none and -2 for
    the model's own.
    square, fourth: mean over pixels and channels of the second and fourth power of the deviation.
    """

    t: Int[np.ndarray, " evaluation"]
    draw: Int[np.ndarray, " evaluation"]
    square: Float[np.ndarray, "record evaluation"]
    fourth: Float[np.ndarray, "record evaluation"]

    def __len__(self) -> int:
        return len(self.square)

    def __post_init__(self) -> None:
        for name in ("square", "fourth"):
            broken = ~np.isfinite(getattr(self, name)).all(axis=1)
            if broken.any():
                raise TargetError(
                    "The denoiser answered with numbers that are not finite.",
                    expected=f"a finite {name} at every timestep",
                    found=f"{int(broken.sum())} of {len(broken)} records",
                    hint="check the weights, or load them in float32 (--dtype float32)",
                )

    def take(self, rows: Sequence[int] | Int[np.ndarray, " row"]) -> DenoiseSignals:
        """The signals of these records, in this order."""
        index = np.asarray(rows, dtype=np.int64)
        return replace(self, square=self.square[index], fourth=self.fourth[index])

    def by_timestep(self, values: Float[np.ndarray, "record evaluation"]) -> Float[np.ndarray, "record timestep"]:
        """Mean over the draws of each timestep, timesteps in the order of `timesteps`."""
        return np.stack([values[:, self.t == one].mean(axis=1) for one in self.timesteps], axis=1)

    @property
    def timesteps(self) -> tuple[int, ...]:
        """Different timesteps in the order asked."""
        return tuple(dict.fromkeys(int(one) for one in self.t))


@dataclass(frozen=True)
class GradientSignals:
    """Size of the gradient of a model's loss on each record, one row a record and one column a weight tensor.

    t: timestep index of each evaluation behind a row. norms: L2, 0 where the loss does not depend on the tensor.
    """

    t: Int[np.ndarray, " evaluation"]
    norms: Float[np.ndarray, "record tensor"]

    def __len__(self) -> int:
        return len(self.norms)

    def __post_init__(self) -> None:
        broken = ~np.isfinite(self.norms).all(axis=1)
        if broken.any():  # half precision overflows backwards before it does forwards: no fault of the target
            raise AttackError(
                "The model's gradients are not finite.",
                expected="a finite norm for every weight tensor",
                found=f"{int(broken.sum())} of {len(broken)} records",
                hint="load the weights in float32 (--dtype float32)",
            )

    def take(self, rows: Sequence[int] | Int[np.ndarray, " row"]) -> GradientSignals:
        """The signals of these records, in this order."""
        return replace(self, norms=self.norms[np.asarray(rows, dtype=np.int64)])


@dataclass(frozen=True)
class ClassSignals:
    """A classifier's answers, one row a record.

    logprobs: log-probability of every class, nats; of the classes that a top-k answer left out, an equal share of
    what the others left; NaN throughout where only the predicted class was told. predicted: the first choice.
    label: the class that the record names.
    """

    logprobs: Float[np.ndarray, "record class"]
    predicted: Int[np.ndarray, " record"]
    label: Int[np.ndarray, " record"]

    def __len__(self) -> int:
        return len(self.label)

    def __post_init__(self) -> None:
        broken = ~np.isfinite(self.logprobs).all(axis=1)
        if broken.any() and not np.isnan(self.logprobs).all():
            raise TargetError(
                "The classifier answered with numbers that are not finite.",
                expected="a finite log-probability for every class",
                found=f"{int(broken.sum())} of {len(broken)} records",
                hint="check the weights and how the inputs are scaled",
            )

    @property
    def told(self) -> bool:
        """Whether probabilities were told, and not the predicted class alone."""
        return not bool(np.isnan(self.logprobs).any())

    @property
    def logprob(self) -> Scores:
        """log p of the record's own class."""
        return self.logprobs[np.arange(len(self)), self.label].astype(np.float64)

    @property
    def other(self) -> Scores:
        """log(1 - p) of the record's own class, summed over the others: precise where p is close to 1."""
        rest = self.logprobs.astype(np.float64)
        rest[np.arange(len(self)), self.label] = -np.inf
        top = rest.max(axis=1)
        found: Scores = top + np.log(np.exp(rest - top[:, None]).sum(axis=1))
        return found

    @property
    def scaled_logit(self) -> Scores:
        """log p - log(1 - p) of the record's own class (Carlini et al. 2022, equation 6, in its stable form)."""
        return self.logprob - self.other

    @property
    def margin(self) -> Scores:
        """log p of the record's own class minus the largest log p of another."""
        rest = self.logprobs.astype(np.float64)
        rest[np.arange(len(self)), self.label] = -np.inf
        found: Scores = self.logprob - rest.max(axis=1)
        return found

    @property
    def top_classes(self) -> Int[np.ndarray, "record rank"]:
        """The most probable classes, from the first to the third; of two classes both."""
        return np.argsort(-self.logprobs, axis=1, kind="stable")[:, :TOP]

    @property
    def top(self) -> Float[np.ndarray, "record rank"]:
        """log p of the most probable classes."""
        return np.take_along_axis(self.logprobs, self.top_classes, axis=1)

    def take(self, rows: Sequence[int] | Int[np.ndarray, " row"]) -> ClassSignals:
        """The signals of these records, in this order."""
        index = np.asarray(rows, dtype=np.int64)
        return ClassSignals(self.logprobs[index], self.predicted[index], self.label[index])


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


Signals = (
    TokenSignals
    | DenoiseSignals
    | GradientSignals
    | ClassSignals
    | ReferenceSignals
    | GainSignals
    | ReferenceGains
    | ForecastSignals
)


def sureness(answers: tuple[ClassSignals, ...]) -> Scores:
    """How sure the model is of the record's class: the scaled logit, or the share of votes for it."""
    if len(answers) == 1 and answers[0].told:
        return answers[0].scaled_logit
    found: Scores = np.mean([one.predicted == one.label for one in answers], axis=0)
    return found


def size_of(signals: Any) -> int:
    """Bytes of its arrays."""
    values = (getattr(signals, one.name) for one in fields(signals))
    return sum(one.nbytes for one in values if isinstance(one, np.ndarray))


def join(parts: Sequence[Any]) -> Any:
    """The records of several signals of one kind, one after the other."""
    if isinstance(parts[0], DenoiseSignals):
        arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ("square", "fourth")}
        return replace(parts[0], **arrays)
    if isinstance(parts[0], ReferenceSignals | ReferenceGains):
        named = [one.name for one in fields(parts[0])]
        return type(parts[0])(**{name: np.concatenate([getattr(one, name) for one in parts], 1) for name in named})
    if isinstance(parts[0], ClassSignals | GainSignals | ForecastSignals):
        kept = {one.name: np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(parts[0])}
        return type(parts[0])(**kept)
    if isinstance(parts[0], GradientSignals):
        return replace(parts[0], norms=np.concatenate([part.norms for part in parts]))
    lengths = np.concatenate([part.lengths for part in parts])
    return from_token_arrays(
        [int(n) for n in lengths],
        {name: np.concatenate([getattr(part, name) for part in parts]) for name in TOKEN_FIELDS},
    )
