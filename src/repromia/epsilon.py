"""Lower bounds on the epsilon of differential privacy from membership scores of records whose membership was drawn.

Each record (or group of records) was put into the training data or left out by an independent coin before training, as
`repromia split` does. Scores: higher means member. Epsilon in nats, for adding or removing one record (one group).
A bound is above the truth in at most 1 - confidence of audits, if what it assumes holds:

* `rates_bound`, `gaussian_rates_bound`: the rates of right and wrong decisions at one threshold. They take the scores
  of different records as independent given membership, which one training run does not promise.
* `one_run_bound`, `gaussian_one_run_bound`: the number of right guesses in one training run, whatever records do to
  each other (`repromia.one_run`).
* The two Gaussian ones suppose that the mechanism is mu-Gaussian differentially private for some mu and bound that
  mu; the other two suppose nothing. They are sharper and refute "this mu", not "this (epsilon, delta)".

The threshold or the number of guesses is chosen on select and measured on eval; with `corrected`, several that do not
depend on any label are all measured and the confidence is corrected for their number (Bonferroni). Each bound alone
has its confidence: name one beforehand, or ask for a higher confidence before taking the largest of k.
Coverage and tightness: docs/results/epsilon.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.stats import binomtest

from repromia.epsilon_choice import (
    bound_at_threshold,
    bound_with_guesses,
    epsilon_of_rates,
    mu_of_rates,
)
from repromia.errors import RepromiaError
from repromia.intervals import Labelled
from repromia.metrics import check_scores
from repromia.one_run import (
    Guesses,
    approximate_p_value,
    gaussian_epsilon,
    pure_p_value,
    refutes_gaussian,
)

__all__ = [
    "EpsilonBound",
    "Labelled",
    "by_group",
    "epsilon_bounds",
    "gaussian_one_run_bound",
    "gaussian_rates_bound",
    "one_run_bound",
    "rates_bound",
]

LEAST = 10  # members and non-members of each role: fewer cannot be chosen on or measured
_NO_COIN = 1e-6  # chance of refusing membership that was drawn by the coin that is claimed

_INDEPENDENT = "scores of different records are independent given membership, which one training run does not promise"
_COINS = "independent coins decided membership"
_GAUSSIAN = "; the mechanism is mu-Gaussian differentially private for some mu"


@dataclass(frozen=True)
class EpsilonBound:
    """At `confidence`, the target is not (e, delta)-differentially private for any e below `epsilon` (nats, >= 0).

    threshold: of the rates; guesses: of the one-run bounds; mu: of the Gaussian ones. choice: how threshold or
    guesses were fixed; assumes: what must hold; source: the theorem.
    """

    name: str
    epsilon: float
    delta: float
    confidence: float
    choice: str
    assumes: str
    source: str
    threshold: float | None = None
    guesses: Guesses | None = None
    mu: float | None = None


def epsilon_bounds(
    select: Labelled,
    measured: Labelled,
    *,
    delta: float = 1e-5,
    confidence: float = 0.95,
    corrected: bool = False,
    groups: tuple[Sequence[str], Sequence[str]] | None = None,
) -> tuple[EpsilonBound, ...]:
    """All four bounds for membership drawn by fair coins; at delta 0 the two that are not Gaussian.

    groups: the group of each record of select and of eval where the coin was tossed per group (see `by_group`).
    Each bound has its confidence alone, not the largest of them. Raises RepromiaError as the single bounds do.
    """
    if groups is not None:
        select, measured = by_group(select, groups[0]), by_group(measured, groups[1])
    bounds: list[Callable[..., EpsilonBound]] = [one_run_bound, rates_bound]
    if delta > 0:
        bounds += [gaussian_one_run_bound, gaussian_rates_bound]
    return tuple(one(select, measured, delta=delta, confidence=confidence, corrected=corrected) for one in bounds)


def by_group(labelled: Labelled, groups: Sequence[str]) -> Labelled:
    """One entry per group, in order of first appearance: the mean score of its records, and its membership.

    The coin was tossed per group, so the group is what is added or removed, and epsilon speaks of whole groups. Any
    function of a group's scores would do; the mean uses them all. Raises RepromiaError when lengths differ, when
    a group has members and non-members, and as `check_scores` does.
    """
    check_scores(*labelled)
    if len(groups) != labelled.scores.size:
        raise RepromiaError(
            "groups and scores do not fit together",
            expected="the name of a group for each score",
            found=f"{len(groups)} groups, {labelled.scores.size} scores",
        )
    numbers: dict[str, int] = {}
    group = np.array([numbers.setdefault(name, len(numbers)) for name in groups])
    sizes = np.bincount(group)
    inside = np.bincount(group, weights=labelled.member)
    mixed = int(np.count_nonzero((inside > 0) & (inside < sizes)))
    if mixed:
        raise RepromiaError(
            "membership was not drawn by group",
            expected="groups of members only or of non-members only",
            found=f"{mixed} of {sizes.size} groups with both",
            hint="name the groups by which membership was drawn, or leave groups out if it was drawn by record",
        )
    return Labelled(np.bincount(group, weights=labelled.scores) / sizes, inside > 0)


def rates_bound(
    select: Labelled, measured: Labelled, *, delta: float = 0.0, confidence: float = 0.95, corrected: bool = False
) -> EpsilonBound:
    """The larger of log((TPR - delta) / FPR) and log((TNR - delta) / FNR) at one threshold, or 0.

    (epsilon, delta)-differential privacy keeps TPR <= e^epsilon FPR + delta and the same for the negatives (Kairouz,
    Oh & Viswanath 2015, theorem 2.1; the audit: Jagielski, Ullman & Oprea 2020, Nasr et al. 2021, arXiv 2101.04535).
    TPR from below and FPR from above by Clopper-Pearson, each at half of 1 - confidence; both ratios need no more
    than these two. Raises RepromiaError for scores without two classes of `LEAST` records or with NaN, delta outside
    [0, 1) and confidence outside (0, 1).
    """
    _check(select, measured, delta, confidence)
    found = bound_at_threshold(select, measured, 1 - confidence, corrected, partial(epsilon_of_rates, delta=delta))
    return EpsilonBound(
        "rates",
        found.figure,
        delta,
        confidence,
        found.choice,
        _INDEPENDENT,
        "Kairouz, Oh & Viswanath 2015, theorem 2.1, with Clopper-Pearson limits",
        threshold=found.threshold,
    )


def gaussian_rates_bound(
    select: Labelled, measured: Labelled, *, delta: float, confidence: float = 0.95, corrected: bool = False
) -> EpsilonBound:
    """Epsilon at delta of the mu that TPR and FPR refute: mu = Phi^-1(TPR) - Phi^-1(FPR), or 0.

    The trade-off curve of mu-Gaussian differential privacy (Dong, Roth & Su 2019, arXiv 1905.02383, equation 6)
    with the limits of `rates_bound`; mu to epsilon by corollary 2.13. Raises RepromiaError as `rates_bound` does,
    and at delta 0, where the Gaussian mechanism has no finite epsilon.
    """
    _check(select, measured, delta, confidence, gaussian=True)
    found = bound_at_threshold(select, measured, 1 - confidence, corrected, mu_of_rates)
    return EpsilonBound(
        "gaussian_rates",
        gaussian_epsilon(found.figure, delta),
        delta,
        confidence,
        found.choice,
        _INDEPENDENT + _GAUSSIAN,
        "Dong, Roth & Su 2019, equation 6 and corollary 2.13, with Clopper-Pearson limits",
        threshold=found.threshold,
        mu=found.figure,
    )


def one_run_bound(
    select: Labelled,
    measured: Labelled,
    *,
    delta: float = 0.0,
    confidence: float = 0.95,
    corrected: bool = False,
    member_share: float = 0.5,
) -> EpsilonBound:
    """The largest epsilon whose p-value of the right guesses is at most 1 - confidence (Steinke et al. 2023), or 0.

    member_share: chance with which the coin made a record a member; other than 1/2 at delta 0 only. Membership of
    the records of eval must have been drawn whatever the others are: give all randomised records of a role, and do
    not balance the classes afterwards. Raises RepromiaError as `rates_bound` does, for a share outside (0, 1) or
    with a delta, and for membership that this coin would not draw once in a million.
    """
    _check(select, measured, delta, confidence)
    _check_coin(measured, member_share, delta)

    def refuted(guesses: Guesses, level: float, epsilon: float) -> bool:
        if member_share != 0.5:
            return pure_p_value(guesses, epsilon, member_share) <= level
        return approximate_p_value(guesses, epsilon, delta) <= level

    guesses, figure, choice = bound_with_guesses(select, measured, 1 - confidence, corrected, refuted)
    return EpsilonBound(
        "one_run",
        figure,
        delta,
        confidence,
        choice,
        _COINS,
        f"Steinke, Nasr & Jagielski 2023, theorem {'5.2' if delta else '2.1'}",
        guesses=guesses,
    )


def gaussian_one_run_bound(
    select: Labelled, measured: Labelled, *, delta: float, confidence: float = 0.95, corrected: bool = False
) -> EpsilonBound:
    """Epsilon at delta of the largest mu that the right guesses refute (Mahloujifar et al. 2024), or 0.

    See `repromia.one_run.refutes_gaussian`. Raises RepromiaError as `gaussian_rates_bound` and (for a fair coin)
    `one_run_bound` do.
    """
    _check(select, measured, delta, confidence, gaussian=True)
    _check_coin(measured, 0.5, delta)

    def refuted(guesses: Guesses, level: float, mu: float) -> bool:
        return refutes_gaussian(guesses, mu, level)

    guesses, mu, choice = bound_with_guesses(select, measured, 1 - confidence, corrected, refuted)
    return EpsilonBound(
        "gaussian_one_run",
        gaussian_epsilon(mu, delta),
        delta,
        confidence,
        choice,
        _COINS + _GAUSSIAN,
        "Mahloujifar, Melis & Chaudhuri 2024, with Dong, Roth & Su 2019, corollary 2.13",
        guesses=guesses,
        mu=mu,
    )


def _check(select: Labelled, measured: Labelled, delta: float, confidence: float, *, gaussian: bool = False) -> None:
    """Raises RepromiaError for what no bound can be made of."""
    for name, role in (("select", select), ("eval", measured)):
        check_scores(*role)
        members = int(np.count_nonzero(role.member))
        if min(members, role.member.size - members) < LEAST:
            raise RepromiaError(
                f"too few records of the role {name!r} to bound epsilon",
                expected=f"at least {LEAST} members and {LEAST} non-members (of groups: that many groups)",
                found=f"{members} members and {role.member.size - members} non-members",
                hint="randomise more records",
            )
    if not 0 <= delta < 1 or (gaussian and delta == 0):
        raise RepromiaError(
            "not a delta that epsilon can be bounded at",
            expected="0 < delta < 1, since the Gaussian mechanism has no epsilon at 0"
            if gaussian
            else "0 <= delta < 1",
            found=repr(delta),
            hint="the usual choice is less than one over the number of training records",
        )
    if not 0 < confidence < 1:
        raise RepromiaError(
            "not a confidence", expected="a number between 0 and 1", found=repr(confidence), hint="0.95 is usual"
        )


def _check_coin(measured: Labelled, member_share: float, delta: float) -> None:
    """Raises RepromiaError for a coin that no theorem covers, or that cannot have drawn this membership."""
    if not 0 < member_share < 1 or (delta > 0 and member_share != 0.5):
        raise RepromiaError(
            "no one-run bound for this coin",
            expected="a chance of membership between 0 and 1; with delta > 0 and the Gaussian bound, exactly 1/2",
            found=f"{member_share!r} at delta {delta!r}",
            hint="randomise with holdout 0.5, or use delta 0",
        )
    members, records = int(np.count_nonzero(measured.member)), measured.member.size
    if binomtest(members, records, member_share).pvalue < _NO_COIN:
        raise RepromiaError(
            "this membership was not drawn by independent coins of the chance that is claimed",
            expected=f"about {member_share * records:.0f} members of {records} randomised records",
            found=f"{members}",
            hint="give the randomised records only, all of them, and the chance with which each was a member",
        )
