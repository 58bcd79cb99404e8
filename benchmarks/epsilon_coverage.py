"""How often the bounds of `repromia.epsilon` are above the true epsilon, and how near they come.

Run as `python -m benchmarks.epsilon_coverage [audits]` (default 1000: half an hour, one idle
core). An audit draws the membership of n records by fair coins, a quarter of them as select and the rest as eval,
and scores. The true epsilon of each mechanism at the delta asked for is known in closed form:

* null: scores of noise, epsilon 0 at any delta;
* randomised response: the score is the membership bit, kept with chance e^E / (1 + e^E); epsilon is log of
  ((chance kept - delta) / chance flipped), E at delta 0;
* Laplace: membership plus Laplace noise of scale 1 / E; epsilon is E;
* Gaussian: membership times mu plus normal noise, so mu-Gaussian differentially private;
* all or nothing: with chance .2 all membership bits are published, else noise. It is (0, .2)-differentially private,
  and records are as dependent as can be: a planted failure of the bounds that take records as independent.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import binom

from repromia.epsilon import (
    EpsilonBound,
    Labelled,
    gaussian_one_run_bound,
    gaussian_rates_bound,
    one_run_bound,
    rates_bound,
)
from repromia.one_run import gaussian_epsilon

Member = Bool[np.ndarray, " record"]
Scores = Float[np.ndarray, " record"]
SIZES = (200, 2000, 10000)
DELTA = 1e-5
ALLOWED = 0.05


class Mechanism(NamedTuple):
    """How scores come about, the deltas asked for, and the true epsilon at each. gaussian: whether some mu holds."""

    name: str
    scores: Callable[[np.random.Generator, Member], Scores]
    epsilons: dict[float, float]
    gaussian: bool = False


def noise(generator: np.random.Generator, member: Member) -> Scores:
    """Nothing about membership."""
    return generator.normal(size=member.size)


def randomised_response(generator: np.random.Generator, member: Member, epsilon: float) -> Scores:
    """The bit, or its opposite."""
    kept = generator.random(member.size) < 1 / (1 + math.exp(-epsilon))
    return np.asarray(np.where(kept, member, ~member), dtype=np.float64)


def laplace(generator: np.random.Generator, member: Member, epsilon: float) -> Scores:
    """Sensitivity 1, scale 1 / epsilon."""
    return member + generator.laplace(scale=1 / epsilon, size=member.size)


def gaussian(generator: np.random.Generator, member: Member, mu: float) -> Scores:
    """Sensitivity mu, standard deviation 1."""
    return mu * member + generator.normal(size=member.size)


def all_or_nothing(generator: np.random.Generator, member: Member) -> Scores:
    """All bits with chance .2."""
    return member.astype(np.float64) if generator.random() < 0.2 else noise(generator, member)


def response_epsilon(epsilon: float, delta: float) -> float:
    """Of randomised response: P[report 1 | 1] = e^E / (1 + e^E) <= e^epsilon / (1 + e^E) + delta."""
    return max(0.0, math.log(math.exp(epsilon) - delta * (1 + math.exp(epsilon))))


MECHANISMS = (
    Mechanism("null", noise, {0.0: 0.0, DELTA: 0.0}, gaussian=True),
    *(
        Mechanism(
            f"randomised response, E = {epsilon:g}",
            partial(randomised_response, epsilon=epsilon),
            {delta: response_epsilon(epsilon, delta) for delta in deltas},
        )
        for epsilon, deltas in ((1.0, (0.0, DELTA)), (4.0, (0.0,)))
    ),
    Mechanism("Laplace, E = 1", partial(laplace, epsilon=1.0), {0.0: 1.0}),
    *(
        Mechanism(
            f"Gaussian, mu = {mu:g}", partial(gaussian, mu=mu), {DELTA: gaussian_epsilon(mu, DELTA)}, gaussian=True
        )
        for mu in (0.5, 1.0, 2.0)
    ),
    Mechanism("Gaussian, mu = 1", partial(gaussian, mu=1.0), {0.05: gaussian_epsilon(1.0, 0.05)}, gaussian=True),
    Mechanism("all or nothing", all_or_nothing, {0.2: 0.0}),
)
BOUNDS: dict[str, Callable[..., EpsilonBound]] = {
    "one run": one_run_bound,
    "rates": rates_bound,
    "Gaussian one run": gaussian_one_run_bound,
    "Gaussian rates": gaussian_rates_bound,
}


def draw(generator: np.random.Generator, mechanism: Mechanism, records: int) -> tuple[Labelled, Labelled]:
    """Select and eval of one audit; the role of a record does not depend on its membership."""
    member = generator.random(records) < 0.5
    scores = mechanism.scores(generator, member)
    cut = records // 4
    return Labelled(scores[:cut], member[:cut]), Labelled(scores[cut:], member[cut:])


def row(name: str, bound: Callable[..., EpsilonBound], case: tuple[Mechanism, float, int, bool], audits: int) -> str:
    """One line of the table: share of bounds above the truth, whether that is too many, median of bound / truth."""
    mechanism, delta, records, corrected = case
    truth = mechanism.epsilons[delta]
    generator = np.random.default_rng(7)
    found = []
    for _ in range(audits):
        select, measured = draw(generator, mechanism, records)
        found.append(bound(select, measured, delta=delta, corrected=corrected).epsilon)
    above = int(np.sum(np.array(found) > truth + 1e-6))
    # More than this happens in one of a thousand tables of a bound that is above the truth in exactly 5 %.
    mark = " (!)" if above > binom.ppf(0.999, audits, ALLOWED) else ""
    tight = f"{np.median(found) / truth:.2f}" if truth > 0 else "–"
    way = "corrected" if corrected else "select"
    cells = (mechanism.name, f"{delta:g}", f"{truth:.2f}", f"{records:,}", name, way)
    return f"| {' | '.join(cells)} | {above / audits:.3f}{mark} | {np.median(found):.2f} | {tight} |"


def main() -> None:
    """The whole table, in Markdown."""
    audits = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    only = sys.argv[2] if len(sys.argv) > 2 else ""
    print("| mechanism | delta | true epsilon | n | bound | choice | above the truth | median bound | median / true |")
    print("|---|---|---|---|---|---|---|---|---|")
    for mechanism in MECHANISMS:
        for delta in mechanism.epsilons:
            for records in SIZES:
                for name, bound in BOUNDS.items():
                    if only not in mechanism.name or (
                        name.startswith("Gaussian") and (delta == 0 or not mechanism.gaussian)
                    ):
                        continue
                    for corrected in (False, True) if records == SIZES[1] else (False,):
                        started = time.perf_counter()
                        line = row(name, bound, (mechanism, delta, records, corrected), audits)
                        print(line, flush=True)
                        print(f"{time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
