"""A small logistic head on scores: what the labels alone buy, without reprogramming."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from repromia.signals import Scores

STRENGTHS = tuple(10.0**power for power in (-3, -2, -1, 0, 1))
FOLDS = 5
Features = Float[np.ndarray, "record feature"]


@dataclass(frozen=True)
class Head:
    """Standardised logistic regression. strength: the C that cross-validation on its own records chose."""

    pipeline: Any
    strength: float

    def __call__(self, features: Features) -> Scores:
        """Log-odds of membership."""
        scores: Scores = self.pipeline.decision_function(features)
        return scores


def fit_head(features: Features, member: Bool[np.ndarray, " record"], *, groups: tuple[str, ...], seed: int) -> Head:
    """Fit on records of known membership; C by grouped, stratified cross-validation of the log-loss."""
    from sklearn.model_selection import StratifiedGroupKFold

    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    splits = list(folds.split(features, member, np.unique(groups, return_inverse=True)[1]))
    splits = [(fit, out) for fit, out in splits if 0 < member[fit].sum() < len(fit) and len(out)]
    losses = [np.mean([_log_loss(features, member, fit, out, c) for fit, out in splits]) for c in STRENGTHS]
    best = STRENGTHS[int(np.argmin(losses))] if splits else STRENGTHS[0]
    return Head(_pipeline(best).fit(features, member), best)


def _log_loss(
    features: Features, member: Bool[np.ndarray, " record"], fit: np.ndarray, out: np.ndarray, strength: float
) -> float:
    odds = _pipeline(strength).fit(features[fit], member[fit]).decision_function(features[out])
    return float(np.logaddexp(0, np.where(member[out], -odds, odds)).mean())


def _pipeline(strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    # a record far outside the fitted range must not decide by itself
    clip = FunctionTransformer(np.clip, kw_args={"a_min": -5.0, "a_max": 5.0})
    return make_pipeline(StandardScaler(), clip, LogisticRegression(C=strength, max_iter=1000))
