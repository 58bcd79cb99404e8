"""What a classifier answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from repromia.errors import TargetError
from repromia.signals.tokens import Scores

TOP = 3  # of a reference model's classes, which are kept of every record


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


def sureness(answers: tuple[ClassSignals, ...]) -> Scores:
    """How sure the model is of the record's class: the scaled logit, or the share of votes for it."""
    if len(answers) == 1 and answers[0].told:
        return answers[0].scaled_logit
    found: Scores = np.mean([one.predicted == one.label for one in answers], axis=0)
    return found
