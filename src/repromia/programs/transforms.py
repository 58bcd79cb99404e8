"""Fixed changes of the clean image (pixels, or latents of a latent model)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from repromia.errors import AttackError
from repromia.programs.denoising import Denoised, drawn_noise
from repromia.programs.image_changes import blurred, cropped, mirrored, shifted

Images = Float[Tensor, "record channel height width"]


@dataclass(frozen=True)
class Shift(Denoised):
    """Moved right by x and down by y pixels."""

    x: float = 0.0
    y: float = 0.0

    def changed(self, clean: Images) -> tuple[Images, ...]:
        """One variant."""
        return (shifted(clean, self.x, self.y),)


@dataclass(frozen=True)
class Shifts(Denoised):
    """Moved by `far` pixels in each of the four directions."""

    far: float = 1.0

    def changed(self, clean: Images) -> tuple[Images, ...]:
        """Four variants: right, left, down, up."""
        return tuple(shifted(clean, x, y) for x, y in ((self.far, 0), (-self.far, 0), (0, self.far), (0, -self.far)))


@dataclass(frozen=True)
class Flip(Denoised):
    """Mirrored. axis: horizontal or vertical."""

    axis: str = "horizontal"

    def changed(self, clean: Images) -> tuple[Images, ...]:
        """One variant."""
        return (mirrored(clean, self.axis),)


@dataclass(frozen=True)
class QuarterTurn(Denoised):
    """Turned by 90 degrees, `times` times."""

    times: int = 1

    def changed(self, clean: Images) -> tuple[Images, ...]:
        """One variant. Raises AttackError where the image is not square."""
        if clean.shape[-1] != clean.shape[-2] and self.times % 2:
            raise AttackError("A quarter turn needs square images.")
        return (torch.rot90(clean, self.times, dims=(-2, -1)),)


@dataclass(frozen=True)
class Noisy(Denoised):
    """With normal noise of this standard deviation, the same for all records."""

    level: float = 0.1
    draw: int = 0

    def changed(self, clean: Images) -> tuple[Images, ...]:
        """One variant."""
        return (clean + self.level * drawn_noise(clean.shape[1:], -1, self.draw),)


@dataclass(frozen=True)
class Brighter(Denoised):
    """Every value raised."""

    by: float = 0.1

    def changed(self, clean: Images) -> tuple[Images, ...]:
        """One variant."""
        return (clean + self.by,)


@dataclass(frozen=True)
class Contrast(Denoised):
    """Distances to each image's mean multiplied."""

    by: float = 0.8

    def changed(self, clean: Images) -> tuple[Images, ...]:
        """One variant."""
        mean = clean.mean(dim=(1, 2, 3), keepdim=True)
        return (mean + self.by * (clean - mean),)


@dataclass(frozen=True)
class ChannelTurn(Denoised):
    """Channels passed on: red becomes green, green becomes blue."""

    by: int = 1

    def changed(self, clean: Images) -> tuple[Images, ...]:
        """One variant. Raises AttackError for a single channel."""
        if clean.shape[1] == 1:
            raise AttackError("There is a single channel, so channels cannot be passed on.")
        return (clean.roll(self.by, dims=1),)


@dataclass(frozen=True)
class Blur(Denoised):
    """Each value averaged with its neighbours by 1-2-1 weights, `times` times."""

    times: int = 1

    def changed(self, clean: Images) -> tuple[Images, ...]:
        """One variant."""
        return (blurred(clean, self.times),)


@dataclass(frozen=True)
class Crops(Denoised):
    """The middle cut out and enlarged again: the neighbours of PFAMI (Fu et al. 2024), from 95 to 70 % of the side."""

    count: int = 10

    def changed(self, clean: Images) -> tuple[Images, ...]:
        """`count` variants, from the largest crop to the smallest."""
        size = clean.shape[-1]
        kept = torch.linspace(0.95, 0.70, self.count).tolist()
        return tuple(cropped(clean, max(2, round(size * share))) for share in kept)


@dataclass(frozen=True)
class NoisedCrops(Crops):
    """Crops with drawn noise."""

    way: str = "noised"
