"""ReproMIA for text classifiers: one learned soft prompt in every text."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from repromia.errors import AttackError
from repromia.programs import Program, Target
from repromia.programs.overlay import Votes
from repromia.programs.queries import classifier_behind
from repromia.records import Records
from repromia.signals import ClassSignals
from repromia.targets.classifier import Classifier
from repromia.targets.classifier_forwards import TextForward
from repromia.targets.prompted_texts import PromptedTexts, embeddings_of


@dataclass(frozen=True)
class ClassPrompt:
    """Embeddings behind the first token of every text. No token: the identity, as nothing learned did better on select.

    learned: how it came about. used: ids, and seen: content hashes, of the records it was learned on.
    """

    embeddings: Float[np.ndarray, "token width"]
    learned: dict[str, Any] = field(default_factory=dict)
    used: frozenset[str] = frozenset()
    seen: frozenset[str] = frozenset()

    kind = "class_prompt"
    label = "learned soft prompt"
    evaluations = 1

    @property
    def key(self) -> str:
        """Hash of the embeddings."""
        values = np.ascontiguousarray(self.embeddings, dtype=np.float32)
        return f"ClassPrompt{values.shape}{blake2b(values.tobytes(), digest_size=16).hexdigest()}"

    @property
    def is_identity(self) -> bool:
        """Whether the records are asked as they are."""
        return len(self.embeddings) == 0

    @property
    def identity(self) -> Program:
        """The same question about unchanged texts."""
        return Votes()

    @property
    def details(self) -> dict[str, Any]:
        """How it was learned."""
        return self.learned

    def close(self) -> None:
        """Nothing to free."""

    def ask(self, target: Target, records: Records) -> tuple[ClassSignals, ...]:
        """Signals of the prompted texts. Raises AttackError for models that cannot be prompted."""
        model = classifier_behind(target)
        batch = model.encode(records.contents, records.ids)
        if self.is_identity:
            return (model.signals(batch.inputs, batch.label),)
        width = embeddings_of(model).shape[1]
        if self.embeddings.shape[1] != width:
            raise AttackError(
                "The program was learned on a model of another width.",
                expected=f"embeddings of width {width}",
                found=f"width {self.embeddings.shape[1]}",
            )
        with_prompt = prompted(model, torch.from_numpy(self.embeddings))
        found = with_prompt.signals(batch.inputs, batch.label)
        model.asked += with_prompt.asked
        return (found,)

    def check(self) -> None:
        """Raises ValueError for what is no sequence of embeddings."""
        if self.embeddings.ndim != 2:
            raise ValueError(f"embeddings of shape {self.embeddings.shape} are no (token, width) matrix")


def prompted(model: Classifier, prompt: Float[Tensor, "token width"]) -> Classifier:
    """The classifier, asked with a prompt. It counts what it is asked by itself."""
    embeddings_of(model)
    forward = PromptedTexts(cast(TextForward, model.forward), prompt)
    return replace(model, forward=forward, asked=0, _fingerprint="", _batch=None)
