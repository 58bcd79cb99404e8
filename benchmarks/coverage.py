"""How often the intervals of `repromia.intervals` hold the truth, and how often its tests alarm falsely.

Run as `python -m benchmarks.coverage [simulations]` (default 800: 2 to 3 minutes, one core; a quarter as
many for what needs a bootstrap). Scores are normal with equal variance, so AUC and TPR of the population are
known in closed form.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import norm

from repromia import intervals
from repromia.result import Estimate

Draw = tuple[Float[np.ndarray, " record"], Bool[np.ndarray, " record"]]


def shift_for(auc: float) -> float:
    """Distance between the means of two unit normals of this AUC."""
    return float(norm.ppf(auc) * np.sqrt(2))


def true_tpr(auc: float, fpr: float) -> float:
    """TPR of the population at exactly this FPR."""
    return float(norm.sf(norm.isf(fpr) - shift_for(auc)))


def draw(generator: np.random.Generator, records: int, auc: float) -> Draw:
    """As many members as non-members."""
    member = np.arange(2 * records) < records
    return generator.normal(size=2 * records) + shift_for(auc) * member, member


def report(name: str, truth: float, estimates: Iterator[Estimate]) -> None:
    """One line: share of intervals that hold the truth, misses below and above, mean width."""
    rows = np.array([(row.low, row.high) for row in estimates])
    below, above = float((rows[:, 1] < truth).mean()), float((rows[:, 0] > truth).mean())
    width = float((rows[:, 1] - rows[:, 0]).mean())
    print(
        f"{name:<62} {1 - below - above:.3f}   ({below:.3f}, {above:.3f})   {width:.3f}   {len(rows)}",
        flush=True,
    )


def delong_coverage(simulations: int) -> None:
    """AUC on the logit scale."""
    for records in (50, 500):
        for auc in (0.5, 0.7, 0.95, 0.99):
            generator = np.random.default_rng(1)
            rows = (intervals.delong(*draw(generator, records, auc)) for _ in range(simulations))
            report(f"delong, {records}+{records}, AUC {auc}", auc, rows)


def tpr_coverage(simulations: int) -> None:
    """The closed-form interval, ungrouped."""
    for fpr, records in ((0.01, 1000), (0.01, 500), (0.01, 300), (0.05, 300)):
        for auc in (0.5, 0.6, 0.8):
            generator = np.random.default_rng(2)
            rows = (intervals.tpr_interval(*draw(generator, records, auc), fpr) for _ in range(simulations))
            report(f"tpr_interval at {fpr:.0%}, {records}+{records}, AUC {auc}", true_tpr(auc, fpr), rows)


def plain_delong(scores: Float[np.ndarray, " record"], member: Bool[np.ndarray, " record"]) -> Estimate:
    """The interval that was not chosen: AUC plus or minus two standard errors."""
    row = intervals.delong(scores, member)
    if not row.method.startswith("DeLong"):
        return row
    odds = np.log([row.low / (1 - row.low), row.high / (1 - row.high)])
    half = float(np.diff(odds)[0]) / 2 * row.estimate * (1 - row.estimate)
    low, high = max(0.0, row.estimate - half), min(1.0, row.estimate + half)
    return Estimate(estimate=row.estimate, low=low, high=high, method="DeLong, plain")


def bootstrap_tpr(generator: np.random.Generator, fpr: float, records: int, auc: float) -> list[Estimate]:
    """What was not chosen for ungrouped records: percentile, basic, bias-corrected bootstrap."""
    scores, member = draw(generator, records, auc)
    resamples = intervals.Bootstrap(member, repeats=500, seed=int(generator.integers(2**31)))
    sampled = resamples.statistics(scores, [fpr]).tpr[0]
    point = intervals.tpr_interval(scores, member, fpr).estimate
    below = np.mean((sampled < point) + 0.5 * (sampled == point))
    bias = 2 * norm.ppf(np.clip(below, 0.001, 0.999))
    low, high = np.quantile(sampled, [0.025, 0.975])
    corrected = np.quantile(sampled, norm.cdf(bias + norm.ppf([0.025, 0.975])))
    limits = ((low, high), (2 * point - high, 2 * point - low), corrected)
    return [Estimate(estimate=point, low=float(a), high=float(b), method="bootstrap") for a, b in limits]


def alternatives(simulations: int, fewer: int) -> None:
    """What was compared and left."""
    for records in (50, 500):
        generator = np.random.default_rng(1)
        rows = (plain_delong(*draw(generator, records, 0.99)) for _ in range(simulations))
        report(f"not used: plain DeLong, {records}+{records}, AUC 0.99", 0.99, rows)
    for fpr, records in ((0.01, 1000), (0.01, 300), (0.05, 300)):
        for auc in (0.5, 0.8):
            generator = np.random.default_rng(6)
            tried = [bootstrap_tpr(generator, fpr, records, auc) for _ in range(fewer)]
            for kind, name in enumerate(("percentile", "basic", "bias-corrected")):
                label = f"not used: {name}, TPR at {fpr:.0%}, {records}+{records}, AUC {auc}"
                report(label, true_tpr(auc, fpr), (row[kind] for row in tried))


def grouped_tpr(generator: np.random.Generator, fpr: float, auc: float, correlation: float) -> Estimate:
    """200 + 200 groups of 5 records, scores of one group correlated."""
    groups = np.repeat(np.arange(400), 5)
    member = groups < 200
    shared, own = generator.normal(size=400)[groups], generator.normal(size=2000)
    scores = np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own + shift_for(auc) * member
    resamples = intervals.Bootstrap(
        member, [str(group) for group in groups], repeats=500, seed=int(generator.integers(2**31))
    )
    resampled = resamples.statistics(scores, [fpr]).tpr[0]
    figures = intervals.tpr_figures(scores, member, fpr, resampled=resampled)
    assert figures.tpr is not None
    assert figures.low is not None
    assert figures.high is not None
    return Estimate(estimate=figures.tpr, low=figures.low, high=figures.high, method=figures.method)


def paired(generator: np.random.Generator, first: float, second: float) -> tuple[Estimate, Estimate]:
    """Gain in AUC and in TPR at 1 % FPR of two correlated scores, 500 + 500 records, bootstrap."""
    member = np.arange(1000) < 500
    shared = generator.normal(size=1000)
    resamples = intervals.Bootstrap(member, repeats=500, seed=int(generator.integers(2**31)))
    figures = []
    for auc in (first, second):
        scores = np.sqrt(0.7) * shared + np.sqrt(0.3) * generator.normal(size=1000) + shift_for(auc) * member
        sampled = resamples.statistics(scores, [0.01])
        point = intervals.tpr_interval(scores, member, 0.01).estimate
        figures.append((intervals.delong(scores, member).estimate, point, sampled))
    one, two = figures
    return (
        intervals.percentile(one[2].auc - two[2].auc, one[0] - two[0]),
        intervals.percentile(one[2].tpr[0] - two[2].tpr[0], one[1] - two[1]),
    )


def joint_alarm(generator: np.random.Generator, attacks: int, correlation: float) -> bool:
    """Whether the joint test rejects at .05 on null scores that are correlated between attacks, 150 + 150."""
    member = np.arange(300) < 150
    shared = generator.normal(size=300)
    resamples = intervals.Bootstrap(member, repeats=400, seed=int(generator.integers(2**31)))
    points, sampled = [], []
    for _ in range(attacks):
        scores = np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * generator.normal(size=300)
        points.append(intervals.delong(scores, member).estimate)
        sampled.append(resamples.statistics(scores, []).auc)
    return intervals.joint_null_test(np.array(points), np.array(sampled)) <= 0.05


def repeat(simulations: int, seed: int, once: Callable[[np.random.Generator], Estimate]) -> Iterator[Estimate]:
    """The same experiment on fresh draws of one stream."""
    generator = np.random.default_rng(seed)
    return (once(generator) for _ in range(simulations))


def main() -> None:
    """The whole table."""
    simulations = int(sys.argv[1]) if len(sys.argv) > 1 else 800
    fewer = max(1, simulations // 4)
    print(f"{'interval':<62} covers  (too low, too high)  width  simulations")
    delong_coverage(simulations)
    tpr_coverage(simulations)
    for fpr in (0.01, 0.05):
        for correlation in (0.2, 0.6):
            for auc in (0.5, 0.8):
                name = f"tpr_figures by groups of 5, r {correlation}, at {fpr:.0%}, AUC {auc}"
                rows = repeat(fewer, 3, partial(grouped_tpr, fpr=fpr, auc=auc, correlation=correlation))
                report(name, true_tpr(auc, fpr), rows)
    for first, second in ((0.6, 0.6), (0.8, 0.6)):
        generator = np.random.default_rng(4)
        both = [paired(generator, first, second) for _ in range(fewer)]
        report(f"paired AUC gain, 500+500, AUC {first} - {second}", first - second, (row[0] for row in both))
        gain = true_tpr(first, 0.01) - true_tpr(second, 0.01)
        report(f"paired TPR gain at 1%, 500+500, AUC {first} - {second}", gain, (row[1] for row in both))
    for attacks, correlation in ((1, 0.0), (10, 0.0), (10, 0.7)):
        generator = np.random.default_rng(5)
        alarms = np.mean([joint_alarm(generator, attacks, correlation) for _ in range(fewer)])
        print(f"joint_null_test, {attacks} attacks, r {correlation}: false alarms {alarms:.3f} at .05, {fewer}")
    alternatives(simulations, fewer)


if __name__ == "__main__":
    main()
