"""AUC with an interval, whichever way the records hang together: DeLong, or resampled groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from repromia.bootstrap import Bootstrap, BootstrapStatistics, log_odds
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
    bootstrap = Bootstrap(member, groups, seed=seed)
    if not bootstrap.grouped:
        return delong(scores, member, level)
    return group_area(bootstrap, scores, bootstrap.statistics(scores, []), level)


def area_and_tpr(
    scores: Float[np.ndarray, " record"],
    member: Bool[np.ndarray, " record"],
    groups: Sequence[str] | None = None,
    *,
    fpr: float = 0.01,
    seed: int = 0,
) -> tuple[Estimate, TprAtFpr]:
    """`area`, and TPR at `fpr` with its 95 % interval from the same resamples."""
    (found,), tpr = areas_and_tpr(scores, member, groups, fpr=fpr, seed=seed)
    return found, tpr


def areas_and_tpr(
    scores: Float[np.ndarray, " record"],
    member: Bool[np.ndarray, " record"],
    groups: Sequence[str] | None,
    *,
    fpr: float,
    levels: Sequence[float] = (0.95,),
    seed: int = 0,
) -> tuple[list[Estimate], TprAtFpr]:
    """The AUC with its interval at each level, and TPR at `fpr`, from the same resamples."""
    bootstrap = Bootstrap(member, groups, seed=seed)
    if not bootstrap.grouped:
        return [delong(scores, member, level) for level in levels], tpr_figures(scores, member, fpr)
    resampled = bootstrap.statistics(scores, [fpr])
    found = [group_area(bootstrap, scores, resampled, level) for level in levels]
    return found, group_tpr(bootstrap, scores, fpr, resampled.tpr[0])


def group_area(
    bootstrap: Bootstrap, scores: Float[np.ndarray, " record"], resampled: BootstrapStatistics, level: float = 0.95
) -> Estimate:
    """AUC with the interval of resampled groups; where no resample moves, as wide as their number allows."""
    value, least = auc(scores, bootstrap.member), bootstrap.least
    found = log_odds(resampled.auc, value, least, level)
    if found is not None:
        return found
    limits = clopper_pearson(round(value * least), least, level)
    return Estimate(
        estimate=value,
        low=min(limits.low, value),
        high=max(limits.high, value),
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
