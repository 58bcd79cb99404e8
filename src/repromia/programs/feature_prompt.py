"""ReproMIA for graph models: one learned vector added to the features of every node that the model is shown.

A single prompt (GPF) or a mixture of a few, weighted node by node (GPF-plus; Fang et al. 2023, arXiv 2209.15240),
bounded by the size of the features. Learned on fit by gradients; of nothing and every step, what has the best AUC on
select is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from repromia.errors import AttackError
from repromia.learn import at_most
from repromia.metrics import auc
from repromia.programs import Binding, Program, Target, at_least
from repromia.programs.queries import Query, classifier_behind
from repromia.programs.restarts import best_of_restarts
from repromia.programs.saved import load_program
from repromia.records import LabelledRecords, Records, content_digest
from repromia.signals import ClassSignals, Scores
from repromia.targets.classifier import Classifier
from repromia.targets.nodes import Nodes, Seen

RECIPES = ("contrast", "paper")


@dataclass(frozen=True)
class LearnedFeaturePrompt:
    """How a prompt is learned.

    prompts: vectors that are mixed; 1: the same vector for all nodes. bound: largest length of a vector, in mean
    lengths of the nodes' features. recipe: contrast scores 2 s(x) - s(prompted x), paper scores s(prompted x); s is
    the scaled logit. rate: of Adam, in units of the bound. restarts: from other
    random numbers; the best on select is kept.
    """

    learns: ClassVar[bool] = True

    prompts: int = 1
    bound: float = 0.5
    recipe: str = "contrast"
    steps: int = 40
    rate: float = 0.1
    per_class: int = 500
    program: str = ""
    restarts: int = 1

    def applies(self, target: Target) -> bool:
        """Whether the target takes nodes and has gradients."""
        return isinstance(target, Classifier) and target.reader.kind == "node" and target.differentiable

    def bind(self, binding: Binding) -> FeaturePrompt:
        """Learn it, or read it. Raises AttackError."""
        if self.restarts != 1 and not self.program:
            best: FeaturePrompt = best_of_restarts(self, binding)
            return best
        if self.recipe not in RECIPES:
            raise AttackError(f"There is no recipe {self.recipe!r}.", expected=", ".join(RECIPES))
        at_least(1, prompts=self.prompts, steps=self.steps, per_class=self.per_class)
        at_least(0, bound=self.bound, rate=self.rate)
        if self.program:
            return load_program(Path(self.program), FeaturePrompt)
        model = nodes_of(binding.target)
        if not model.differentiable:
            raise AttackError(
                "There are no gradients to learn a prompt by.", expected="a torch module that answers with logits"
            )
        weights, learned = _learn(self, model, binding)
        records = (binding.fit.records, binding.select.records)
        return FeaturePrompt(
            weights,
            self.bound,
            learned,
            frozenset(name for one in records for name in one.ids),
            frozenset(content_digest(content) for one in records for content in one.contents),
        )


def nodes_of(target: Target) -> Classifier:
    """The target as a model of nodes. Raises AttackError."""
    model = classifier_behind(target)
    if model.reader.kind != "node":
        raise AttackError("This program changes graphs.", expected="a model of nodes", found=model.reader.kind)
    return model


def prompted(nodes: Nodes, weights: Float[Tensor, "part prompt feature"], bound: float) -> Nodes:
    """The nodes with prompts on every node of their graphs, differentiable. weights: the prompts, in units of the
    bound; of several, also the directions of the features by which they are mixed."""
    return replace(nodes, graphs=tuple(_with(one, weights, bound) for one in nodes.graphs))


def _with(graph: Seen, weights: Tensor, bound: float) -> Seen:
    size = graph.features.norm(dim=1).mean()
    vectors = weights[0] / weights[0].norm(dim=1, keepdim=True).clamp(min=1.0)
    if len(weights) == 1:
        return replace(graph, features=graph.features + bound * size * vectors)
    share = (graph.features @ weights[1].T / size.clamp(min=1e-12)).softmax(dim=1)
    return replace(graph, features=graph.features + bound * size * (share @ vectors))


@dataclass(frozen=True)
class FeaturePrompt:
    """A learned prompt. weights: see `prompted`; empty: the identity, as nothing learned did better on select.

    learned: how it came about. used: ids, and seen: content hashes, of the records it was learned on.
    """

    weights: Float[np.ndarray, "*shape"]
    bound: float
    learned: dict[str, Any] = field(default_factory=dict)
    used: frozenset[str] = frozenset()
    seen: frozenset[str] = frozenset()

    kind = "feature_prompt"
    label = "learned feature prompt"
    evaluations = 1

    @property
    def key(self) -> str:
        """Hash of the prompt."""
        values = np.ascontiguousarray(self.weights, dtype=np.float32)
        digest = blake2b(values.tobytes(), digest_size=16).hexdigest()
        return f"FeaturePrompt{values.shape}{digest} {self.bound}"

    @property
    def is_identity(self) -> bool:
        """Whether the nodes are asked as they are."""
        return self.weights.size == 0

    @property
    def identity(self) -> Program:
        """The same question on the unchanged graph."""
        return Query()

    @property
    def details(self) -> dict[str, Any]:
        """How it was learned."""
        return self.learned

    def close(self) -> None:
        """Nothing to free."""

    def ask(self, target: Target, records: Records) -> tuple[ClassSignals, ...]:
        """Signals on the prompted graph. Raises AttackError for a model of other inputs."""
        model = nodes_of(target)
        batch = model.encode(records.contents, records.ids)
        assert isinstance(batch.inputs, Nodes)  # noqa: S101 — of a model of nodes
        if self.is_identity:
            return (model.signals(batch.inputs, batch.label),)
        width = batch.inputs.graphs[0].features.shape[1]
        if self.weights.shape[-1] != width:
            raise AttackError(
                "The prompt was learned on nodes of another width.",
                expected=f"{width} features",
                found=str(self.weights.shape[-1]),
            )
        return (model.signals(prompted(batch.inputs, torch.from_numpy(self.weights), self.bound), batch.label),)

    def check(self) -> None:
        """Raises ValueError for weights that are no prompts, nor those of the identity, which are none."""
        shape = self.weights.shape
        if self.weights.size and not (len(shape) == 3 and shape[0] == (1 if shape[1] == 1 else 2)):
            raise ValueError(f"weights of shape {shape} are no prompts")


def _learn(plan: LearnedFeaturePrompt, model: Classifier, binding: Binding) -> tuple[np.ndarray, dict[str, Any]]:
    fit = _Side(plan, model, at_most(binding.fit, plan.per_class, binding.seed))
    select = _Side(plan, model, binding.select)
    generator = torch.Generator().manual_seed(binding.seed)
    width = fit.nodes.graphs[0].features.shape[1]
    parts = 1 if plan.prompts == 1 else 2
    start = torch.randn(parts, plan.prompts, width, generator=generator) * torch.tensor(0.1 / width**0.5)
    weights = start.requires_grad_()
    optimiser = torch.optim.Adam([weights], lr=plan.rate / width**0.5)  # a step of all features has length `rate`
    best, best_auc = np.zeros(0, dtype=np.float32), auc(select.plain, select.member)
    trace = [{"step": 0, "select_auc": best_auc}]
    with binding.progress.step("learning a feature prompt", plan.steps) as bar:
        for step in range(1, plan.steps + 1):
            optimiser.zero_grad()
            fit.pull(weights)
            optimiser.step()
            value = auc(select.scores(weights.detach()), select.member)
            trace.append({"step": step, "select_auc": value})
            if value > best_auc:
                best, best_auc = weights.detach().numpy().astype(np.float32).copy(), value
            bar.advance()
    return best, {
        "recipe": plan.recipe,
        "prompts": plan.prompts,
        "identity_select_auc": trace[0]["select_auc"],
        "select_auc": best_auc,
        "kept": "prompt" if best.size else "identity",
        "fit_records": len(fit.member),
        "trace": trace,
    }


class _Side:
    """Nodes of known membership as the model sees them, and their scores under some weights."""

    def __init__(self, plan: LearnedFeaturePrompt, model: Classifier, labelled: LabelledRecords) -> None:
        batch = model.encode(labelled.records.contents, labelled.records.ids)
        assert isinstance(batch.inputs, Nodes)  # noqa: S101 — of a model of nodes
        self.plan, self.model, self.member = plan, model, labelled.member
        self.nodes, self.label = batch.inputs, batch.label
        self.plain = model.signals(self.nodes, self.label).scaled_logit

    def scores(self, weights: Tensor) -> Scores:
        """The attack's scores."""
        probed = self.model.signals(prompted(self.nodes, weights, self.plan.bound), self.label).scaled_logit
        return 2 * self.plain - probed if self.plan.recipe == "contrast" else probed

    def pull(self, weights: Tensor) -> None:
        """Adds the gradient of the pairwise loss: softplus over all pairs of a member and a non-member, in standard
        deviations of the plain figure. Nothing is left on the model's own weights."""
        with self.model.asking(), torch.enable_grad():
            logits = self.model.logits(prompted(self.nodes, weights, self.plan.bound)).cpu().double()
            label = torch.from_numpy(self.label)
            own = logits[torch.arange(len(label)), label]
            rest = logits.masked_fill(torch.nn.functional.one_hot(label, logits.shape[1]).bool(), -torch.inf)
            probed = own - rest.logsumexp(1)
            scores = 2 * torch.from_numpy(self.plain) - probed if self.plan.recipe == "contrast" else probed
            inside, outside = (scores[torch.from_numpy(self.member == side)] for side in (True, False))
            spread = max(float(np.std(self.plain)), 1e-6)
            loss = torch.nn.functional.softplus((outside[None] - inside[:, None]) / spread).mean()
            (gradient,) = torch.autograd.grad(loss, weights)
        weights.grad = gradient
