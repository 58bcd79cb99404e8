"""Small random denoisers, and what the formulas say of one image: the network alone, without the package.

Published codes sum over pixels, the package takes means. All images of a model have the same number of pixels, so the
two differ by one factor and no AUC or TPR can tell them apart; here sums are divided by that number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from diffusers import DDPMPipeline, DDPMScheduler
from torch import Tensor

from diffusion_models import picture, unet, wrapped
from repromia.programs import Binding
from repromia.programs.denoising import Noised
from repromia.progress import Silent
from repromia.records import LabelledRecords, Records
from repromia.store import Store
from repromia.targets.diffusion import DiffusionModel
from repromia.views import Views

SIZE = 8
FIT, SELECT = 8, 6  # records a class


def pipeline(channels: int = 1, seed: int = 0) -> DDPMPipeline:
    """A random denoiser of 8 by 8 pixels that tests share."""
    return _pipeline(channels, seed)


@cache
def _pipeline(channels: int, seed: int) -> DDPMPipeline:
    return DDPMPipeline(unet(channels, SIZE, seed), DDPMScheduler())


def target(channels: int = 1, seed: int = 0, **options: Any) -> DiffusionModel:
    """The same as a target of its own, nothing asked so far."""
    return wrapped(pipeline(channels, seed), **options)


def images(count: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Blocks of grey or colour and some noise: neighbours are alike, as in pictures."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 200, (count, SIZE // 2, SIZE // 2, channels)).repeat(2, axis=1).repeat(2, axis=2)
    return (coarse + generator.integers(0, 56, coarse.shape)).astype(np.uint8)


def labelled(pixels: np.ndarray, captions: tuple[str, ...] = ("",), name: str = "p") -> LabelledRecords:
    """Pictures of which the first half are members."""
    contents = tuple(picture(one, captions[row % len(captions)]) for row, one in enumerate(pixels))
    ids = tuple(f"{name}{row}" for row in range(len(contents)))
    return LabelledRecords(Records(ids, contents, ids), np.arange(len(ids)) < len(ids) // 2)


def views_of(model: DiffusionModel, count: int = 4, *, store: Store | None = None, **changes: Any) -> Views:
    """Views of fit, select and `count` further records. There is no other label than those of fit and select."""
    channels = model.denoiser.pixels[0]
    captions = ("a red cat on the mat", "two dogs", "the moon over a dark sea", "nothing")
    sizes = {"fit": 2 * FIT, "select": 2 * SELECT, "rest": count}
    size = model.denoiser.pixels[1] // SIZE
    roles = {
        name: labelled(images(many, channels, seed).repeat(size, 1).repeat(size, 2), captions, name)
        for seed, (name, many) in enumerate(sizes.items(), 1)
    }
    parts = [one.records for one in roles.values()]
    records = Records(
        tuple(name for part in parts for name in part.ids),
        tuple(content for part in parts for content in part.contents),
        tuple(name for part in parts for name in part.groups),
    )
    binding = Binding(model, roles["fit"], roles["select"], 0, Silent(), 0)
    return Views({"target": model}, changes.pop("records", records), binding, store or Store(None), **changes)


def spied(model: DiffusionModel) -> list[tuple[Tensor, int]]:
    """Every x and timestep that the model is asked about from now on."""
    asked: list[tuple[Tensor, int]] = []
    predict = model.denoiser.predict

    def spy(x: Tensor, t: Tensor, conditions: dict[str, Tensor]) -> Tensor:
        asked.extend(zip(x.detach().cpu().clone(), t.tolist(), strict=True))
        return predict(x, t, conditions)

    model.denoiser.predict = spy  # type: ignore[method-assign]
    return asked


def pixels_of(content: Any) -> Tensor:
    """(1, channel, height, width) in [-1, 1]."""
    return torch.from_numpy(content.pixels()).permute(2, 0, 1)[None].float() / 255 * 2 - 1


@dataclass(frozen=True)
class Image:
    """One image, and the network that is asked about it."""

    x: Tensor
    network: Any
    alphas: Tensor  # of the scheduler

    def eps(self, x: Tensor, t: int) -> Tensor:
        with torch.no_grad():
            return self.network(x, torch.tensor([t])).sample

    def noisy(self, noise: Tensor, t: int) -> Tensor:
        return self.alphas[t].sqrt() * self.x + (1 - self.alphas[t]).sqrt() * noise

    def step(self, x: Tensor, eps: Tensor, now: int, then: int) -> Tensor:
        """SecMI lines 38 to 40."""
        clean = (x - (1 - self.alphas[now]).sqrt() * eps) / self.alphas[now].sqrt()
        return self.alphas[then].sqrt() * clean + (1 - self.alphas[then]).sqrt() * eps

    def power(self, deviation: Tensor, p: int) -> float:
        return float((deviation.double().abs() ** p).sum()) / deviation.numel()  # official: the sum

    def loss(self, noise: Tensor, t: int) -> float:
        return self.power(self.eps(self.noisy(noise, t), t) - noise, 2)

    def sima(self, t: int, p: int = 4) -> float:
        return self.power(self.eps(self.x, t), p)

    def pia(self, t: int, p: int = 4, *, normalised: bool = False) -> float:
        own = self.eps(self.x, 0)
        if normalised:
            own = own / own.abs().mean() * math.sqrt(2 / math.pi)
        return self.power(own - self.eps(self.noisy(own, t), t), p)

    def secmi(self, t: int, interval: int = 10, p: int = 2) -> float:
        """From 0 step by step to t - interval, then ahead to t and back."""
        x = self.x
        for now in range(0, t - interval, interval):
            x = self.step(x, self.eps(x, now), now, now + interval)
        ahead = self.step(x, self.eps(x, t - interval), t - interval, t)
        back = self.step(ahead, self.eps(ahead, t), t, t - interval)
        return self.power(x - back, p)

    def s(self, t: int) -> float:
        return -math.log(self.sima(t, 2))

    def plainly(self, where: str, t: int, noise: Tensor) -> float:
        """s where nothing is added."""
        if where == "noise":
            return -math.log(self.loss(noise, t))
        return self.s(t) if where == "input" else -math.log(self.secmi(t))

    def under(self, where: str, delta: Tensor, t: int) -> float:
        """s under a perturbation."""
        if where == "input":
            return self.on((self.x + delta).clamp(-1, 1)).s(t)
        if where == "noise":
            return -math.log(self.loss(delta, t))
        x = self.x
        for now in range(0, t - 10, 10):
            x = self.step(x, self.eps(x, now), now, now + 10)
        ahead = self.step(x, self.eps(x, t - 10), t - 10, t) + delta
        return -math.log(self.power(x - self.step(ahead, self.eps(ahead, t), t, t - 10), 2))

    def moved(self, x: int, y: int) -> Image:
        """Right by x and down by y; the outermost row or column is repeated."""
        height, width = self.x.shape[-2:]
        rows = [min(max(row - y, 0), height - 1) for row in range(height)]
        columns = [min(max(column - x, 0), width - 1) for column in range(width)]
        return self.on(self.x[:, :, rows][:, :, :, columns])

    def on(self, x: Tensor) -> Image:
        return Image(x, self.network, self.alphas)


def image(content: Any, channels: int, seed: int = 0) -> Image:
    """A picture before the small denoiser."""
    own = pipeline(channels, seed)
    return Image(pixels_of(content), own.unet, own.scheduler.alphas_cumprod)


@cache
def noises(channels: int, wanted: tuple[tuple[int, int], ...]) -> dict[tuple[int, int], Tensor]:
    """The noise that the package draws at (timestep, draw), as another model of the same shape is shown it.

    Read off a grey image, so that nothing is lost to rounding.
    """
    draws = max(draw for _, draw in wanted) + 1
    other = target(channels, seed=1)
    asked = spied(other)
    times = list(dict.fromkeys(t for t, _ in wanted))
    plain = labelled(np.full((1, SIZE, SIZE, channels), 128, dtype=np.uint8)).records
    Noised(t="+".join(map(str, times)), draws=draws).ask(other, plain)
    alphas = pipeline(channels, 1).scheduler.alphas_cumprod.double()
    grey = 128 / 127.5 - 1
    found: dict[tuple[int, int], Tensor] = {}
    for (x, t), draw in zip(asked, list(range(draws)) * len(times), strict=True):
        found[t, draw] = ((x - alphas[t].sqrt() * grey) / (1 - alphas[t]).sqrt()).float()[None]
    return found
