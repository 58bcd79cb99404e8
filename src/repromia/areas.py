"""AUC with an interval, whichever way the records hang together: DeLong, or resampled groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from repromia.bootstrap import Bootstrap, BootstrapStatistics, percentile
from repromia.intervals import clopper_pearson, delong, tpr_figures
from repromia.metrics import auc
from repromia.result import Estimate, TprAtFpr


def area(
    scores: Float[np.ndarray, " record"],
    member: Bool[np.ndarray, " record"],
    groups: Sequence[str] | None = None,
    *,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """AUC and its interval; by groups where a group holds several records. Raises RepromiaError as `Bootstrap` does."""
    return area_and_tpr(scores, member, groups, fpr=None, level=level, seed=seed)[0]


def area_and_tpr(
    scores: Float[np.ndarray, " record"],
    member: Bool[np.ndarray, " record"],
    groups: Sequence[str] | None = None,
    *,
    fpr: float | None = 0.01,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[Estimate, TprAtFpr | None]:
    """`area`, and TPR at `fpr` with its 95 % interval from the same resamples."""
    bootstrap = Bootstrap(member, groups, seed=seed)
    if not bootstrap.grouped:
        return delong(scores, member, level), None if fpr is None else tpr_figures(scores, member, fpr)
    resampled = bootstrap.statistics(scores, [] if fpr is None else [fpr])
    found = group_area(scores, member, groups or (), resampled, level)
    return found, None if fpr is None else tpr_figures(scores, member, fpr, resampled=resampled.tpr[0])


def group_area(
    scores: Float[np.ndarray, " record"],
    member: Bool[np.ndarray, " record"],
    groups: Sequence[str],
    resampled: BootstrapStatistics,
    level: float = 0.95,
) -> Estimate:
    """AUC with the percentile interval of resampled groups; where no resample moves, as wide as their number allows."""
    found = percentile(resampled.auc, auc(scores, member), level, "percentile bootstrap of groups")
    if found.low < found.high:
        return found
    names = np.asarray(groups, dtype=np.str_)
    least = min(len(np.unique(names[side])) for side in (member, ~member))
    limits = clopper_pearson(round(found.estimate * least), least, level)
    return Estimate(
        estimate=found.estimate,
        low=min(limits.low, found.low),
        high=max(limits.high, found.high),
        method=f"Clopper-Pearson on {least} groups, as no resample moves",
    )
