"""How far a step of training on a record would move each weight tensor of a denoiser. Needs the weights themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from repromia.errors import AttackError
from repromia.programs import TEN, Fixed, Target
from repromia.programs.denoising import check_timesteps, denoiser_behind, drawn_noise, noised, timesteps_of
from repromia.records import Records
from repromia.signals import GradientSignals
from repromia.targets.diffusion import Conditions, DiffusionModel


@dataclass(frozen=True)
class Gradients(Fixed):
    """L2 norms of the gradient of a record's denoising loss, one a weight tensor (GSA1, Pang et al. 2023).

    The loss is the mean squared error of the predicted noise over the timesteps t, each with one drawn noise, the same
    for every record. Tensors in the order of the model's modules and their parameters, frozen ones among them; those
    that see a record before it is denoised (autoencoder, text encoder) get 0.
    """

    t: str = TEN

    def ask(self, target: Target, records: Records) -> tuple[GradientSignals, ...]:
        """Norms of all records. Raises AttackError without weights, or where answers do not lead back to them."""
        model = denoiser_behind(target)
        timesteps = timesteps_of(self.t)
        check_timesteps(model, timesteps)
        weights = _weights(model)
        part = model.encode(records.contents, records.ids)
        conditions = model.conditions(part)
        noises = torch.stack([drawn_noise(model.denoiser.shape, t, 0) for t in timesteps])
        t, norms, folded = torch.tensor(timesteps), [], min(model.batch, len(timesteps))
        with model.asking(), _learning(weights), torch.enable_grad():
            for row, clean in enumerate(part.clean):
                xs = torch.stack([noised(model, clean, one, at) for one, at in zip(noises, timesteps, strict=True)])
                own = {name: one[row : row + 1] for name, one in conditions.items()}
                while True:
                    try:
                        norms.append(_norms(model, weights, (xs, t, noises), own, folded))
                        break
                    except (torch.OutOfMemoryError, MemoryError) as error:
                        if folded == 1:
                            raise AttackError("Memory ran out on the gradient of a single evaluation.") from error
                        folded = (folded + 1) // 2
        return (GradientSignals(np.array(timesteps), np.array(norms, dtype=np.float64)),)


def _weights(model: DiffusionModel) -> list[Tensor]:
    """Every weight tensor once. Raises AttackError for a model that shows none."""
    shown: list[Tensor] = [weight for module in model.denoiser.modules.values() for weight in module.parameters()]
    found = list({id(one): one for one in shown if one.is_floating_point()}.values())
    if not found:
        raise AttackError(
            "Gradients need the weights of the model, and it shows none.",
            expected="a pipeline or a torch module",
            found=f"{model.name}, a function",
        )
    return found


@contextmanager
def _learning(weights: list[Tensor]) -> Iterator[None]:
    """While open, every weight has a gradient; afterwards those that had one before."""
    frozen = [one for one in weights if not one.requires_grad]
    try:
        for one in frozen:
            one.requires_grad_(True)
        yield
    finally:
        for one in frozen:
            one.requires_grad_(False)


def _norms(
    model: DiffusionModel,
    weights: list[Tensor],
    asked: tuple[Tensor, Tensor, Tensor],
    conditions: Conditions,
    folded: int,
) -> list[float]:
    """Norms for one record. asked: x, t and the noise of every evaluation; folded: evaluations in one pass."""
    total: list[Tensor | None] = [None] * len(weights)
    for xs, t, noises in zip(*(torch.split(one, folded) for one in asked), strict=True):
        own = {name: one.repeat(len(xs), *[1] * (one.ndim - 1)).to(model.device) for name, one in conditions.items()}
        error = model.predicted_noise(xs.to(model.device), t, own).float() - noises.to(model.device)
        if not error.requires_grad:
            raise AttackError("The model's answers do not lead back to its weights.", expected="a differentiable model")
        loss = error.square().mean((1, 2, 3)).sum() / len(asked[1])
        found = torch.autograd.grad(loss, weights, allow_unused=True)
        total = [_sum(so_far, one) for so_far, one in zip(total, found, strict=True)]
    nothing = torch.zeros((), device=model.device)
    sizes = [nothing if one is None else torch.linalg.vector_norm(one, dtype=torch.float32) for one in total]
    return [float(one) for one in torch.stack([one.to(model.device) for one in sizes]).cpu()]


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return other if one is None else one if other is None else one + other
