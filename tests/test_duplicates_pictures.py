"""Repeated pictures against a naive O(n²) oracle, and planted copies of each kind."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from repromia import near_pictures
from repromia.duplicates import find_duplicates, remove_duplicates
from repromia.errors import RecordsError
from repromia.near_pictures import NEAR, area_average
from repromia.picture_values import picture_of
from repromia.pictures import pictures_from_objects, read_pictures
from repromia.records import LabelledRecords, Records


def photos(count: int, seed: int, side: int = 48) -> np.ndarray:
    """Random crops of the two photographs that scikit-learn brings."""
    rng = np.random.default_rng(seed)
    sources = load_sample_images().images
    crops = []
    for row in range(count):
        source = sources[row % 2]
        top, left = (int(rng.integers(0, length - side)) for length in source.shape[:2])
        crops.append(source[top : top + side, left : left + side])
    return np.stack(crops)


def labelled_of(members: list[np.ndarray], nonmembers: list[np.ndarray]) -> LabelledRecords:
    pictures = tuple(picture_of(one) for one in [*members, *nonmembers])
    ids = tuple(f"i{row:03d}" for row in range(len(pictures)))
    return LabelledRecords(Records(ids, pictures, ids), np.arange(len(pictures)) < len(members))


def naive_average(pixels: np.ndarray, side: int) -> np.ndarray:
    """Every pixel repeated `side` times both ways: cells then hold whole pixels."""
    height, width, _ = pixels.shape
    fine = pixels.astype(np.float64).repeat(side, axis=0).repeat(side, axis=1)
    means = fine.reshape(side, height, side, width, -1).mean(axis=(1, 3)) / 255
    return np.broadcast_to(means, (side, side, 3))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]), st.sampled_from([8, 16]))
def test_area_averages(height: int, width: int, channels: int, side: int) -> None:
    pixels = np.random.default_rng(height * 41 + width).integers(0, 256, (height, width, channels), dtype=np.uint8)
    np.testing.assert_allclose(area_average(pixels, side), naive_average(pixels, side), atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 40), st.sampled_from([1, 3, 2048]))
def test_pairs_equal_the_naive_oracle(seed: int, count: int, block: int) -> None:
    rng = np.random.default_rng(seed)
    starts = rng.integers(20, 200, (4, 16, 16, 3))
    images = [
        (starts[rng.integers(4)] + rng.integers(-8, 9) * rng.integers(0, 2, (16, 16, 1))).astype(np.uint8)
        for _ in range(count)
    ]
    labelled = labelled_of(images[:1], images[1:])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near_pictures, "_BLOCK", block)
        report = find_duplicates(labelled)
    distinct = [images[int(np.flatnonzero(report.text == number)[0])] for number in range(report.text.max() + 1)]
    assert len({one.tobytes() for one in distinct}) == len(distinct)
    for row, image in enumerate(images):
        np.testing.assert_array_equal(distinct[report.text[row]], image)
    thumbs = [naive_average(one, 16) for one in distinct]
    away = {
        (first, second): float(np.sqrt(((thumbs[first] - thumbs[second]) ** 2).mean()))
        for second in range(len(distinct))
        for first in range(second)
    }
    found = {(int(a), int(b)): float(s) for (a, b), s in zip(report.near, report.similarity, strict=True)}
    assert set(found) >= {pair for pair, value in away.items() if value <= NEAR - 1e-6}
    assert set(found) <= {pair for pair, value in away.items() if value <= NEAR + 1e-6}
    assert found == pytest.approx({pair: 1 - away[pair] for pair in found}, abs=1e-6)


def test_each_kind_is_counted(tmp_path: Path) -> None:
    images = photos(8, 0)
    members, nonmembers = tmp_path / "m", tmp_path / "n"
    for folder in (members, nonmembers):
        folder.mkdir()
    Image.fromarray(images[0]).save(members / "0.png")
    Image.fromarray(images[0]).save(nonmembers / "same pixels.bmp")
    Image.fromarray(images[1]).save(members / "1.png")
    Image.fromarray(images[1]).save(nonmembers / "re-encoded.jpg", quality=70)
    Image.fromarray(images[2]).save(members / "2.png")
    Image.fromarray(images[2]).save(members / "2 again.tif")
    Image.fromarray(images[3]).save(members / "3.png")
    Image.fromarray(images[3]).resize((33, 40)).save(members / "3 smaller.png")
    for row in (4, 5):
        Image.fromarray(images[row]).save(nonmembers / f"{row}.png")
    kept, summary = remove_duplicates(read_pictures(members, nonmembers))
    assert kept.records.ids == ("m:2 again.tif", "m:3 smaller.png", "m:3.png", "n:4.png", "n:5.png")
    assert kept.records.groups == ("m:2 again.tif", "m:3 smaller.png", "m:3 smaller.png", "n:4.png", "n:5.png")
    assert summary.model_dump(exclude={"excluded"}) == {
        "exact_across": 2,
        "near_across": 2,
        "exact_within": 1,
        "near_within": 2,
        "unchecked": 0,
        "repeated": ("m:2 again.tif", "m:3 smaller.png", "m:3.png"),
    }


def test_captions_do_not_make_pictures_different() -> None:
    images = photos(3, 1)
    rows = [{"image": one, "caption": str(row)} for row, one in enumerate(images)]
    labelled = pictures_from_objects([*rows[:2], {**rows[0], "caption": "other"}], rows[2:])
    assert remove_duplicates(labelled)[1].exact_within == 1


def test_re_encoding_is_found_and_different_pictures_are_not() -> None:
    images = photos(60, 2, side=128)
    buffers = [io.BytesIO() for _ in images]
    for image, buffer in zip(images, buffers, strict=True):
        Image.fromarray(image).save(buffer, "JPEG", quality=60)
    again = pictures_from_objects(list(images), [buffer.getvalue() for buffer in buffers])
    found = {tuple(pair) for pair in find_duplicates(again).near.tolist()}
    assert {(row, 60 + row) for row in range(60)} <= found
    digits = load_digits().images.astype(np.float32) / 16
    within = find_duplicates(pictures_from_objects(digits[:900], digits[900:]))
    assert len(within.near) == 0  # measured: the two nearest of 1,797 digits are .041 apart, .0157 is the limit


def test_the_same_pictures_on_both_sides_are_refused() -> None:
    images = photos(4, 3)
    with pytest.raises(RecordsError, match="4 exact"):
        remove_duplicates(pictures_from_objects(images[:2], images[:2]))


def test_nearly_the_same_pictures_everywhere_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_pictures, "MOST_PAIRS", 100)
    blank = np.zeros((20, 8, 8), dtype=np.uint8)
    blank[np.arange(20), 0, 0] = np.arange(20)
    with pytest.raises(RecordsError, match="nearly all the same"):
        find_duplicates(pictures_from_objects(blank[:10], blank[10:]))


def test_a_file_that_has_gone_is_named(tmp_path: Path) -> None:
    for row, image in enumerate(photos(4, 4)):
        Image.fromarray(image).save(tmp_path / f"{row}.png")
    paths = sorted(tmp_path.iterdir())
    labelled = pictures_from_objects(paths[:2], paths[2:])
    paths[3].unlink()
    with pytest.raises(RecordsError, match=r"3\.png can no longer be read"):
        find_duplicates(labelled)
