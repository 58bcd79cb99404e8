"""Learn a change of images for a frozen classifier: by gradients, by SPSA or by CMA-ES; of texts a soft prompt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from repromia.errors import AttackError
from repromia.learn import at_most
from repromia.metrics import auc
from repromia.programs import Binding, Target, at_least
from repromia.programs.class_prompt import ClassPrompt
from repromia.programs.learned_class_prompt import LearnedClassPrompt
from repromia.programs.overlay import (
    DRAWS,
    Answers,
    Overlay,
    Where,
    classes_of,
    images_of,
    overlaid,
    size_of,
    voted,
)
from repromia.programs.queries import classifier_behind
from repromia.programs.restarts import best_of_restarts
from repromia.programs.saved import load_program
from repromia.records import LabelledRecords, content_digest
from repromia.signals import Scores, sureness
from repromia.targets.classifier import Classifier
from repromia.targets.prompted_texts import can_be_prompted

Optimiser = Literal["auto", "gradient", "spsa", "cma"]
SPSA_AVERAGES = 5
LARGEST_CMA = 512  # weights: its covariance matrix has their square


@dataclass(frozen=True)
class LearnedOverlay:
    """How a change is learned.

    where: additive, coarse, border or affine. bound: largest value added, in 255ths. recipe: contrast scores
    2 s(x) - s(changed x), paper scores s(changed x); s is the scaled logit (answers=scores) or the share of noised
    copies that get the record's class (answers=labels). optimiser: auto takes gradients where the target has some;
    spsa with the gains of BlackVIP (Oh et al. 2023, arXiv 2303.14773), its estimate of the gradient scaled to an RMS
    of 1; cma for at most 512 weights. budget: most answers of the target about single records while learning, of fit
    and select together, plain and changed; no step that would exceed it is begun; 0: no limit.
    per_label: a change of its own for every class.
    restarts: from other random numbers, each with the whole budget; the best on select is kept.
    length: tokens of the soft prompt that is learned for texts in its place (`LearnedClassPrompt`).
    """

    learns: ClassVar[bool] = True

    where: str = "additive"
    bound: float = 16.0
    recipe: str = "contrast"
    answers: str = "scores"
    optimiser: str = "auto"
    steps: int = 20
    rate: float = 0.3
    per_class: int = 200
    budget: int = 0
    program: str = ""
    length: int = 8
    per_label: bool = False
    restarts: int = 1

    def applies(self, target: Target) -> bool:
        """Whether the target takes images, or texts as tokens of a module."""
        images = isinstance(target, Classifier) and target.reader.kind == "image"
        return images or can_be_prompted(target)

    def bind(self, binding: Binding) -> Overlay | ClassPrompt:
        """Learn it, or read it. Raises AttackError."""
        if self.restarts != 1 and not self.program:
            best: Overlay | ClassPrompt = best_of_restarts(self, binding)
            return best
        self._check()
        if classifier_behind(binding.target).reader.kind == "text":
            return self._prompt().bind(binding)
        if self.program:
            found = load_program(Path(self.program), Overlay)
            if (found.where, found.answers) != (self.where, self.answers):
                raise AttackError(
                    "The program was learned for another question than the one asked.",
                    expected=f"where={found.where}:answers={found.answers}",
                    found=f"where={self.where}:answers={self.answers}",
                )
            return found
        model = images_of(binding.target)
        weights, learned = _learn(self, model, binding)
        records = (binding.fit.records, binding.select.records)
        return Overlay(
            weights,
            self.where,
            self.bound,
            self.answers,
            learned,
            frozenset(name for one in records for name in one.ids),
            frozenset(content_digest(content) for one in records for content in one.contents),
        )

    def _prompt(self) -> LearnedClassPrompt:
        given = (self.where, self.answers, self.optimiser.replace("auto", "gradient"), self.per_label)
        if given != ("additive", "scores", "gradient", False):
            raise AttackError(
                "For texts one soft prompt is learned by gradients, and nothing else.",
                expected="neither where, answers, per_label nor another optimiser",
                found=f"where={self.where}:answers={self.answers}:optimiser={self.optimiser}:per_label={self.per_label}",
            )
        how = (self.length, self.recipe, self.steps, self.rate, self.per_class, self.budget, self.program)
        return LearnedClassPrompt(*how)

    def _check(self) -> None:
        at_least(1, steps=self.steps, per_class=self.per_class)
        at_least(0, bound=self.bound, rate=self.rate, budget=self.budget)
        for name, value, known in (
            ("change", self.where, get_args(Where)),
            ("recipe", self.recipe, ("contrast", "paper")),
            ("answers", self.answers, get_args(Answers)),
            ("optimiser", self.optimiser, get_args(Optimiser)),
        ):
            if value not in known:
                raise AttackError(f"There is no {name} {value!r}.", expected=", ".join(known))


def _learn(plan: LearnedOverlay, model: Classifier, binding: Binding) -> tuple[np.ndarray, dict[str, Any]]:
    by, before = _optimiser(plan, model), model.asked
    _, channels, side = model.reader.shape
    shape = size_of(plan.where, (channels, side, side))
    shape = (classes_of(model, binding.fit.records), *shape) if plan.per_label else shape
    if by == "cma":
        _check_size(int(np.prod(shape)))
    sides = at_most(binding.fit, plan.per_class, binding.seed), binding.select
    _check_budget(plan, *map(len, sides))
    fit, select = (_Side(plan, model, one) for one in sides)
    generator = torch.Generator().manual_seed(binding.seed)
    start = 0.1 * torch.randn(shape, generator=generator)
    price = _price(plan, by, start.numel(), len(fit.member), len(select.member))
    best, best_auc = np.zeros(0, dtype=np.float32), auc(select.plain, select.member)
    trace = [{"step": 0, "select_auc": best_auc, "answers": _answers(model, before)}]
    candidates = {"gradient": _by_gradient, "spsa": _by_spsa, "cma": _by_cma}[by](fit, start, generator)
    with binding.progress.step("learning a change", plan.steps) as bar:
        for step in range(1, plan.steps + 1):
            if plan.budget and _answers(model, before) + price > plan.budget:
                break
            weights = next(candidates)
            value = auc(select.scores(weights), select.member)
            trace.append({"step": step, "select_auc": value, "answers": _answers(model, before)})
            if value > best_auc:
                best, best_auc = weights.detach().numpy().astype(np.float32).copy(), value
            bar.advance()
    return best, {
        "where": plan.where,
        "recipe": plan.recipe,
        "answers_used": plan.answers,
        "optimiser": by,
        "queries": _answers(model, before),
        "budget": plan.budget,
        "identity_select_auc": trace[0]["select_auc"],
        "select_auc": best_auc,
        "kept": "change" if best.size else "identity",
        "fit_records": len(fit.member),
        "trace": trace,
    }


def _answers(model: Classifier, before: int) -> int:
    """Answers given since, however many forward passes each took."""
    return (model.asked - before) // model.passes


def _optimiser(plan: LearnedOverlay, model: Classifier) -> str:
    usable = model.differentiable and plan.answers == "scores"
    if plan.optimiser == "gradient" and not usable:
        raise AttackError(
            "There are no gradients to learn by.",
            expected="a torch module that answers with logits, and answers=scores",
            hint="optimiser=spsa or optimiser=cma need none",
        )
    if plan.optimiser == "auto":
        return "gradient" if usable else "spsa"
    return plan.optimiser


def _votes(plan: LearnedOverlay) -> int:
    return 1 if plan.answers == "scores" else DRAWS


def _price(plan: LearnedOverlay, by: str, size: int, fit: int, select: int) -> int:
    """Answers that a step takes."""
    if by == "gradient":
        return 2 * fit + select
    losses = 2 * SPSA_AVERAGES if by == "spsa" else _generation(size)
    return _votes(plan) * (losses * fit + select)


def _check_budget(plan: LearnedOverlay, fit: int, select: int) -> None:
    """Raises AttackError where not even the plain records can be asked."""
    plain = _votes(plan) * (fit + select)
    if 0 < plan.budget < plain:
        raise AttackError(
            "The budget does not suffice to ask the plain records once.",
            expected=f"budget={plain} at least, and what the steps take",
            found=str(plan.budget),
            hint="per_class=… learns from fewer records",
        )


def _generation(size: int) -> int:
    return 4 + int(3 * np.log(size))  # as CMA-ES has it by itself


def _check_size(weights: int) -> None:
    """Raises AttackError for more than CMA-ES can hold."""
    if weights > LARGEST_CMA:
        raise AttackError(
            "There are too many weights for CMA-ES.",
            expected=f"at most {LARGEST_CMA}",
            found=str(weights),
            hint="where=coarse or where=affine have few; or optimiser=spsa",
        )


class _Side:
    """Records of known membership as the classifier sees them, and their scores under some weights."""

    def __init__(self, plan: LearnedOverlay, model: Classifier, labelled: LabelledRecords) -> None:
        batch = model.encode(labelled.records.contents, labelled.records.ids)
        assert isinstance(batch.inputs, Tensor)  # noqa: S101 — images are
        self.plan, self.model, self.member = plan, model, labelled.member
        self.pixels, self.label = batch.inputs, batch.label
        self.plain = self._figure(self.pixels)

    def _figure(self, pixels: Tensor) -> Scores:
        return sureness(tuple(self.model.signals(one, self.label) for one in voted(pixels, self.plan.answers)))

    @torch.no_grad()
    def scores(self, weights: Tensor) -> Scores:
        """The attack's scores."""
        probed = self._figure(overlaid(self.pixels, weights, self.plan.where, self.plan.bound, self.label))
        return 2 * self.plain - probed if self.plan.recipe == "contrast" else probed

    def loss(self, weights: Tensor) -> float:
        """Softplus over all pairs of a member and a non-member, in standard deviations of the plain figure."""
        return float(self.pairwise(torch.from_numpy(np.asarray(self.scores(weights), dtype=np.float64))))

    def pairwise(self, scores: Tensor) -> Tensor:
        """The same of given scores, differentiable."""
        inside, outside = (scores[torch.from_numpy(self.member == side)] for side in (True, False))
        spread = max(float(np.std(self.plain)), 1e-6)
        return torch.nn.functional.softplus((outside[None] - inside[:, None]) / spread).mean()


def _by_gradient(fit: _Side, start: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    """Adam on full-batch gradients: the pull on each record's figure, carried back batch by batch."""
    weights = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([weights], lr=fit.plan.rate)
    sign = -1.0 if fit.plan.recipe == "contrast" else 1.0
    while True:
        scores = torch.from_numpy(fit.scores(weights.detach())).requires_grad_()
        (pull,) = torch.autograd.grad(fit.pairwise(scores), scores)
        gradient = torch.zeros_like(weights)
        for at in range(0, len(fit.pixels), fit.model.batch):
            rows = slice(at, at + fit.model.batch)
            with fit.model.asking(), torch.enable_grad():
                changed = overlaid(fit.pixels[rows], weights, fit.plan.where, fit.plan.bound, fit.label[rows])
                logits = fit.model.logits(changed).cpu().double()
                label = torch.from_numpy(fit.label[rows])
                own = logits[torch.arange(len(label)), label]
                rest = logits.masked_fill(torch.nn.functional.one_hot(label, logits.shape[1]).bool(), -torch.inf)
                slope = sign * (own - rest.logsumexp(1)) @ pull[rows]
                gradient += torch.autograd.grad(slope, weights)[0]  # none is left on the model's own weights
        weights.grad = gradient
        optimiser.step()
        yield weights.detach().clone()


def _by_spsa(fit: _Side, start: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    """Two-sided differences along random directions, steps of size a_k = rate / (k + 1)^.4, c_k = .1 / (k + 1)^.1."""
    weights, step = start.clone(), 0
    while True:
        pull = torch.zeros_like(weights)
        reach, rate = 0.1 / (step + 1) ** 0.1, fit.plan.rate / (step + 1) ** 0.4
        for _ in range(SPSA_AVERAGES):
            size = 0.5 + 0.5 * torch.rand(weights.shape, generator=generator)
            side = torch.where(torch.rand(weights.shape, generator=generator) < 0.5, -size, size)
            slope = (fit.loss(weights + reach * side) - fit.loss(weights - reach * side)) / (2 * reach)
            pull += slope / side / SPSA_AVERAGES
        weights = weights - rate * pull / pull.square().mean().sqrt().clamp(min=1e-12)  # whatever the loss's scale
        step += 1
        yield weights.clone()


def _by_cma(fit: _Side, start: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    """One generation of CMA-ES a step (the package `cma`)."""
    try:
        import cma
    except ImportError as error:
        raise AttackError("CMA-ES needs the package cma.", hint="pip install 'repromia[classifier]'") from error
    normal = np.random.default_rng(int(torch.randint(1, 2**31 - 1, (1,), generator=generator)))
    given = {  # draws of its own: by itself it would seed and use numpy's global generator
        "seed": np.nan,
        "randn": lambda *size: normal.standard_normal(size),
        "verbose": -9,
        "popsize": _generation(start.numel()),
    }
    search = cma.CMAEvolutionStrategy(start.flatten().double().numpy(), 0.5, given)
    while True:
        found = search.ask()
        losses = [fit.loss(torch.from_numpy(one).float().reshape(start.shape)) for one in found]
        search.tell(found, losses)
        yield torch.from_numpy(found[int(np.argmin(losses))]).float().reshape(start.shape)
