"""Which kinds of records are more exposed than the rest: short ones, one class, one source.

Each slice's members are measured against its own non-members: a slice that is easy for any model is easy on both sides,
and is no leak. A slice and the rest are different records, so their difference is one of two independent figures
(groups that lie in both only make the interval too wide where they agree). Flags are corrected for the number of slices
tested.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped

from repromia.areas import areas_and_tpr
from repromia.errors import RecordsError
from repromia.metrics import check_scores
from repromia.result import Estimate, TprAtFpr

LEAST = 10  # members and non-members (groups of each) of a slice and of the rest: fewer are not tested


@dataclass(frozen=True)
class Slice:
    """One kind of records: its own figures with 95 % intervals, and how its AUC differs from that of all other records.

    difference: AUC of the slice minus AUC of the rest, 95 % interval. more_exposed, less_exposed: the difference is
    above (below) 0 also when corrected for all slices tested. Where there are too few records: no figures, and
    `reason`.
    """

    name: str
    value: str
    n_members: int
    n_nonmembers: int
    reason: str = ""
    auc: Estimate | None = None
    tpr: TprAtFpr | None = None
    difference: Estimate | None = None
    more_exposed: bool = False
    less_exposed: bool = False

    @property
    def sentence(self) -> str:
        """What may be said of this slice."""
        label = f"{self.name} = {self.value}"
        if self.auc is None or self.difference is None:
            return f"{label}: not tested, {self.reason}."
        said = "more exposed than the rest" if self.more_exposed else "not shown to differ from the rest"
        said = "less exposed than the rest" if self.less_exposed else said
        return (
            f"{label}: {said} (AUC {self.auc.estimate:.3f} [{self.auc.low:.3f}, {self.auc.high:.3f}], difference "
            f"{self.difference.estimate:+.3f} [{self.difference.low:+.3f}, {self.difference.high:+.3f}])."
        )


@dataclass(frozen=True)
class _Measured:
    """Scores, membership and groups that slices are cut out of."""

    scores: Float[np.ndarray, " record"]
    member: Bool[np.ndarray, " record"]
    groups: Shaped[np.ndarray, " record"] | None
    seed: int

    def enough(self, rows: Bool[np.ndarray, " record"]) -> bool:
        names = np.arange(self.member.size) if self.groups is None else self.groups
        return all(len(np.unique(names[rows & side])) >= LEAST for side in (self.member, ~self.member))

    def figures(
        self, rows: Bool[np.ndarray, " record"], fpr: float, levels: Sequence[float]
    ) -> tuple[list[Estimate], TprAtFpr]:
        """AUC with an interval at each level, and TPR."""
        groups = None if self.groups is None else [str(one) for one in self.groups[rows]]
        return areas_and_tpr(self.scores[rows], self.member[rows], groups, fpr=fpr, levels=levels, seed=self.seed)


def slices(
    scores: Float[np.ndarray, " record"],
    member: Bool[np.ndarray, " record"],
    categories: Mapping[str, Sequence[object] | Shaped[np.ndarray, " record"]],
    groups: Sequence[str] | None = None,
    *,
    fpr: float = 0.01,
    level: float = 0.05,
    seed: int = 0,
) -> tuple[Slice, ...]:
    """Figures of every value of every category, and which are more exposed than the rest.

    categories: of each record, by name (class, source, `bands` of length). level: chance that any slice at all is
    flagged where none differs (Bonferroni, two-sided, over the slices tested, decided by their sizes). Most exposed
    first, untested last. Raises RepromiaError as `check_scores` does; RecordsError when a category or the groups do not
    fit the records.
    """
    check_scores(scores, member)
    named = {name: np.array([str(one) for one in values], dtype=np.str_) for name, values in categories.items()}
    if any(len(values) != scores.size for values in (*named.values(), *((groups,) if groups is not None else ()))):
        raise RecordsError(
            "slices do not fit the records",
            expected=f"{scores.size} values in each category, and as many groups",
            found=", ".join(f"{name!r}: {len(values)}" for name, values in named.items()),
        )
    measured = _Measured(scores, member, None if groups is None else np.asarray(groups, dtype=np.str_), seed)
    cut = [(name, str(value), values == value) for name, values in named.items() for value in np.unique(values)]
    usable = [measured.enough(rows) and measured.enough(~rows) for _, _, rows in cut]
    corrected = 1 - level / max(1, sum(usable))
    found = [
        _slice(measured, one, fpr, corrected) if fits else _too_few(measured, one)
        for one, fits in zip(cut, usable, strict=True)
    ]
    return tuple(sorted(found, key=lambda one: (one.auc is None, -(one.auc.estimate if one.auc else 0), one.value)))


def _counts(measured: _Measured, rows: Bool[np.ndarray, " record"]) -> tuple[int, int]:
    return int((rows & measured.member).sum()), int((rows & ~measured.member).sum())


def _too_few(measured: _Measured, one: tuple[str, str, Bool[np.ndarray, " record"]]) -> Slice:
    name, value, rows = one
    reason = f"fewer than {LEAST} independent members or non-members in the slice or in the rest"
    return Slice(name, value, *_counts(measured, rows), reason=reason)


def _slice(measured: _Measured, one: tuple[str, str, Bool[np.ndarray, " record"]], fpr: float, level: float) -> Slice:
    name, value, rows = one
    own, tpr = measured.figures(rows, fpr, (0.95, level))
    rest, _ = measured.figures(~rows, fpr, (0.95, level))
    difference, corrected = (_difference(ours, others) for ours, others in zip(own, rest, strict=True))
    return Slice(
        name=name,
        value=value,
        n_members=_counts(measured, rows)[0],
        n_nonmembers=_counts(measured, rows)[1],
        auc=own[0],
        tpr=tpr,
        difference=difference,
        more_exposed=corrected.low > 0,
        less_exposed=corrected.high < 0,
    )


def _difference(first: Estimate, second: Estimate) -> Estimate:
    """Difference of independent figures at the level of their limits, by the "square-and-add" rule (Zou & Donner 2008).

    Unequal arms carry over. Near AUC 1 they grow faster than deviates, so limits at another level cannot be stretched.
    """
    value = first.estimate - second.estimate
    down = math.hypot(first.estimate - first.low, second.high - second.estimate)
    up = math.hypot(first.high - first.estimate, second.estimate - second.low)
    return Estimate(
        estimate=value, low=max(-1.0, value - down), high=min(1.0, value + up), method="independent, square-and-add"
    )


def bands(values: Float[np.ndarray, " record"], count: int = 4) -> list[str]:
    """A number of each record (length, date) as one of `count` bands that hold about as many records each.

    Equal values share a band, so there may be fewer. Raises RecordsError for values that are not finite numbers.
    """
    if not np.isfinite(values).all():
        raise RecordsError("bands need a number of every record", expected="finite values", found="NaN or infinity")
    edges = np.unique(np.quantile(values, np.linspace(0, 1, count + 1)[1:-1], method="higher"))
    band = np.searchsorted(edges, values, side="left")
    limits = [(float(values[band == at].min()), float(values[band == at].max())) for at in range(int(band.max()) + 1)]
    for digits in (6, 9, 12, 17):  # as few as tell the bands apart
        labels = [f"{_number(low, digits)} to {_number(high, digits)}" for low, high in limits]
        if len(set(labels)) == len(labels):
            break
    return [labels[at] for at in band.tolist()]


def _number(value: float, digits: int) -> str:
    """A whole number in full: a date or a time in seconds is cut otherwise."""
    return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.{digits}g}"
