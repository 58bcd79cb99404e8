"""What classifiers answer with, and whether it is what was declared."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float

from repromia.errors import TargetError
from repromia.targets.answers import LEAST

Answer = Literal["logits", "probabilities", "top_k", "label"]
SUM = 1e-3  # how far probabilities may be from summing to one
SAME = 1e-3  # how far the log-probability of the first choice may move from one call to the next


def logprobs_of(
    rows: Float[np.ndarray, "record class"], answer: Answer, name: str
) -> Float[np.ndarray, "record class"]:
    """log-probabilities, nats, from what a model of this name answered with. Raises TargetError for another answer."""
    if answer == "logits":
        if not np.isfinite(rows).all():
            raise _not_finite(rows, name)
        _check_logits(rows, name)
        top = rows.max(axis=1, keepdims=True)
        found: np.ndarray = rows - top - np.log(np.exp(rows - top).sum(axis=1, keepdims=True))
        return found
    told = ~np.isnan(rows)
    given = np.where(told, rows, 0.0)
    _check_probabilities(given, told, name, whole=answer == "probabilities")
    left = np.maximum(1 - given.sum(axis=1, keepdims=True), 0.0)
    share = left / np.maximum((~told).sum(axis=1, keepdims=True), 1)
    with np.errstate(divide="ignore"):
        return np.maximum(np.log(np.where(told, given, share)), LEAST)


def _not_finite(rows: np.ndarray, name: str) -> TargetError:
    return TargetError(
        f"{name} answered with numbers that are not finite.",
        expected="a finite number for every class",
        found=f"{int((~np.isfinite(rows)).any(axis=1).sum())} of {len(rows)} records",
        hint="check the weights and how the inputs are scaled",
    )


def alike(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two answers about the same records are equal, figures up to `SAME`."""
    if first.shape != second.shape or not np.issubdtype(first.dtype, np.floating):
        return first.shape == second.shape and bool((first == second).all())
    return bool(np.allclose(first, second, rtol=SAME, atol=SAME, equal_nan=True))


def _check_logits(rows: np.ndarray, name: str) -> None:
    if len(rows) > 1 and (rows >= 0).all() and (np.abs(rows.sum(axis=1) - 1) < SUM).all():
        raise TargetError(
            f"{name} was said to answer with logits, and answers with probabilities.",
            expected="numbers before the softmax",
            found="rows that are not negative and sum to one",
            hint="say so (--answer probabilities), or take the softmax off",
        )


def _check_probabilities(rows: np.ndarray, told: np.ndarray, name: str, *, whole: bool) -> None:
    total = rows.sum(axis=1)
    wrong = (rows < -1e-9).any(axis=1) | (total > 1 + SUM) | ~np.isfinite(total)
    if whole:
        wrong |= (total < 1 - SUM) | ~told.all(axis=1)
    if wrong.any():
        logits = bool((rows < 0).any() or (rows > 1).any())
        raise TargetError(
            f"{name} was said to answer with probabilities, and does not.",
            expected="numbers from 0 to 1 that sum to one" + ("" if whole else " at most"),
            found=f"{int(wrong.sum())} of {len(rows)} rows that do not"
            + (" (they look like logits: --answer logits)" if logits else ""),
        )
