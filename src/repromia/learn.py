"""Learn a soft prompt on the fit role and choose it on the select role. The target's weights stay as they are."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from repromia.errors import AttackError
from repromia.metrics import auc
from repromia.records import LabelledRecords, Records
from repromia.targets.prefix import KeyValues

if TYPE_CHECKING:
    from repromia.progress import Progress
    from repromia.targets.language import LanguageModel
    from repromia.targets.tokens import TokenSequence


@dataclass(frozen=True)
class Recipe:
    """How a soft prompt is learned.

    score: "forgetting": 2 * LL(x) - LL(x | prompt); "low_tail": mean of the lowest `k` share of the prompted
    token log-probabilities. objective: "pairwise": softplus over all member/non-member pairs; "hard_gap": mean
    gap between the hardest `hard` share of members (lowest scores) and of non-members (highest).
    optimiser: "rms": full-batch gradient divided by its RMS, with momentum .5; "adam".
    step_size is in standard deviations of the embedding matrix. per_class: fit records used a class, at most.
    """

    score: Literal["forgetting", "low_tail"]
    objective: Literal["pairwise", "hard_gap"]
    optimiser: Literal["rms", "adam"]
    step_size: float
    steps: int
    length: int = 80
    initialisation: str = "nonmember_text"
    k: float = 0.2
    hard: float = 0.5
    bound: float = 0.0
    per_class: int = 200


RECIPES = {
    # findings on i.i.d. splits: the prompted likelihood as a difficulty calibration that the target carries itself
    "forgetting": Recipe("forgetting", "pairwise", "rms", step_size=0.4, steps=8),
    # ReproMIA as published: long-tail score (k = 0.2), hard-sample mining, 80 tokens, about 50 labels a class
    "paper": Recipe("low_tail", "hard_gap", "adam", step_size=0.1, steps=20, initialisation="vocabulary", per_class=50),
}


@dataclass(frozen=True)
class Learned:
    """The chosen prompt (no token: identity) and how it was chosen."""

    embeddings: Float[np.ndarray, "token width"]
    details: dict[str, Any]


def learn_soft_prompt(
    target: LanguageModel,
    fit: LabelledRecords,
    select: LabelledRecords,
    recipe: Recipe,
    *,
    seed: int,
    progress: Progress,
) -> Learned:
    """Learn on fit; of identity and every step keep what has the best AUC on select."""
    fit = at_most(fit, recipe.per_class, seed)
    learner = _Learner(target, fit, select, recipe)
    best = np.zeros((0, target.embeddings.shape[1]), dtype=np.float32)
    best_auc = identity_auc = learner.select_auc(None)
    trace: list[dict[str, float]] = [{"step": -1, "select_auc": identity_auc}]
    prompt = _initial_prompt(target, fit.nonmembers(), recipe, torch.Generator().manual_seed(1009 * seed))
    update = _Update(recipe, float(target.embeddings.float().std()))
    with progress.step("learning a soft prompt", recipe.steps + 1) as bar:
        for step in range(recipe.steps + 1):
            if step:
                prompt = _bounded(update(prompt, learner.gradient(prompt)), target, recipe.bound)
            value = learner.select_auc(prompt)
            trace.append({"step": step, "select_auc": value})
            if value > best_auc:
                best, best_auc = prompt.float().cpu().numpy(), value
            bar.advance()
    details = {
        "recipe": asdict(recipe),
        "identity_select_auc": identity_auc,
        "select_auc": best_auc,
        "kept": "identity" if len(best) == 0 else "prompt",
        "fit_records": len(fit),
        "trace": trace,
    }
    return Learned(best, details)


class _Learner:
    """Scores and gradients of one recipe on one target."""

    def __init__(self, target: LanguageModel, fit: LabelledRecords, select: LabelledRecords, recipe: Recipe) -> None:
        self.target, self.recipe = target, recipe
        self.fit_member = torch.from_numpy(fit.member)
        self.select_member = select.member
        self.fit = target.encode(fit.records.contents, fit.records.ids)
        self.select = target.encode(select.records.contents, select.records.ids)
        self.plain_fit = self.statistics(self.fit, None)
        self.plain_select = self.statistics(self.select, None)

    @torch.no_grad()
    def statistics(self, sequences: list[TokenSequence], prompt: Tensor | None) -> Float[Tensor, " record"]:
        """The recipe's record statistic under a prompt (None: as it is)."""
        prefix = None if prompt is None else self.target.key_values(prompt)
        values = torch.zeros(len(sequences))
        for rows, logprobs in self.target.record_logprobs(sequences, prefix):
            values[rows] = torch.stack([self._statistic(one) for one in logprobs]).float().cpu()
        return values

    def _statistic(self, logprob: Float[Tensor, " token"]) -> Float[Tensor, ""]:
        if self.recipe.score == "forgetting":
            return logprob.mean()
        kept = max(1, int(self.recipe.k * len(logprob) + 1e-9))
        return logprob.sort().values[:kept].mean()

    def select_auc(self, prompt: Tensor | None) -> float:
        """AUC on select of the attack's score under this prompt; 0 where the prompt makes the model overflow."""
        prompted = self.plain_select if prompt is None else self.statistics(self.select, prompt)
        score = prompted if self.recipe.score == "low_tail" else 2 * self.plain_select - prompted
        if prompt is not None and not score.isfinite().all():
            return 0.0
        return auc(score.numpy().astype(np.float64), self.select_member)

    def gradient(self, prompt: Tensor) -> Float[Tensor, "token width"]:
        """Gradient of the loss over the whole fit role.

        The loss couples all records, so it is taken in two passes: first every record's statistic, then the
        loss's weight of each record is carried back, batch by batch. The prompt's key/values are computed once.
        """
        weights = self._loss_weights(self.statistics(self.fit, prompt))
        leaf = prompt.detach().clone().requires_grad_()
        prefix = self.target.key_values(leaf)
        inner = _flat(prefix)
        cut = [part.detach().requires_grad_() for part in inner]
        total = [torch.zeros_like(part) for part in cut]
        for rows, logprobs in self.target.record_logprobs(self.fit, _unflat(prefix, cut)):
            loss = torch.stack([self._statistic(one) for one in logprobs]) @ weights[rows].to(prompt.device)
            for sum_, part in zip(total, torch.autograd.grad(loss, cut), strict=True):
                sum_ += part
        (gradient,) = torch.autograd.grad(inner, leaf, grad_outputs=total)
        return gradient

    def _loss_weights(self, statistic: Float[Tensor, " record"]) -> Float[Tensor, " record"]:
        """d loss / d statistic for every fit record."""
        statistic = statistic.detach().requires_grad_()
        score = statistic if self.recipe.score == "low_tail" else 2 * self.plain_fit - statistic
        (weights,) = torch.autograd.grad(self._loss(score, self.fit_member), statistic)
        return weights

    def _loss(self, score: Float[Tensor, " record"], member: Bool[Tensor, " record"]) -> Float[Tensor, ""]:
        inside, outside = score[member], score[~member]
        if self.recipe.objective == "pairwise":
            scale = self.plain_fit.std().clamp(min=1e-6)
            gap = (inside[:, None] - outside[None]) / scale
            return torch.nn.functional.softplus(-gap).mean()
        hard_in = inside.sort().values[: max(1, int(self.recipe.hard * len(inside)))]
        hard_out = outside.sort(descending=True).values[: max(1, int(self.recipe.hard * len(outside)))]
        return hard_out.mean() - hard_in.mean()


class _Update:
    """One optimiser's memory."""

    def __init__(self, recipe: Recipe, embedding_std: float) -> None:
        self.recipe, self.size = recipe, recipe.step_size * embedding_std
        self.first: Tensor | float = 0.0
        self.second: Tensor | float = 0.0
        self.count = 0

    def __call__(self, prompt: Tensor, gradient: Tensor) -> Tensor:
        self.count += 1
        if self.recipe.optimiser == "rms":
            rms = gradient.square().mean().sqrt().clamp(min=1e-20)
            self.first = 0.5 * self.first + gradient / rms
            return prompt - self.size * self.first
        self.first = 0.9 * self.first + 0.1 * gradient  # Adam (Kingma and Ba 2015)
        self.second = 0.999 * self.second + 0.001 * gradient.square()
        first, second = self.first / (1 - 0.9**self.count), self.second / (1 - 0.999**self.count)
        return prompt - self.size * first / (second.sqrt() + 1e-12)


def _initial_prompt(
    target: LanguageModel, nonmembers: Records, recipe: Recipe, generator: torch.Generator
) -> Float[Tensor, "token width"]:
    """Embeddings of non-member text, of random vocabulary entries, or normal noise of the same spread."""
    if recipe.initialisation == "nonmember_text":
        order = torch.randperm(len(nonmembers), generator=generator).tolist()
        ids: list[int] = []
        for row in order:
            ids += target.encoder.plain_ids(nonmembers.texts()[row])
            if len(ids) >= recipe.length:
                break
        ids = (ids * (recipe.length // max(1, len(ids)) + 1))[: recipe.length]
        return target.embed(torch.tensor(ids)).detach()
    if recipe.initialisation == "vocabulary":
        picked = torch.randint(target.vocabulary, (recipe.length,), generator=generator)
        return target.embed(picked).detach()
    if recipe.initialisation == "noise":
        noise = torch.randn(recipe.length, target.embeddings.shape[1], generator=generator)
        return (noise * target.embeddings.float().std().cpu()).to(target.device, target.embeddings.dtype)
    raise AttackError(
        f"There is no initialisation {recipe.initialisation!r}.",
        expected="nonmember_text, vocabulary or noise",
    )


def _bounded(prompt: Tensor, target: LanguageModel, bound: float) -> Tensor:
    """Each prompt token scaled back to at most `bound` mean embedding norms (0: no bound)."""
    if bound <= 0:
        return prompt
    largest = bound * target.embeddings.float().norm(dim=1).mean().to(prompt.dtype)
    return prompt * (largest / prompt.norm(dim=1, keepdim=True)).clamp(max=1)


def at_most(labelled: LabelledRecords, per_class: int, seed: int) -> LabelledRecords:
    """A seeded draw of at most `per_class` records a class."""
    generator = np.random.default_rng(seed)
    rows = [generator.permutation(np.flatnonzero(labelled.member == side))[:per_class] for side in (True, False)]
    return labelled.take(np.sort(np.concatenate(rows)))


def _flat(prefix: KeyValues | Tensor) -> list[Tensor]:
    if isinstance(prefix, Tensor):
        return [prefix]
    return [part for layer in prefix.layers for part in layer]


def _unflat(like: KeyValues | Tensor, parts: list[Tensor]) -> KeyValues | Tensor:
    if isinstance(like, Tensor):
        return parts[0]
    return KeyValues(tuple(zip(parts[::2], parts[1::2], strict=True)))
