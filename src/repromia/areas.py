"""AUC with an interval, whichever way the records hang together: DeLong, or resampled groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from repromia.bootstrap import Bootstrap, BootstrapStatistics, percentile, widened
from repromia.intervals import clopper_pearson, delong, tpr_figures
from repromia.metrics import auc, null_tpr_quantile
from repromia.result import Estimate, TprAtFpr

TPR_LEVEL = 1 - 1 / 400


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
    found = group_area(bootstrap, scores, resampled, level)
    return found, None if fpr is None else group_tpr(bootstrap, scores, fpr, resampled.tpr[0])


def group_area(
    bootstrap: Bootstrap, scores: Float[np.ndarray, " record"], resampled: BootstrapStatistics, level: float = 0.95
) -> Estimate:
    """AUC with the percentile interval of resampled groups; where no resample moves, as wide as their number allows."""
    found = percentile(resampled.auc, auc(scores, bootstrap.member), level, "percentile bootstrap of groups")
    least = bootstrap.least
    if found.low < found.high:
        return widened(found, least, (0.0, 1.0), level)
    limits = clopper_pearson(round(found.estimate * least), least, level)
    return Estimate(
        estimate=found.estimate,
        low=min(limits.low, found.low),
        high=max(limits.high, found.high),
        method=f"Clopper-Pearson on {least} groups, as no resample moves",
    )


def group_tpr(
    bootstrap: Bootstrap, scores: Float[np.ndarray, " record"], fpr: float, resampled: Float[np.ndarray, " repeat"]
) -> TprAtFpr:
    """TPR at `fpr` with the interval of resampled groups; `smallest_visible` takes records as independent: left out.

    Where independent records would show more than chance, the labels of whole groups are dealt out anew to see whether
    so few groups do.
    """
    member = bootstrap.member
    found = tpr_figures(scores, member, fpr, resampled=resampled, groups=bootstrap.least)
    found = found.model_copy(update={"smallest_visible": None})
    if not beyond_chance(found, int(member.sum()), int((~member).sum())):
        return found
    dealt = bootstrap.chance(scores, [fpr])[0]
    return found.model_copy(update={"chance_p": (int((dealt >= found.tpr).sum()) + 1) / (len(dealt) + 1)})


def beyond_chance(one: TprAtFpr, n_members: int, n_nonmembers: int) -> bool:
    """Whether a TPR is more than chance reaches in 1 of 400 audits.

    Of independent records by the exact null distribution, of groups by their labels dealt out anew too.
    """
    if one.tpr is None or (one.chance_p is not None and one.chance_p > 1 - TPR_LEVEL):
        return False
    return one.tpr > null_tpr_quantile(n_members, n_nonmembers, one.fpr, TPR_LEVEL)
