"""Denoisers trained in the test run: one that remembers its members, and one that never saw them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from diffusers import DDPMPipeline
from sklearn.datasets import load_digits

from repromia.demo.denoiser import Recipe, train_denoiser

COUNT = 60  # a side


@dataclass(frozen=True)
class Trained:
    """leaky: trained on `members`; private: on other digits. Images are (60, 8, 8, 1), uint8."""

    leaky: DDPMPipeline
    private: DDPMPipeline
    members: np.ndarray
    nonmembers: np.ndarray


@cache
def trained() -> Trained:
    """Once a session, ten to fifteen seconds on a quiet core: handwritten digits of 8 by 8 pixels, drawn by lot."""
    digits = np.unique(load_digits().images, axis=0)
    drawn = digits[np.random.default_rng(0).permutation(len(digits))[: 3 * COUNT]]
    members, nonmembers, others = np.split(np.round(drawn * 255 / 16).astype(np.uint8)[..., None], 3)
    recipe = Recipe(steps=400, batch=32, rate=4e-3, channels=(16, 32), ema=0)
    short = Recipe(steps=120, batch=32, rate=4e-3, channels=(16, 32), ema=0)
    (leaky, _), (private, _) = train_denoiser(members, recipe, seed=0), train_denoiser(others, short, seed=1)
    return Trained(leaky, private, members, nonmembers)
