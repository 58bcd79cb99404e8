"""Every attack against a few lines written from its formula, record by record."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist, mean, median, stdev, variance

import numpy as np
import pytest
from scipy.special import digamma, polygamma
from scipy.stats import t as student

from repromia.errors import AttackError

from .synthetic import CLASSES, Case, case, figures, names

# records differ in how many models saw them
CASE = case(30, 10, seed=3)
INSIDE = CASE.references.inside.copy()
INSIDE[0, :10], INSIDE[1, :5] = True, True
INSIDE[0, 12:20] = False
CASE = CASE.seen_by(INSIDE)
NORMAL = NormalDist()
QUERIES = 3


def p(one: Case, record: int) -> list[float]:
    return [math.exp(float(value)) for value in one.plain.logprobs[record]]


def own(one: Case, record: int) -> float:
    return p(one, record)[one.plain.label[record]]


def theirs(one: Case, record: int, saw: bool) -> list[float]:
    """p of the plain record, of the models that saw it or did not."""
    return [
        math.exp(float(one.references.logprob[model, record, 0]))
        for model in range(one.references.models)
        if one.references.inside[model, record] == saw
    ]


def logits(one: Case, record: int, query: int, saw: bool) -> list[float]:
    """log p / (1 - p), of the models that saw it or did not."""
    found = []
    for model in range(one.references.models):
        if one.references.inside[model, record] == saw:
            share = math.exp(float(one.references.logprob[model, record, query]))
            found.append(math.log(share / (1 - share)))
    return found


def logit(one: Case, record: int, query: int = 0) -> float:
    answer = one.views["augmented"][query]
    share = math.exp(float(answer.logprobs[record, answer.label[record]]))
    return math.log(share / (1 - share))


def modified_entropy(one: Case, record: int) -> float:
    shares, label = p(one, record), one.plain.label[record]
    others = sum(shares[k] * math.log(1 - shares[k]) for k in range(CLASSES) if k != label)
    return (1 - shares[label]) * math.log(shares[label]) + others


def votes(one: Case, record: int, plan: str) -> float:
    return mean(float(each.predicted[record] == each.label[record]) for each in one.views[plan])


def pooled(one: Case, query: int, saw: bool) -> float:
    every = [logits(one, record, query, saw) for record in range(len(one.member))]
    return sum((x - mean(xs)) ** 2 for xs in every for x in xs) / sum(len(xs) - 1 for xs in every)


def lira(one: Case, record: int, centre: Callable[[list[float]], float] = mean, fixed: bool = True) -> float:
    found = []
    for query in range(QUERIES):
        terms = []
        for saw in (True, False):
            values = logits(one, record, query, saw)
            spread = math.sqrt(pooled(one, query, saw)) if fixed else stdev(values)
            terms.append(math.log(NormalDist(centre(values), spread).pdf(logit(one, record, query))))
        found.append(terms[0] - terms[1])
    return mean(found)


def lira_offline(one: Case, record: int, two: bool = False) -> float:
    found = []
    for query in range(QUERIES):
        spread = math.sqrt(pooled(one, query, False))
        z = (logit(one, record, query) - mean(logits(one, record, query, False))) / spread
        found.append(z * z / 2 + math.log(spread) if two else math.log(NORMAL.cdf(z)))
    return mean(found)


def ratio(one: Case, record: int, a: float) -> float:
    return own(one, record) / ((1 + a) / 2 * mean(theirs(one, record, False)) + (1 - a) / 2)


def over_queries(one: Case, record: int) -> float:
    every = [x for query in range(QUERIES) for x in logits(one, record, query, False)]
    return mean(1 / (1 + math.exp(-x)) for x in every)


def ratio_online(one: Case, record: int) -> float:
    return own(one, record) / (mean(theirs(one, record, True)) / 2 + mean(theirs(one, record, False)) / 2)


def share(one: Case, record: int, ratios: list[float], gamma: float = 1.0) -> float:
    log = math.log(ratios[record])
    return mean(float(ratios[record] / each >= gamma) for each in ratios) + (0.5 + 0.25 * log / (1 + abs(log))) / len(
        ratios
    )


def base(one: Case, record: int, scale: float = 1.0, all_models: bool = False) -> float:
    models = theirs(one, record, False) + (theirs(one, record, True) if all_models else [])
    return math.log(own(one, record)) - scale * math.log(mean(models))


def bavaria_predictive(one: Case, record: int, query: int, saw: bool) -> tuple[float, float, float]:
    """Centre, scale and degrees of freedom, by the usual update of a normal-inverse-gamma prior."""
    every = [logits(one, other, query, saw) for other in range(len(one.member))]
    many = [values for values in every if len(values) > 1]
    residues = [math.log(variance(xs)) - float(digamma((len(xs) - 1) / 2)) + math.log((len(xs) - 1) / 2) for xs in many]
    excess = variance(residues) - mean(float(polygamma(1, (len(xs) - 1) / 2)) for xs in many)
    low, high = 0.5, 500.0
    for _ in range(200):  # alpha, halved until its trigamma is the excess
        middle = math.sqrt(low * high)
        low, high = (middle, high) if float(polygamma(1, middle)) > excess else (low, middle)
    alpha = low
    beta = alpha * math.exp(mean(residues) + float(digamma(alpha)) - math.log(alpha))
    within = pooled(one, query, saw)
    means = [mean(xs) for xs in every]
    between = mean((m - mean(means)) ** 2 for m in means) - mean(within / len(xs) for xs in every)
    kappa, centre = within / between, mean(means)
    xs = every[record]
    n = len(xs)
    beta += sum((x - mean(xs)) ** 2 for x in xs) / 2 + kappa * n / (kappa + n) * (mean(xs) - centre) ** 2 / 2
    alpha += n / 2
    found = (kappa * centre + n * mean(xs)) / (kappa + n)
    return found, math.sqrt(beta * (kappa + n + 1) / (alpha * (kappa + n))), 2 * alpha


def bavaria(one: Case, record: int) -> float:
    found = []
    for query in range(QUERIES):
        terms = []
        for saw in (True, False):
            centre, scale, freedom = bavaria_predictive(one, record, query, saw)
            terms.append(float(student.logpdf(logit(one, record, query), freedom, centre, scale)))
        found.append(terms[0] - terms[1])
    return mean(found)


def bavaria_offline(one: Case, record: int) -> float:
    found = []
    for query in range(QUERIES):
        centre, scale, freedom = bavaria_predictive(one, record, query, False)
        found.append(float(student.logcdf(logit(one, record, query), freedom, centre, scale)))
    return mean(found)


# attack and options -> the score of a record
ORACLES: dict[str, tuple[dict[str, object], Callable[[Case, int], float]]] = {
    "loss": ({}, lambda one, r: math.log(own(one, r))),
    "confidence": ({}, lambda one, r: math.log(max(p(one, r)))),
    "entropy": ({}, lambda one, r: sum(x * math.log(x) for x in p(one, r))),
    "modified_entropy": ({}, modified_entropy),
    "margin": (
        {},
        lambda one, r: (
            math.log(own(one, r)) - math.log(max(x for k, x in enumerate(p(one, r)) if k != one.plain.label[r]))
        ),
    ),
    "scaled_logit": ({}, logit),
    "augmented": ({}, lambda one, r: mean(logit(one, r, query) for query in range(QUERIES))),
    "correctness": ({}, lambda one, r: float(p(one, r).index(max(p(one, r))) == one.plain.label[r])),
    "noise_votes": ({}, lambda one, r: votes(one, r, "noisy") + 0.1 * votes(one, r, "identity")),
    "augmentation_votes": ({}, lambda one, r: votes(one, r, "augmented")),
    "watson": ({}, lambda one, r: math.log(own(one, r)) - mean(math.log(x) for x in theirs(one, r, False))),
    "base": ({}, base),
    "base scaled": ({"scale": 0.5}, lambda one, r: base(one, r, 0.5)),
    "base of all": ({"models": "all"}, lambda one, r: base(one, r, all_models=True)),
    "lira": ({"queries": "all"}, lira),
    "lira of records": ({"variance": "record", "queries": "all"}, lambda one, r: lira(one, r, fixed=False)),
    "lira auto, enough": ({"enough": 2, "queries": "all"}, lambda one, r: lira(one, r, fixed=False)),
    "lira auto, enough for some": (
        {"enough": 5, "queries": "all"},
        lambda one, r: lira(one, r, fixed=min(len(theirs(one, r, True)), len(theirs(one, r, False))) < 5),
    ),
    "lira by median": ({"centre": "median", "queries": "all"}, lambda one, r: lira(one, r, median)),
    "lira_offline": ({"queries": "all"}, lira_offline),
    "lira_offline two-sided": ({"sides": "two", "queries": "all"}, lambda one, r: lira_offline(one, r, True)),
    "rmia": ({"a": "0.25", "queries": "plain"}, lambda one, r: share(one, r, [ratio(one, z, 0.25) for z in range(30)])),
    "rmia at 1": (
        {"a": "1", "queries": "plain"},
        lambda one, r: share(one, r, [ratio(one, z, 1.0) for z in range(30)]),
    ),
    "rmia far": (
        {"a": "0", "gamma": 1.5, "queries": "plain"},
        lambda one, r: share(one, r, [ratio(one, z, 0.0) for z in range(30)], 1.5),
    ),
    "rmia over queries": (
        {"a": "0.5"},
        lambda one, r: share(one, r, [own(one, z) / (0.75 * over_queries(one, z) + 0.25) for z in range(30)]),
    ),
    "rmia_online": ({}, lambda one, r: share(one, r, [ratio_online(one, z) for z in range(30)])),
    "bavaria": ({"queries": "all"}, bavaria),
    "bavaria_offline": ({"queries": "all"}, bavaria_offline),
}


@pytest.mark.parametrize("spec", ORACLES)
def test_scores_equal_the_formula(spec: str) -> None:
    options, oracle = ORACLES[spec]
    found = figures(spec.split()[0], CASE, **options)
    assert len(np.unique(INSIDE.sum(axis=0))) > 2
    expected = [[oracle(CASE, record)] for record in range(30)]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["lira", "lira_offline", "bavaria", "bavaria_offline"])
def test_all_queries_and_the_plain_one_are_variants(name: str) -> None:
    both = [figures(name, CASE, queries=one)[:, 0] for one in ("all", "plain")]
    np.testing.assert_array_equal(figures(name, CASE), np.stack(both, axis=1))


def test_one_model_a_side_has_no_variance_of_its_own() -> None:
    few = case(count=2)
    for name in ("lira", "lira_offline"):
        np.testing.assert_array_equal(figures(name, few, enough=1), figures(name, few, variance="fixed"))


def test_every_attack_has_an_oracle() -> None:
    assert {spec.split()[0] for spec in ORACLES} | {"shokri", "salem", "ldc_mia"} == {*names()}


@pytest.mark.parametrize("name", ["entropy", "modified_entropy"])
def test_entropies_keep_what_is_left_of_a_sure_answer(name: str) -> None:
    """log p rounded to 0: the score is that of p itself, to the precision of the others."""
    from mpmath import mp, mpf

    from repromia.signals import ClassSignals

    rest = np.array([[-30.0, -41.0], [-60.0, -80.0], [-12.0, -100.0]])
    for label in (0, 1):
        sure = ClassSignals(
            np.hstack([np.zeros((3, 1)), rest]).astype(np.float32), np.zeros(3, dtype=int), np.full(3, label)
        )
        found = figures(name, Case({"identity": (sure,)}, CASE.references, np.ones(3, dtype=bool)))[:, 0]
        with mp.workdps(80):
            for row, score in enumerate(found):
                others = [mp.exp(mpf(float(x))) for x in rest[row]]
                shares = [1 - sum(others), *others]
                terms = [x * mp.log(1 - x) for x in shares]
                terms[label] = (1 - shares[label]) * mp.log(shares[label])
                if name == "entropy":
                    terms = [x * mp.log(x) for x in shares]
                assert score == pytest.approx(float(sum(terms)), rel=1e-6)


def test_shokri_is_a_regression_a_class_where_there_is_enough_of_it() -> None:
    """Fitted here by Newton steps on the penalised loss that C=1 stands for."""
    found = case(32, 40, seed=5)

    def regression(models: np.ndarray, member: np.ndarray, asked: np.ndarray) -> np.ndarray:
        design = np.hstack([models, np.ones((len(models), 1))])
        weights, penalty = np.zeros(6), np.diag([1, 1, 1, 1, 1, 0])
        for _ in range(100):
            share = 1 / (1 + np.exp(-design @ weights))
            curvature = design.T @ (design * (share * (1 - share))[:, None]) + penalty
            weights -= np.linalg.solve(curvature, design.T @ (share - member) + penalty @ weights)
        return np.hstack([asked, np.ones((len(asked), 1))]) @ weights

    theirs = np.dstack([found.references.logprob[:, :, 0], found.theirs[:, :, 0], found.references.top])
    centre, spread = theirs.reshape(-1, 5).mean(axis=0), theirs.reshape(-1, 5).std(axis=0)
    theirs = (theirs - centre) / spread
    largest = np.sort(found.plain.logprobs, axis=1)[:, ::-1][:, :3]
    asked = (np.column_stack([found.plain.logprob, found.plain.scaled_logit, largest]) - centre) / spread
    rows = found.plain.label == 2
    inside = found.references.inside
    expected = regression(theirs[:, rows].reshape(-1, 5), inside[:, rows].ravel(), asked[rows])
    np.testing.assert_allclose(figures("shokri", found)[rows, 0], expected, rtol=1e-5, atol=1e-5)
    whole = regression(theirs.reshape(-1, 5), inside.ravel(), asked)
    np.testing.assert_allclose(figures("shokri", found, enough=10**6)[:, 0], whole, rtol=1e-5, atol=1e-5)


def test_masks_of_the_oracles_are_allowed() -> None:
    with pytest.raises(AttackError):
        figures("lira", CASE.seen_by(np.ones_like(INSIDE)))
