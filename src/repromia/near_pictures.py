"""Pictures that look alike: thumbnails of 16 × 16 area-averaged RGB pixels that differ little.

Rescaling, re-encoding and slight changes of brightness are found; cropping and mirroring are not. Of very small
pictures a thumbnail keeps most of what JPEG changes: of photographs re-encoded at quality 75 (colour at half
resolution) all were found at 128 pixels, .77 at 48 and .55 at 32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

from repromia.errors import RecordsError
from repromia.records import Picture

SIDE = 16
# Largest root-mean-square difference of the thumbnails of near-duplicates, pixel values in [0, 1].
NEAR = 4 / 255
# More pairs than this are not near-duplicates but pictures that are nearly all the same.
MOST_PAIRS = 10_000_000
_BLOCK = 2048  # rows compared at a time: one product of 2048 × 2048
_SLACK = 1e-5  # squared distances of float32 products are off by less


def area_average(pixels: UInt8[np.ndarray, "height width channel"], side: int) -> Float32[np.ndarray, "side side 3"]:
    """Means over the cells of a side × side grid, in [0, 1]; pixels on a border count by their share."""
    height, width, channels = pixels.shape
    rows = (_shares(height, side) @ pixels.reshape(height, -1).astype(np.float32)).reshape(side, width, channels)
    means = np.einsum("cw,rwk->rck", _shares(width, side), rows, optimize=True) / np.float32(255)
    return np.broadcast_to(means, (side, side, 3)) if channels == 1 else means


@lru_cache(maxsize=64)
def _shares(length: int, side: int) -> Float32[np.ndarray, "side length"]:
    """Share of each pixel in each cell; the shares of a cell add up to 1."""
    edges, starts = np.arange(side + 1) * length / side, np.arange(length)
    overlap = np.minimum(edges[1:, None], starts + 1) - np.maximum(edges[:-1, None], starts)
    return (overlap.clip(0) * side / length).astype(np.float32)


def near_pairs(
    pictures: Sequence[Picture],
) -> tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " pair"], Float[np.ndarray, " pair"]]:
    """(first, second, similarity) of every pair whose thumbnails differ by at most `NEAR`; first < second.

    similarity: 1 minus the root-mean-square difference. Every pair is compared unless the means of the two
    thumbnails already differ by more. Memory: 3 KB a picture and one block of products.

    Raises RecordsError where a picture can no longer be read, or for more than `MOST_PAIRS` pairs.
    """
    thumbnails = np.empty((len(pictures), SIDE * SIDE * 3), dtype=np.float32)
    for row, picture in enumerate(pictures):
        thumbnails[row] = area_average(read_again(picture), SIDE).ravel()
    parts, total = [], 0
    for part in _compared(thumbnails):
        parts.append(part)
        total += len(part[0])
        if total > MOST_PAIRS:
            raise RecordsError(
                "the pictures are nearly all the same",
                expected=f"at most {MOST_PAIRS:,} pairs of near-duplicates",
                found=f"more, among {len(pictures):,} distinct pictures",
                hint="check that the right field is read as the image",
            )
    first, second, similarity = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((second, first))
    return first[order], second[order], similarity[order]


def read_again(picture: Picture) -> UInt8[np.ndarray, "height width channel"]:
    """The pixels of a picture that could be read before. Raises RecordsError where it has gone."""
    try:
        return picture.pixels()
    except OSError:
        raise RecordsError(
            f"{picture.source if not isinstance(picture.source, bytes) else 'an image'} can no longer be read",
            expected="the file that was there when the records were read",
            hint="do not move or change images during an audit",
        ) from None


def _compared(
    thumbnails: Float32[np.ndarray, "picture value"],
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pairs, block by block, each with a float64 check; at least one (empty) part."""
    # The mean difference is never larger than the root-mean-square one: in order of means, only neighbours matter.
    means = thumbnails.mean(axis=1, dtype=np.float64)
    order = np.argsort(means, kind="stable")
    means = means[order]
    centred = (thumbnails - thumbnails.mean(axis=0))[order] if len(thumbnails) else thumbnails
    squares = (centred**2).sum(axis=1)
    least = NEAR**2 * thumbnails.shape[1]
    for start in range(0, max(len(order), 1), _BLOCK):
        rows = slice(start, start + _BLOCK)
        furthest = int(np.searchsorted(means, means[rows][-1] + NEAR + _SLACK)) if len(order) else 0
        for other in range(start, max(furthest, start + 1), _BLOCK):
            columns = slice(other, min(other + _BLOCK, max(furthest, start + 1)))
            distance = squares[rows, None] + squares[columns] - 2 * (centred[rows] @ centred[columns].T)
            here, there = np.nonzero(distance <= least * (1 + 1e-3) + _SLACK * thumbnails.shape[1])
            here, there = here + rows.start, there + columns.start
            later = here < there
            first, second = order[here[later]], order[there[later]]
            yield _checked(thumbnails, np.minimum(first, second), np.maximum(first, second))


def _checked(
    thumbnails: Float32[np.ndarray, "picture value"], first: Int[np.ndarray, " pair"], second: Int[np.ndarray, " pair"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    away = np.empty(len(first))
    for start in range(0, len(first), _BLOCK):
        rows = slice(start, start + _BLOCK)
        difference = thumbnails[first[rows]].astype(np.float64) - thumbnails[second[rows]]
        away[rows] = np.sqrt((difference**2).mean(axis=1))
    keep = away <= NEAR
    return first[keep].astype(np.int64), second[keep].astype(np.int64), 1 - away[keep]
