"""Noised and repaired copies of a classifier, as reference models that it carries in itself.

Noise on the weights destroys what a model knows of single records before what it knows of the task; repair towards
the target's own answers on mixtures of records brings the task back.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from repromia.errors import AttackError
from repromia.programs import Binding, Target, at_least
from repromia.programs.image_changes import mirrored
from repromia.programs.queries import Augmented, classifier_behind
from repromia.records import Records
from repromia.signals import ClassSignals, ReferenceSignals, stack, told_by
from repromia.targets.classifier import Classifier
from repromia.targets.nodes import Nodes, Seen


@dataclass(frozen=True)
class NoiseAndRepair:
    """`copies` copies with noise of `noise` times each matrix's standard deviation, brought back to the target's
    answers in `steps` steps.

    Repaired on mixtures of two records of the fit role each (mixup, Zhang et al. 2018), without their labels or
    classes: no record is shown as it is. rate: of AdamW, in standard deviations of each matrix a step, falling
    linearly to 0.
    """

    noise: float = 1.0
    steps: int = 100
    batch: int = 64
    rate: float = 0.02
    copies: int = 4

    def bind(self, binding: Binding) -> RepairedCopies:
        """The copies, made when they are first asked."""
        at_least(0, noise=self.noise, steps=self.steps, rate=self.rate)
        at_least(1, batch=self.batch, copies=self.copies)
        return RepairedCopies(self, binding)


@dataclass
class RepairedCopies:
    """The program that asks the copies in place of the target."""

    plan: NoiseAndRepair
    binding: Binding = field(repr=False)
    _made: list[Classifier] = field(default_factory=list, repr=False)
    _repaired: dict[str, float] = field(default_factory=dict, repr=False)

    label = "noised and repaired copies"
    evaluations = 1
    travels = False  # the copies are made once, here

    @property
    def key(self) -> str:
        """What decides the copies."""
        binding = self.binding
        return f"{self.plan!r} {binding.seed} {binding.target.fingerprint} {binding.fit.records.digest()}"

    @property
    def used(self) -> frozenset[str]:
        """No record: the mixtures are the same whoever is a member."""
        return frozenset()

    @property
    def details(self) -> dict[str, Any]:
        """How far the copies were from the target before and after repair."""
        return dict(self._repaired)

    def remember(self, details: dict[str, Any]) -> None:
        """What an earlier run found out, whose answers are read back."""
        self._repaired = details | self._repaired

    def ask(self, target: Target, records: Records) -> tuple[ReferenceSignals, ...]:
        """What the copies say under the variants of `augmented`. Raises AttackError where none can be made."""
        model = classifier_behind(target)
        self._made = self._made or [self._copy(model, number) for number in range(self.plan.copies)]
        batch = model.encode(records.contents, records.ids)
        found = []
        for one in self._made:
            variants = [one.signals(inputs, batch.label) for inputs in Augmented().changed(batch.inputs)]
            model.asked += one.asked
            one.asked = 0
            found.append(without_records(variants))
        return (stack(found),)

    def close(self) -> None:
        """Free the copies; asking again makes them anew."""
        self._made = []

    def _copy(self, model: Classifier, number: int) -> Classifier:
        if model.module is None or not model.differentiable:
            raise AttackError(
                "noise_and_repair needs weights that can be noised.",
                expected="a torch module of images, numbers or nodes that answers with logits",
                found=model.describe()["architecture"],
            )
        inputs = model.encode(self.binding.fit.records.contents, self.binding.fit.records.ids).inputs
        assert not isinstance(inputs, list)  # noqa: S101 — of a differentiable model
        generator = torch.Generator().manual_seed(1000 * self.binding.seed + number)
        module = copy.deepcopy(model.module)
        matrices = [weight for weight in module.parameters() if weight.dim() >= 2 and weight.is_floating_point()]
        spreads = [float(weight.detach().float().std()) if weight.numel() > 1 else 0.0 for weight in matrices]
        with torch.no_grad():
            for weight, spread in zip(matrices, spreads, strict=True):
                drawn = torch.randn(weight.shape, generator=generator)
                weight.add_((self.plan.noise * spread * drawn).to(weight.device, weight.dtype))
        noised = model.with_module(module, f"{model.name}, noised and repaired {number}")
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(1000 * self.binding.seed)  # dropout of the copy draws from the global generator
            first, last = self._repair(noised, model, inputs, generator)
        self._repaired |= {f"divergence_before_{number}": first, f"divergence_after_{number}": last}
        return noised

    def _repair(
        self, noised: Classifier, model: Classifier, inputs: Tensor | Nodes, generator: torch.Generator
    ) -> tuple[float, float]:
        """The divergence from the target (KL, nats a record) on the first batch and on the last."""
        assert noised.module is not None  # noqa: S101 — it was just made
        plan, module = self.plan, noised.module
        weights = [weight for weight in module.parameters() if weight.is_floating_point()]
        groups = [
            {"params": [one], "lr": plan.rate * (float(one.detach().float().std()) if one.numel() > 1 else 0.01)}
            for one in weights
        ]
        for one in weights:
            one.requires_grad_(True)
        optimiser = torch.optim.AdamW(groups, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / max(1, plan.steps))
        trace: list[float] = []
        module.train()  # batch statistics are brought back too
        with self.binding.progress.step("repairing a noised copy", plan.steps) as bar:
            for _ in range(plan.steps):
                mixed = _mixed(inputs, plan.batch, generator)
                with model.asking():
                    wanted = model.logits(mixed).log_softmax(1)
                with torch.enable_grad():
                    found = noised.logits(mixed).log_softmax(1)
                    loss = (wanted.exp() * (wanted - found)).sum(1).mean()
                    optimiser.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    nn.utils.clip_grad_norm_(weights, 1.0)
                    optimiser.step()
                schedule.step()
                trace.append(float(loss.detach()))
                bar.advance()
        module.eval().requires_grad_(False)
        return (trace[0], trace[-1]) if trace else (0.0, 0.0)


def _mixed(inputs: Tensor | Nodes, count: int, generator: torch.Generator) -> Tensor | Nodes:
    return mixed_graph(inputs, generator) if isinstance(inputs, Nodes) else mixture(inputs, count, generator)


def mixed_graph(nodes: Nodes, generator: torch.Generator) -> Nodes:
    """All the nodes, on their graphs with the features of every node mixed with another's."""
    return replace(nodes, graphs=tuple(_mixed_features(one, generator) for one in nodes.graphs))


def _mixed_features(graph: Seen, generator: torch.Generator) -> Seen:
    count = len(graph.features)
    other = torch.randperm(count, generator=generator)
    share = (0.3 + 0.4 * torch.rand(count, 1, generator=generator)).to(graph.features.dtype)
    return replace(graph, features=share * graph.features + (1 - share) * graph.features[other])


def mixture(inputs: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Convex combinations of two inputs each, images mirrored half the time."""
    first, second = (torch.randint(len(inputs), (count,), generator=generator) for _ in range(2))
    share = (0.3 + 0.4 * torch.rand(count, generator=generator)).reshape(-1, *[1] * (inputs.dim() - 1))
    mixed = share.to(inputs.dtype) * inputs[first] + (1 - share).to(inputs.dtype) * inputs[second]
    if mixed.dim() == 4:
        flip = torch.rand(count, generator=generator) < 0.5
        mixed[flip] = mirrored(mixed[flip], "horizontal")
    return mixed


def without_records(variants: list[ClassSignals]) -> ReferenceSignals:
    """The signals of one model that was trained on none of the records."""
    return told_by(variants, np.zeros(len(variants[0]), dtype=bool))
