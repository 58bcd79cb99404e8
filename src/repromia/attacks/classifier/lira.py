"""LiRA: the likelihood of the target's answer among models that saw the record, and among models that did not."""

from typing import Annotated

import numpy as np
from scipy.special import log_ndtr

from repromia.attacks import Ask, AskReferences, Variants, attack
from repromia.attacks.classifier._references import (
    CHOOSES,
    FLOOR,
    Answers,
    Moments,
    Saw,
    by_queries,
    check_option,
    inside,
    moments,
    outside,
    scaled_logits,
)
from repromia.errors import AttackError
from repromia.signals import ClassSignals, ReferenceSignals, Scores

CITATION = "Carlini et al. 2022 (LiRA, arXiv 2112.03570)"
VARIANCES = ("auto", "record", "fixed")
CENTRES = ("mean", "median")


@attack(
    citation=CITATION,
    access="probabilities",
    kind="reference",
    needs=("shadows", CHOOSES),
    modality="classifier",
)
def lira(
    variants: Annotated[tuple[ClassSignals, ...], Ask("augmented")],
    references: Annotated[ReferenceSignals, AskReferences()],
    *,
    variance: str = "auto",
    enough: int = 32,
    centre: str = "mean",
    queries: str = "all+plain",
) -> Scores | Variants:
    """Log-likelihood ratio of two normals of scaled logits, a pair a record and query; mean over the queries.

    variance: the record's own (record), one for all records and each side (fixed), or its own where it has `enough`
    models of both sides (auto). The paper takes one for all below 64 models, which is 32 a side; with 8 a side, the
    table of the authors' code has 3.5 times the TPR at 0.1 % FPR with one for all.
    centre: mean, or median as in the authors' code. queries: all, or the plain record alone, which is better where the
    target was not trained on such augmentations; joined by +, what does better on select.
    """

    def score(queries: str) -> Scores:
        asked, values = scaled_logits(variants, references, queries)
        sides = [(saw, moments(values, saw)) for saw in (inside(references), outside(references))]
        own = _own(variance, enough, [found for _, found in sides])
        logs = []
        for saw, found in sides:
            spread = _spread(found, own)
            z = (asked - _centre(values, saw, found, centre)) / spread
            logs.append(-0.5 * z**2 - np.log(spread))
        return (logs[0] - logs[1]).mean(axis=1)

    return by_queries(queries, score)


@attack(
    citation=CITATION,
    access="probabilities",
    kind="reference",
    needs=("reference", CHOOSES),
    modality="classifier",
)
def lira_offline(
    variants: Annotated[tuple[ClassSignals, ...], Ask("augmented")],
    references: Annotated[ReferenceSignals, AskReferences()],
    *,
    variance: str = "auto",
    enough: int = 32,
    centre: str = "mean",
    queries: str = "all+plain",
    sides: str = "one",
) -> Scores | Variants:
    """log Phi of how far the scaled logit lies above the models that did not see the record; mean over the queries.

    sides: one as in the paper; two is minus the log-density, as in the authors' code, which takes records that the
    target finds unusually hard for members too. variance, enough, centre, queries: as of lira.
    """
    check_option("sides", sides, ("one", "two"))

    def score(queries: str) -> Scores:
        asked, values = scaled_logits(variants, references, queries)
        saw = outside(references)
        found = moments(values, saw)
        spread = _spread(found, _own(variance, enough, [found]))
        z = (asked - _centre(values, saw, found, centre)) / spread
        each = log_ndtr(z) if sides == "one" else 0.5 * z**2 + np.log(spread)
        return np.asarray(each).mean(axis=1)

    return by_queries(queries, score)


def _own(variance: str, enough: int, sides: list[Moments]) -> np.ndarray:
    """Whether a record's own variance is taken, a column. Raises AttackError where it has none."""
    check_option("variance", variance, VARIANCES)
    fewest = np.min([one.count for one in sides], axis=0)
    if variance == "record" and (fewest < 2).any():
        raise AttackError(
            "The variance of some records cannot be estimated.",
            expected="for variance=record at least two models of each side for every record",
            found=f"fewer for {int((fewest < 2).sum())} of {len(fewest)} records",
            hint="take variance=auto, or train more shadow models",
        )
    return fewest >= {"auto": max(2, enough), "record": 2, "fixed": np.inf}[variance]


def _spread(found: Moments, own: np.ndarray) -> Answers:
    each = np.sqrt(found.square / np.maximum(found.count - 1, 1))
    return np.maximum(np.where(own, each, np.sqrt(found.pooled)), FLOOR)


def _centre(values: np.ndarray, saw: Saw, found: Moments, centre: str) -> Answers:
    check_option("centre", centre, CENTRES)
    if centre == "mean":
        return found.mean
    return np.nanmedian(np.where(saw[:, :, None], values, np.nan), axis=0)
