"""Blind baselines and duplicates of records with classes: planted shifts are found, and .5 where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from classifier_models import CLASSES, DIGITS, IMAGES
from repromia.blind import BASELINES, baselines_for, cross_validate, cross_validated_auc, fit_blind
from repromia.class_records import class_records_from_objects
from repromia.duplicates import find_duplicates, remove_duplicates
from repromia.errors import ConfigError
from repromia.records import LabelledRecords


def digits(count: int = 600, shift: float = 0.0, scale: float = 1.0, seed: int = 0) -> LabelledRecords:
    rows = np.random.default_rng(seed).permutation(len(DIGITS.data))[:count]
    values, names = DIGITS.data[rows], np.array(CLASSES)[rows]
    inside = (values[::2] - values.mean(0)) * scale + values.mean(0) + shift
    return class_records_from_objects((inside, names[::2]), (values[1::2], names[1::2]))


def auc(labelled: LabelledRecords, name: str) -> float:
    return cross_validated_auc(labelled, name).estimate


def test_which_baselines_there_are() -> None:
    assert baselines_for(digits(40).records) == ("features", "classes")
    texts = class_records_from_objects((["a b", "c"], ["x", "y"]), (["d", "e"], ["y", "x"]))
    assert baselines_for(texts.records) == (*BASELINES, "classes")
    images = class_records_from_objects((IMAGES[:4], CLASSES[:4]), (IMAGES[4:8], CLASSES[4:8]))
    assert "captions" in baselines_for(images.records)
    with pytest.raises(ConfigError, match="features, classes"):
        cross_validate(digits(40), "tfidf")


@pytest.mark.parametrize("name", ["features", "classes"])
def test_random_halves_cannot_be_told_apart(name: str) -> None:
    found = np.mean([auc(digits(400, seed=seed), name) for seed in range(4)])
    assert 0.44 < found < 0.56


@pytest.mark.parametrize(
    ("labelled", "least"),
    [(digits(shift=1.0), 0.9), (digits(scale=1.5), 0.9), (digits(shift=0.001), 0.9)],
    ids=["level", "spread", "digits after the point"],
)
def test_shifts_of_the_features_are_found(labelled: LabelledRecords, least: float) -> None:
    assert auc(labelled, "features") > least
    assert 0.4 < auc(labelled, "classes") < 0.6


def test_linear_shifts_and_shifts_of_shape_alone() -> None:
    rng = np.random.default_rng(1)
    names = rng.integers(0, 3, 400)
    outside = rng.normal(size=(400, 5))
    ring = outside.copy()
    ring[:, 0] = np.where(rng.random(400) < 0.5, -1, 1) * (1 + 0.1 * rng.normal(size=400))
    for inside in (rng.normal(size=(400, 5)) + np.eye(5)[0] * 0.8, ring):
        assert auc(class_records_from_objects((inside, names), (outside, names)), "features") > 0.65


def test_shifts_of_the_classes_are_found_in_rows_and_texts() -> None:
    rng = np.random.default_rng(0)
    inside, outside = rng.choice(3, 200, p=[0.7, 0.2, 0.1]), rng.choice(3, 200, p=[0.2, 0.2, 0.6])
    rows = class_records_from_objects((rng.normal(size=(200, 4)), inside), (rng.normal(size=(200, 4)), outside))
    words = [" ".join(rng.choice(["red", "green", "blue", "old", "new"], 6)) for _ in range(400)]
    texts = class_records_from_objects((words[:200], inside), (words[200:], outside))
    for labelled in (rows, texts):
        assert auc(labelled, "classes") > 0.7
    assert 0.4 < auc(texts, "tfidf") < 0.6  # the class is no word of the text
    scorer = fit_blind(rows, "classes")
    assert len(set(scorer(rows.records).round(9).tolist())) == 3


def test_scores_do_not_depend_on_other_records() -> None:
    labelled = digits(200, shift=0.5)
    scorer = fit_blind(labelled, "features")
    whole = scorer(labelled.records)
    np.testing.assert_allclose(scorer(labelled.records.take([7, 3])), whole[[7, 3]])
    np.testing.assert_array_equal(fit_blind(labelled, "features")(labelled.records), whole)


def test_a_class_that_was_not_fitted_on_and_a_constant_feature() -> None:
    labelled = digits(200)
    other = class_records_from_objects((DIGITS.data[:2], ["a", "b"]), (DIGITS.data[2:4], ["c", "d"]))
    assert np.isfinite(fit_blind(labelled, "classes")(other.records)).all()
    flat = class_records_from_objects((np.c_[np.ones(40), np.arange(40)], [0, 1] * 20),
                                      (np.c_[np.ones(40), np.arange(40) + 0.5], [0, 1] * 20))  # fmt: skip
    assert np.isfinite(fit_blind(flat, "features")(flat.records)).all()


def test_equal_rows_are_duplicates_and_near_ones_are_not() -> None:
    values = DIGITS.data[:8].copy()
    values[5] = values[0]  # across
    values[1] = values[2] + 1e-9  # near
    values[3] = values[2]  # within
    labelled = class_records_from_objects((values[:4], [0, 1, 2, 2]), (values[4:], [3, 0, 4, 5]))
    kept, duplicates = remove_duplicates(labelled)
    assert (duplicates.exact_across, duplicates.exact_within, duplicates.near_across) == (2, 1, 0)
    assert kept.records.ids == ("m1", "m2", "n0", "n2", "n3")
    assert len(find_duplicates(labelled).near) == 0
    other = class_records_from_objects((values[:4], [0, 1, 2, 2]), (values[4:], [3, 9, 4, 5]))
    assert remove_duplicates(other)[1].exact_across == 0  # the same numbers of another class


def test_the_same_text_of_another_class_is_a_duplicate() -> None:
    texts = ["one film of many that were seen", "two", "three", "One  film of many that were seen"]
    labelled = class_records_from_objects((texts[:2], ["a", "b"]), (texts[2:], ["a", "b"]))
    assert remove_duplicates(labelled)[0].records.ids == ("m1", "n0")
