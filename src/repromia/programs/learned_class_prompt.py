"""Learn a soft prompt for a frozen text classifier by gradients."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from repromia.errors import AttackError
from repromia.learn import at_most
from repromia.metrics import auc
from repromia.programs import Binding, at_least
from repromia.programs.class_prompt import ClassPrompt, prompted
from repromia.programs.queries import classifier_behind
from repromia.programs.saved import load_program
from repromia.records import LabelledRecords, content_digest
from repromia.signals import Scores
from repromia.targets.classifier import Classifier
from repromia.targets.prompted_texts import Prompt, embeddings_of


@dataclass(frozen=True)
class LearnedClassPrompt:
    """How a soft prompt of `length` tokens is learned: from the embeddings of drawn tokens, on the fit role, by Adam on
    all its records at once; of nothing and every step, what has the best AUC on select is kept.

    recipe: contrast scores 2 s(x) - s(prompted x), paper scores s(prompted x); s is the scaled logit. rate: in standard
    deviations of the embeddings. budget: as of `LearnedOverlay`.
    """

    length: int = 8
    recipe: str = "contrast"
    steps: int = 20
    rate: float = 0.3
    per_class: int = 200
    budget: int = 0
    program: str = ""

    def bind(self, binding: Binding) -> ClassPrompt:
        """Learn it, or read it. Raises AttackError."""
        at_least(1, length=self.length, steps=self.steps, per_class=self.per_class)
        at_least(0, rate=self.rate, budget=self.budget)
        if self.recipe not in ("contrast", "paper"):
            raise AttackError(f"There is no recipe {self.recipe!r}.", expected="contrast, paper")
        if self.program:
            return load_program(Path(self.program), ClassPrompt)
        model = classifier_behind(binding.target)
        if model.answer != "logits":
            raise AttackError("There are no gradients to learn a prompt by.", expected="logits", found=model.answer)
        embeddings, learned = _learn(self, model, binding)
        records = (binding.fit.records, binding.select.records)
        return ClassPrompt(
            embeddings,
            learned,
            frozenset(name for one in records for name in one.ids),
            frozenset(content_digest(content) for one in records for content in one.contents),
        )


def _learn(plan: LearnedClassPrompt, model: Classifier, binding: Binding) -> tuple[np.ndarray, dict[str, Any]]:
    vocabulary, before = embeddings_of(model), model.asked
    generator = torch.Generator().manual_seed(binding.seed)
    drawn = torch.randint(len(vocabulary), (plan.length,), generator=generator)
    prompt = vocabulary[drawn.to(vocabulary.device)].float().cpu().clone().requires_grad_()
    optimiser = torch.optim.Adam([prompt], lr=plan.rate * float(vocabulary.float().std()))
    sides = at_most(binding.fit, plan.per_class, binding.seed), binding.select
    _check_budget(plan, *map(len, sides))
    fit, select = (_Side(plan, model, one) for one in sides)
    best, best_auc = np.zeros((0, vocabulary.shape[1]), dtype=np.float32), auc(select.plain, select.member)
    trace = [{"step": 0, "select_auc": best_auc, "answers": model.asked - before}]
    with binding.progress.step("learning a soft prompt", plan.steps) as bar:
        for step in range(1, plan.steps + 1):
            if plan.budget and model.asked - before + 2 * len(sides[0]) + len(sides[1]) > plan.budget:
                break
            prompt.grad = fit.gradient(prompt)
            optimiser.step()
            value = auc(select.scores(prompt.detach()), select.member)
            trace.append({"step": step, "select_auc": value, "answers": model.asked - before})
            if value > best_auc:
                best, best_auc = prompt.detach().numpy().copy(), value
            bar.advance()
    return best, {
        "recipe": plan.recipe,
        "length": plan.length,
        "queries": model.asked - before,
        "budget": plan.budget,
        "identity_select_auc": trace[0]["select_auc"],
        "select_auc": best_auc,
        "kept": "prompt" if len(best) else "identity",
        "fit_records": len(fit.member),
        "trace": trace,
    }


def _check_budget(plan: LearnedClassPrompt, fit: int, select: int) -> None:
    if 0 < plan.budget < fit + select:
        raise AttackError(
            "The budget does not suffice to ask the plain records once.",
            expected=f"budget={fit + select} at least, and what the steps take",
            found=str(plan.budget),
            hint="per_class=… learns from fewer records",
        )


class _Side:
    """Texts of known membership, and their scores under a prompt."""

    def __init__(self, plan: LearnedClassPrompt, model: Classifier, labelled: LabelledRecords) -> None:
        batch = model.encode(labelled.records.contents, labelled.records.ids)
        assert isinstance(batch.inputs, list)  # noqa: S101 — texts are
        self.plan, self.model, self.member = plan, model, labelled.member
        self.texts, self.label = batch.inputs, batch.label
        self.plain = model.signals(self.texts, self.label).scaled_logit

    def scores(self, prompt: Prompt) -> Scores:
        """The attack's scores."""
        asked = prompted(self.model, prompt)
        probed = asked.signals(self.texts, self.label).scaled_logit
        self.model.asked += asked.asked
        return 2 * self.plain - probed if self.plan.recipe == "contrast" else probed

    def gradient(self, prompt: Tensor) -> Float[Tensor, "token width"]:
        """Of the softplus over all pairs of a member and a non-member, in standard deviations of the plain figure: the
        pull on each text's score, carried back batch by batch."""
        scores = torch.from_numpy(self.scores(prompt.detach())).requires_grad_()
        inside, outside = (scores[torch.from_numpy(self.member == side)] for side in (True, False))
        spread = max(float(np.std(self.plain)), 1e-6)
        (pull,) = torch.autograd.grad(functional.softplus((outside[None] - inside[:, None]) / spread).mean(), scores)
        sign, total = -1.0 if self.plan.recipe == "contrast" else 1.0, torch.zeros_like(prompt)
        for at in range(0, len(self.texts), self.model.batch):
            rows = slice(at, at + self.model.batch)
            with self.model.asking(), torch.enable_grad():
                logits = prompted(self.model, prompt).forward(self.texts[rows]).cpu().double()
                label = torch.from_numpy(self.label[rows])
                own = logits[torch.arange(len(label)), label]
                rest = logits.masked_fill(functional.one_hot(label, logits.shape[1]).bool(), -torch.inf)
                slope = sign * (own - rest.logsumexp(1)) @ pull[rows]
                total += torch.autograd.grad(slope, prompt)[0]  # none is left on the model's own weights
            self.model.asked += len(label)
        return total
