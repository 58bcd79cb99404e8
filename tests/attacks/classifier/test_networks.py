"""Attacks that learn a network on what shadow models say: against the best test there is, and against plain loops."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import mean

import numpy as np
import pytest
from scipy.stats import norm

from repromia.attacks.classifier._references import network_log_odds
from repromia.errors import AttackError
from repromia.signals import ClassSignals

from .synthetic import Case, case, figures, halves, sure_of

GAIN = 3.0


def of_two_classes(logits: np.ndarray, label: np.ndarray) -> ClassSignals:
    """A classifier's answers from the scaled logit of each record's own class."""
    logprobs = np.stack([-np.logaddexp(0, -logits), -np.logaddexp(0, logits)], axis=1)
    logprobs = np.take_along_axis(logprobs, np.stack([label, 1 - label], axis=1), axis=1)
    return ClassSignals(logprobs, logprobs.argmax(axis=1), label)


def normal_case(records: int = 800, count: int = 8) -> Case:
    """Scaled logits, normal of spread 1 about 0, or about GAIN where the record was seen."""
    generator = np.random.default_rng(0)
    inside, member = halves(count, records, generator), generator.permutation(records) < records // 2
    label = generator.integers(0, 2, records)
    plain = of_two_classes(GAIN * member + generator.normal(size=records), label)
    theirs = [of_two_classes(GAIN * saw + generator.normal(size=records), label) for saw in inside]
    logprob, other = (np.stack([getattr(one, name) for one in theirs])[:, :, None] for name in ("logprob", "other"))
    return Case({"identity": (plain,)}, sure_of(logprob, other, inside, theirs), member)


def test_salem_comes_to_the_log_odds_of_the_largest_probabilities() -> None:
    """Of normals, where only the size of the logit shows: log of (phi(a - 3) + phi(a + 3)) / 2 phi(a)."""
    found = normal_case()
    size = np.abs(found.plain.scaled_logit)
    expected = np.log((norm.pdf(size - GAIN) + norm.pdf(size + GAIN)) / (2 * norm.pdf(size)))
    scores, common = figures("salem", found)[:, 0], (size > 0.3) & (size < 4)
    assert np.abs(scores - expected)[common].max() < 1
    assert np.abs(scores - expected)[common].mean() < 0.25
    few = figures("salem", found, models=1)[:, 0]
    assert (few != scores).any()
    assert np.corrcoef(few[common], expected[common])[0, 1] > 0.95


def test_salem_looks_at_no_class() -> None:
    found = case()
    renamed = replace(found.plain, label=(found.plain.label + 1) % 4)
    other = replace(found, views={**found.views, "identity": (renamed,)})
    np.testing.assert_array_equal(figures("salem", other), figures("salem", found))


def cosine(one: dict[int, float], other: dict[int, float]) -> float:
    lengths = [math.sqrt(sum(p * p for p in each.values())) for each in (one, other)]
    return sum(p * other.get(name, 0.0) for name, p in one.items()) / (lengths[0] * lengths[1])


def density(found: Case, model: int, record: int, similar: float) -> float:
    """Share of the other records that the model did not see, about which it says something similar."""
    theirs = found.references
    said = [
        {int(name): math.exp(p) for name, p in zip(theirs.top_classes[model, z], theirs.top[model, z], strict=True)}
        for z in range(len(found.member))
    ]
    others = [z for z in range(len(found.member)) if z != record and not theirs.inside[model, z]]
    return mean(float(cosine(said[record], said[z]) >= similar) for z in others)


def test_ldc_mia_reads_what_it_says_it_reads() -> None:
    """Every feature by loops over records and models; the network is that of salem."""
    found = case(24, 5, seed=2)
    inside, logs = found.references.inside, found.references.logprob[:, :, 0]
    dense = np.array([[density(found, model, at, 0.8) for at in range(24)] for model in range(5)])

    def features(own: float, record: int, without: int | None) -> list[float]:
        others = [model for model in range(5) if not inside[model, record] and model != without]
        label = int(found.plain.label[record])
        calibrated = own - mean(float(logs[model, record]) for model in others)
        hard = mean(float(dense[model, record]) for model in others)
        return [own, calibrated, hard, *(float(label == one) for one in range(4))]

    taught = [(features(float(logs[m, at]), at, m), inside[m, at]) for m in range(5) for at in range(24)]
    asked = [features(float(found.plain.logprob[at]), at, None) for at in range(24)]
    rows, member = np.array([one for one, _ in taught]), np.array([saw for _, saw in taught])
    expected = network_log_odds(rows, member, np.array(asked), seed=0)
    scores = figures("ldc_mia", found, similar=0.8, enough=1)[:, 0]
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)
    without = network_log_odds(rows[:, :3], member, np.array(asked)[:, :3], seed=0)
    np.testing.assert_allclose(figures("ldc_mia", found, similar=0.8)[:, 0], without, rtol=1e-5, atol=1e-5)


def test_ldc_mia_finds_what_hardness_hides() -> None:
    """Records differ by 5 in how hard they are and members by 2: the loss alone tells little. Chance: 4 standard
    deviations of the difference, 1 in 16,000 draws."""
    from repromia.metrics import auc

    generator = np.random.default_rng(1)
    inside, member = halves(8, 800, generator), generator.permutation(800) < 400
    hard, label = generator.normal(0, 5, 800), generator.integers(0, 2, 800)
    plain = of_two_classes(hard + 2 * member + generator.normal(0, 0.5, 800), label)
    theirs = [of_two_classes(hard + 2 * saw + generator.normal(0, 0.5, 800), label) for saw in inside]
    logprob, other = (np.stack([getattr(one, name) for one in theirs])[:, :, None] for name in ("logprob", "other"))
    found = Case({"identity": (plain,)}, sure_of(logprob, other, inside, theirs), member)
    assert auc(figures("ldc_mia", found)[:, 0], member) > auc(figures("loss", found)[:, 0], member) + 0.2


def test_the_targets_answers_about_others_play_no_part() -> None:
    """Who is a member of the target is in no feature: a record's score follows from the answer about it alone."""
    found = case(60, 6)
    other = replace(found.plain, logprobs=np.concatenate([found.plain.logprobs[:20], found.plain.logprobs[20:][::-1]]))
    changed = replace(found, views={**found.views, "identity": (replace(other, label=found.plain.label),)})
    for name in ("salem", "ldc_mia"):
        np.testing.assert_allclose(figures(name, changed)[:20], figures(name, found)[:20], rtol=1e-9)


def test_two_shadows_leave_nothing_to_compare_with() -> None:
    with pytest.raises(AttackError, match=r"too few shadow models(.|\n)*at least three(.|\n)*found: +2"):
        figures("ldc_mia", case(40, 2))
    assert np.isfinite(figures("salem", case(40, 2))).all()
