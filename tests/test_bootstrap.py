"""The bootstrap and the joint test against naive oracles and by simulation.

Every simulated check says its false-alarm rate: the chance, over seeds, that it fails although the code is
right. They add up to less than 1e-4; seeds are fixed, so that a run that passed once passes always.
"""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from scipy.stats import binom, norm
from scipy.stats import t as student

from repromia import metrics
from repromia.areas import area, area_and_tpr, beyond_chance
from repromia.errors import RepromiaError
from repromia.intervals import Bootstrap, delong, joint_null_test, percentile, widened


def normal_scores(generator, records, auc):
    member = np.arange(2 * records) < records
    return generator.normal(size=2 * records) + norm.ppf(auc) * math.sqrt(2) * member, member


def drawn_rows(bootstrap):
    """The rows of each resample, spelled out."""
    for counts in bootstrap._counts():
        for row in counts:
            yield np.repeat(np.arange(bootstrap.member.size), row[bootstrap._group])


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("decimals", [0, 8])
def test_bootstrap_figures_equal_figures_of_the_resampled_records(grouped, decimals):
    generator = np.random.default_rng(2)
    scores, member = normal_scores(generator, 30, 0.7)
    scores = scores.round(decimals)
    groups = [str(group) for group in generator.integers(20, size=60)] if grouped else None
    bootstrap = Bootstrap(member, groups, repeats=50, seed=3)
    assert bootstrap.grouped is grouped
    fprs = (0.0, 0.05, 0.1, 0.5, 1.0)
    found = bootstrap.statistics(scores, fprs)
    assert (found.auc.shape, found.tpr.shape) == ((50,), (5, 50))
    for number, rows in enumerate(drawn_rows(bootstrap)):
        assert found.auc[number] == pytest.approx(metrics.auc(scores[rows], member[rows]))
        for position, fpr in enumerate(fprs):
            assert found.tpr[position, number] == metrics.tpr_at_fpr(scores[rows], member[rows], fpr)


def test_strata_keep_their_sizes_and_groups_stay_whole():
    member = np.array([True] * 4 + [False] * 4 + [True, False, False, True])
    groups = [*"aabbccdd", "m", "m", "n", "n"]
    counts = np.zeros(12)
    for rows in drawn_rows(Bootstrap(member, groups, repeats=200)):
        drawn = np.bincount(rows, minlength=12)
        assert (drawn[0::2] == drawn[1::2]).all()
        assert (drawn[:4].sum(), drawn[4:8].sum(), drawn[8:].sum()) == (4, 4, 4)
        counts += drawn
    # Each group is drawn binomial(400, 1/2) times in all; beyond 6 standard errors: 2e-9 a group.
    assert (abs(counts - 200) < 60).all()


def test_resamples_are_shared_by_all_scores_and_chunks(monkeypatch):
    scores, member = normal_scores(np.random.default_rng(4), 40, 0.8)
    bootstrap = Bootstrap(member, repeats=64, seed=9)
    first = bootstrap.statistics(scores, [0.1])
    np.testing.assert_array_equal(first.auc, bootstrap.statistics(np.exp(scores), [0.1]).auc)
    np.testing.assert_allclose(first.auc, 1 - bootstrap.statistics(-scores, [0.1]).auc)
    assert not np.array_equal(first.auc, Bootstrap(member, repeats=64, seed=10).statistics(scores, []).auc)
    monkeypatch.setattr("repromia.bootstrap.CELLS", 10**9)
    np.testing.assert_array_equal(first.tpr, Bootstrap(member, repeats=64, seed=9).statistics(scores, [0.1]).tpr)


def test_bootstrap_agrees_with_delong():
    """Standard errors within 10 %, DeLong's read off its interval.

    3,000 repeats have an error of 1.3 %, the bootstrap a bias of about 1 %: false-alarm rate below 1e-6.
    """
    scores, member = normal_scores(np.random.default_rng(5), 200, 0.7)
    odds = delong(scores, member)
    scale = odds.estimate * (1 - odds.estimate) / (2 * norm.ppf(0.975))
    error = scale * math.log(odds.high * (1 - odds.low) / odds.low / (1 - odds.high))
    sampled = Bootstrap(member, repeats=3000).statistics(scores, []).auc
    assert sampled.std() == pytest.approx(error, rel=0.1)


def test_memory_is_bounded_for_many_records():
    scores, member = normal_scores(np.random.default_rng(6), 50_000, 0.6)
    tracemalloc.start()
    Bootstrap(member, repeats=25).statistics(scores, [0.01])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6


def test_what_cannot_be_resampled_is_refused():
    member = np.array([True, True, False, False])
    for groups in (["a", "a", "b", "c"], ["a", "b", "c", "c"], ["a", "a", "a", "a"]):
        with pytest.raises(RepromiaError, match="another draw"):
            Bootstrap(member, groups)
    with pytest.raises(RepromiaError, match="3 groups"):
        Bootstrap(member, ["a", "b", "c"])
    with pytest.raises(RepromiaError, match="one class is empty"):
        Bootstrap(np.array([True, True]))


def test_percentile_holds_its_estimate():
    samples = np.arange(1001) / 1000
    found = percentile(samples, 0.5)
    assert (found.low, found.high) == (0.025, 0.975)
    assert percentile(samples, 2.0).high == 2.0
    assert percentile(samples, 0.5, 0.5, "named").method == "named"


def null_alarm(generator, attacks, correlation, repeats=200):
    member = np.arange(200) < 100
    shared = generator.normal(size=200)
    bootstrap = Bootstrap(member, repeats=repeats, seed=int(generator.integers(2**31)))
    own = generator.normal(size=(attacks, 200))
    scores = math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * own
    points = np.array([metrics.auc(row, member) for row in scores])
    return joint_null_test(points, np.array([bootstrap.statistics(row, []).auc for row in scores]))


@pytest.mark.parametrize(("attacks", "correlation"), [(1, 0.0), (8, 0.0), (8, 0.8)])
def test_joint_null_test_keeps_its_level(attacks, correlation):
    """Nominal .05, at most .08 wanted (measured: module docstring); 200 draws, false-alarm rate 1e-6 each."""
    generator = np.random.default_rng(9)
    alarms = sum(null_alarm(generator, attacks, correlation) <= 0.05 for _ in range(200))
    assert alarms <= binom.isf(1e-6, 200, 0.08)


def test_joint_null_test_sees_one_attack_and_a_reversed_sign():
    """Planted failures: one score of six that knows the members, or knows them upside down."""
    generator = np.random.default_rng(10)
    knowing, member = normal_scores(generator, 200, 0.7)
    scores = [*generator.normal(size=(5, 400)), knowing]
    bootstrap = Bootstrap(member, repeats=500)
    for sign in (1, -1):
        rows = [*scores[:5], sign * scores[5]]
        points = np.array([metrics.auc(row, member) for row in rows])
        sampled = np.array([bootstrap.statistics(row, []).auc for row in rows])
        assert joint_null_test(points, sampled) == 1 / 501
    constant = np.full((1, 500), 0.5)
    assert joint_null_test(np.array([0.5]), constant) == 1.0
    assert joint_null_test(np.array([1.0]), constant + 0.5) == 1 / 501


def few_groups(generator, count, size, correlation):
    """Null scores of groups a side that hold together, their labels and names."""
    groups = np.repeat(np.arange(2 * count), size)
    own = math.sqrt(1 - correlation) * generator.normal(size=groups.size)
    scores = math.sqrt(correlation) * generator.normal(size=2 * count)[groups] + own
    return scores, groups < count, [str(one) for one in groups]


def test_few_groups_raise_no_more_alarms_than_many():
    """10 groups of 10 a side, correlation .5, 250 audits: AUC limits above .5 at .025, TPR at 5 % FPR at 1 in 400
    (.032 if records counted as independent). False-alarm rates 1e-5 and 1e-6 at twice these."""
    generator = np.random.default_rng(11)
    areas, tprs, independent = 0, 0, 0
    for seed in range(250):
        scores, member, groups = few_groups(generator, 10, 10, 0.5)
        found, tpr = area_and_tpr(scores, member, groups, fpr=0.05, seed=seed)
        areas += found.low > 0.5
        tprs += beyond_chance(tpr, 100, 100)
        independent += tpr.tpr > metrics.null_tpr_quantile(100, 100, 0.05, 1 - 1 / 400)
    assert areas <= binom.isf(1e-5, 250, 0.05)
    assert tprs <= binom.isf(1e-6, 250, 0.005)
    assert independent > 3  # the planted failure


def test_limits_of_groups_are_those_of_students_t_on_the_logit_scale():
    """Against the formula; and near 1, where a percentile interval's lower limit lay above the truth in .15 of audits.
    100 of them: false-alarm rate of the bound 1e-3 at twice .05."""
    generator = np.random.default_rng(13)
    shift = math.sqrt(2) * norm.ppf(0.97)
    above = 0
    for seed in range(100):
        scores, member, groups = few_groups(generator, 10, 20, 0.5)
        scores = scores + shift * member
        found = area(scores, member, groups, seed=seed, level=0.9)
        above += area(scores, member, groups, seed=seed).low > 0.97
    value, samples = metrics.auc(scores, member), Bootstrap(member, groups, seed=99).statistics(scores, []).auc
    error = samples.std(ddof=1) * math.sqrt(10 / 9)
    odds, reach = math.log(value / (1 - value)), student.isf(0.05, 9) * error / (value * (1 - value))
    assert found.low == pytest.approx(1 / (1 + math.exp(reach - odds)))
    assert found.high == pytest.approx(1 / (1 + math.exp(-reach - odds)))
    assert above <= binom.isf(1e-3, 100, 0.05)


def test_labels_dealt_out_anew_agree_with_the_exact_law_of_independent_records():
    generator = np.random.default_rng(12)
    member = np.arange(300) < 150
    bootstrap = Bootstrap(member, [str(one) for one in range(300)])
    reached = bootstrap.chance(generator.normal(size=300), [0.05, 0.1], repeats=4000)
    for row, fpr in zip(reached, (0.05, 0.1), strict=True):
        exact = [metrics.null_tpr_quantile(150, 150, fpr, level) for level in (0.5, 0.9, 0.975)]
        assert np.quantile(row, (0.5, 0.9, 0.975)) == pytest.approx(exact, abs=0.02)


def test_labels_are_dealt_out_to_whole_groups_and_within_mixed_ones():
    """A score that knows the groups of members whole, and in mixed groups the members, against all deals by hand."""
    member = np.array([True, True, False, False, True, False])
    groups = ["a", "a", "b", "b", "m", "m"]
    scores = np.array([4.0, 3.0, 1.0, 0.0, 2.5, 2.0])
    reached = Bootstrap(member, groups).chance(scores, [0.0], repeats=4000)[0]
    deals = []
    for first in (True, False):
        for inner in (True, False):
            dealt = np.array([first, first, not first, not first, inner, not inner])
            deals.append(metrics.tpr_at_fpr(scores, dealt, 0.0))
    for value in set(deals):
        assert np.mean(reached == value) == pytest.approx(deals.count(value) / 4, abs=0.05)
    assert set(reached.tolist()) == set(deals)


def test_intervals_of_few_groups_are_wider():
    one = percentile(np.linspace(0.4, 0.7, 101), 0.55)
    wide = widened(one, 10, (0.0, 1.0))
    factor = 2.2622 / 1.95996 * math.sqrt(10 / 9)
    assert (wide.estimate - wide.low) / (one.estimate - one.low) == pytest.approx(factor, rel=1e-4)
    assert (wide.high - wide.estimate) / (one.high - one.estimate) == pytest.approx(factor, rel=1e-4)
    assert widened(one, 10_000, (0.0, 1.0)).low == pytest.approx(one.low, abs=1e-4)
    assert widened(percentile(np.linspace(0.1, 0.99, 101), 0.9), 3, (0.0, 1.0)).high == 1.0
