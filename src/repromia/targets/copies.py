"""Throw-away copies of a target: noised, and repaired on text that the target wrote. The target is never changed."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from repromia.errors import AttackError

if TYPE_CHECKING:
    import numpy as np

    from repromia.progress import Progress
    from repromia.targets.language import LanguageModel

Where = Literal["auto", "adapter", "weights"]


def noised_copy(target: LanguageModel, noise: float, *, seed: int, where: Where = "auto") -> LanguageModel:
    """A copy with Gaussian noise of `noise` times each matrix's own standard deviation.

    where: "adapter": the matrices of a LoRA adapter; "weights": all matrices, an adapter merged into them first;
    "auto": weights. Raises AttackError where weights cannot be copied or noised.
    """
    quantised = getattr(target.model, "is_quantized", False)
    if quantised or any(weight.is_meta or not weight.is_floating_point() for weight in target.model.parameters()):
        raise AttackError(
            "The weights cannot be copied and noised.",
            expected="floating-point weights in memory",
            found="weights that are quantised, or kept elsewhere by accelerate",
        )
    if where == "adapter" and not target.has_adapter:
        raise AttackError("There is no adapter to put noise on.", hint="use where=weights")
    model = copy.deepcopy(target.model)
    if target.has_adapter and where != "adapter":
        model = model.merge_and_unload() if target.adapter else model.unload()
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for weight in _matrices(model, where):
        drawn = torch.randn(weight.shape, generator=generator)
        spread = float(weight.detach().float().std())
        with torch.no_grad():
            weight.add_((drawn * (noise * spread)).to(weight.device, weight.dtype))
    adapter = target.adapter if where == "adapter" else True
    name = f"{target.name} with noise {noise:g}"
    return replace(target, model=model, adapter=adapter, name=name, asked=0, _fingerprint="", _remembered={})


def repair(
    noised: LanguageModel,
    target: LanguageModel,
    samples: Sequence[np.ndarray],
    *,
    batch: int,
    rate: float,
    where: Where = "auto",
    progress: Progress,
) -> tuple[float, float]:
    """Bring a noised copy's next-token distributions back to the target's, on the samples in batches, once each.

    rate: of AdamW, in standard deviations of each matrix a step, falling linearly to 0: the same for any model.
    The divergence (KL, nats a token) on the first batch and on the last, before their steps.
    """
    kept = next(noised.model.parameters()).dtype
    if kept == torch.float16:  # too few digits for AdamW
        noised.model.float()
    matrices = _matrices(noised.model, where)
    groups = [{"params": [weight], "lr": rate * float(weight.detach().float().std())} for weight in matrices]
    for weight in matrices:
        weight.requires_grad_(True)
    steps = len(samples) // batch
    optimiser = torch.optim.AdamW(groups, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / max(1, steps))
    trace: list[float] = []
    with progress.step("repairing a noised copy", steps) as bar:
        for step in range(steps):
            loss = target.divergence(noised, samples[step * batch : (step + 1) * batch])
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(matrices, 1.0)
            optimiser.step()
            optimiser.zero_grad()
            schedule.step()
            trace.append(float(loss.detach()))
            bar.advance()
    noised.model.requires_grad_(False).to(kept)
    return (trace[0], trace[-1]) if trace else (0.0, 0.0)


def _matrices(model: Any, where: Where) -> list[nn.Parameter]:
    return list(_chosen(model, where))


def _chosen(model: Any, where: Where) -> Iterator[nn.Parameter]:
    for name, weight in model.named_parameters():
        if weight.dim() >= 2 and (where != "adapter" or "lora_" in name):
            yield weight
