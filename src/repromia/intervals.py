"""Intervals: what a figure measured on finitely many records says about the population.

Coverage of nominal 95 % intervals, measured by `python -m benchmarks.coverage` (normal scores; 800
simulations a cell, Monte-Carlo error .008; those marked * need a bootstrap: 200 simulations, error .015):

    delong                       AUC .5   .7    .95   .99
      50 + 50 records               .965  .961  .959  .936
      500 + 500 records             .949  .950  .948  .946
    tpr_interval                 AUC .5   .6    .8      mean width at .5, .6, .8
      at 1 % FPR, 1000 + 1000       .973  .973  .965    .019  .035  .109
      at 1 % FPR, 500 + 500         .988  .980  .971    .028  .050  .155
      at 1 % FPR, 300 + 300         .996  .988  .988    .036  .064  .204
      at 5 % FPR, 300 + 300         .985  .969  .965    .075  .112  .209
    tpr_figures, 200 + 200 groups of 5, correlation .2 or .6, FPR 1 % or 5 %, AUC .5 or .8*: .960 to .990
    paired bootstrap gain, 500 + 500, AUC .6 - .6 and .8 - .6*: AUC .935, .945; TPR at 1 % FPR 1.000, .970
    joint_null_test, false alarms at .05: 1 attack .055, 10 attacks .040, 10 correlated (.7) attacks .050*

Compared and not used: plain DeLong covers .801 at AUC .99 with 50 + 50. For TPR at these FPRs the basic
bootstrap covers .770 to .895*, the bias-corrected one .915 to .970*, and the percentile one .930 to .985*,
but it has no width where TPR is 0 or 1. `tpr_interval` has, needs no resampling and is about as wide (.204
where the percentile interval has .189, at 300 + 300, 1 % FPR, AUC .8).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import brentq
from scipy.stats import beta, binom, norm, rankdata

from repromia.bootstrap import Bootstrap, BootstrapStatistics, joint_null_test, log_odds, percentile, widened
from repromia.errors import RepromiaError
from repromia.metrics import (
    ROUNDING,
    allowed_false_positives,
    check_scores,
    null_tpr_quantile,
    rates_at,
    threshold_at_fpr,
    tpr_at_fpr,
)
from repromia.result import Estimate, TprAtFpr, Transfer

__all__ = [
    "Bootstrap",
    "BootstrapStatistics",
    "Labelled",
    "clopper_pearson",
    "delong",
    "delong_difference",
    "for_tests",
    "joint_null_test",
    "percentile",
    "tpr_figures",
    "tpr_interval",
    "transfer",
    "widened",
]


class _Placements(NamedTuple):
    """Share of the other class that each record is on the right side of (ties half)."""

    members: Float[np.ndarray, " member"]
    nonmembers: Float[np.ndarray, " nonmember"]


def _placements(scores: Float[np.ndarray, " record"], member: Bool[np.ndarray, " record"]) -> _Placements:
    """Midranks of Sun & Xu (2014), equations 5 and 6: three sorts instead of all pairs."""
    check_scores(scores, member)
    pooled, inside, outside = rankdata(scores), rankdata(scores[member]), rankdata(scores[~member])
    return _Placements((pooled[member] - inside) / outside.size, 1 - (pooled[~member] - outside) / inside.size)


def _standard_error(parts: _Placements) -> float:
    """Of the mean of the placements. 0 also where it is undefined: one record in a class."""
    if min(parts.members.size, parts.nonmembers.size) < 2:
        return 0.0
    return math.sqrt(sum(float(part.var(ddof=1)) / part.size for part in parts))


def delong(scores: Float[np.ndarray, " record"], member: Bool[np.ndarray, " record"], level: float = 0.95) -> Estimate:
    """AUC and its interval by DeLong, DeLong & Clarke-Pearson (1988), on the logit scale.

    For independent records only; with groups use `Bootstrap`. Where the variance vanishes: at AUC 0 or 1
    Clopper-Pearson on min(members, non-members) disjoint pairs, all of which agree; elsewhere (all scores
    equal, one record in a class) Hoeffding's bound for U-statistics. Both hold at any size and are
    conservative. Raises RepromiaError as `check_scores` does.
    """
    parts = _placements(scores, member)
    value, error = float(parts.members.mean()), _standard_error(parts)
    pairs = min(parts.members.size, parts.nonmembers.size)
    if value in (0.0, 1.0):
        exact = clopper_pearson(int(value) * pairs, pairs, level)
        return Estimate(estimate=value, low=exact.low, high=exact.high, method="Clopper-Pearson, disjoint pairs")
    if error < 1e-12:
        half = math.sqrt(math.log(2 / (1 - level)) / (2 * pairs))
        low, high = max(0.0, value - half), min(1.0, value + half)
        return Estimate(estimate=value, low=low, high=high, method="Hoeffding")
    reach = float(norm.isf((1 - level) / 2)) * error / (value * (1 - value))
    odds = math.log(value / (1 - value))
    low, high = ((1 + math.tanh((odds + side * reach) / 2)) / 2 for side in (-1, 1))
    return Estimate(estimate=value, low=low, high=high, method="DeLong, logit scale")


def for_tests(one: Estimate, tests: int) -> Estimate:
    """A 95 % interval of an AUC, as wide as one of so many asks for together (Bonferroni).

    On the logit scale, where its limits were found: near 1 their arms grow faster than the deviates.
    """
    stretch = float(norm.isf(0.025 / max(1, tests)) / norm.isf(0.025))

    def moved(limit: float) -> float:
        if not (0 < limit < 1 and 0 < one.estimate < 1):
            return min(1.0, max(0.0, one.estimate + (limit - one.estimate) * stretch))
        odds, other = (math.log(value / (1 - value)) for value in (one.estimate, limit))
        return (1 + math.tanh((odds + (other - odds) * stretch) / 2)) / 2

    return one.model_copy(update={"low": moved(one.low), "high": moved(one.high)})


def delong_difference(
    scores_a: Float[np.ndarray, " record"],
    scores_b: Float[np.ndarray, " record"],
    member: Bool[np.ndarray, " record"],
    level: float = 0.95,
) -> Estimate:
    """AUC of a minus AUC of b on the same records, paired (DeLong et al. 1988), clipped to [-1, 1].

    For independent records only. The same scores twice differ by exactly 0. Otherwise, where the variance
    vanishes, bounds that hold at any size: when a and b order every member and non-member alike, or both AUCs are
    0 or 1, all disjoint pairs agree (Clopper-Pearson); else Hoeffding. Raises RepromiaError as `check_scores` does.
    """
    first, second = _placements(scores_a, member), _placements(scores_b, member)
    parts = _Placements(first.members - second.members, first.nonmembers - second.nonmembers)
    value, error = float(parts.members.mean()), _standard_error(parts)
    pairs = min(parts.members.size, parts.nonmembers.size)
    half, method = float(norm.isf((1 - level) / 2)) * error, "paired DeLong"
    if np.array_equal(scores_a, scores_b):
        half, method = 0.0, "identical scores"
    elif error < 1e-12 and _ordered_alike(scores_a, scores_b, member):
        half, method = 1 - ((1 - level) / 2) ** (1 / pairs), "Clopper-Pearson, disjoint pairs"
    elif error < 1e-12 and {float(first.members.mean()), float(second.members.mean())} <= {0.0, 1.0}:
        # A pair unlike those observed moves the difference by at most 1, or 2 where a and b oppose.
        half = (1 + abs(value)) * (1 - ((1 - level) / 2) ** (1 / pairs))
        method = "Clopper-Pearson, disjoint pairs"
    elif error < 1e-12:
        half, method = 2 * math.sqrt(math.log(2 / (1 - level)) / (2 * pairs)), "Hoeffding"
    return Estimate(estimate=value, low=max(-1.0, value - half), high=min(1.0, value + half), method=method)


def _ordered_alike(
    scores_a: Float[np.ndarray, " record"], scores_b: Float[np.ndarray, " record"], member: Bool[np.ndarray, " record"]
) -> bool:
    """Whether a and b agree on every pair of a member and a non-member: records of nested sets are told by counts."""
    return all(
        np.array_equal(*(np.searchsorted(np.sort(one[~side]), one[side], end) for one in (scores_a, scores_b)))
        for side in (member, ~member)
        for end in ("left", "right")
    )


def clopper_pearson(successes: int, trials: int, level: float = 0.95) -> Estimate:
    """A share of independent trials with its exact interval (Clopper & Pearson 1934); never covers less.

    Raises RepromiaError unless 0 <= successes <= trials and trials >= 1.
    """
    if not 0 <= successes <= trials or trials < 1:
        raise RepromiaError(
            "not a count of successes",
            expected="0 <= successes <= trials, with at least one trial",
            found=f"{successes} of {trials}",
            hint="count the records of one class only",
        )
    tail = (1 - level) / 2
    low = float(beta.ppf(tail, successes, trials - successes + 1)) if successes else 0.0
    high = float(beta.isf(tail, successes + 1, trials - successes)) if successes < trials else 1.0
    return Estimate(estimate=successes / trials, low=low, high=high, method="Clopper-Pearson")


def _members_above(
    scores: Float[np.ndarray, " record"], member: Bool[np.ndarray, " record"], ranks: Int[np.ndarray, " rank"]
) -> Float[np.ndarray, " rank"]:
    """Members strictly above the non-member of each rank: 1 is the highest; none above rank 0."""
    inside, outside = np.sort(scores[member]), np.sort(scores[~member])
    falling = np.concatenate([[math.inf], outside[::-1], [-math.inf]])
    below: Int[np.ndarray, " rank"] = np.searchsorted(inside, falling[ranks], side="right")
    return np.asarray(inside.size - below, dtype=np.float64)


def tpr_interval(
    scores: Float[np.ndarray, " record"],
    member: Bool[np.ndarray, " record"],
    fpr: float,
    *,
    level: float = 0.95,
) -> Estimate:
    """TPR at FPR <= `fpr` reached on these records, with an interval for the population's TPR at that FPR.

    Both the threshold and the share of members above it are uncertain. The number K of non-members above
    the true threshold is binomial(n_nonmembers, fpr) whatever the scores. Given K = k, the threshold lies
    between the k-th and (k+1)-th highest non-member, so between m(k) and m(k+1) members are above it;
    half-way, m, their share is bounded by Clopper-Pearson's Beta(m, N-m+1) below and Beta(m+1, N-m) above.
    The limits are quantiles of these two mixed over k. For independent records only. Raises RepromiaError
    as `tpr_at_fpr` does.
    """
    estimate = tpr_at_fpr(scores, member, fpr)
    members = int(np.count_nonzero(member))
    nonmembers = member.size - members
    first, last = (int(binom.ppf(mass, nonmembers, fpr)) for mass in (1e-9, 1 - 1e-9))
    ranks = np.arange(max(first, 0), min(last, nonmembers) + 1)
    weights = binom.pmf(ranks, nonmembers, fpr)
    above = (_members_above(scores, member, ranks) + _members_above(scores, member, ranks + 1)) / 2
    tail = (1 - level) / 2
    low = _mixed_quantile(weights, above, members - above + 1, tail)
    high = 1 - _mixed_quantile(weights, members - above, above + 1, tail)
    method = "Clopper-Pearson mixed over the binomial threshold"
    return Estimate(estimate=estimate, low=min(low, estimate), high=max(high, estimate), method=method)


def _mixed_quantile(
    weights: Float[np.ndarray, " part"],
    first: Float[np.ndarray, " part"],
    second: Float[np.ndarray, " part"],
    probability: float,
) -> float:
    """Quantile of a mixture of Beta(first, second); a part with first = 0 is a point mass at 0."""
    weights = weights / weights.sum()
    spread = first > 0
    at_zero = float(weights[~spread].sum())
    if at_zero >= probability:
        return 0.0

    def excess(share: float) -> float:
        mass = beta.cdf(share, first[spread], second[spread])
        return at_zero + float(np.sum(weights[spread] * mass)) - probability

    return float(brentq(excess, 0.0, 1.0))


class Labelled(NamedTuple):
    """Scores of one role and the membership of the same records."""

    scores: Float[np.ndarray, " record"]
    member: Bool[np.ndarray, " record"]


def transfer(select: Labelled, measured: Labelled, fpr: float) -> Transfer | None:
    """The threshold of `fpr` on `select`, applied to `measured`: realised FPR and TPR, Clopper-Pearson.

    The intervals hold for independent records. None when `select` allows no false positive at this FPR.
    Raises RepromiaError as `check_scores` does.
    """
    check_scores(*select)
    if allowed_false_positives(int(np.count_nonzero(~select.member)), fpr) < 1:
        return None
    counts = rates_at(*measured, threshold_at_fpr(*select, fpr))
    return Transfer(
        fpr=clopper_pearson(counts.false_positives, counts.nonmembers),
        tpr=clopper_pearson(counts.true_positives, counts.members),
    )


def tpr_figures(
    scores: Float[np.ndarray, " record"],
    member: Bool[np.ndarray, " record"],
    fpr: float,
    *,
    resampled: Float[np.ndarray, " repeat"] | None = None,
    groups: int | None = None,
    select: Labelled | None = None,
) -> TprAtFpr:
    """TPR at `fpr` as it goes into the report, with its 95 % interval, or the reason why it cannot be given.

    `resampled`: the row of `BootstrapStatistics.tpr` at this FPR; pass it when records are grouped, with the
    number of groups of the side with fewer. The interval is then the hull of the percentile interval, of `log_odds`
    and of `tpr_interval` (records of a group agree more than strangers, so the latter is a lower bound on the width,
    and it has a width where no resample moves). `smallest_visible` takes the records as independent. Refused
    when not one false positive is allowed, coarse below three. Raises RepromiaError as `tpr_at_fpr` does.
    """
    check_scores(scores, member)
    nonmembers = int(np.count_nonzero(~member))
    allowed = allowed_false_positives(nonmembers, fpr)
    if allowed < 1:
        needed = f"at least {math.ceil(1 / fpr * (1 - ROUNDING)):,}" if fpr > 0 else "infinitely many"
        reason = f"not one of {nonmembers:,} non-members may be a false positive at {100 * fpr:g} % FPR; needs {needed}"
        return TprAtFpr(fpr=fpr, status="refused", reason=reason)
    interval = tpr_interval(scores, member, fpr)
    if resampled is not None:
        wide = percentile(resampled, interval.estimate)
        interval = _hull(wide if groups is None else widened(wide, groups, (0.0, 1.0)), interval)
        odds = log_odds(resampled, interval.estimate, groups) if groups is not None else None
        interval = interval if odds is None else _hull(odds, interval)
    coarse = allowed < 3
    return TprAtFpr(
        fpr=fpr,
        status="coarse" if coarse else "measured",
        reason=f"false positives allowed among {nonmembers:,}: only {allowed}" if coarse else "",
        tpr=interval.estimate,
        low=interval.low,
        high=interval.high,
        method=interval.method,
        smallest_visible=null_tpr_quantile(member.size - nonmembers, nonmembers, fpr),
        from_select=None if select is None else transfer(select, Labelled(scores, member), fpr),
    )


def _hull(first: Estimate, second: Estimate) -> Estimate:
    """The least interval that holds both, of one estimate."""
    return Estimate(
        estimate=first.estimate,
        low=min(first.low, second.low),
        high=max(first.high, second.high),
        method=f"hull of {first.method} and {second.method}",
    )
