"""A picture in the report: small enough that twenty of them leave the page below a megabyte."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from repromia.records import Picture

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

LONGEST = 96
_LARGEST = 12_000  # bytes of a PNG; a larger one gets a palette, which leaves at most about 10,000


def data_uri(picture: Picture) -> str:
    """The picture as a PNG of at most 96 × 96 pixels in a data URI; empty where it can no longer be read."""
    from PIL import Image

    try:
        pixels = picture.pixels()
    except OSError:
        return ""
    image = Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))
    image.thumbnail((LONGEST, LONGEST))
    data = _png(image)
    if len(data) > _LARGEST:
        data = _png(image.quantize(128))
    return f"data:image/png;base64,{b64encode(data).decode()}"


def _png(image: PillowImage) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
