"""How many right guesses a differentially private training run allows, and so what epsilon right guesses refute.

Membership of m records was decided by independent fair coins, the model was trained once, and an auditor who sees the
model guesses members or non-members among these records and abstains from the others. The theorems bound the chance
that at least so many guesses are right; nothing is assumed about how records interact in the model. Neighbouring
data sets differ by adding or removing one record. Epsilon in nats.

Sources: Steinke, Nasr & Jagielski 2023 (arXiv 2305.08846) for pure and approximate differential privacy; Mahloujifar,
Melis & Chaudhuri 2024 (arXiv 2410.22235) for Gaussian differential privacy (Dong, Roth & Su 2019, arXiv 1905.02383).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import brentq
from scipy.special import bdtrc, expit, log_ndtr, ndtr, ndtri
from scipy.stats import binom

from repromia.errors import RepromiaError
from repromia.metrics import check_scores

_LARGEST = 100.0  # nats: no number of records that can be held refutes more
_STEPS = 40  # halvings of an interval of at most half its upper end


@dataclass(frozen=True)
class Guesses:
    """What was guessed of m = `records` randomised records, and how often rightly.

    members, nonmembers: numbers of guesses of each kind; right_members, right_nonmembers: the right ones of these.
    The auditor abstained from the rest. Raises RepromiaError for impossible counts.
    """

    records: int
    members: int
    nonmembers: int
    right_members: int
    right_nonmembers: int

    def __post_init__(self) -> None:
        possible = 0 <= self.right_members <= self.members and 0 <= self.right_nonmembers <= self.nonmembers
        if not possible or not 1 <= self.total <= self.records:
            raise RepromiaError(
                "impossible numbers of guesses",
                expected="0 <= right <= guessed of each kind, and 1 to m guesses in all",
                found=f"{self.right_members} of {self.members} and {self.right_nonmembers} of {self.nonmembers} right, "
                f"m = {self.records}",
            )

    @property
    def total(self) -> int:
        """Guesses of both kinds."""
        return self.members + self.nonmembers

    @property
    def right(self) -> int:
        """Right guesses of both kinds."""
        return self.right_members + self.right_nonmembers


def make_guesses(
    scores: Float[np.ndarray, " record"], member: Bool[np.ndarray, " record"], members: int, nonmembers: int
) -> Guesses:
    """Guess that the `members` highest scores are members and the `nonmembers` lowest are not.

    The numbers are fixed beforehand, as the theorems ask. Equal scores are put in a fixed pseudo-random order of
    positions, so that files that list members first gain nothing. Raises RepromiaError as `check_scores` and
    `Guesses` do.
    """
    check_scores(scores, member)
    lot = np.random.default_rng(0).permutation(scores.size)
    rising = member[np.lexsort((lot, scores))]
    right = int(np.count_nonzero(rising[max(0, scores.size - members) :]))
    wrong = int(np.count_nonzero(rising[:nonmembers]))
    return Guesses(scores.size, members, nonmembers, right, nonmembers - wrong)


def approximate_p_value(guesses: Guesses, epsilon: float, delta: float = 0.0) -> float:
    """The largest chance of so many right guesses under (epsilon, delta) differential privacy.

    beta + 2 m delta alpha, beta = P[W >= v], alpha = max over i of P[v > W >= v - i] / i, W binomial with r guesses
    of accuracy e^epsilon / (1 + e^epsilon) (Steinke et al. 2023, theorems 2.1 (delta = 0) and 5.2).
    """
    accuracy, right, total = float(expit(epsilon)), guesses.right, guesses.total
    if right == 0:
        return 1.0
    if delta == 0:
        return float(_at_least(right, total, accuracy))
    # Far below the mean W is surely reached, and dividing by more steps only makes the share smaller.
    surely = max(0, int(total * accuracy - 9 * math.sqrt(total * accuracy * (1 - accuracy))) - 9)
    steps = np.arange(1, max(1, right - surely) + 1)
    beta = float(_at_least(right, total, accuracy))
    alpha = float(np.max((_at_least(right - steps, total, accuracy) - beta) / steps))
    return min(1.0, beta + 2 * guesses.records * delta * alpha)


def _at_least(successes: np.ndarray | int, trials: int, share: float) -> np.ndarray:
    """P[Binomial >= successes]. `bdtrc` counts strictly more, and knows neither less than none nor more than all."""
    wanted = np.asarray(successes)
    inside = np.clip(wanted, 1, max(trials, 1)) - 1.0
    return np.where(wanted <= 0, 1.0, np.where(wanted > trials, 0.0, bdtrc(inside, max(trials, 1), share)))


def pure_p_value(guesses: Guesses, epsilon: float, member_share: float = 0.5) -> float:
    """`approximate_p_value` at delta 0 for coins that made a record a member with chance `member_share`.

    The odds of membership given the model are at most e^epsilon times, and at least e^-epsilon times, the odds of the
    coin; so a guess of each kind is right with at most this chance, and the sum of the two binomials bounds all (the
    argument of theorem 2.1 of Steinke et al. 2023 with other odds).
    """
    odds = math.log(member_share / (1 - member_share))
    inside, outside = float(expit(epsilon + odds)), float(expit(epsilon - odds))
    counts = np.arange(guesses.members + 1)
    reached = _at_least(guesses.right - counts, guesses.nonmembers, outside)
    return min(1.0, float(np.sum(binom.pmf(counts, guesses.members, inside) * reached)))


def refutes_gaussian(guesses: Guesses, mu: float, level: float) -> bool:
    """Whether mu-Gaussian differential privacy allows so many right guesses with a chance of at most `level`.

    Let p_i be the chance of i right guesses among c, g(x) = Phi(Phi^-1(x) + mu), r_j = sum over i >= j of i p_i / m and
    h_j = sum over i >= j of (c - i) p_i / m. Turning the coin of one random record over shows r_j <= g(h_{j-1})
    (Mahloujifar et al. 2024, theorem for two classes). If the tail held the chance `level`, the smallest p that agree
    with this follow from the top down; they refute mu when they add up to more than 1.
    Where all guesses are of one kind, only one of the two data sets makes such a guess right, and the same argument
    conditional on the coin gives 2 r_j <= g(2 h_{j-1}), which is sharper since g is concave with g(0) = 0.
    """
    total, right, factor = guesses.total, guesses.right, 1 if guesses.members and guesses.nonmembers else 2
    held, missed = level * right / guesses.records, level * (total - right) / guesses.records
    limit = total / guesses.records
    for count in range(right - 1, -1, -1):
        if factor * held >= 1:
            return True
        needed = float(ndtr(ndtri(factor * held) - mu)) / factor
        if needed <= missed:  # nothing changes from here on
            break
        held += count / (total - count) * (needed - missed)
        missed = needed
        if held + missed > limit:
            return True
    return held + missed > limit


def largest_refuted(refuted: Callable[[float], bool]) -> float:
    """The largest parameter that is refuted, from below, of a claim that is the weaker the larger it is; else 0."""
    if not refuted(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while refuted(high):
        low, high = high, 2 * high
        if high > _LARGEST:
            return low
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
        if high - low < 1e-7:
            break
    return low


def gaussian_delta(mu: float, epsilon: float) -> float:
    """Delta of mu-Gaussian differential privacy at `epsilon` (Dong et al. 2019, corollary 2.13; Balle & Wang 2018)."""
    if mu <= 0:
        return 0.0
    upper, lower = log_ndtr(-epsilon / mu + mu / 2), epsilon + log_ndtr(-epsilon / mu - mu / 2)
    return float(np.exp(upper) * -np.expm1(min(lower - upper, 0.0)))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The least epsilon, in nats, that mu-Gaussian differential privacy has at `delta`; infinite at delta 0, mu > 0."""
    if mu <= 0 or gaussian_delta(mu, 0.0) <= delta:
        return 0.0
    if delta <= 0:
        return math.inf
    high = 1.0
    while gaussian_delta(mu, high) > delta:
        high *= 2
    return float(brentq(lambda epsilon: gaussian_delta(mu, epsilon) - delta, 0.0, high, xtol=1e-9))
