"""Figures made of scores: what is read off a curve, and what is claimed of nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_curve

from benchmarks.parity_lines import Line
from repromia.epsilon import Labelled, rates_bound
from repromia.metrics import auc, tpr_at_fpr

EACH, DRAWS = 1000, 100
FPR = 0.01


def lines(work: Path) -> list[Line]:
    """The table: numbers drawn here, for which no model is needed."""
    return [*_grid(), *_readings(), _mimir(), *_epsilon()]


def heavy_tailed(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores like sums of fourth powers: members are smaller, and both sides have long tails."""
    generator = np.random.default_rng(seed)
    distances = np.exp(3 * generator.normal(size=2 * EACH)) * np.repeat([0.6, 1.0], EACH)
    return -distances, np.repeat([True, False], EACH)


def on_a_grid(scores: np.ndarray, member: np.ndarray, points: int) -> tuple[float, float]:
    """AUC and TPR at 1 % of a curve with evenly spaced thresholds: trapezoids, and the point nearest to 1 %."""
    at = np.linspace(scores.min(), scores.max(), points)[:, None]
    tpr, fpr = ((scores[side] >= at).mean(1) for side in (member, ~member))
    return float(np.trapezoid(tpr[::-1], fpr[::-1])), float(tpr[np.abs(fpr - FPR).argmin()])


def _grid() -> list[Line]:
    scores, member = heavy_tailed(0)
    found = []
    for code, points in (("SecMI (2,000 thresholds)", 2000), ("CopyMark (10,000 thresholds)", 10_000)):
        area, rate = on_a_grid(scores, member, points)
        exact = tpr_at_fpr(scores, member, FPR)
        found += [
            Line("exact curve", code, "AUC of heavy-tailed scores", f"{auc(scores, member):.3f}", f"{area:.3f}"),
            Line("exact curve", code, "TPR at 1 % FPR of the same", f"{exact:.3f}", f"{rate:.3f}"),
        ]
    return [*found, _single()]


def _single() -> Line:
    """Distances turned round in single precision: small ones, which are members', fall together."""
    scores = np.concatenate([heavy_tailed(seed)[0] for seed in range(25)])
    theirs = (1 - (scores / scores.min()).astype(np.float32)).astype(np.float32)
    distinct = (f"{len(np.unique(one)):,}" for one in (scores, theirs))
    return Line(
        "scores", "PIA (1 - score / largest, float32)", f"distinct of {len(scores):,} heavy-tailed scores", *distinct
    )


def _curve(scores: np.ndarray, member: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rates at every threshold, equal scores as one step."""
    fpr, tpr, _ = roc_curve(member, scores, drop_intermediate=False)
    return fpr, tpr


def _readings() -> list[Line]:
    """Ways to read TPR at 1 % off a curve with steps, of scores of one decimal: the mean over draws."""
    ways: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
        "EZ-MIA, LT-MIA (interpolated)": lambda fpr, tpr: float(np.interp(FPR, fpr, tpr)),
        "Meeus et al., WBC (nearest rate)": lambda fpr, tpr: float(tpr[np.abs(fpr - FPR).argmin()]),
        "LLM-PBE (first rate above)": lambda fpr, tpr: float(tpr[int((fpr > FPR).argmax())]),
    }
    member = np.repeat([True, False], 150)
    drawn = [np.round(np.random.default_rng(seed).normal(size=300) + 0.5 * member, 1) for seed in range(DRAWS)]
    ours = np.mean([tpr_at_fpr(scores, member, FPR) for scores in drawn])
    theirs = {name: np.mean([way(*_curve(scores, member)) for scores in drawn]) for name, way in ways.items()}
    figure = "TPR at 1 % FPR, 150 + 150 scores of one decimal"
    return [Line("tpr_at_fpr", name, figure, f"{ours:.3f}", f"{value:.3f}") for name, value in theirs.items()]


def _mimir() -> Line:
    """Scores whose sign is turned twice before the curve is drawn."""
    member = np.repeat([True, False], EACH)
    scores = np.random.default_rng(0).normal(size=2 * EACH) + member
    return Line(
        "auc",
        "mimir (bootstrap mean: negated twice)",
        "AUC",
        f"{auc(scores, member):.3f}",
        f"{auc(-scores, member):.3f}",
    )


def largest_epsilon(scores: np.ndarray, member: np.ndarray, least: int) -> float:
    """The largest log ratio of rates over all thresholds with at least so many records in all four cells."""
    fpr, tpr = _curve(scores, member)
    cells = [fpr * (~member).sum(), (1 - fpr) * (~member).sum(), tpr * member.sum(), (1 - tpr) * member.sum()]
    fair = np.min(cells, axis=0) >= least
    return float(np.maximum(np.log(tpr[fair] / fpr[fair]), np.log((1 - fpr[fair]) / (1 - tpr[fair]))).max())


def _epsilon() -> list[Line]:
    """Scores that say nothing: true epsilon 0."""
    member = np.repeat([True, False], EACH)
    generator = np.random.default_rng(0)
    drawn = [generator.normal(size=2 * EACH) for _ in range(DRAWS)]
    half = np.tile([True, False], EACH)
    bound = partial(rates_bound, delta=0.0, confidence=0.95)
    ours = [bound(Labelled(one[half], member[half]), Labelled(one[~half], member[~half])).epsilon for one in drawn]
    theirs = [largest_epsilon(one, member, 5) for one in drawn]
    code = "PrivacyGuard (largest over thresholds, uncorrected; here with 5 records in each cell)"
    said = f"epsilon of scores that say nothing, {EACH} + {EACH} records, {DRAWS} draws"
    return [
        Line("rates_bound", code, f"{said}: median", f"{np.median(ours):.2f}", f"{np.median(theirs):.2f}"),
        Line(
            "rates_bound",
            code,
            f"{said}: above 0",
            f"{np.mean(np.array(ours) > 0):.0%}",
            f"{np.mean(np.array(theirs) > 0):.0%}",
        ),
    ]
