"""From an image file, encoded bytes, an array or a PIL image to a `Picture`: decoded once, to check and to hash it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int, UInt8

from repromia.errors import RecordsError
from repromia.records import FileFacts, Picture, decoded, pixels_of

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

Source = Path | bytes | UInt8[np.ndarray, "height width channel"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
_CHUNK = 1024  # images converted at a time
_GREY = ("1", "L", "F")
_TRANSPARENT = ("LA", "La", "PA", "RGBA", "RGBa", "CMYK")
# The luminance table of the JPEG standard (annex K.1) at quality 50; others are scaled from it.
_LUMINANCE = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)


def picture_of(value: Source | PillowImage, caption: str = "") -> Picture:
    """The picture; files stay where they are, bytes stay encoded. Raises OSError where it cannot be decoded."""
    if isinstance(value, np.ndarray):
        height, width, channels = value.shape
        pixels = _on_white(value) if channels == 4 else value
        return Picture(_digest(pixels), FileFacts("array", width, height, channels), caption, pixels)
    if isinstance(value, Path | bytes):
        data = value if isinstance(value, bytes) else value.read_bytes()
        return Picture(_digest(decoded(data)), _facts_of_file(data), caption, value)
    try:
        pixels = pixels_of(value)
    except (OSError, ValueError, SyntaxError) as error:  # PIL reads lazily: the file may be cut off
        raise OSError(f"the image cannot be decoded ({type(error).__name__})") from None
    return Picture(_digest(pixels), _facts(value, 0), caption, pixels)


def _digest(pixels: UInt8[np.ndarray, "height width channel"]) -> str:
    hasher = blake2b(repr(pixels.shape).encode(), digest_size=16)
    hasher.update(np.ascontiguousarray(pixels).data)
    return hasher.hexdigest()


def _facts_of_file(data: bytes) -> FileFacts:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(BytesIO(data)) as image:
            return _facts(image, len(data))


def _facts(image: PillowImage, size: int) -> FileFacts:
    channels = 1 if image.mode in _GREY or image.mode.startswith("I") else 3
    if image.mode in _TRANSPARENT or "transparency" in image.info:
        channels = 4
    tables = getattr(image, "quantization", None)
    return FileFacts(
        format=image.format or "array",
        width=image.width,
        height=image.height,
        channels=channels,
        size=size,
        quality=_quality(tables[0]) if tables and 0 in tables else None,
    )


def _quality(table: list[int]) -> int:
    """The quality whose scaled standard table is nearest; entries are compared in order of size."""
    distance = np.abs(_sorted_tables() - np.sort(np.array(table, dtype=np.int64))).sum(axis=1)
    return 100 - int(distance[::-1].argmin())  # of equals the highest: 100 and 99 differ little


@lru_cache(maxsize=1)
def _sorted_tables() -> Int[np.ndarray, "quality 64"]:
    quality = np.arange(1, 101)[:, None]
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return np.sort(((np.array(_LUMINANCE) * scale + 50) // 100).clip(1, 255), axis=1)


def _on_white(pixels: UInt8[np.ndarray, "height width 4"]) -> UInt8[np.ndarray, "height width 3"]:
    share = pixels[:, :, 3:].astype(np.float32) / 255
    return np.rint(pixels[:, :, :3] * share + 255 * (1 - share)).astype(np.uint8)


def uint8_images(array: np.ndarray, source: str) -> UInt8[np.ndarray, "image height width channel"]:
    """Images of one array (N, H, W or N, H, W, C), floats in [0, 1] rounded to 256 levels.

    Raises RecordsError, which names `source`, for another shape, another range, NaN, or another dtype.
    """
    images = array[..., None] if array.ndim == 3 else array
    if images.ndim != 4 or 0 in images.shape or images.shape[-1] not in (1, 3, 4):
        transposed = images.ndim == 4 and images.shape[1] in (1, 3, 4)
        raise RecordsError(
            f"{source}: not an array of images",
            expected="shape N, H, W or N, H, W, C with C of 1, 3 or 4",
            found=f"shape {', '.join(map(str, array.shape)) or '()'}",
            hint="channels go last: images.transpose(0, 2, 3, 1)" if transposed else "reshape or choose the array",
        )
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind != "f":
        raise RecordsError(
            f"{source}: the images are not of a known range",
            expected="uint8, or floats in [0, 1]",
            found=f"dtype {images.dtype}",
            hint="scale to 0 to 255 and convert with .astype('uint8')",
        )
    return _rounded(images, source)


def _rounded(images: np.ndarray, source: str) -> UInt8[np.ndarray, "image height width channel"]:
    chunks = [images[start : start + _CHUNK] for start in range(0, len(images), _CHUNK)]
    broken = sum(int((~np.isfinite(chunk)).any(axis=(1, 2, 3)).sum()) for chunk in chunks)
    if broken:
        raise RecordsError(
            f"{source}: {broken} of {len(images)} images hold NaN or infinite values",
            expected="floats in [0, 1]",
            hint="repair or drop them",
        )
    low, high = float(images.min()), float(images.max())
    if low < 0 or high > 1:
        symmetric = low >= -1 and high <= 1
        raise RecordsError(
            f"{source}: floats out of range",
            expected="[0, 1], or uint8",
            found=f"{low:.4g} to {high:.4g}",
            hint="(images + 1) / 2, if they lie in [-1, 1]" if symmetric else "divide by the largest possible value",
        )
    return np.concatenate([np.rint(chunk.astype(np.float32) * 255).astype(np.uint8) for chunk in chunks])


def image_value(value: object, base: Path | None, place: str) -> Any:
    """What `picture_of` takes, from the value of a field; None where it is no image.

    base: the folder of the table that names a file, which a relative path may not leave; None for live objects.
    Raises RecordsError for arrays that are no images and for such paths.
    """
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, np.ndarray):
        return uint8_images(value[None], place)[0]
    if isinstance(value, str):
        return (Path(value) if base is None else _inside(base, value, place)) if value else None
    if isinstance(value, Path):
        return (base or Path()) / value
    return value if isinstance(value, bytes) or _is_pil(value) else None


def _inside(base: Path, name: str, place: str) -> Path:
    """A path in a table: absolute, or below the table's folder. Raises RecordsError for one that climbs out of it."""
    found = base / name
    if not Path(name).is_absolute() and not leads_nowhere_else(found, base):
        raise RecordsError(
            f"{place}: the path of an image leads out of the folder of the table",
            expected="a path below it, or an absolute one",
            hint="move the images beside the table",
        )
    return found


def leads_nowhere_else(path: Path, folder: Path) -> bool:
    """Whether a path below a folder stays there, `..` and symbolic links followed."""
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # no path at all, or links in a circle
        return True  # opening it says so


def _is_pil(value: object) -> bool:
    from PIL import Image

    return isinstance(value, Image.Image)


def looks_like_image(value: object, base: Path) -> bool:
    """Whether the value of a field is an image, or names an image file that is there."""
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str | Path):
        # Longer than any path: a text, which the system would refuse to look up.
        named = str(value).lower().endswith(SUFFIXES) and len(str(value)) < 1000 and "\0" not in str(value)
        return named and (base / value).is_file()
    if isinstance(value, bytes):
        return _is_encoded(value)
    return _is_pil(value) or (isinstance(value, np.ndarray) and value.ndim in (2, 3))


def _is_encoded(data: bytes) -> bool:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            Image.open(BytesIO(data)).close()
        except Exception:  # noqa: BLE001 — foreign bytes make decoders raise anything
            return False
    return True
