"""Exact point figures of a membership score.

Throughout: a higher score means member, `member` is a bool array, a record is decided a member if and only if
its score is at least the threshold, and records with equal scores enter or leave together. Nothing is
interpolated. Figures carry no uncertainty; intervals are made in `repromia.intervals`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy.optimize import brentq
from scipy.stats import beta, betabinom, binom, rankdata

from repromia.errors import RepromiaError

# fpr * n is a float product (0.29 * 100 is 28.999…): a whole number within rounding error counts as reached.
ROUNDING = 1e-12


@dataclass(frozen=True)
class RocCurve:
    """Every decision that these scores allow, from nobody to everybody.

    Shapes: point (one more than there are distinct scores). Point 0 is (0, 0) at threshold infinity; the last
    is (1, 1). `thresholds` falls strictly.
    """

    fpr: Float[np.ndarray, " point"]
    tpr: Float[np.ndarray, " point"]
    thresholds: Float[np.ndarray, " point"]


class Counts(NamedTuple):
    """What a threshold decides: true positives of all members, false positives of all non-members."""

    true_positives: int
    members: int
    false_positives: int
    nonmembers: int


def check_scores(scores: Shaped[np.ndarray, " *axes"], member: Shaped[np.ndarray, " *other"]) -> None:
    """Refuse what no figure can be made of.

    Raises RepromiaError on arrays that are not of one axis and one length, on `member` that is not bool, on
    NaN or infinite scores and when a class is empty.
    """
    if scores.ndim != 1 or scores.shape != member.shape:
        raise RepromiaError(
            "scores and membership do not fit together",
            expected="one score and one membership bit for each record, in two flat arrays of equal length",
            found=f"scores of shape {scores.shape}, member of shape {member.shape}",
            hint="pass the scores and the labels of the same records, in the same order",
        )
    if member.dtype != np.bool_:
        raise RepromiaError(
            "membership is not a bool array",
            expected="True for members, False for non-members",
            found=f"dtype {member.dtype}",
            hint="convert the labels, for instance labels == 1",
        )
    bad = int(np.count_nonzero(~np.isfinite(scores)))
    if bad:
        raise RepromiaError(
            "some scores are not numbers",
            expected="a finite score for every record",
            found=f"{bad} of {scores.size} are NaN or infinite",
            hint="repair the attack that made them; they are not dropped, since that would bias the figures",
        )
    members = int(np.count_nonzero(member))
    if members in (0, member.size):
        raise RepromiaError(
            "one class is empty",
            expected="at least one member and one non-member",
            found=f"{members} members and {member.size - members} non-members",
            hint="give records of both kinds",
        )


def _check_fpr(fpr: float) -> None:
    if not 0.0 <= fpr <= 1.0:
        raise RepromiaError(
            "not a false-positive rate",
            expected="a number from 0 to 1",
            found=repr(fpr),
            hint="give a share, not a percentage: 0.01 for 1 %",
        )


class _Steps(NamedTuple):
    """Cumulative counts at each distinct score, highest first."""

    thresholds: Float[np.ndarray, " step"]
    true_positives: Float[np.ndarray, " step"]
    false_positives: Float[np.ndarray, " step"]


def _steps(scores: Float[np.ndarray, " record"], member: Bool[np.ndarray, " record"]) -> _Steps:
    check_scores(scores, member)
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], member[order]
    ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), ranked.size - 1)  # last record of each tie
    true_positives = np.cumsum(hits, dtype=np.float64)[ends]
    return _Steps(ranked[ends].astype(np.float64), true_positives, ends + 1.0 - true_positives)


def roc_curve(scores: Float[np.ndarray, " record"], member: Bool[np.ndarray, " record"]) -> RocCurve:
    """The exact ROC curve, records of equal score as one step.

    Raises RepromiaError as `check_scores` does.
    """
    steps = _steps(scores, member)
    return RocCurve(
        fpr=np.append(0.0, steps.false_positives / steps.false_positives[-1]),
        tpr=np.append(0.0, steps.true_positives / steps.true_positives[-1]),
        thresholds=np.append(math.inf, steps.thresholds),
    )


def auc(scores: Float[np.ndarray, " record"], member: Bool[np.ndarray, " record"]) -> float:
    """The chance that a member outscores a non-member, ties counted half (Mann-Whitney; Bamber 1975).

    .5 is chance, below .5 the sign is reversed. Raises RepromiaError as `check_scores` does.
    """
    check_scores(scores, member)
    members = int(np.count_nonzero(member))
    nonmembers = member.size - members
    rank_sum = float(rankdata(scores)[member].sum())
    return (rank_sum - members * (members + 1) / 2) / (members * nonmembers)


def allowed_false_positives(n_nonmembers: int, fpr: float) -> int:
    """The most false positives among `n_nonmembers` whose rate is at most `fpr`.

    Raises RepromiaError when `fpr` is outside [0, 1].
    """
    _check_fpr(fpr)
    return min(n_nonmembers, math.floor(fpr * n_nonmembers * (1 + ROUNDING)))


def tpr_at_fpr(scores: Float[np.ndarray, " record"], member: Bool[np.ndarray, " record"], fpr: float) -> float:
    """The best true-positive rate of a threshold whose false-positive rate is at most `fpr` on these records.

    Raises RepromiaError as `check_scores` does, and when `fpr` is outside [0, 1].
    """
    steps = _steps(scores, member)
    allowed = allowed_false_positives(int(steps.false_positives[-1]), fpr)
    kept = int(np.searchsorted(steps.false_positives, allowed, side="right"))
    return float(steps.true_positives[kept - 1] / steps.true_positives[-1]) if kept else 0.0


def threshold_at_fpr(scores: Float[np.ndarray, " record"], member: Bool[np.ndarray, " record"], fpr: float) -> float:
    """The lowest of these scores that, as a threshold, has a false-positive rate of at most `fpr` here.

    Infinity (nobody is decided a member) when already the records of the highest score exceed it. Raises
    RepromiaError as `check_scores` does, and when `fpr` is outside [0, 1].
    """
    steps = _steps(scores, member)
    allowed = allowed_false_positives(int(steps.false_positives[-1]), fpr)
    kept = int(np.searchsorted(steps.false_positives, allowed, side="right"))
    return float(steps.thresholds[kept - 1]) if kept else math.inf


def best_threshold(scores: Float[np.ndarray, " record"], member: Bool[np.ndarray, " record"]) -> float:
    """The threshold of the highest balanced accuracy, (TPR + 1 - FPR) / 2, on these records.

    Of equals the highest, which accuses the fewest; infinity when none beats deciding nobody a member. Raises
    RepromiaError as `check_scores` does.
    """
    curve = roc_curve(scores, member)
    return float(curve.thresholds[int(np.argmax(curve.tpr - curve.fpr))])


def rates_at(scores: Float[np.ndarray, " record"], member: Bool[np.ndarray, " record"], threshold: float) -> Counts:
    """What `threshold` decides on these records. Raises RepromiaError as `check_scores` does, and on NaN."""
    check_scores(scores, member)
    if math.isnan(threshold):
        raise RepromiaError(
            "the threshold is not a number",
            expected="a score or infinity",
            found="nan",
            hint="choose it again",
        )
    decided = scores >= threshold
    true_positives = int(np.count_nonzero(decided & member))
    members = int(np.count_nonzero(member))
    false_positives = int(np.count_nonzero(decided)) - true_positives
    return Counts(true_positives, members, false_positives, member.size - members)


def null_tpr_quantile(n_members: int, n_nonmembers: int, fpr: float, level: float = 0.975) -> float:
    """The least TPR at `fpr` that these numbers of records could have told from chance.

    The `level` quantile of `tpr_at_fpr` when members and non-members are exchangeable and no scores are
    equal. With j false positives allowed, the share of the population above the (j+1)-th highest of n
    non-members is Beta(j+1, n-j) (the law of a uniform order statistic), so the members above it are
    beta-binomial. Its mean (j+1)/(n+1) is above `fpr`: at few records chance alone looks better than `fpr`.

    Raises RepromiaError when a class is empty, or `fpr` or `level` is outside [0, 1].
    """
    if n_members < 1 or n_nonmembers < 1 or not 0.0 <= level <= 1.0:
        raise RepromiaError(
            "no null distribution for these numbers",
            expected="at least one record of each kind and a level from 0 to 1",
            found=f"{n_members} members, {n_nonmembers} non-members, level {level}",
            hint="give records of both kinds",
        )
    allowed = allowed_false_positives(n_nonmembers, fpr)
    if allowed == n_nonmembers:
        return 1.0
    # The whole mass function at once: scipy's own quantile search sums it anew for every trial value.
    counts = np.arange(n_members + 1)
    below = np.cumsum(betabinom.pmf(counts, n_members, allowed + 1, n_nonmembers - allowed))
    reached = int(np.searchsorted(below, level * (1 - ROUNDING)))
    return min(reached, n_members) / n_members


def detectable_tpr(n_members: int, n_nonmembers: int, fpr: float, *, level: float, power: float = 0.8) -> float:
    """The least true TPR at `fpr` whose measured value is above `null_tpr_quantile` at `level` in a share `power` of
    audits of so many records.

    For members that stand out far, so that a threshold a little off `fpr` moves the TPR by as much as the FPR: its true
    FPR is Beta(j+1, n-j) as in `null_tpr_quantile`, members above it are binomial. Raises RepromiaError as that does.
    """
    needed = round(null_tpr_quantile(n_members, n_nonmembers, fpr, level) * n_members)
    allowed = allowed_false_positives(n_nonmembers, fpr)
    if allowed == n_nonmembers or needed == n_members:
        return 1.0
    masses = (np.arange(400) + 0.5) / 400
    moved = beta.ppf(masses, allowed + 1, n_nonmembers - allowed) - fpr

    def short(tpr: float) -> float:
        return float(np.mean(binom.sf(needed, n_members, np.clip(tpr + moved, 0.0, 1.0)))) - power

    return float(brentq(short, 0.0, 1.0)) if short(1.0) > 0 else 1.0
