"""Bounds on epsilon against naive oracles, by simulation, and what they refuse.

Every simulated check says its false-alarm rate: the chance, over seeds, that it fails although the code is right;
seeds are fixed.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import linprog
from scipy.stats import beta, binom, norm

from repromia.epsilon import (
    EpsilonBound,
    Labelled,
    by_group,
    epsilon_bounds,
    gaussian_one_run_bound,
    gaussian_rates_bound,
    one_run_bound,
    rates_bound,
)
from repromia.epsilon_choice import lower_limit, upper_limit
from repromia.errors import RepromiaError
from repromia.one_run import (
    Guesses,
    approximate_p_value,
    gaussian_delta,
    gaussian_epsilon,
    largest_refuted,
    make_guesses,
    pure_p_value,
    refutes_gaussian,
)

BOUNDS = [one_run_bound, rates_bound, gaussian_one_run_bound, gaussian_rates_bound]


def drawn(generator, records, separation=0.0, share=0.5):
    member = generator.random(records) < share
    return Labelled(generator.normal(size=records) + separation * member, member)


def responses(generator, records, epsilon):
    """Randomised response: the bit itself, kept with chance e^epsilon / (1 + e^epsilon)."""
    member = generator.random(records) < 0.5
    kept = generator.random(records) < 1 / (1 + math.exp(-epsilon))
    return Labelled(np.where(kept, member, ~member).astype(np.float64), member)


def one_kind(records, guessed, right):
    return Guesses(records, guessed, 0, right, 0)


@pytest.mark.parametrize(("total", "right"), [(1, 1), (7, 5), (12, 12), (12, 0)])
@pytest.mark.parametrize("epsilon", [0.0, 0.7, 3.0])
def test_pure_p_value_enumerates_all_answers(total, right, epsilon):
    accuracy = math.exp(epsilon) / (1 + math.exp(epsilon))
    naive = sum(
        math.prod(accuracy if one else 1 - accuracy for one in answer)
        for answer in itertools.product((0, 1), repeat=total)
        if sum(answer) >= right
    )
    assert approximate_p_value(one_kind(20, total, right), epsilon) == pytest.approx(naive)
    assert pure_p_value(one_kind(20, total, right), epsilon) == pytest.approx(naive)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_pure_p_value_with_another_coin(share):
    epsilon, guesses = 0.8, Guesses(20, 5, 4, 4, 2)
    inside = share * math.exp(epsilon) / (share * math.exp(epsilon) + 1 - share)
    outside = (1 - share) * math.exp(epsilon) / ((1 - share) * math.exp(epsilon) + share)
    naive = sum(
        binom.pmf(a, 5, inside) * binom.pmf(b, 4, outside) for a in range(6) for b in range(5) if a + b >= guesses.right
    )
    assert pure_p_value(guesses, epsilon, share) == pytest.approx(naive)


@given(st.integers(1, 400), st.floats(0, 1), st.floats(0, 5), st.sampled_from([1e-6, 1e-3, 0.05]), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_approximate_p_value_is_the_formula(total, share, epsilon, delta, more):
    """Theorem 5.2 of Steinke et al., summed term by term."""
    right, records = round(share * total), total + more
    accuracy = 1 / (1 + math.exp(-epsilon))
    tail = binom.sf(right - 1, total, accuracy)
    alpha = max(((binom.sf(right - i - 1, total, accuracy) - tail) / i for i in range(1, right + 1)), default=0.0)
    naive = min(1.0, tail + 2 * records * delta * alpha)
    assert approximate_p_value(one_kind(records, total, right), epsilon, delta) == pytest.approx(naive, abs=1e-12)


@given(st.integers(1, 300), st.floats(0, 1), st.sampled_from([0.0, 1e-5, 1e-2, 0.1]))
@settings(max_examples=60, deadline=None)
def test_p_values_grow_with_epsilon_and_fall_with_right_guesses(total, share, delta):
    right = round(share * total)
    grid = np.linspace(0, 6, 40)
    values = [approximate_p_value(one_kind(400, total, right), epsilon, delta) for epsilon in grid]
    assert np.all(np.diff(values) >= -1e-9)
    if right < total:
        more = [approximate_p_value(one_kind(400, total, right + 1), epsilon, delta) for epsilon in grid]
        assert np.all(np.array(more) <= np.array(values) + 1e-9)


@pytest.mark.parametrize("right", [6, 14, 20])
def test_the_pure_bound_is_the_clopper_pearson_limit_of_the_accuracy(right):
    found = largest_refuted(lambda epsilon: approximate_p_value(one_kind(30, 20, right), epsilon) <= 0.05)
    low = beta.ppf(0.05, right, 20 - right + 1)
    assert found == pytest.approx(max(0.0, math.log(low / (1 - low))), abs=1e-6)


@pytest.mark.parametrize("mu", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("epsilon", [0.0, 0.5, 3.0])
def test_gaussian_delta_is_the_integral(mu, epsilon):
    """delta = E over N(mu, 1) of (1 - e^(epsilon - log likelihood ratio))+."""
    start = epsilon / mu + mu / 2
    naive, _ = quad(lambda x: norm.pdf(x - mu) * -math.expm1(epsilon - mu * x + mu * mu / 2), start, start + 40)
    assert gaussian_delta(mu, epsilon) == pytest.approx(naive, rel=1e-6)


@given(st.floats(0.01, 8), st.floats(1e-9, 0.5))
@settings(max_examples=100, deadline=None)
def test_gaussian_epsilon_inverts_delta(mu, delta):
    epsilon = gaussian_epsilon(mu, delta)
    assert epsilon >= 0
    if epsilon > 0:
        assert gaussian_delta(mu, epsilon) == pytest.approx(delta, rel=1e-4)
    else:
        assert gaussian_delta(mu, 0.0) <= delta


def test_gaussian_epsilon_at_the_ends():
    assert gaussian_epsilon(0.0, 1e-5) == 0.0
    assert gaussian_epsilon(1.0, 0.0) == math.inf


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize(("records", "guessed", "mu"), [(4, 4, 0.5), (12, 4, 1.0), (12, 10, 0.3), (30, 6, 2.0)])
def test_gaussian_test_holds_for_the_exact_chances(records, guessed, mu, both):
    """Records are N(mu * member, 1), guesses are ranks: no count so rare as 5 % in 20,000 draws refutes the true mu.

    The chance of a count is estimated with a standard error of .0016; counts within three of them are left out.
    False alarms: below 1e-3 in all.
    """
    generator = np.random.default_rng(5)
    kinds = ((guessed + 1) // 2, guessed // 2) if both else (guessed, 0)
    counts = np.zeros(guessed + 1)
    for _ in range(20000):
        member = generator.random(records) < 0.5
        order = np.argsort(generator.normal(size=records) + mu * member)
        right = member[order[records - kinds[0] :]].sum() + (~member[order[: kinds[1]]]).sum()
        counts[right] += 1
    tails = np.cumsum(counts[::-1])[::-1] / counts.sum()
    checked = 0
    for right in range(guessed + 1):
        for level in (0.01, 0.05, 0.2, 0.5):
            if tails[right] > level + 3 * math.sqrt(level / 20000):
                checked += 1
                guesses = Guesses(records, *kinds, min(right, kinds[0]), right - min(right, kinds[0]))
                assert not refutes_gaussian(guesses, mu, level)
    assert checked > guessed


@given(st.integers(1, 60), st.integers(0, 60), st.floats(0, 1), st.booleans())
@settings(max_examples=80, deadline=None)
def test_gaussian_refutation_is_monotone(guessed, abstained, share, both):
    right = round(share * guessed)
    kinds = ((guessed + 1) // 2, guessed // 2) if both else (guessed, 0)

    def guesses(count):
        return Guesses(guessed + abstained, *kinds, min(count, kinds[0]), count - min(count, kinds[0]))

    answers = [refutes_gaussian(guesses(right), mu, 0.05) for mu in np.linspace(0, 4, 30)]
    assert answers == sorted(answers, reverse=True)  # refuted, then allowed
    if right < guessed:
        more = [refutes_gaussian(guesses(right + 1), mu, 0.05) for mu in np.linspace(0, 4, 30)]
        assert all(after or not before for before, after in zip(answers, more, strict=True))


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("mu", [0.0, 0.5, 1.5])
def test_the_recursion_by_a_linear_program(mu, both):
    """The largest chance of so many right guesses that all constraints allow, each as 400 tangents of its curve."""
    records, guessed, factor = 12, 8, 1 if both else 2
    counts = np.arange(guessed + 1)
    at = np.concatenate([np.geomspace(1e-9, 0.5, 200), 1 - np.geomspace(1e-9, 0.5, 200)])
    curve = norm.cdf(norm.ppf(at) + mu)
    slope = norm.pdf(norm.ppf(at) + mu) / norm.pdf(norm.ppf(at))
    for right in range(1, guessed + 1):
        rows, limits = [], []
        for j in range(1, right + 1):
            held = (counts >= j) * counts * factor / records
            missed = (counts >= j - 1) * (guessed - counts) * factor / records
            rows += [held - one * missed for one in slope]  # held <= curve + slope (missed - at)
            limits += list(curve - slope * at)
        most = -linprog(
            -(counts >= right).astype(float), A_ub=rows, b_ub=limits, A_eq=[np.ones(guessed + 1)], b_eq=[1]
        ).fun
        kinds = (4, 4) if both else (8, 0)
        guesses = Guesses(records, *kinds, min(right, kinds[0]), right - min(right, kinds[0]))
        assert refutes_gaussian(guesses, mu, most * 1.01)
        assert not refutes_gaussian(guesses, mu, most * 0.99)


@given(st.integers(1, 50), st.floats(0, 1), st.sampled_from([0.01, 0.05, 0.3]))
def test_limits_are_the_binomial_tails(trials, share, level):
    successes = round(share * trials)
    low = lower_limit(np.array([float(successes)]), trials, level)[0]
    high = upper_limit(np.array([float(successes)]), trials, level)[0]
    if successes:
        assert binom.sf(successes - 1, trials, low) == pytest.approx(level)
    if successes < trials:
        assert binom.cdf(successes, trials, high) == pytest.approx(level)
    assert 0 <= low <= successes / trials <= high <= 1


def test_rates_bound_by_hand():
    generator = np.random.default_rng(3)
    select, measured = drawn(generator, 200, 2.0), drawn(generator, 400, 2.0)
    found = rates_bound(select, measured, delta=0.01)
    decided = measured.scores >= found.threshold
    hits, alarms = int((decided & measured.member).sum()), int((decided & ~measured.member).sum())
    members, nonmembers = int(measured.member.sum()), int((~measured.member).sum())
    tpr, fpr = beta.ppf(0.025, hits, members - hits + 1), beta.ppf(0.975, alarms + 1, nonmembers - alarms)
    by_hand = max(0.0, math.log((tpr - 0.01) / fpr), math.log((1 - fpr - 0.01) / (1 - tpr)))
    assert found.epsilon == pytest.approx(by_hand)
    assert found.threshold in select.scores
    assert found.choice == "chosen on select"


def test_gaussian_rates_bound_by_hand():
    generator = np.random.default_rng(4)
    select, measured = drawn(generator, 200, 1.5), drawn(generator, 400, 1.5)
    found = gaussian_rates_bound(select, measured, delta=1e-3)
    decided = measured.scores >= found.threshold
    hits, alarms = int((decided & measured.member).sum()), int((decided & ~measured.member).sum())
    members, nonmembers = int(measured.member.sum()), int((~measured.member).sum())
    tpr, fpr = beta.ppf(0.025, hits, members - hits + 1), beta.ppf(0.975, alarms + 1, nonmembers - alarms)
    assert found.mu == pytest.approx(norm.ppf(tpr) - norm.ppf(fpr))
    assert found.epsilon == gaussian_epsilon(found.mu, 1e-3)


def test_the_labels_of_eval_choose_nothing():
    """With membership of eval turned over, the same threshold and the same numbers of guesses are used."""
    generator = np.random.default_rng(6)
    select, measured = drawn(generator, 200, 1.0), drawn(generator, 400, 1.0)
    turned = Labelled(measured.scores, ~measured.member)
    # As many members as before, so that only labels differ.
    turned = (
        turned
        if turned.member.sum() == measured.member.sum()
        else Labelled(measured.scores, measured.member[::-1].copy())
    )
    for bound in BOUNDS:
        one, other = bound(select, measured, delta=1e-3), bound(select, turned, delta=1e-3)
        assert one.threshold == other.threshold
        if one.guesses:
            assert (one.guesses.members, one.guesses.nonmembers) == (other.guesses.members, other.guesses.nonmembers)


def test_any_sizes_of_select_and_eval_have_bounds():
    """Odd and even: shares of guesses carried over to the other size never round to more than there are."""
    generator = np.random.default_rng(0)
    for sizes in itertools.product((20, 21, 22, 47), (140, 141, 240, 333)):
        parts = [Labelled(generator.normal(size=size) + 2 * (rows := np.arange(size) % 2 == 0), rows) for size in sizes]
        assert len(epsilon_bounds(*parts)) == 4


def test_equal_scores_do_not_profit_from_the_order_of_records():
    """All scores equal, members first in the file: right guesses are those of chance.

    False alarms: 1e-9 each (the lot is fixed, so they are one draw each).
    """
    member = np.arange(2000) < 1000
    for members, nonmembers in ((300, 0), (0, 300), (150, 150)):
        right = make_guesses(np.zeros(2000), member, members, nonmembers).right
        assert binom.ppf(1e-9, 300, 0.5) <= right <= binom.isf(1e-9, 300, 0.5)


def test_guesses_are_the_highest_and_the_lowest():
    scores = np.array([0.1, 0.9, 0.5, 0.8, 0.2])
    member = np.array([False, True, True, False, True])
    assert make_guesses(scores, member, 2, 2) == Guesses(5, 2, 2, 1, 1)
    assert make_guesses(scores, member, 1, 0) == Guesses(5, 1, 0, 1, 0)


@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("bound", BOUNDS)
def test_zero_on_null_data(bound, corrected):
    """At most 5 % of 200 null audits above 0; false alarms: 1e-4 for each of the eight."""
    generator = np.random.default_rng(11)
    above = sum(
        bound(drawn(generator, 60), drawn(generator, 180), delta=1e-5, corrected=corrected).epsilon > 0
        for _ in range(200)
    )
    assert above <= binom.isf(1e-4, 200, 0.05)


@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("bound", [one_run_bound, rates_bound])
def test_rarely_above_the_epsilon_of_randomised_response(bound, corrected):
    """At most 5 % of 300 audits; false alarms: 1e-4 for each of the four. And most of epsilon is found."""
    generator = np.random.default_rng(12)
    found = np.array(
        [
            bound(responses(generator, 200, 1.5), responses(generator, 1000, 1.5), corrected=corrected).epsilon
            for _ in range(300)
        ]
    )
    assert np.sum(found > 1.5) <= binom.isf(1e-4, 300, 0.05)
    assert np.median(found) > 0.75 * 1.5


@pytest.mark.parametrize("bound", BOUNDS)
def test_rarely_above_the_epsilon_of_the_gaussian_mechanism(bound):
    """At most 5 % of 200 audits; false alarms: 1e-4 for each of the four. And none is empty."""
    generator = np.random.default_rng(13)
    truth = gaussian_epsilon(1.0, 0.01)
    found = np.array(
        [bound(drawn(generator, 300, 1.0), drawn(generator, 900, 1.0), delta=0.01).epsilon for _ in range(200)]
    )
    assert np.sum(found > truth) <= binom.isf(1e-4, 200, 0.05)
    if bound is not one_run_bound:  # 2 m delta is 18: the theorem then leaves next to nothing
        assert np.median(found) > 0.15 * truth


def test_dependent_records_break_the_rates_and_not_one_run():
    """All bits are published with chance .3, so (0, .3)-DP: rates are wrong that often, one run is not.

    False alarms: 1e-4 for one run. This is the planted failure that `assumes` of the rates warns of.
    """
    generator = np.random.default_rng(14)
    wrong = {rates_bound: 0, one_run_bound: 0}
    for _ in range(100):
        published = generator.random() < 0.3
        roles = [drawn(generator, records, 50.0 if published else 0.0) for records in (60, 180)]
        for bound in wrong:
            wrong[bound] += bound(*roles, delta=0.3).epsilon > 0
    assert wrong[rates_bound] > 15
    assert wrong[one_run_bound] <= binom.isf(1e-4, 100, 0.05)


@given(st.integers(0, 2**31), st.floats(-3, 3), st.sampled_from([1e-6, 0.01, 0.9]), st.floats(0.5, 0.999))
@settings(max_examples=25, deadline=None)
def test_never_negative_and_falling_in_confidence(seed, separation, delta, confidence):
    generator = np.random.default_rng(seed)
    select, measured = drawn(generator, 100, separation), drawn(generator, 100, separation)
    assert min(role.member.sum() for role in (select, measured)) >= 10
    for bound in BOUNDS:
        for corrected in (False, True):
            found = bound(select, measured, delta=delta, confidence=confidence, corrected=corrected)
            assert 0 <= found.epsilon < math.inf
    tried = [one_run_bound(select, measured, confidence=level, corrected=True).epsilon for level in (0.6, 0.9, 0.99)]
    assert tried == sorted(tried, reverse=True)


def test_perfect_scores_give_a_finite_bound():
    member = np.arange(100) % 2 == 0
    role = Labelled(member.astype(np.float64), member)
    for bound in BOUNDS:
        assert 1 < bound(role, role, delta=1e-5).epsilon < 60
    assert one_run_bound(role, role).epsilon == pytest.approx(
        math.log(0.05 ** (1 / 100) / (1 - 0.05 ** (1 / 100))), abs=1e-5
    )


def test_another_coin():
    """Nine of ten records are members: a constant guess is right that often, and proves nothing. False alarms: 1e-4."""
    generator = np.random.default_rng(15)
    above = 0
    for _ in range(60):
        roles = drawn(generator, 200, share=0.9), drawn(generator, 400, share=0.9)
        above += one_run_bound(*roles, member_share=0.9).epsilon > 0
    assert above <= binom.isf(1e-4, 60, 0.05)
    strong = drawn(generator, 400, 4.0, share=0.9), drawn(generator, 1000, 4.0, share=0.9)
    assert one_run_bound(*strong, member_share=0.9).epsilon > 1


def test_by_group_means_and_units():
    labelled = Labelled(np.array([1.0, 3.0, 5.0, 0.0]), np.array([True, True, False, False]))
    found = by_group(labelled, ["a", "a", "b", "c"])
    assert found.scores.tolist() == [2.0, 5.0, 0.0]
    assert found.member.tolist() == [True, False, False]


def test_groups_are_the_unit_of_the_bounds():
    """Groups of eight that share their score: taken as records, null data of 50 groups is far too often above 0."""
    generator = np.random.default_rng(16)
    by_record = by_groups = 0
    for _ in range(60):
        roles, names = [], []
        for _ in range(2):
            groups = drawn(generator, 50)
            roles.append(Labelled(np.repeat(groups.scores, 8), np.repeat(groups.member, 8)))
            names.append([f"g{one}" for one in np.repeat(np.arange(50), 8)])
        by_record += rates_bound(*roles, corrected=True).epsilon > 0
        bounds = epsilon_bounds(*roles, delta=0.0, corrected=True, groups=(names[0], names[1]))
        by_groups += max(one.epsilon for one in bounds if one.name == "rates") > 0
    assert by_groups <= binom.isf(1e-4, 60, 0.05)  # false alarms: 1e-4
    assert by_record > 15


def test_all_four_in_order():
    generator = np.random.default_rng(17)
    roles = drawn(generator, 100, 1.0), drawn(generator, 100, 1.0)
    found = epsilon_bounds(*roles)
    assert [one.name for one in found] == ["one_run", "rates", "gaussian_one_run", "gaussian_rates"]
    assert all(isinstance(one, EpsilonBound) and one.delta == 1e-5 and one.confidence == 0.95 for one in found)
    assert [one.name for one in epsilon_bounds(*roles, delta=0.0)] == ["one_run", "rates"]
    assert all("independent" in one.assumes for one in found)


def spoiled(labelled, **changes):
    return labelled._replace(**changes)


@pytest.mark.parametrize("bound", BOUNDS)
def test_refusals(bound):
    generator = np.random.default_rng(18)
    good = drawn(generator, 100)
    broken = good.scores.copy()
    broken[3] = math.nan
    for bad in (
        spoiled(good, scores=broken),
        spoiled(good, member=np.ones(100, dtype=bool)),
        spoiled(good, scores=good.scores[:50]),
        Labelled(np.arange(30.0), np.arange(30) < 5),
    ):
        for roles in ((bad, good), (good, bad)):
            with pytest.raises(RepromiaError):
                bound(*roles, delta=1e-5)
    for delta in (-0.1, 1.0, math.nan):
        with pytest.raises(RepromiaError, match="delta"):
            bound(good, good, delta=delta)
    for confidence in (0.0, 1.0, math.nan):
        with pytest.raises(RepromiaError, match="confidence"):
            bound(good, good, delta=1e-5, confidence=confidence)


def test_more_refusals():
    generator = np.random.default_rng(19)
    good = drawn(generator, 100)
    for gaussian in (gaussian_one_run_bound, gaussian_rates_bound):
        with pytest.raises(RepromiaError, match="no epsilon"):
            gaussian(good, good, delta=0.0)
    unfair = drawn(generator, 400, share=0.8)
    for bound in (one_run_bound, gaussian_one_run_bound):
        with pytest.raises(RepromiaError, match="not drawn by independent coins"):
            bound(good, unfair, delta=1e-5)
    with pytest.raises(RepromiaError, match="one-run bound"):
        one_run_bound(unfair, unfair, delta=1e-5, member_share=0.8)
    with pytest.raises(RepromiaError, match="one-run bound"):
        one_run_bound(unfair, unfair, member_share=1.0)
    with pytest.raises(RepromiaError, match="not drawn by group"):
        by_group(good, ["one"] * 100)
    with pytest.raises(RepromiaError, match="fit together"):
        by_group(good, ["one"])
    with pytest.raises(RepromiaError, match="guesses"):
        Guesses(5, 4, 2, 1, 1)
