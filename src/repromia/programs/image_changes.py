"""Changes of images: tensors (record, channel, height, width) of pixels or latents."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate, pad

from repromia.errors import AttackError

Images = Float[Tensor, "record channel height width"]


def shifted(images: Images, x: float, y: float) -> Images:
    """Moved right by x and down by y; the edge is repeated. Parts of a pixel are bicubic."""
    height, width = images.shape[-2:]
    if float(x).is_integer() and float(y).is_integer():
        far = int(max(abs(x), abs(y)))
        if far >= min(height, width):
            raise AttackError("A shift is as large as the image.", found=f"{far} of {min(height, width)}")
        top, left = far - int(y), far - int(x)
        return pad(images, (far,) * 4, mode="replicate")[..., top : top + height, left : left + width]
    matrix = torch.tensor([[1.0, 0.0, -2 * x / width], [0.0, 1.0, -2 * y / height]]).expand(len(images), 2, 3)
    grid = affine_grid(matrix, list(images.shape), align_corners=False)
    return grid_sample(images, grid, mode="bicubic", padding_mode="border", align_corners=False)


def mirrored(images: Images, axis: str) -> Images:
    """Mirrored. axis: horizontal or vertical. Raises AttackError for another."""
    if axis not in ("horizontal", "vertical"):
        raise AttackError("There is no such axis.", expected="horizontal or vertical", found=axis)
    return images.flip(-1 if axis == "horizontal" else -2)


def blurred(images: Images, times: int) -> Images:
    """Each value averaged with its neighbours by 1-2-1 weights, `times` times."""
    for _ in range(times):
        wide = pad(images, (1, 1, 1, 1), mode="replicate")
        wide = (wide[..., :-2] + 2 * wide[..., 1:-1] + wide[..., 2:]) / 4
        images = (wide[..., :-2, :] + 2 * wide[..., 1:-1, :] + wide[..., 2:, :]) / 4
    return images


def cropped(images: Images, size: int) -> Images:
    """The middle `size` pixels, enlarged to the old size."""
    top, left = (images.shape[-2] - size) // 2, (images.shape[-1] - size) // 2
    cut = images[..., top : top + size, left : left + size]
    return interpolate(cut, images.shape[-2:], mode="bilinear", align_corners=False, antialias=False)
