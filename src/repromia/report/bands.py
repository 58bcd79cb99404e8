"""How far the ROC curve of another draw of records may lie from the one that is drawn."""

from __future__ import annotations

import numpy as np

from repromia.intervals import tpr_interval
from repromia.report.plots import Band, FloatArray, RocPoints
from repromia.result import AttackResult

_POINTS = 24


def band_of(row: AttackResult, points: RocPoints, *, grouped: bool) -> Band | None:
    """95 % intervals of the TPR at one FPR at a time; None where the curve does not belong to the row.

    Of independent records the intervals of `repromia.intervals.tpr_interval` along the whole curve. Of grouped ones
    those would be too narrow: then the intervals of the attack table, at its FPRs alone.
    """
    if grouped:
        known = [one for one in row.tpr_at_fpr if one.low is not None and one.high is not None]
        fpr, low, high = (np.array([getattr(one, name) for one in known]) for name in ("fpr", "low", "high"))
        return Band(fpr, low, high, joined=False) if known else None
    ranked = _ranked(points, row.n_members, row.n_nonmembers)
    if ranked is None:
        return None
    scores, member = ranked
    fpr = np.geomspace(1 / row.n_nonmembers, 1, _POINTS)[:-1]
    found = [tpr_interval(scores, member, float(one)) for one in fpr]
    return Band(fpr, np.array([one.low for one in found]), np.array([one.high for one in found]), joined=True)


def _ranked(points: RocPoints, n_members: int, n_nonmembers: int) -> tuple[FloatArray, np.ndarray] | None:
    """Scores and membership that have this curve: all that intervals depend on is the order of the records."""
    steps = [np.rint(np.diff(one) * n).astype(int) for one, n in ((points.tpr, n_members), (points.fpr, n_nonmembers))]
    if [int(one.sum()) for one in steps] != [n_members, n_nonmembers] or not (n_members and n_nonmembers):
        return None
    falling = -np.arange(len(steps[0]), dtype=np.float64)
    scores = np.concatenate([np.repeat(falling, one) for one in steps])
    return scores, np.arange(scores.size) < n_members
