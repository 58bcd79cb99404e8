"""The logistic head learns what is there, and only what is there."""

from __future__ import annotations

import numpy as np
import pytest
from jaxtyping import TypeCheckError

from repromia.heads import STRENGTHS, UNCUT, Features, fit_head, fit_stack, fit_with
from repromia.metrics import auc
from repromia.sealed import SealedLabels


def planted(seed: int, count: int, shift: float) -> tuple[Features, np.ndarray]:
    """Four features of which the second is `shift` higher for members, in units of a thousand."""
    generator = np.random.default_rng(seed)
    member = np.arange(count) % 2 == 0
    features = generator.normal(size=(count, 4)) * [1, 1000, 1, 0.001]
    features[:, 1] += 1000 * shift * member
    return features, member


def names(count: int) -> tuple[str, ...]:
    return tuple(f"g{row}" for row in range(count))


def test_learns_a_planted_signal_whatever_its_unit() -> None:
    """Shift 1.5: the best possible AUC is .856; 400 fresh records have a standard error of .02."""
    head = fit_head(*planted(0, 100, 1.5), groups=names(100), seed=0)
    features, member = planted(1, 400, 1.5)
    assert auc(head(features), member) > 0.78
    assert head.strength in STRENGTHS
    assert np.argmax(np.abs(head.weights)) == 1


def test_signs_do_not_matter() -> None:
    features, member = planted(0, 100, 1.5)
    upright, reversed_ = (fit_head(sign * features, member, groups=names(100), seed=0) for sign in (1, -1))
    np.testing.assert_allclose(upright(features), reversed_(-features), atol=1e-4)


def test_noise_gets_the_strongest_regularisation_and_no_auc() -> None:
    """Mean of 20 AUCs with standard error .013 under chance: a false alarm (4 standard errors) in 16,000."""
    areas, strengths = [], []
    for seed in range(20):
        features, member = planted(seed, 60, 0.0)
        head = fit_head(features, member, groups=names(60), seed=seed)
        fresh, inside = planted(1000 + seed, 200, 0.0)
        areas.append(auc(head(fresh), inside))
        strengths.append(head.strength)
    assert abs(np.mean(areas) - 0.5) < 0.052
    assert np.median(strengths) < 0.1


def test_groups_do_not_straddle_folds() -> None:
    """Each record is there ten times: folds that tear copies apart would choose a weak regularisation."""
    generator = np.random.default_rng(3)
    features, member = np.repeat(generator.normal(size=(20, 15)), 10, axis=0), np.arange(20).repeat(10) % 2 == 0
    together = tuple(f"g{row // 10}" for row in range(200))
    torn = fit_head(features, member, groups=names(200), seed=0).strength
    whole = fit_head(features, member, groups=together, seed=0).strength
    assert whole < torn


def test_a_record_far_outside_does_not_decide_by_itself() -> None:
    features, member = planted(0, 100, 1.5)
    head = fit_head(features, member, groups=names(100), seed=0)
    far, farther = np.zeros((1, 4)), np.zeros((1, 4))
    far[0, 1], farther[0, 1] = 1e5, 1e9
    assert head(far) == pytest.approx(head(farther))


def test_the_same_seed_gives_the_same_head() -> None:
    features, member = planted(0, 100, 0.5)
    left, right = (fit_head(features, member, groups=names(100), seed=4) for _ in range(2))
    assert left(features).tolist() == right(features).tolist()


def test_sealed_labels_are_refused() -> None:
    features, member = planted(0, 40, 1.0)
    with pytest.raises(TypeCheckError, match="member"):
        fit_head(features, SealedLabels(member), groups=names(40), seed=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(3))
def test_stacked_heads_that_found_nothing_are_not_turned_round(seed: int) -> None:
    """Of 40 stacks on noise with the mean of their folds against the labels, a free weight turns most round."""
    generator = np.random.default_rng(seed)
    for _ in range(40):
        member = generator.random(200) < 0.5
        odds = generator.normal(size=(200, 2)) - 0.5 * member[:, None]
        assert (fit_stack(odds, member).weights >= 0).all()


def test_a_stack_weighs_what_helps_and_leaves_out_what_does_not() -> None:
    generator = np.random.default_rng(0)
    member = generator.random(400) < 0.5
    odds = np.stack([generator.normal(size=400) + member, generator.normal(size=400) - member], axis=1)
    head = fit_stack(odds, member)
    assert head.weights[0] > 0
    assert head.weights[1] == 0
    alone = fit_with(odds[:, :1], member, 1.0, UNCUT)
    assert head.weights[0] == pytest.approx(alone.weights[0])
    assert len(np.unique(head(odds))) == len(odds)  # no ties at the top
