"""One line of the tables of `benchmarks.parity`, and the figures in it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import spearmanr

from repromia.metrics import auc


class Line(NamedTuple):
    """code: whose formula stands on the other side, by the name of the repository; figure: what is compared."""

    what: str
    code: str
    figure: str
    ours: str
    theirs: str


def furthest(ours: np.ndarray, theirs: np.ndarray) -> str:
    """The largest relative difference of two arrays that should be equal."""
    return f"{float(np.max(np.abs(ours - theirs) / np.maximum(np.abs(theirs), 1e-12))):.0e}"


def agreeing(what: str, code: str, ours: np.ndarray, theirs: np.ndarray) -> Line:
    """The same formula on both sides."""
    return Line(what, code, "largest relative difference", "", furthest(ours, theirs))


def aucs(what: str, code: str, ours: np.ndarray, theirs: np.ndarray, member: np.ndarray) -> Line:
    """Two scores that should mean the same: AUC of each, and how alike they order the records."""
    constant = min(np.ptp(ours), np.ptp(theirs)) == 0
    alike = "none: a constant" if constant else f"{spearmanr(ours, theirs).statistic:.3f}"
    return Line(what, code, f"AUC (rank correlation {alike})", f"{auc(ours, member):.3f}", f"{auc(theirs, member):.3f}")
