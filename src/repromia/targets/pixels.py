"""Images to the size and channels of a model: the same way for both sides."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import UInt8

from repromia.errors import TargetError

Resize = Literal["crop", "squash", "refuse"]


def fitted(
    pixels: UInt8[np.ndarray, "height width found"], channels: int, size: int, resize: Resize
) -> UInt8[np.ndarray, "channel size size"]:
    """An image as the model takes it; one that fits is not touched.

    resize: crop scales the shorter side (Lanczos, antialiased) and cuts the middle out; squash scales both sides;
    refuse raises TargetError. Grey is repeated to RGB, RGB is weighted to grey as by ITU-R 601.
    """
    from PIL import Image

    height, width, found = pixels.shape
    if found != channels and {found, channels} != {1, 3}:
        raise TargetError("An image has other channels than the model.", expected=str(channels), found=str(found))
    if (height, width) != (size, size):
        if resize == "refuse":
            raise TargetError(
                "An image has another size than the model.",
                expected=f"{size} x {size} pixels",
                found=f"{width} x {height}",
                hint="--resize crop or --resize squash",
            )
        image = Image.fromarray(pixels[:, :, 0] if found == 1 else pixels)
        if resize == "crop":
            scale = size / min(height, width)
            wide, high = max(size, round(width * scale)), max(size, round(height * scale))
            left, top = (wide - size) // 2, (high - size) // 2
            image = image.resize((wide, high), Image.Resampling.LANCZOS).crop((left, top, left + size, top + size))
        else:
            image = image.resize((size, size), Image.Resampling.LANCZOS)
        pixels = np.asarray(image).reshape(size, size, found)
    if found == 1 and channels == 3:
        pixels = np.repeat(pixels, 3, axis=2)
    elif found == 3 and channels == 1:
        pixels = np.asarray(Image.fromarray(pixels).convert("L"))[:, :, None]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))
