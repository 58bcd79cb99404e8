"""Intervals and tests against naive oracles and by simulation.

Every simulated check says its false-alarm rate: the chance, over seeds, that it fails although the code is
right. They add up to less than 1e-4; seeds are fixed, so that a run that passed once passes always.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, norm

from repromia import metrics
from repromia.errors import RepromiaError
from repromia.intervals import (
    Bootstrap,
    Labelled,
    _ordered_alike,
    clopper_pearson,
    delong,
    delong_difference,
    tpr_figures,
    tpr_interval,
)


def normal_scores(generator, records, auc):
    member = np.arange(2 * records) < records
    return generator.normal(size=2 * records) + norm.ppf(auc) * math.sqrt(2) * member, member


def true_tpr(auc, fpr):
    return norm.sf(norm.isf(fpr) - norm.ppf(auc) * math.sqrt(2))


def least_hits(runs, coverage, alarm=1e-6):
    """Fewer intervals than this hold the truth with probability `alarm` if each holds it with `coverage`."""
    return binom.ppf(alarm, runs, coverage)


def naive_delong(first, second, member):
    """Covariance matrix of two AUCs from all pairs (DeLong et al. 1988, equations 4 to 6)."""
    kernels = []
    for scores in (first, second):
        a, b = scores[member][:, None], scores[~member][None]
        kernels.append((a > b) + 0.5 * (a == b))
    rows = np.cov([k.mean(axis=1) for k in kernels]) / member.sum()
    columns = np.cov([k.mean(axis=0) for k in kernels]) / (~member).sum()
    return np.array([k.mean() for k in kernels]), rows + columns


@pytest.mark.parametrize("decimals", [0, 1, 8])
def test_delong_equals_all_pairs(decimals):
    generator = np.random.default_rng(0)
    for _ in range(20):
        first, member = normal_scores(generator, 20, 0.7)
        first = np.round(first[:-3], decimals)
        second, member = np.round(first + generator.normal(size=37), decimals), member[:-3]
        values, covariance = naive_delong(first, second, member)
        one = delong(first, member, level=0.9)
        assert one.estimate == pytest.approx(values[0])
        reach = norm.ppf(0.95) * math.sqrt(covariance[0, 0]) / (values[0] * (1 - values[0]))
        odds = math.log(values[0] / (1 - values[0]))
        for side, limit in ((-1, one.low), (1, one.high)):
            assert limit == pytest.approx(1 / (1 + math.exp(-odds - side * reach)))
        gain = delong_difference(first, second, member)
        half = norm.ppf(0.975) * math.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
        assert gain.estimate == pytest.approx(values[0] - values[1])
        assert (gain.high - gain.low) / 2 == pytest.approx(half)


@pytest.mark.parametrize(("records", "auc"), [(50, 0.5), (50, 0.7), (50, 0.95), (50, 0.99), (500, 0.7)])
def test_delong_covers(records, auc):
    """1,000 draws, at least .93 wanted; false-alarm rate 1e-6 each if it is so."""
    generator = np.random.default_rng(1)
    rows = [delong(*normal_scores(generator, records, auc)) for _ in range(1000)]
    assert sum(row.low <= auc <= row.high for row in rows) >= least_hits(1000, 0.93)
    assert sum(row.low <= auc <= row.high for row in rows) <= 1000 - binom.ppf(1e-6, 1000, 0.01)


def test_no_interval_without_width_at_the_ends():
    member = np.arange(40) < 20
    perfect = delong(member.astype(float), member)
    assert (perfect.estimate, perfect.high, perfect.method) == (1.0, 1.0, "Clopper-Pearson, disjoint pairs")
    assert perfect.low == pytest.approx(0.025 ** (1 / 20))
    reversed_sign = delong(-member.astype(float), member)
    assert (reversed_sign.low, reversed_sign.estimate) == (0.0, 0.0)
    assert reversed_sign.high == pytest.approx(1 - perfect.low)
    constant = delong(np.zeros(40), member)
    assert constant.method == "Hoeffding"
    assert constant.low < 0.25 < 0.75 < constant.high
    single = delong(np.array([0.3, 0.1, 0.5]), np.array([True, False, False]))
    assert (single.low, single.high) == (0.0, 1.0)


def test_difference_where_the_variance_vanishes():
    member = np.arange(40) < 20
    good, better = member + np.linspace(0, 0.5, 40), member + np.linspace(0.5, 0, 40)
    same = delong_difference(good, good, member)
    assert (same.estimate, same.low, same.high, same.method) == (0.0, 0.0, 0.0, "identical scores")
    rest = np.random.default_rng(0).normal(size=40)
    alike = delong_difference(rest, np.exp(rest), member)  # another scale, and no pair that is ordered otherwise
    assert (alike.estimate, alike.method) == (0.0, "Clopper-Pearson, disjoint pairs")
    assert (alike.low, alike.high) == pytest.approx((0.025 ** (1 / 20) - 1, 1 - 0.025 ** (1 / 20)))
    both = delong_difference(good, better, member)
    assert both.method == "Clopper-Pearson, disjoint pairs"
    assert both.low == pytest.approx(-both.high)
    assert 0.1 < both.high < 0.2
    opposed = delong_difference(good, -good, member)
    assert (opposed.estimate, opposed.high) == (1.0, 1.0)
    assert 0.6 < opposed.low < 0.7
    assert delong_difference(good, np.zeros(40), member).method == "Hoeffding"


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.booleans()), min_size=2, max_size=7))
def test_agreement_on_every_pair_is_seen(rows):
    first, second = (np.array([row[at] for row in rows], dtype=float) for at in (0, 1))
    member = np.array([row[2] for row in rows])
    pairs = [(i, j) for i in np.flatnonzero(member) for j in np.flatnonzero(~member)]
    agree = all(np.sign(first[i] - first[j]) == np.sign(second[i] - second[j]) for i, j in pairs)
    assert _ordered_alike(first, second, member) == agree


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_clopper_pearson_is_exact(counts):
    ours, theirs = clopper_pearson(*counts), binomtest(*counts).proportion_ci(0.95, "exact")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_impossible_counts_are_refused():
    for counts in ((3, 2), (-1, 2), (0, 0)):
        with pytest.raises(RepromiaError, match="successes"):
            clopper_pearson(*counts)


@pytest.mark.parametrize(("fpr", "records"), [(0.01, 1000), (0.01, 300), (0.05, 300)])
@pytest.mark.parametrize("auc", [0.5, 0.6, 0.8])
def test_tpr_interval_covers(fpr, records, auc):
    """300 draws, at least .93 wanted; false-alarm rate 1e-6 each. Useless width would fail the last line."""
    generator = np.random.default_rng(7)
    truth = true_tpr(auc, fpr)
    rows = [tpr_interval(*normal_scores(generator, records, auc), fpr) for _ in range(300)]
    assert sum(row.low <= truth <= row.high for row in rows) >= least_hits(300, 0.93)
    slope = true_tpr(auc, fpr * 1.001) - truth  # the delta method's standard error, as an oracle for the width
    error = math.hypot(
        math.sqrt(truth * (1 - truth) / records), slope / (fpr * 0.001) * math.sqrt(fpr * (1 - fpr) / records)
    )
    assert np.mean([row.high - row.low for row in rows]) < 1.5 * 2 * 1.96 * error


@pytest.mark.slow
@pytest.mark.parametrize("decimals", [0, 1])
def test_tpr_interval_covers_with_ties(decimals):
    """Rounded scores: the truth is at the lowest grid point of allowed FPR. 1,000 draws, .93; 1e-6 each."""
    generator, grid = np.random.default_rng(8), np.arange(-60, 60) / 10.0**decimals
    edges = grid - 0.5 / 10.0**decimals
    truth = norm.sf(edges[np.flatnonzero(norm.sf(edges) <= 0.05)[0]] - 1.0)
    hits = 0
    for _ in range(1000):
        member = np.arange(600) < 300
        row = tpr_interval((generator.normal(size=600) + member).round(decimals), member, 0.05)
        hits += row.low <= truth <= row.high
    assert hits >= least_hits(1000, 0.93)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=1), st.sampled_from([0.0, 0.01, 0.3, 1.0]))
def test_tpr_interval_is_ordered_and_depends_on_ranks_alone(rows, fpr):
    scores = np.array([float(score) for score, _ in rows] + [0.0, 0.0])
    member = np.array([side for _, side in rows] + [True, False])
    found = tpr_interval(scores, member, fpr)
    assert 0 <= found.low <= found.estimate <= found.high <= 1
    assert found.estimate == metrics.tpr_at_fpr(scores, member, fpr)
    assert tpr_interval(scores**3, member, fpr) == found


def test_tpr_figures_say_what_they_can_carry():
    scores, member = normal_scores(np.random.default_rng(11), 250, 0.8)
    refused = tpr_figures(scores, member, 0.001)
    assert (refused.status, refused.tpr, refused.low) == ("refused", None, None)
    assert "at least 1,000" in refused.reason
    assert tpr_figures(scores, member, 0.0).status == "refused"
    coarse = tpr_figures(scores, member, 0.01)
    assert (coarse.status, coarse.reason) == ("coarse", "false positives allowed among 250: only 2")
    measured = tpr_figures(scores, member, 0.012)
    assert (measured.status, measured.reason) == ("measured", "")
    assert measured.tpr == metrics.tpr_at_fpr(scores, member, 0.012)
    assert measured.smallest_visible == metrics.null_tpr_quantile(250, 250, 0.012)
    assert measured.low is not None
    assert measured.low <= measured.tpr <= measured.high
    resampled = Bootstrap(member, [str(row // 5) for row in range(500)]).statistics(scores, [0.05]).tpr[0]
    by_group, alone = (
        tpr_figures(scores, member, 0.05, resampled=resampled),
        tpr_figures(scores, member, 0.05),
    )
    assert by_group.low <= min(alone.low, np.quantile(resampled, 0.025))
    assert by_group.high >= max(alone.high, np.quantile(resampled, 0.975))
    assert "bootstrap" in by_group.method


def test_threshold_of_select_is_applied_to_eval():
    generator = np.random.default_rng(12)
    scores, member = normal_scores(generator, 300, 0.8)
    select = Labelled(*normal_scores(generator, 100, 0.8))
    found = tpr_figures(scores, member, 0.05, select=select).from_select
    threshold = metrics.threshold_at_fpr(select.scores, select.member, 0.05)
    assert found.fpr == clopper_pearson(int((scores[~member] >= threshold).sum()), 300)
    assert found.tpr == clopper_pearson(int((scores[member] >= threshold).sum()), 300)
    too_few = Labelled(select.scores[50:150], select.member[50:150])
    assert tpr_figures(scores, member, 0.01, select=too_few).from_select is None
    with pytest.raises(RepromiaError, match="NaN"):
        tpr_figures(scores, member, 0.05, select=Labelled(np.array([math.nan, 1.0]), np.array([True, False])))


@pytest.mark.slow
@pytest.mark.parametrize("correlation", [0.2, 0.6])
def test_grouped_tpr_figures_cover(correlation):
    """200 + 200 groups of 5, TPR at 1 % FPR; 300 draws, at least .92 wanted, false-alarm rate 1e-6 each."""
    generator, groups = np.random.default_rng(13), np.repeat(np.arange(400), 5)
    member, truth, hits = groups < 200, true_tpr(0.8, 0.01), 0
    names = [str(group) for group in groups]
    for number in range(300):
        scores = math.sqrt(correlation) * generator.normal(size=400)[groups]
        scores += math.sqrt(1 - correlation) * generator.normal(size=2000) + norm.ppf(0.8) * math.sqrt(2) * member
        resampled = Bootstrap(member, names, repeats=300, seed=number).statistics(scores, [0.01]).tpr[0]
        row = tpr_figures(scores, member, 0.01, resampled=resampled)
        hits += row.low <= truth <= row.high
    assert hits >= least_hits(300, 0.92)
