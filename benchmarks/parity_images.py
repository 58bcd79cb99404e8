"""Diffusion models: a small UNet trained on 200 handwritten digits, beside 200 others; and one that saw neither."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor

import repromia
from benchmarks.parity_lines import Line, agreeing, aucs
from repromia.attacks import Variants, parse
from repromia.demo.denoiser import Recipe, train_denoiser
from repromia.metrics import auc, tpr_at_fpr
from repromia.programs import Binding
from repromia.progress import Silent
from repromia.scoring import run_attack
from repromia.store import Store
from repromia.targets.pipelines import DiffusionOptions, wrap_pipeline
from repromia.views import Views

EACH, LEARN = 200, 20
RECIPE = Recipe(steps=500, batch=32, rate=4e-3, channels=(16, 32), ema=0)
T = 100


@dataclass(frozen=True)
class Setting:
    """Digits that are scored, and the network alone. x: (record, 1, 8, 8) in [-1, 1]."""

    views: Views
    member: np.ndarray
    network: Any
    alphas: Tensor
    x: Tensor

    def ours(self, spec: str) -> np.ndarray:
        """Scores of the package, one timestep."""
        return self.variants(spec)[:, 0]

    def variants(self, spec: str) -> np.ndarray:
        """Scores at all timesteps of the attack."""
        found = run_attack(parse(spec, "diffusion"), self.views)
        assert isinstance(found.variants, Variants), found.reason
        return found.variants.scores

    def eps(self, x: Tensor, t: int) -> Tensor:
        """The network's noise."""
        with torch.no_grad():
            found: Tensor = self.network(x, torch.full((len(x),), t)).sample
        return found

    def noisy(self, x: Tensor, noise: Tensor, t: int) -> Tensor:
        """x at timestep t."""
        return self.alphas[t].sqrt() * x + (1 - self.alphas[t]).sqrt() * noise

    def step(self, x: Tensor, eps: Tensor, now: int, then: int) -> Tensor:
        """One deterministic step between timesteps."""
        clean = (x - (1 - self.alphas[now]).sqrt() * eps) / self.alphas[now].sqrt()
        return self.alphas[then].sqrt() * clean + (1 - self.alphas[then]).sqrt() * eps


def power(deviation: Tensor, p: int) -> np.ndarray:
    """Sum of the p-th powers, one a record, as public codes have it; lower is member."""
    found: np.ndarray = deviation.double().abs().pow(p).sum((1, 2, 3)).numpy()
    return found


def settings() -> tuple[Setting, Setting]:
    """The model that saw its members, and the one that saw neither side."""
    digits = np.unique(load_digits().images, axis=0)
    drawn = digits[np.random.default_rng(0).permutation(len(digits))[: 3 * EACH]]
    members, nonmembers, others = np.split(np.round(drawn * 255 / 16).astype(np.uint8)[..., None], 3)
    return tuple(_setting(shown, members, nonmembers, seed) for seed, shown in enumerate((members, others)))  # type: ignore[return-value]


def _setting(shown: np.ndarray, members: np.ndarray, nonmembers: np.ndarray, seed: int) -> Setting:
    pipeline, _ = train_denoiser(shown, RECIPE, seed=seed)
    target = wrap_pipeline(pipeline, options=DiffusionOptions())
    few = repromia.load_records(members[:LEARN], nonmembers[:LEARN])
    scored = repromia.load_records(members[LEARN:], nonmembers[LEARN:])
    binding = Binding(target, few, few, 0, Silent(), 0)
    views = Views({"target": target}, scored.records, binding, Store(None))
    pixels = np.stack([one.pixels() for one in scored.records.contents])  # type: ignore[union-attr]
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 * 2 - 1
    return Setting(views, scored.member, pipeline.unet.eval(), pipeline.scheduler.alphas_cumprod, x)


def lines(work: Path) -> list[Line]:
    """The table."""
    one, unseen = settings()
    return [*_formulas(one), *_secmi(one), *_pia(one), *_sima(one), *_pfami(one), *_best(unseen)]


def _own_noise(one: Setting, t: int, scale: float = 0.0) -> np.ndarray:
    """PIA; with `scale`, the model's noise brought to this mean absolute value."""
    own = one.eps(one.x, 0)
    if scale:
        own = own / own.abs().mean((1, 2, 3), keepdim=True) * scale
    return power(own - one.eps(one.noisy(one.x, own, t), t), 4)


def _path(one: Setting, t: int) -> np.ndarray:
    """SecMI: from 0 in steps of ten to t - 10, then to t and back."""
    x = one.x
    for now in range(0, t - 10, 10):
        x = one.step(x, one.eps(x, now), now, now + 10)
    ahead = one.step(x, one.eps(x, t - 10), t - 10, t)
    return power(x - one.step(ahead, one.eps(ahead, t), t, t - 10), 2)


def _formulas(one: Setting) -> list[Line]:
    pixels = one.x[0].numel()  # sums there, means here: one factor, which no AUC sees
    return [
        agreeing("sima", "SimA", -one.ours(f"sima:t={T}") * pixels, power(one.eps(one.x, T), 4)),
        agreeing("pia", "PIA", -one.ours(f"pia:t={T}") * pixels, _own_noise(one, T)),
        agreeing("pian", "PIA", -one.ours(f"pian:t={T}") * pixels, _own_noise(one, T, math.sqrt(2 / math.pi))),
        agreeing("secmi_stat", "SecMI", -one.ours(f"secmi_stat:t={T}") * pixels, _path(one, T)),
    ]


def _secmi(one: Setting) -> list[Line]:
    code = "SecMI (t_SEC = 100 compares 90 with 100, not 100 with 110)"
    return [
        aucs(
            "secmi_stat:t=100, beside what is documented",
            code,
            one.ours("secmi_stat:t=100"),
            -_path(one, 110),
            one.member,
        )
    ]


def _pia(one: Setting) -> list[Line]:
    ours, generator = one.ours(f"pia:t={T}"), torch.Generator().manual_seed(0)
    noise = torch.randn(one.x.shape, generator=generator)
    naive = -power(noise - one.eps(one.noisy(one.x, noise, T), T), 2)
    reciprocal = -_own_noise(one, T, math.sqrt(math.pi / 2))
    return [
        aucs("pian", "CDI (the reciprocal constant)", one.ours(f"pian:t={T}"), reciprocal, one.member),
        aucs("pia", "CopyMark (random noise for the model's own: the loss)", ours, naive, one.member),
    ]


def _sima(one: Setting) -> list[Line]:
    ours = one.ours(f"sima:t={T}")
    exchanged = tpr_at_fpr(-ours, ~one.member, 0.05)
    figure = "'TPR at 5 % FPR' of one and the same score"
    return [
        Line(
            "sima",
            "SimA (non-members for positives)",
            figure,
            f"{tpr_at_fpr(ours, one.member, 0.05):.3f}",
            f"{exchanged:.3f}",
        )
    ]


def _pfami(one: Setting) -> list[Line]:
    """Rises of the loss under crops: with the image's own noise, with fresh noise, and squared."""
    generator, rises = torch.Generator().manual_seed(0), {"fresh": [], "same": []}  # type: ignore[var-annotated]
    own = torch.randn(one.x.shape, generator=generator)
    base = power(one.eps(one.noisy(one.x, own, T), T) - own, 2)
    for side in (8, 7, 7, 6, 6):
        edge = (8 - side) // 2
        cut = one.x[:, :, edge : edge + side, edge : edge + side]
        crop = torch.nn.functional.interpolate(cut, (8, 8), mode="bilinear", align_corners=False)
        for name, noise in (("same", own), ("fresh", torch.randn(one.x.shape, generator=generator))):
            rises[name].append((power(one.eps(one.noisy(crop, noise, T), T) - noise, 2) - base) / base)
    same, fresh = (np.mean(rises[name], axis=0) for name in ("same", "fresh"))
    return [
        aucs("pfami, one noise for image and crops", "PFAMI (fresh noise for each)", same, fresh, one.member),
        aucs("pfami", "SimA's copy (the rise squared: its sign is lost)", same, same**2, one.member),
    ]


def _best(unseen: Setting) -> list[Line]:
    """A model that saw neither side: the best of 30 timesteps by the measured labels, and one named beforehand."""
    times = range(10, 310, 10)
    scores = unseen.variants("naive:draws=1:t=" + "+".join(map(str, times)))
    best = max(auc(scores[:, at], unseen.member) for at in range(len(times)))
    named = auc(scores[:, list(times).index(T)], unseen.member)
    figure = "AUC of a model that saw neither side (named beforehand; best of 30 timesteps)"
    return [
        Line(
            "naive", "PIA, SimA (the timestep that is best on what is measured)", figure, f"{named:.3f}", f"{best:.3f}"
        )
    ]
