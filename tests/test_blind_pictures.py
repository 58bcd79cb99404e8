"""Blind baselines of pictures: they catch planted shifts, and stay at .5 where there is none."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images
from sklearn.metrics import roc_auc_score

from repromia import blind_pictures
from repromia.blind import BASELINES, baselines_for, cross_validate, cross_validated_auc, fit_blind
from repromia.blind_pictures import image_statistics, statistics_of, thumbnails
from repromia.errors import ConfigError
from repromia.pictures import pictures_from_objects
from repromia.readers import from_objects
from repromia.records import LabelledRecords
from repromia.roles import assign_roles

DIGITS = np.rint(load_digits().images * 255 / 16).astype(np.uint8)
WITHOUT_CAPTIONS = ("image_statistics", "file_properties", "pixels")


def digits(count: int, seed: int) -> LabelledRecords:
    rows = np.random.default_rng(seed).permutation(len(DIGITS))[:count]
    return pictures_from_objects(DIGITS[rows[::2]], DIGITS[rows[1::2]])


def photos(count: int, seed: int, side: int = 40) -> list[np.ndarray]:
    """Random crops of the two photographs that scikit-learn brings, halved so that no JPEG block is left in them."""
    rng = np.random.default_rng(seed)
    sources = [np.asarray(Image.fromarray(one).resize((320, 213))) for one in load_sample_images().images]
    tops = rng.integers(0, 213 - side, count)
    lefts = rng.integers(0, 320 - side, count)
    return [sources[row % 2][tops[row] :, lefts[row] :][:side, :side] for row in range(count)]


def encoded(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def through_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(encoded(pixels, "JPEG", quality=quality))))


def fitted_auc(labelled: LabelledRecords, name: str) -> float:
    roles = assign_roles(labelled, fit=0.4)
    return float(roc_auc_score(roles.eval_labels.open_to_measure(), fit_blind(roles.fit, name)(roles.eval)))


def halves(images: Sequence[object]) -> tuple[list[object], list[object]]:
    return list(images[::2]), list(images[1::2])


def test_another_file_format_is_caught() -> None:
    images = photos(200, 0)
    members = [encoded(one, "JPEG", quality=75) for one in images[:100]]
    shifted = pictures_from_objects(members, [encoded(one, "PNG") for one in images[100:]])
    assert cross_validated_auc(shifted, "file_properties").low > 0.95
    assert fitted_auc(shifted, "file_properties") > 0.95


def test_another_quality_is_caught() -> None:
    images = photos(160, 1)
    members = [encoded(one, "JPEG", quality=75) for one in images[:80]]
    shifted = pictures_from_objects(members, [encoded(one, "JPEG", quality=76) for one in images[80:]])
    assert cross_validated_auc(shifted, "file_properties").low > 0.95


@pytest.mark.parametrize("quality", [75, 90])
def test_traces_of_jpeg_are_caught_when_all_files_are_png(quality: int) -> None:
    images = photos(200, 2)
    members = [encoded(through_jpeg(one, quality), "PNG") for one in images[:100]]
    shifted = pictures_from_objects(members, [encoded(one, "PNG") for one in images[100:]])
    assert cross_validated_auc(shifted, "image_statistics").low > 0.9
    assert fitted_auc(shifted, "image_statistics") > 0.9
    assert cross_validated_auc(shifted, "pixels").low < 0.6  # 8 × 8 averages hardly change


@pytest.mark.parametrize("name", ["image_statistics", "pixels"])
def test_another_brightness_is_caught(name: str) -> None:
    darker = pictures_from_objects(DIGITS[:100], DIGITS[100:200] // 2)
    assert cross_validated_auc(darker, name).low > 0.9


def test_other_digits_are_caught_by_pixels() -> None:
    target = load_digits().target
    shifted = pictures_from_objects(DIGITS[target == 0][:80], DIGITS[target == 1][:80])
    assert cross_validated_auc(shifted, "pixels").low > 0.95


def test_other_captions_are_caught() -> None:
    rows = [{"image": one, "caption": f"a photo {'' if row % 2 else 'by me'}"} for row, one in enumerate(DIGITS[:160])]
    shifted = pictures_from_objects(*halves(rows))
    assert baselines_for(shifted.records) == (*WITHOUT_CAPTIONS, "captions")
    assert cross_validated_auc(shifted, "captions").low > 0.95
    partly = pictures_from_objects(
        [{**row, "caption": "" if at % 3 else "!"} for at, row in enumerate(rows[::2])],
        [{**row, "caption": ""} for row in rows[1::2]],
    )
    assert 0.5 < cross_validated_auc(partly, "captions").estimate < 0.8


def test_names_depend_on_the_records() -> None:
    texts = from_objects(["a b", "c"], ["d", "e"])
    assert baselines_for(texts.records) == tuple(BASELINES)
    pictures = digits(40, 0)
    assert baselines_for(pictures.records) == WITHOUT_CAPTIONS
    with pytest.raises(ConfigError, match="image_statistics"):
        cross_validate(pictures, "tfidf")
    with pytest.raises(ConfigError, match="tfidf"):
        fit_blind(texts, "pixels")


@pytest.mark.parametrize("name", ["image_statistics", "pixels"])
def test_no_shift_gives_a_half_and_the_interval_covers(name: str) -> None:
    # 25 random divisions; if 95 % cover, fewer than 20 do so with probability below .001. Measured on 300 divisions
    # of 200 digits: coverage .97 and .98, lower end above .5 (a false alarm) in .010 and .013.
    estimates = [cross_validated_auc(digits(160, seed), name, seed=seed) for seed in range(25)]
    assert np.mean([one.estimate for one in estimates]) == pytest.approx(0.5, abs=0.04)
    assert sum(one.low <= 0.5 <= one.high for one in estimates) >= 20


def test_constant_features_give_a_half() -> None:
    assert cross_validated_auc(digits(80, 1), "file_properties").estimate == 0.5
    flat = np.zeros((120, 8, 8), dtype=np.uint8)
    flat[:, 0, 0] = np.random.default_rng(0).permutation(120)  # most features constant, the rest without a shift
    labelled = pictures_from_objects(flat[:60], flat[60:])
    for name in WITHOUT_CAPTIONS:
        found = cross_validated_auc(labelled, name)
        assert found.low <= 0.5 <= found.high


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 9, 3), (7, 3, 3), (8, 8, 1), (12, 12, 3), (13, 30, 1), (600, 520, 3)])
def test_numbers_are_finite_for_any_size(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    for pixels in (rng.integers(0, 256, shape, dtype=np.uint8), np.full(shape, 255, dtype=np.uint8)):
        numbers = statistics_of(pixels)
        assert len(numbers) == blind_pictures._STATISTICS
        assert np.isfinite(numbers).all()


def test_means_and_quantiles_are_those_of_the_pixels() -> None:
    pixels = photos(1, 5)[0]
    numbers = statistics_of(pixels)
    np.testing.assert_allclose(numbers[:3], pixels.mean(axis=(0, 1)) / 255)
    np.testing.assert_allclose(numbers[3:6], pixels.std(axis=(0, 1)) / 255)
    assert numbers[9] == pytest.approx(np.median(pixels) / 255, abs=1 / 255)


def test_each_picture_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blind_pictures, "_seen", {})
    asked = []
    monkeypatch.setattr(blind_pictures, "statistics_of", lambda pixels: asked.append(1) or statistics_of(pixels))
    labelled = digits(60, 2)
    first = image_statistics(labelled.records)
    cross_validated_auc(labelled, "pixels")
    fit_blind(labelled, "image_statistics")(labelled.records.take(range(30)))
    assert len(asked) == 60
    monkeypatch.setattr(blind_pictures, "_KEPT", 10)
    np.testing.assert_array_equal(image_statistics(labelled.records), first)
    assert len(blind_pictures._seen) == 10
    assert thumbnails(labelled.records.take([])).shape == (0, 192)


@pytest.mark.parametrize("name", WITHOUT_CAPTIONS)
def test_twice_the_same_figures(name: str) -> None:
    labelled = digits(60, 3)
    assert cross_validated_auc(labelled, name, seed=3) == cross_validated_auc(labelled, name, seed=3)
    scores = fit_blind(labelled, name, seed=3)(labelled.records)
    assert scores.shape == (60,)
    assert np.isfinite(scores).all()
