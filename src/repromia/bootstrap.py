"""Resampling of records or of whole groups, and what is read off it. Use it through `repromia.intervals`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import norm
from scipy.stats import t as student

from repromia.errors import RepromiaError
from repromia.metrics import allowed_false_positives, check_scores
from repromia.result import Estimate

# Cells (repeats x records) of one chunk: under 100 MB with the temporaries, at any number of records.
CELLS = 1_000_000
CHANCES = 2000  # times that labels are dealt out anew: enough to tell 1 in 400


@dataclass(frozen=True)
class BootstrapStatistics:
    """Figures of the resamples. `tpr` has a row for each FPR asked for; column r is one resample in all."""

    auc: Float[np.ndarray, " repeat"]
    tpr: Float[np.ndarray, "fpr repeat"]


class Bootstrap:
    """Resamples of the records, the same for every score array: paired differences are subtraction.

    Drawn with replacement within each class. When a group holds more than one record, groups are drawn
    whole, within those of members only, of non-members only, and mixed (the class sizes of a resample then
    vary). Only `seed`, `member`, `groups` and `repeats` decide the resamples. Memory stays under 200 MB at
    100,000 records.
    """

    def __init__(
        self,
        member: Bool[np.ndarray, " record"],
        groups: Sequence[str] | None = None,
        *,
        repeats: int = 2000,
        seed: int = 0,
    ) -> None:
        """Raises RepromiaError when a class is empty or lies in one group, or the lengths differ."""
        check_scores(np.zeros(member.shape), member)
        if (groups is not None and len(groups) != member.size) or repeats < 2:
            raise RepromiaError(
                "cannot resample",
                expected=f"one group for each of the {member.size} records and at least 2 repeats",
                found=f"{member.size if groups is None else len(groups)} groups, {repeats} repeats",
                hint="pass the groups of the same records",
            )
        self.member = member.copy()
        self.repeats = repeats
        self.seed = seed
        names = np.arange(member.size) if groups is None else np.asarray(groups, dtype=np.str_)
        self._group: Int[np.ndarray, " record"] = np.unique(names, return_inverse=True)[1].reshape(-1)
        inside, outside = (np.bincount(self._group, weights=side) > 0 for side in (member, ~member))
        if min(inside.sum(), outside.sum()) < 2:
            raise RepromiaError(
                "a class lies in one group, so nothing can be said about another draw of it",
                expected="members from at least two groups, non-members from at least two groups",
                found=f"{inside.sum()} groups with members, {outside.sum()} with non-members",
                hint="give finer groups or more records",
            )
        strata = (inside & ~outside, ~inside & outside, inside & outside)
        self._strata = tuple(np.flatnonzero(stratum) for stratum in strata if stratum.any())

    @property
    def grouped(self) -> bool:
        """Whether any group holds more than one record."""
        return sum(stratum.size for stratum in self._strata) < self.member.size

    @property
    def least(self) -> int:
        """The smaller of the numbers of groups with members and of those with non-members."""
        inside, outside = (len(np.unique(self._group[side])) for side in (self.member, ~self.member))
        return min(inside, outside)

    def chance(
        self, scores: Float[np.ndarray, " record"], fprs: Sequence[float], repeats: int = CHANCES
    ) -> Float[np.ndarray, "fpr repeat"]:
        """TPR at each FPR with labels dealt out anew: among groups of one side whole, within mixed groups by record.

        What the same scores reach where nobody's membership decides them, however few the groups. Raises RepromiaError
        as `check_scores` does.
        """
        check_scores(scores, self.member)
        generator = np.random.default_rng([self.seed, 1])
        order = np.argsort(-scores, kind="stable")
        starts = np.append(0, np.flatnonzero(np.diff(scores[order]) != 0) + 1)
        inside, outside = (np.bincount(self._group, weights=side) > 0 for side in (self.member, ~self.member))
        pure, mixed = np.flatnonzero(inside != outside), np.flatnonzero((inside & outside)[self._group])
        by_group = mixed[np.lexsort((mixed, self._group[mixed]))]
        parts = []
        chunk = max(1, CELLS // self.member.size)
        for start in range(0, repeats, chunk):
            rows = min(chunk, repeats - start)
            sides = np.tile(inside, (rows, 1))
            sides[:, pure] = generator.permuted(sides[:, pure], axis=1)
            labels = sides[:, self._group]
            keys = self._group[by_group] + generator.random((rows, by_group.size))
            labels[:, by_group] = self.member[by_group][np.argsort(keys, axis=1)]
            hits = labels[:, order].astype(np.int32)
            parts.append(self._chunk(np.ones((1, 1), dtype=np.int32), hits, starts, fprs).tpr)
        return np.concatenate(parts, axis=1)

    def _counts(self) -> Iterator[Int[np.ndarray, "repeat group"]]:
        """How often each group is drawn, in chunks of repeats; from the start of the stream at every call."""
        generator = np.random.default_rng(self.seed)
        chunk = max(1, CELLS // self.member.size)
        for start in range(0, self.repeats, chunk):
            rows = min(chunk, self.repeats - start)
            counts = np.zeros((rows, int(self._group.max()) + 1), dtype=np.int32)
            for stratum in self._strata:
                size = stratum.size
                drawn = generator.integers(size, size=(rows, size)) + size * np.arange(rows)[:, None]
                counts[:, stratum] = np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size)
            yield counts

    def statistics(self, scores: Float[np.ndarray, " record"], fprs: Sequence[float]) -> BootstrapStatistics:
        """AUC, and TPR at each FPR, of every resample, exactly as in `repromia.metrics`.

        TPR is at FPR <= fpr of the resample, against its own number of non-members. Raises RepromiaError as
        `check_scores` does.
        """
        check_scores(scores, self.member)
        order = np.argsort(-scores, kind="stable")
        changes = np.flatnonzero(np.diff(scores[order]) != 0) + 1
        starts = np.append(0, changes)  # first record of each distinct score, highest first
        group, hits = self._group[order], self.member[order].astype(np.int32)
        parts = [self._chunk(counts[:, group], hits, starts, fprs) for counts in self._counts()]
        return BootstrapStatistics(
            auc=np.concatenate([part.auc for part in parts]),
            tpr=np.concatenate([part.tpr for part in parts], axis=1),
        )

    @staticmethod
    def _chunk(
        weights: Int[np.ndarray, "repeat record"],
        hits: Int[np.ndarray, "*repeat record"],
        starts: Int[np.ndarray, " step"],
        fprs: Sequence[float],
    ) -> BootstrapStatistics:
        """Weighted counts of records in falling order of score, summed within ties."""
        members = weights * hits
        nonmembers = weights - members
        if starts.size < hits.shape[-1]:
            members, nonmembers = (np.add.reduceat(part, starts, axis=1) for part in (members, nonmembers))
        above = np.cumsum(nonmembers, axis=1, dtype=np.int64)  # non-members at or above each distinct score
        n_members, n_nonmembers = members.sum(axis=1, dtype=np.int64), above[:, -1]
        # Twice the non-members that lose to or tie with each member, ties half: whole numbers, no rounding.
        lost = np.einsum("rs,rs->r", members, 2 * above - nonmembers)
        auc = 1 - lost / (2 * n_members * n_nonmembers)
        tpr = np.empty((len(fprs), auc.size))
        for row, fpr in enumerate(fprs):
            allowed = np.array([allowed_false_positives(int(total), fpr) for total in n_nonmembers])
            last = int(np.max(np.count_nonzero(above <= allowed.max(), axis=1), initial=0))
            kept = above[:, :last] <= allowed[:, None]
            tpr[row] = np.einsum("rs,rs->r", members[:, :last], kept, dtype=np.int64) / n_members
        return BootstrapStatistics(auc, tpr)


def percentile(
    samples: Float[np.ndarray, " repeat"],
    estimate: float,
    level: float = 0.95,
    method: str = "percentile bootstrap",
) -> Estimate:
    """The middle `level` of the resamples, widened where needed to hold `estimate` (samples: any unit).

    The limits are resampled values, the outer of two neighbours: TPR moves in steps. No width when all
    resamples are equal; for a TPR use `repromia.intervals.tpr_figures`, which does not rely on this alone.
    """
    tail = (1 - level) / 2
    low = float(np.quantile(samples, tail, method="lower"))
    high = float(np.quantile(samples, 1 - tail, method="higher"))
    return Estimate(estimate=estimate, low=min(low, estimate), high=max(high, estimate), method=method)


def log_odds(
    samples: Float[np.ndarray, " repeat"], estimate: float, groups: int, level: float = 0.95
) -> Estimate | None:
    """Limits of a share on the logit scale from the standard error of resampled groups, by Student's t with G - 1.

    Near 1 the arms of a percentile interval are too short on the side that matters. At AUC .97 the truth lies below
    this one in .08 of draws with 10 groups of 20, in .04 with 100 of 5 (`python -m benchmarks.evidence_coverage`).
    groups: of the side with fewer. None where no resample moves, or at 0 and 1.
    """
    error = float(samples.std(ddof=1)) * math.sqrt(groups / (groups - 1))
    if error < 1e-12 or not 0 < estimate < 1:
        return None
    odds = math.log(estimate / (1 - estimate))
    reach = float(student.isf((1 - level) / 2, groups - 1)) * error / (estimate * (1 - estimate))
    low, high = ((1 + math.tanh((odds + side * reach) / 2)) / 2 for side in (-1, 1))
    method = f"bootstrap of groups, logit scale, Student's t for {groups} groups"
    return Estimate(estimate=estimate, low=low, high=high, method=method)


def widened(one: Estimate, groups: int, within: tuple[float, float], level: float = 0.95) -> Estimate:
    """A percentile interval of resampled groups with its limits as far out as few groups ask for, kept `within`.

    Resamples of G groups vary by sqrt((G - 1) / G) less than samples do, and their limits are a normal's where a
    Student's t with G - 1 degrees of freedom is due. groups: of the side with fewer.
    """
    factor = few_groups(groups, level)
    return Estimate(
        estimate=one.estimate,
        low=max(within[0], one.estimate - factor * (one.estimate - one.low)),
        high=min(within[1], one.estimate + factor * (one.high - one.estimate)),
        method=f"{one.method}, widened for {groups} groups",
    )


def few_groups(groups: int, level: float) -> float:
    """How much further out than those of resamples the limits of so many groups lie."""
    tail = (1 - level) / 2
    return float(student.isf(tail, groups - 1) / norm.isf(tail) * np.sqrt(groups / (groups - 1)))


def joint_null_test(
    auc: Float[np.ndarray, " attack"], resampled: Float[np.ndarray, "attack repeat"], *, groups: int | None = None
) -> float:
    """p-value of "every one of these AUCs is .5 in the population" (two-sided; one test for all attacks).

    The largest |AUC - .5| in bootstrap standard errors, against the same maximum of the resamples around the
    measured AUCs, so that the attacks' correlation is kept (step one of Romano & Wolf 2005; Westfall & Young
    1993). An AUC that no resample moves counts as no evidence at .5 and as full evidence elsewhere.
    `resampled`: rows of `BootstrapStatistics.auc` of one `Bootstrap`; groups: of the side with fewer, where groups
    were resampled. Small values speak against chance.
    """
    deviation = np.abs(auc - 0.5)
    spread = np.abs(resampled - auc[:, None])
    error = resampled.std(axis=1, ddof=1)
    moving = error > 1e-12
    repeats = int(resampled.shape[1])
    if bool(np.any(deviation[~moving] > 1e-12)):
        return 1 / (repeats + 1)
    if not bool(moving.any()):
        return 1.0
    largest = float(np.max(deviation[moving] / error[moving])) / (1.0 if groups is None else few_groups(groups, 0.99))
    resampled_largest = np.max(spread[moving] / error[moving, None], axis=0)
    exceeding = int(np.count_nonzero(resampled_largest >= largest))
    return (exceeding + 1) / (repeats + 1)
