"""A denoiser behind a defence."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from jaxtyping import Num
from torch import Tensor

from repromia.defences import Defence, Noise, Rounding, Smoothing
from repromia.errors import ConfigError
from repromia.targets.answers import noise_by_answer, rounded
from repromia.targets.diffusion import Conditions, Denoiser


class DefendedDenoiser:
    """Another denoiser, whose prediction a defence changes. salt: what tells its noise from another model's."""

    def __init__(self, inner: Denoiser, defence: Defence, salt: str) -> None:
        if isinstance(defence, Noise) and defence.random:
            raise ConfigError("Noise that is drawn anew is there for classifiers only.", hint="leave random=true out")
        self.inner, self.defence, self.salt = inner, defence, salt
        self.shape, self.pixels, self.prediction = inner.shape, inner.pixels, inner.prediction
        self.alphas, self.modules, self.conditional = inner.alphas, inner.modules, inner.conditional

    @property
    def defences(self) -> tuple[str, ...]:
        """This one and those behind it."""
        return (*getattr(self.inner, "defences", ()), self.defence.spec)

    @property
    def settings(self) -> str:
        """What else decides the answers."""
        return f"{type(self.inner).__name__} {getattr(self.inner, 'settings', '')} behind {self.defence.spec}"

    @property
    def passes(self) -> int:
        """Evaluations that an answer takes."""
        inner: int = getattr(self.inner, "passes", 1)
        return inner * (self.defence.copies if isinstance(self.defence, Smoothing) else 1)

    def encode(self, pixels: Tensor) -> Tensor:
        """As behind it."""
        return self.inner.encode(pixels)

    def condition(self, captions: Sequence[str]) -> Conditions:
        """As behind it."""
        return self.inner.condition(captions)

    def check_captions(self, captions: Sequence[str]) -> None:
        """As behind it."""
        self.inner.check_captions(captions)

    def predict(self, x: Tensor, t: Num[Tensor, " row"], conditions: Conditions) -> Tensor:
        """The defended prediction; differentiable."""
        if isinstance(self.defence, Smoothing):
            return self._smoothed(x, t, conditions)
        found = self.inner.predict(x, t, conditions)
        if isinstance(self.defence, Rounding):
            return rounded(found, self.defence.digits)
        assert isinstance(self.defence, Noise)  # noqa: S101 — no other was let through
        drawn = noise_by_answer(found.detach().double().cpu().numpy(), self._phases(found.shape[1:]))
        return found + (self.defence.scale * torch.from_numpy(drawn)).to(found.device, found.dtype)

    def _smoothed(self, x: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        assert isinstance(self.defence, Smoothing)  # noqa: S101 — asked for it
        answers: list[Tensor] = []
        for copy in range(self.defence.copies):
            generator = torch.Generator().manual_seed(1_000_003 * self.defence.seed + copy)
            drawn = self.defence.spread * torch.randn(x.shape[1:], generator=generator)
            answers.append(self.inner.predict(x + drawn.to(x.device, x.dtype), t, conditions))
        return torch.stack(answers).mean(0)

    def _phases(self, shape: Any) -> np.ndarray:
        assert isinstance(self.defence, Noise)  # noqa: S101 — asked for it
        seed = int.from_bytes(blake2b(f"{self.salt} {self.defence.seed}".encode(), digest_size=8).digest())
        return np.random.default_rng(seed).random(tuple(shape))
