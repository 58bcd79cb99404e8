"""A small logistic head on scores: what the labels alone buy, without reprogramming."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from repromia.signals import Scores

STRENGTHS = tuple(10.0**power for power in (-3, -2, -1, 0, 1))
FOLDS = 5
ANCHOR = 10.0
REACH = 1.5  # chosen on the development target (docs/results/probe_bank.md)
Features = Float[np.ndarray, "record feature"]


@dataclass(frozen=True)
class Shape:
    """What a head does to its features before it weighs them.

    reach: standard deviations at which they are cut. anchors: the last so many features are hardly shrunk: a score
    that is known to work is kept, and the others only correct it.
    """

    reach: float = REACH
    anchors: int = 0


SHAPE = Shape()
UNCUT = Shape(reach=float("inf"))  # of log-odds, whose features were cut: cut again, the best records would tie


@dataclass(frozen=True)
class Head:
    """Standardised logistic regression. strength: the C that cross-validation on its own records chose."""

    centre: Float[np.ndarray, " feature"]
    spread: Float[np.ndarray, " feature"]
    weights: Float[np.ndarray, " feature"]
    intercept: float
    strength: float
    shape: Shape = SHAPE

    def __call__(self, features: Features) -> Scores:
        """Log-odds of membership."""
        scores: Scores = _standardised(features, self.centre, self.spread, self.shape) @ self.weights + self.intercept
        return scores


def fit_head(
    features: Features,
    member: Bool[np.ndarray, " record"],
    *,
    groups: tuple[str, ...],
    seed: int,
    shape: Shape = SHAPE,
) -> Head:
    """Fit on records of known membership; C by grouped, stratified cross-validation of the log-loss."""
    splits = _splits(features, member, groups, seed)
    losses = np.array([_log_losses(features, member, fit, out, shape) for fit, out in splits])
    best = STRENGTHS[int(np.argmin(losses.mean(axis=0)))] if splits else STRENGTHS[0]
    return fit_with(features, member, best, shape)


def out_of_fold(
    features: Features,
    member: Bool[np.ndarray, " record"],
    strength: float,
    *,
    groups: tuple[str, ...],
    seed: int,
    shape: Shape = SHAPE,
) -> Scores:
    """Log-odds of each record from a head that was not fitted on it or its group."""
    odds = np.full(len(member), float(np.log(member.mean() / (1 - member.mean()))))
    for fit, out in _splits(features, member, groups, seed):
        odds[out] = fit_with(features[fit], member[fit], strength, shape)(features[out])
    return odds


def fit_with(features: Features, member: Bool[np.ndarray, " record"], strength: float, shape: Shape = SHAPE) -> Head:
    """Fit with a given C."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    centre, spread = features.mean(axis=0), features.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    regression = LogisticRegression(C=strength, max_iter=1000)
    with threadpool_limits(1):  # sums in another order end in another head, by a little
        regression.fit(_standardised(features, centre, spread, shape), member)
    return Head(centre, spread, regression.coef_[0], float(regression.intercept_[0]), strength, shape)


def fit_stack(odds: Features, member: Bool[np.ndarray, " record"]) -> Head:
    """Fit on several heads' out-of-fold log-odds, no weight below 0 (Breiman 1996, Machine Learning 24).

    Of heads that found nothing, out-of-fold log-odds run against the labels, because every fold's records are missing
    from its own mean: a free weight would turn their noise round. Where no weight is above 0, all are equal.
    """
    kept = np.ones(odds.shape[1], dtype=bool)
    while kept.any():
        found = fit_with(odds[:, kept], member, 1.0, UNCUT)
        if (found.weights >= 0).all():
            weights = np.zeros(len(kept))
            weights[kept] = found.weights
            break
        kept[np.flatnonzero(kept)[found.weights < 0]] = False
    else:
        weights = np.ones(len(kept))
    every = fit_with(odds, member, 1.0, UNCUT)
    return Head(every.centre, every.spread, weights, 0.0, 1.0, UNCUT)


def _splits(
    features: Features, member: Bool[np.ndarray, " record"], groups: tuple[str, ...], seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Grouped, stratified folds of which both parts can be used; none where a class lies in a single group."""
    from sklearn.model_selection import StratifiedGroupKFold

    group = np.unique(groups, return_inverse=True)[1]
    count = min(FOLDS, *(len(np.unique(group[side])) for side in (member, ~member)))
    if count < 2:
        return []
    splits = StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(features, member, group)
    return [(fit, out) for fit, out in splits if 0 < member[fit].sum() < len(fit) and len(out)]


def _standardised(
    features: Features,
    centre: Float[np.ndarray, " feature"],
    spread: Float[np.ndarray, " feature"],
    shape: Shape,
) -> Features:
    """Features in standard deviations, cut at the reach: the few records far outside are what decides low FPRs."""
    found = np.clip((features - centre) / spread, -shape.reach, shape.reach)
    if shape.anchors:
        found[:, -shape.anchors :] *= ANCHOR  # a weight is shrunk as if it were so many times smaller
    return found


def _log_losses(
    features: Features, member: Bool[np.ndarray, " record"], fit: np.ndarray, out: np.ndarray, shape: Shape
) -> list[float]:
    """Held-out log-loss for every strength."""
    odds = [fit_with(features[fit], member[fit], strength, shape)(features[out]) for strength in STRENGTHS]
    return [float(np.logaddexp(0, np.where(member[out], -one, one)).mean()) for one in odds]
