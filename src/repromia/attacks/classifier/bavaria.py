"""BaVarIA: LiRA with the uncertainty of each record's mean and variance, under a prior that all records share."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.special import betaln, digamma, gammaln, hyp2f1, polygamma, stdtr

from repromia.attacks import Ask, AskReferences, Variants, attack
from repromia.attacks.classifier._references import (
    CHOOSES,
    FLOOR,
    Answers,
    Moments,
    by_queries,
    inside,
    moments,
    outside,
    scaled_logits,
)
from repromia.signals import ClassSignals, ReferenceSignals, Scores

CITATION = "Brännvall 2026 (BaVarIA-t, arXiv 2603.11799); prior: moments over the records, as Smyth 2004 (limma)"
SURE = 1e3  # models that a prior is worth at most
VAGUE = 1e-6  # that its mean is worth at least


@attack(
    citation=CITATION,
    access="probabilities",
    kind="reference",
    needs=("shadows", CHOOSES),
    modality="classifier",
)
def bavaria(
    variants: Annotated[tuple[ClassSignals, ...], Ask("augmented")],
    references: Annotated[ReferenceSignals, AskReferences()],
    *,
    queries: str = "all+plain",
) -> Scores | Variants:
    """Log ratio of two Student-t predictives of the scaled logit, models that saw the record against those that did
    not; mean over the queries (all, or plain: the record itself alone; joined by +, what does better on
    select)."""

    def score(queries: str) -> Scores:
        asked, values = scaled_logits(variants, references, queries)
        saw, saw_not = (
            predictive(moments(values, side)).log_density(asked) for side in (inside(references), outside(references))
        )
        return (saw - saw_not).mean(axis=1)

    return by_queries(queries, score)


@attack(
    citation=CITATION,
    access="probabilities",
    kind="reference",
    needs=("reference", CHOOSES),
    modality="classifier",
)
def bavaria_offline(
    variants: Annotated[tuple[ClassSignals, ...], Ask("augmented")],
    references: Annotated[ReferenceSignals, AskReferences()],
    *,
    queries: str = "all+plain",
) -> Scores | Variants:
    """log of the share of the Student-t predictive, of models that did not see the record, that lies below the
    target's scaled logit; mean over the queries (as of bavaria). With one model a record it is LiRA's with one variance
    for all."""

    def score(queries: str) -> Scores:
        asked, values = scaled_logits(variants, references, queries)
        return predictive(moments(values, outside(references))).log_below(asked).mean(axis=1)

    return by_queries(queries, score)


@dataclass(frozen=True)
class Prior:
    """Normal-inverse-gamma, a column a query: the mean is worth `weight` models and the variance `freedom`."""

    mean: Float[np.ndarray, " query"]
    weight: Float[np.ndarray, " query"]
    freedom: Float[np.ndarray, " query"]
    variance: Float[np.ndarray, " query"]


@dataclass(frozen=True)
class Predictive:
    """Student-t of one more model's answer, a record and query."""

    centre: Answers
    scale: Answers
    freedom: Answers

    def log_density(self, asked: Answers) -> Answers:
        """log of the density."""
        z, f = (asked - self.centre) / self.scale, self.freedom
        level = gammaln((f + 1) / 2) - gammaln(f / 2) - 0.5 * np.log(f * np.pi) - np.log(self.scale)
        return level - (f + 1) / 2 * np.log1p(z**2 / f)

    def log_below(self, asked: Answers) -> Answers:
        """log of the share below."""
        z = (asked - self.centre) / self.scale
        tail = _log_tail(np.abs(z), self.freedom)
        return np.where(z < 0, tail, np.log1p(-np.exp(tail)))


def predictive(found: Moments) -> Predictive:
    """What the models of each record and the prior of all records say of one more model."""
    prior, n = fitted(found), found.count
    weight, freedom = prior.weight + n, prior.freedom + n
    apart = prior.weight * n / weight * (found.mean - prior.mean) ** 2
    variance = np.maximum((prior.freedom * prior.variance + found.square + apart) / freedom, FLOOR**2)
    centre = (prior.weight * prior.mean + n * found.mean) / weight
    return Predictive(centre, np.sqrt(variance * (weight + 1) / weight), freedom + 0 * centre)


def fitted(found: Moments) -> Prior:
    """Empirical Bayes: the prior whose moments over the records are those of their means and log-variances.

    Where no record has two models, one variance for all and nothing known of the mean.
    """
    queries, many = found.mean.shape[1], found.count[:, 0] >= 2
    mean, pooled = found.mean.mean(axis=0), found.pooled
    if not many.any():
        return Prior(mean, np.full(queries, VAGUE), np.full(queries, SURE), pooled)
    between = found.mean.var(axis=0) - (pooled / found.count).mean(axis=0)
    weight = np.clip(pooled / np.maximum(between, FLOOR**2), VAGUE, SURE)
    free = found.count[many, 0] - 1
    each = [_of_variances(one, free) for one in (found.square[many] / free[:, None]).T]
    freedom, variance = np.array(each).T
    return Prior(mean, weight, freedom, variance)


def _of_variances(found: Float[np.ndarray, " record"], free: Float[np.ndarray, " record"]) -> tuple[float, float]:
    """Degrees of freedom and scale of the variances' prior, from variances with `free` degrees of freedom each."""
    kept = np.maximum(found, max(1e-5 * float(np.median(found)), FLOOR**2))  # as limma: a logarithm follows
    logs = np.log(kept) - digamma(free / 2) + np.log(free / 2)
    excess = float(logs.var(ddof=min(1, len(logs) - 1)) - polygamma(1, free / 2).mean())
    least, most = float(polygamma(1, SURE / 2)), float(polygamma(1, 0.5))
    half = brentq(lambda x: float(polygamma(1, x)) - np.clip(excess, least, most), 0.4, SURE)
    return 2 * half, float(np.exp(logs.mean() + digamma(half) - np.log(half)))


def _log_tail(z: Answers, freedom: Answers) -> Answers:
    """log of the share of a Student-t above z >= 0, far beyond where the share itself is 0."""
    found = np.log(np.maximum(stdtr(freedom, -z), 1e-300))
    far = found < -460  # the share has lost its precision
    if far.any():
        x, a = (freedom / (freedom + z**2))[far], freedom[far] / 2
        series = np.log(hyp2f1(a + 0.5, 1, a + 1, x)) - betaln(a, 0.5) - np.log(2 * a)
        found[far] = a * np.log(x) + 0.5 * np.log1p(-x) + series
    return found
