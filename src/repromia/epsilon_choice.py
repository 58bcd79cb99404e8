"""At which threshold, or with how many guesses, epsilon is bounded: chosen on select, or tried and corrected for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import ndtri
from scipy.stats import beta

from repromia.intervals import Labelled
from repromia.one_run import Guesses, largest_refuted, make_guesses

Rates = Float[np.ndarray, " threshold"]

# Shares of the randomised records that are guessed, and quantiles of the scores of select tried as thresholds.
SHARES = (1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.12, 0.08, 0.05, 0.03, 0.02, 0.01)
_QUANTILES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
# Shares of select are taken at their one-sided 70 % limit before they are projected onto eval: at their best estimate
# the few highest scores look too good, at the confidence of the bound a small select looks hopeless.
_DOUBT = 0.3


class AtThreshold(NamedTuple):
    """The figure (epsilon or mu) that was bounded at a threshold, and how that was chosen."""

    threshold: float
    figure: float
    choice: str


class WithGuesses(NamedTuple):
    """The figure (epsilon or mu) that guesses refute, and how their number was chosen."""

    guesses: Guesses
    figure: float
    choice: str


class Plan(NamedTuple):
    """Numbers of guesses of each kind."""

    members: int
    nonmembers: int


def bound_at_threshold(
    select: Labelled,
    measured: Labelled,
    level: float,
    corrected: bool,
    figure: Callable[[Rates, Rates], Rates],
) -> AtThreshold:
    """The figure of TPR from below and FPR from above on `measured`, both at once with chance 1 - `level`."""
    if corrected:
        thresholds = np.unique(np.quantile(select.scores, _QUANTILES, method="higher"))
        figures = figure(*_limits(measured, thresholds, level / thresholds.size))
        best = int(np.argmax(figures))
        return AtThreshold(float(thresholds[best]), float(figures[best]), _corrected_for(thresholds.size, "thresholds"))
    threshold = np.array([_threshold_on(select, measured, level, figure)])
    return AtThreshold(float(threshold[0]), float(figure(*_limits(measured, threshold, level))[0]), "chosen on select")


def _threshold_on(select: Labelled, measured: Labelled, level: float, figure: Callable[[Rates, Rates], Rates]) -> float:
    """The score of select that promises most on as many members and non-members as `measured` has."""
    thresholds = np.unique(select.scores)
    hits, alarms, members, nonmembers = _counts(select, thresholds)
    expected_members = int(np.count_nonzero(measured.member))
    expected_nonmembers = measured.member.size - expected_members
    tpr, fpr = lower_limit(hits, members, _DOUBT), upper_limit(alarms, nonmembers, _DOUBT)
    figures = figure(
        lower_limit(tpr * expected_members, expected_members, level / 2),
        upper_limit(fpr * expected_nonmembers, expected_nonmembers, level / 2),
    )
    promising = figures if figures.max() > 0 else hits / members - alarms / nonmembers
    return float(thresholds[int(np.argmax(promising))])


def bound_with_guesses(
    select: Labelled,
    measured: Labelled,
    level: float,
    corrected: bool,
    refuted: Callable[[Guesses, float, float], bool],
) -> WithGuesses:
    """The largest figure that right guesses on `measured` refute. refuted: by guesses, at a level, a figure or not."""
    plans = _plans(measured.scores.size)
    if corrected:
        tried = [make_guesses(*measured, *plan) for plan in plans]
        best, figure = _strongest(tried, refuted, level / len(tried))
        return WithGuesses(tried[best], figure, _corrected_for(len(tried), "numbers of guesses"))
    best, _ = _strongest([_projected(select, plan, measured.scores.size) for plan in plans], refuted, level)
    guesses = make_guesses(*measured, *plans[best])
    return WithGuesses(guesses, largest_refuted(partial(refuted, guesses, level)), "chosen on select")


def _strongest(
    tried: Sequence[Guesses], refuted: Callable[[Guesses, float, float], bool], level: float
) -> tuple[int, float]:
    """Which guesses refute the largest figure, the first of equals, and that figure."""
    best, largest = 0, 0.0
    for number, guesses in enumerate(tried):
        if refuted(guesses, level, largest):  # else they refute no larger one, and need not be searched
            figure = largest_refuted(partial(refuted, guesses, level))
            best, largest = (number, figure) if figure > largest else (best, largest)
    return best, largest


def _plans(records: int) -> list[Plan]:
    """Both kinds of guesses first, so that of equals the most cautious plan wins: guess all records."""
    totals = [max(1, round(share * records)) for share in SHARES]
    plans = [Plan((total + 1) // 2, total // 2) for total in totals]
    plans += [Plan(total, 0) for total in totals] + [Plan(0, total) for total in totals]
    return list(dict.fromkeys(plans))


def _projected(select: Labelled, plan: Plan, records: int) -> Guesses:
    """The guesses among this many records that the same shares of guesses on select let expect."""
    total = sum(plan)
    size = select.scores.size
    members = round(plan.members * size / records)
    nonmembers = min(round(plan.nonmembers * size / records), size - members)
    right = 0
    if members + nonmembers:
        seen = make_guesses(*select, members, nonmembers)
        right = int(total * lower_limit(np.array([float(seen.right)]), seen.total, _DOUBT)[0])
    right_members = min(right, plan.members)
    return Guesses(records, *plan, right_members, right - right_members)


def epsilon_of_rates(
    tpr: Float[np.ndarray, " threshold"], fpr: Float[np.ndarray, " threshold"], delta: float
) -> Float[np.ndarray, " threshold"]:
    """Epsilon that a TPR of at least `tpr` and an FPR of at most `fpr` refute; FPR > 0 and TPR < 1 are limits."""
    tiny = np.finfo(np.float64).tiny
    positive = np.log(np.maximum(tpr - delta, tiny)) - np.log(np.maximum(fpr, tiny))
    negative = np.log(np.maximum(1 - fpr - delta, tiny)) - np.log(np.maximum(1 - tpr, tiny))
    return np.maximum(0.0, np.maximum(positive, negative))


def mu_of_rates(
    tpr: Float[np.ndarray, " threshold"], fpr: Float[np.ndarray, " threshold"]
) -> Float[np.ndarray, " threshold"]:
    """Phi^-1(TPR) - Phi^-1(FPR), at least 0."""
    return np.maximum(0.0, ndtri(tpr) - ndtri(fpr))


def _corrected_for(count: int, what: str) -> str:
    return f"best of {count} {what}, corrected"


def _counts(
    labelled: Labelled, thresholds: Float[np.ndarray, " threshold"]
) -> tuple[Float[np.ndarray, " threshold"], Float[np.ndarray, " threshold"], int, int]:
    """Members and non-members at or above each threshold, and their numbers in all."""
    inside, outside = np.sort(labelled.scores[labelled.member]), np.sort(labelled.scores[~labelled.member])
    hits, alarms = (one.size - np.searchsorted(one, thresholds).astype(np.float64) for one in (inside, outside))
    return hits, alarms, inside.size, outside.size


def _limits(labelled: Labelled, thresholds: Float[np.ndarray, " threshold"], level: float) -> tuple[Rates, Rates]:
    """TPR from below and FPR from above, each wrong with a chance of at most half the level."""
    hits, alarms, members, nonmembers = _counts(labelled, thresholds)
    return lower_limit(hits, members, level / 2), upper_limit(alarms, nonmembers, level / 2)


def lower_limit(successes: Float[np.ndarray, " share"], trials: int, level: float) -> Float[np.ndarray, " share"]:
    """One-sided lower limits of shares (Clopper & Pearson 1934), each above the truth with chance <= `level`."""
    found = np.zeros_like(successes)
    some = successes > 0
    found[some] = beta.ppf(level, successes[some], trials - successes[some] + 1)
    return found


def upper_limit(successes: Float[np.ndarray, " share"], trials: int, level: float) -> Float[np.ndarray, " share"]:
    """One-sided upper limits of shares, each below the truth with chance <= `level`."""
    return 1 - lower_limit(trials - successes, trials, level)
