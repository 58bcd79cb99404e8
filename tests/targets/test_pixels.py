"""Images to the size and channels of a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from repromia.errors import TargetError
from repromia.targets.pixels import fitted


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("resize", ["crop", "squash", "refuse"])
def test_an_image_that_fits_is_not_touched(resize: Any) -> None:
    image = noise(8, 8)
    assert np.array_equal(fitted(image, 3, 8, resize), image.transpose(2, 0, 1))
    grey = noise(8, 8, 1)
    assert np.array_equal(fitted(grey, 1, 8, resize)[0], grey[:, :, 0])
    assert np.array_equal(fitted(grey, 3, 8, resize), np.repeat(grey.transpose(2, 0, 1), 3, axis=0))


def test_colours_to_grey() -> None:
    image = noise(8, 8)
    expected = (image @ np.array([0.299, 0.587, 0.114])).astype(float)  # ITU-R 601
    assert np.abs(fitted(image, 1, 8, "crop")[0] - expected).max() <= 1


def test_crop_keeps_the_middle_and_the_aspect() -> None:
    image = np.zeros((10, 30, 3), np.uint8)
    image[:, 10:20] = 200  # exactly the middle square
    assert (fitted(image, 3, 10, "crop") == 200).all()
    assert (fitted(image.transpose(1, 0, 2), 3, 10, "crop") == 200).all()
    squashed = fitted(image, 3, 10, "squash")
    assert squashed[0, 5, 0] < 20
    assert squashed[0, 5, 5] > 180


def test_both_ways_are_pillows_lanczos() -> None:
    image = noise(40, 40)
    expected = np.asarray(Image.fromarray(image).resize((16, 16), Image.Resampling.LANCZOS)).transpose(2, 0, 1)
    assert np.array_equal(fitted(image, 3, 16, "crop"), expected)
    assert np.array_equal(fitted(image, 3, 16, "squash"), expected)


def test_shrinking_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    inner = fitted(stripes, 3, 16, "crop")[:, 2:-2, 2:-2].astype(float)
    assert np.abs(inner - 127.5).max() < 10  # without, the stripes would come out black or white


def test_refusing() -> None:
    with pytest.raises(TargetError, match=r"(?s)another size.*8 x 8.*found: +9 x 8.*--resize"):
        fitted(noise(8, 9), 3, 8, "refuse")


@pytest.mark.parametrize(("found", "channels"), [(2, 3), (4, 3), (3, 4), (1, 2)])
@pytest.mark.parametrize("size", [8, 9])
def test_other_channels(found: int, channels: int, size: int) -> None:
    with pytest.raises(TargetError, match="other channels"):
        fitted(noise(8, 8, found), channels, size, "crop")


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.sampled_from([1, 3]),
    st.sampled_from([1, 3]),
    st.integers(1, 40),
    st.sampled_from(["crop", "squash"]),
    st.integers(0, 255),
)
def test_one_colour_stays_one_colour(
    height: int, width: int, found: int, channels: int, size: int, resize: Any, shade: int
) -> None:
    image = np.full((height, width, found), shade, np.uint8)
    out = fitted(image, channels, size, resize)
    assert out.shape == (channels, size, size)
    assert out.flags.c_contiguous
    assert (out == shade).all()
