"""The learned program of ReproMIA (arXiv 2603.28942) for language models: a soft prompt chosen on select."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from repromia.errors import AttackError
from repromia.learn import RECIPES, Recipe, learn_soft_prompt
from repromia.programs import Binding, Program, text_target, weights_of
from repromia.programs.restarts import best_of_restarts
from repromia.programs.saved import load_program
from repromia.programs.soft_prompt import SoftPrompt
from repromia.records import content_digest


@dataclass(frozen=True)
class LearnedSoftPrompt:
    """Learn a soft prompt on fit and keep or drop it on select, or load one learned elsewhere.

    recipe: "forgetting" or "paper". length (tokens), steps, step_size (of the standard deviation of the
    embedding matrix), initialisation, bound (largest norm of a prompt token, in mean embedding norms; 0: none),
    per_class (fit records a class, at most): override the recipe where given (0 or "" keep it). restarts: from other
    prompts and records; the best on select is kept.
    program: a saved program to carry over, from a shadow model for example; nothing is learned then.
    """

    learns: ClassVar[bool] = True  # from the labels of fit and select: a bank cross-fits it

    recipe: str = "forgetting"
    length: int = 0
    steps: int = 0
    step_size: float = 0.0
    initialisation: str = ""
    bound: float = 0.0
    restarts: int = 1
    per_class: int = 0
    program: str = ""

    def resolved(self) -> Recipe:
        """The recipe with the options given. Raises AttackError on an unknown recipe or option value."""
        if self.recipe not in RECIPES:
            raise AttackError(f"There is no recipe {self.recipe!r}.", expected=f"one of {', '.join(sorted(RECIPES))}")
        given: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("length", "steps", "step_size", "initialisation", "bound", "per_class")
            if getattr(self, name)
        }
        return replace(RECIPES[self.recipe], **given)

    def bind(self, binding: Binding) -> Program:
        """The learned, loaded or dropped (identity) prompt. Raises AttackError without weights."""
        if self.restarts != 1 and not self.program:
            best: Program = best_of_restarts(self, binding)
            return best
        target = weights_of(binding.target, "LearnedSoftPrompt")
        if self.program:
            loaded = load_program(Path(self.program), SoftPrompt)
            _check_room(len(loaded.embeddings), binding)
            return loaded
        recipe = self.resolved()
        _check_room(recipe.length, binding)
        outcome = learn_soft_prompt(
            target, binding.fit, binding.select, recipe, seed=binding.seed, progress=binding.progress
        )
        used = frozenset(binding.fit.records.ids) | frozenset(binding.select.records.ids)
        seen = frozenset(map(content_digest, (*binding.fit.records.contents, *binding.select.records.contents)))
        return SoftPrompt(outcome.embeddings, outcome.details, used, seen)


def _check_room(length: int, binding: Binding) -> None:
    context = text_target(binding.target).context
    if length + binding.longest > context:
        raise AttackError(
            "The soft prompt does not fit beside the longest record.",
            expected=f"at most {context} tokens together",
            found=f"{length} prompt tokens and a record of {binding.longest}",
            hint="cut records with --max-tokens, or ask for a shorter prompt (reprogram:length=…)",
        )
