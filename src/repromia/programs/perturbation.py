"""ReproMIA for diffusion models: something learned is added to how a frozen denoiser is asked.

To the clean image (input), to the state that the deterministic DDIM path starts back from (state), or in place of the
drawn noise (noise). Learned on fit; of nothing and every step, what has the best AUC on select is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from repromia.errors import AttackError
from repromia.programs import Binding, Program, Target
from repromia.programs.denoising import (
    Denoised,
    ddim_step,
    denoiser_behind,
    drawn_noise,
    moments,
    noised,
    timesteps_of,
)
from repromia.programs.restarts import best_of_restarts
from repromia.programs.saved import load_program
from repromia.records import Records, content_digest
from repromia.signals import DenoiseSignals

if TYPE_CHECKING:
    from repromia.targets.diffusion import Conditions, DiffusionModel, Part

WAYS = {"input": "clean", "state": "inversion", "noise": "noised"}
Images = Float[Tensor, "record channel height width"]


@dataclass(frozen=True)
class Perturbation:
    """What is added, and where. The same for every record.

    delta: (channel, height, width), or empty: the identity, chosen where nothing learned did better on select.
    learned: how it came about. used: ids, and seen: content hashes, of the records it was learned on.
    """

    delta: Float[np.ndarray, "*shape"]
    where: str
    t: str
    interval: int
    learned: dict[str, Any] = field(default_factory=dict)
    used: frozenset[str] = frozenset()
    seen: frozenset[str] = frozenset()

    kind = "perturbation"
    label = "learned perturbation"

    @property
    def key(self) -> str:
        """Hash of what is added, and the question."""
        values = np.ascontiguousarray(self.delta, dtype=np.float32)
        digest = blake2b(values.tobytes(), digest_size=16).hexdigest()
        return f"Perturbation{values.shape}{digest} {self.where} {self.t} {self.interval}"

    @property
    def is_identity(self) -> bool:
        """Whether the records are asked as they are."""
        return self.delta.size == 0

    @property
    def identity(self) -> Program:
        """The same question with nothing added."""
        return Denoised(t=self.t, way=WAYS[self.where], interval=self.interval)

    @property
    def details(self) -> dict[str, Any]:
        """How it was learned."""
        return self.learned

    @property
    def evaluations(self) -> int:
        """Evaluations of the denoiser a record."""
        timesteps = timesteps_of(self.t)
        return len(timesteps) + (max(timesteps) // self.interval if self.where == "state" else 0)

    def close(self) -> None:
        """Nothing to free."""

    def ask(self, target: Target, records: Records) -> tuple[DenoiseSignals, ...]:
        """Signals under the perturbation. Raises AttackError for a model of another shape."""
        model = denoiser_behind(target)
        if self.is_identity:
            return self.identity.ask(target, records)  # type: ignore[return-value]
        if self.delta.shape != model.denoiser.shape:
            raise AttackError(
                "The perturbation was learned on a model of another shape.",
                expected=str(model.denoiser.shape),
                found=str(self.delta.shape),
            )
        part = model.encode(records.contents, records.ids)
        asked = _Starts(model, part, self.where, timesteps_of(self.t), self.interval)
        delta = torch.from_numpy(self.delta)
        columns = [moments(asked.deviation(delta, at)) for at in range(len(asked.timesteps))]
        square, fourth = (np.stack(one, axis=1) for one in zip(*columns, strict=True))
        return (DenoiseSignals(np.array(asked.timesteps), np.full(len(columns), -1), square, fourth),)

    def check(self) -> None:
        """Raises ValueError for a place that does not exist, AttackError for timesteps that are none."""
        if self.where not in WAYS:
            raise ValueError(f"nothing can be added to {self.where!r}")
        timesteps_of(self.t)


def saved_spec(path: Path) -> str:
    """The attack that asks under a perturbation on disk."""
    program = load_program(path, Perturbation)
    recipe = program.learned.get("recipe", "contrast")
    return f"reprogram:where={program.where}:recipe={recipe}:t={program.t}:program={path}"


@dataclass
class _Starts:
    """A part of the records at each timestep, ready for the evaluation that the perturbation decides."""

    model: DiffusionModel
    part: Part
    where: str
    timesteps: tuple[int, ...]
    interval: int

    def __post_init__(self) -> None:
        self.conditions: Conditions = self.model.conditions(self.part)
        self.paths: list[tuple[Images, Images]] = []  # x at t - interval and at t, for each timestep
        if self.where == "state":
            before, found = self.part.clean, {}
            for t in range(0, max(self.timesteps), self.interval):
                (rows,) = [torch.full((len(before),), t)]
                noise = self.model.noise(before, rows, self.conditions)
                after = ddim_step(self.model, before, noise, t, t + self.interval)
                found[t + self.interval] = (before, after)
                before = after
            if any(t not in found for t in self.timesteps):
                raise AttackError(
                    "A timestep is not on the DDIM path.", expected=f"multiples of the interval {self.interval}"
                )
            self.paths = [found[t] for t in self.timesteps]

    def deviation(self, delta: Tensor, at: int, *, rows: slice = slice(None), learning: bool = False) -> Images:
        """The deviation of some rows at the timestep with this number; differentiable in delta when learning."""
        t, model = self.timesteps[at], self.model
        clean = self.part.clean[rows]
        wanted = torch.full((len(clean),), t)
        conditions = {name: one[rows] for name, one in self.conditions.items()}

        def predicted(x: Tensor) -> Tensor:
            if not learning:
                return model.noise(x, wanted, conditions)
            on = {name: one.to(model.device) for name, one in conditions.items()}
            return model.predicted_noise(x.to(model.device), wanted, on).float().cpu()

        if self.where == "input":
            inside = clean + delta
            return predicted(inside.clamp(-1, 1) if model.denoiser.pixels[0] == model.denoiser.shape[0] else inside)
        if self.where == "noise":
            return predicted(noised(model, clean, delta, t)) - delta
        before, after = self.paths[at][0][rows], self.paths[at][1][rows] + delta
        return before - ddim_step(model, after, predicted(after), t, t - self.interval)


@dataclass(frozen=True)
class Unperturbed(Denoised):
    """What a learned perturbation is compared with: the same question with nothing added."""

    where: str = "input"

    @property
    def change(self) -> str:
        """Nothing is changed."""
        return "identity"

    @property
    def question(self) -> Any:
        """In the way that the perturbation is asked."""
        return super().question._replace(way=_way(self.where))


def _way(where: str) -> str:
    if where not in WAYS:
        raise AttackError(f"Nothing can be added to {where!r}.", expected=", ".join(WAYS))
    return WAYS[where]


@dataclass(frozen=True)
class LearnedPerturbation:
    """How a perturbation is learned.

    where: input, state or noise. bound: largest value added, in 255ths of the pixel range (noise: in tenths of a
    standard deviation around a drawn one). recipe: contrast scores 2 s(x) - s(x + delta), paper scores s(x + delta),
    s = -log of the mean squared deviation. Pairwise softplus, full-batch gradients, Adam. restarts: from other
    random numbers; the best on select is kept.
    """

    where: str = "input"
    bound: float = 16.0
    recipe: str = "contrast"
    t: str = "50+160"
    interval: int = 10
    steps: int = 20
    rate: float = 0.3
    per_class: int = 100
    program: str = ""
    restarts: int = 1

    def bind(self, binding: Binding) -> Perturbation:
        """Learn it, or read it. Raises AttackError."""
        if self.restarts != 1 and not self.program:
            best: Perturbation = best_of_restarts(self, binding)
            return best
        _way(self.where)
        if self.program:
            found = load_program(Path(self.program), Perturbation)
            recipe = str(found.learned.get("recipe", self.recipe))
            ours = (self.where, self.recipe, timesteps_of(self.t), self.interval)
            theirs = (found.where, recipe, timesteps_of(found.t), found.interval)
            if ours != theirs:
                raise AttackError(
                    "The program was learned for another question than the one asked.",
                    expected=f"where={found.where}:recipe={recipe}:t={found.t} (interval {found.interval})",
                    found=f"where={self.where}:recipe={self.recipe}:t={self.t} (interval {self.interval})",
                )
            return found
        if self.recipe not in ("contrast", "paper"):
            raise AttackError(f"There is no recipe {self.recipe!r}.", expected="contrast or paper")
        model = denoiser_behind(binding.target)
        delta, learned = _learn(self, model, binding)
        records = (binding.fit.records, binding.select.records)
        return Perturbation(
            delta,
            self.where,
            self.t,
            self.interval,
            learned,
            frozenset(name for one in records for name in one.ids),
            frozenset(content_digest(content) for one in records for content in one.contents),
        )


def _learn(plan: LearnedPerturbation, model: DiffusionModel, binding: Binding) -> tuple[np.ndarray, dict[str, Any]]:
    from repromia.learn import at_most
    from repromia.metrics import auc

    fit = at_most(binding.fit, plan.per_class, binding.seed)
    timesteps = timesteps_of(plan.t)
    starts = [
        _Starts(model, replace(model.encode(one.contents, one.ids)), plan.where, timesteps, plan.interval)
        for one in (fit.records, binding.select.records)
    ]
    generator = torch.Generator().manual_seed(binding.seed)
    centre = drawn_noise(model.denoiser.shape, timesteps[0], 0) if plan.where == "noise" else torch.zeros(1)
    reach = plan.bound / 10 if plan.where == "noise" else 2 * plan.bound / 255
    weights = (0.1 * torch.randn(model.denoiser.shape, generator=generator)).requires_grad_()
    optimiser = torch.optim.Adam([weights], lr=plan.rate)
    plain = [_strength(one, None, centre) for one in starts]

    def scores(side: int, probed: Tensor) -> Tensor:
        return 2 * plain[side] - probed if plan.recipe == "contrast" else probed

    best, member = np.zeros(0, dtype=np.float32), binding.select.member
    best_auc = identity_auc = auc(plain[1].double().numpy(), member)
    trace = [{"step": 0, "select_auc": identity_auc}]
    with binding.progress.step("learning a perturbation", plan.steps) as bar:
        for step in range(1, plan.steps + 1):
            delta = centre + reach * torch.tanh(weights)
            probed = _strength(starts[0], delta.detach(), centre).requires_grad_()
            inside, outside = (scores(0, probed)[torch.from_numpy(fit.member == side)] for side in (True, False))
            gap = (inside[:, None] - outside[None]) / plain[0].std().clamp(min=1e-6)
            loss = torch.nn.functional.softplus(-gap).mean()
            (pull,) = torch.autograd.grad(loss, probed)
            optimiser.zero_grad()
            _carry_back(starts[0], weights, centre, reach, pull)
            optimiser.step()
            delta = (centre + reach * torch.tanh(weights)).detach()
            value = auc(scores(1, _strength(starts[1], delta, centre)).double().numpy(), member)
            trace.append({"step": step, "select_auc": value})
            if value > best_auc:
                best, best_auc = delta.numpy().astype(np.float32), value
            bar.advance()
    return best, {
        "where": plan.where,
        "recipe": plan.recipe,
        "bound": plan.bound,
        "identity_select_auc": identity_auc,
        "select_auc": best_auc,
        "kept": "perturbation" if best.size else "identity",
        "fit_records": len(fit),
        "trace": trace,
    }


def _strength(starts: _Starts, delta: Tensor | None, centre: Tensor) -> Float[Tensor, " record"]:
    """s of every record, mean over timesteps, without gradients. None: nothing added."""
    added = centre if delta is None else delta
    found = []
    for at, t in enumerate(starts.timesteps):
        own = drawn_noise(starts.model.denoiser.shape, t, 0) if delta is None and starts.where == "noise" else added
        found.append(-torch.log(starts.deviation(own, at).square().mean((1, 2, 3)).clamp(min=1e-30)))
    return torch.stack(found).mean(0)


def _carry_back(starts: _Starts, weights: Tensor, centre: Tensor, reach: float, pull: Tensor) -> None:
    """Gradient of the loss in the weights: the loss's pull on each record's s, carried back batch by batch."""
    batch = starts.model.batch
    with starts.model.asking(), torch.enable_grad():
        for at in range(len(starts.timesteps)):
            for first in range(0, len(starts.part), batch):
                rows = slice(first, first + batch)
                delta = centre + reach * torch.tanh(weights)
                deviation = starts.deviation(delta, at, rows=rows, learning=True)
                own = -torch.log(deviation.square().mean((1, 2, 3)).clamp(min=1e-30))
                (part,) = torch.autograd.grad(own @ pull[rows] / len(starts.timesteps), weights)
                weights.grad = part if weights.grad is None else weights.grad + part
