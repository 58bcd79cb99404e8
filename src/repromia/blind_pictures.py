"""What pictures and their files show without any model, as numbers for the blind baselines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32, UInt8
from scipy.fft import dctn

from repromia.near_pictures import area_average, read_again
from repromia.records import FileFacts, Picture, Records

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "array")
THUMBNAIL = 8
_TEXTURE = 256  # pixels from the top left corner, where the grid of JPEG blocks begins, that texture is read from
_KEPT = 100_000  # pictures whose numbers are kept: about 1 KB each
_FREQUENCY = np.add.outer(np.arange(8), np.arange(8))  # of the coefficients of an 8 × 8 block
_BANDS = ((1, 3), (3, 6), (6, 9), (9, 15))
_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_STATISTICS = 6 + len(_QUANTILES) + 6 + 5 + 2 + 3 * len(_BANDS)

# By digest, and so common to all folds, roles and audits of this process.
_seen: dict[str, Float32[np.ndarray, " value"]] = {}


def pictures_in(records: Records) -> list[Picture]:
    """The pictures among the contents, in order."""
    return [content for content in records.contents if isinstance(content, Picture)]


def image_statistics(records: Records) -> Float[np.ndarray, "record value"]:
    """Brightness, colour, sharpness and traces of JPEG blocks, from the pixels; nothing about the file or the size."""
    return _numbers(pictures_in(records))[:, :_STATISTICS]


def thumbnails(records: Records) -> Float[np.ndarray, "record 192"]:
    """8 × 8 area-averaged RGB pixels in [0, 1]."""
    return _numbers(pictures_in(records))[:, _STATISTICS:]


def file_properties(records: Records) -> Float[np.ndarray, "record value"]:
    """Format, size on disk (plain, log, per pixel), width, height, channels and JPEG quality of the files."""
    return np.array([_file_row(one.facts) for one in pictures_in(records)], dtype=np.float64)


def captions(records: Records) -> list[str]:
    """The captions; an empty one is a word of its own, so that no text is without a term."""
    return [text if text.strip() else "∅" for text in records.texts()]


def _file_row(facts: FileFacts) -> list[float]:
    area = facts.width * facts.height
    sizes = (facts.size, np.log1p(facts.size), facts.size / area, facts.width, facts.height, area)
    shape = (np.log(facts.width), np.log(facts.height), np.log(facts.width / facts.height))
    kinds = [float(facts.format == name) for name in FORMATS]
    channels = [float(facts.channels == count) for count in (1, 3, 4)]
    return [*sizes, *shape, *kinds, *channels, facts.quality or 0, float(facts.quality is not None)]


def _numbers(pictures: Sequence[Picture]) -> Float[np.ndarray, "picture value"]:
    """Statistics and thumbnails; each distinct picture is decoded once."""
    for picture in pictures:
        if picture.digest not in _seen:
            pixels = read_again(picture)
            parts = (statistics_of(pixels), area_average(pixels, THUMBNAIL).ravel())
            _seen[picture.digest] = np.concatenate(parts).astype(np.float32)
    rows = np.array([_seen[picture.digest] for picture in pictures], dtype=np.float64)
    for digest in list(_seen)[: max(len(_seen) - _KEPT, 0)]:
        del _seen[digest]
    return rows.reshape(len(pictures), _STATISTICS + 3 * THUMBNAIL**2)


def statistics_of(pixels: UInt8[np.ndarray, "height width channel"]) -> Float[np.ndarray, " value"]:
    """The numbers of `image_statistics` for one picture."""
    colours = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    counts = np.stack([np.bincount(colours[:, :, channel].ravel(), minlength=256) for channel in range(3)])
    levels = np.arange(256) / 255
    shares = counts / counts.sum(axis=1, keepdims=True)
    means = shares @ levels
    spreads = np.sqrt((shares * (levels - means[:, None]) ** 2).sum(axis=1))
    together = shares.mean(axis=0)
    quantiles = np.searchsorted(np.cumsum(together), _QUANTILES).clip(0, 255) / 255
    part = colours[:_TEXTURE, :_TEXTURE].astype(np.float32)
    saturation = (part.max(axis=2) - part.min(axis=2)) / 255
    ends = (together[0], together[255], float((together > 0).mean()))
    colour = (saturation.mean(), saturation.std(), float(pixels.shape[2] == 1 or not saturation.any()))
    grey = part @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    return np.array([*means, *spreads, *quantiles, *ends, *colour, *_sharpness(grey), *_blocks(grey)])


def _sharpness(grey: Float32[np.ndarray, "height width"]) -> list[float]:
    """Log mean squares of differences across, down and of second order; share of equal neighbours both ways."""
    across, down = np.diff(grey, axis=1), np.diff(grey, axis=0)
    energies = [_log_energy(one) for one in (across, down, np.diff(across, axis=0))]
    return [*energies, *(float((np.abs(one) < 0.5).mean()) if one.size else 1.0 for one in (across, down))]


def _log_energy(values: np.ndarray) -> float:
    return float(np.log(1e-3 + np.mean(np.square(values)))) if values.size else float(np.log(1e-3))


def _blocks(grey: Float32[np.ndarray, "height width"]) -> list[float]:
    """Steps over the borders of the 8-pixel grid against steps within; by band of the blocks' cosine transform the
    log energy, the share of coefficients near zero, and how much larger that share is than off the grid."""
    steps = []
    for one in (np.abs(np.diff(grey, axis=1)), np.abs(np.diff(grey, axis=0)).T):
        border = np.arange(one.shape[1]) % 8 == 7
        usable = border.any() and one.size
        steps.append(float(np.log((one[:, border].mean() + 1) / (one[:, ~border].mean() + 1))) if usable else 0.0)
    on, off = _coefficients(grey), _coefficients(grey[4:, 4:])
    rows = []
    for low, high in _BANDS:
        band = (low <= _FREQUENCY) & (high > _FREQUENCY)
        zero, zero_off = (float((np.abs(one[:, band]) < 1).mean()) if len(one) else 1.0 for one in (on, off))
        rows += [_log_energy(on[:, band]), zero, zero - zero_off if len(off) else 0.0]
    return [*steps, *rows]


def _coefficients(grey: Float32[np.ndarray, "height width"]) -> Float32[np.ndarray, "block 8 8"]:
    height, width = (length // 8 * 8 for length in grey.shape)
    blocks = grey[:height, :width].reshape(height // 8, 8, width // 8, 8).swapaxes(1, 2).reshape(-1, 8, 8)
    return np.asarray(dctn(blocks, axes=(1, 2), norm="ortho"), dtype=np.float32) if len(blocks) else blocks
