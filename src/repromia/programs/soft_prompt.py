"""Soft prompts: embeddings in front of every record."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float

from repromia.errors import AttackError
from repromia.programs import Target, weights_of
from repromia.records import Records
from repromia.signals import TokenSignals

if TYPE_CHECKING:
    from repromia.targets.language import LanguageModel


@dataclass(frozen=True)
class SoftPrompt:
    """Embeddings in front of every record (before its BOS token, as PEFT's prompt tuning has them).

    embeddings: (token, width), or no token at all: the identity, chosen where no learned prompt did better on
    select. learned: how it came about. used: ids, and seen: content hashes, of the records it was learned on.
    """

    embeddings: Float[np.ndarray, "token width"]
    learned: dict[str, Any]
    used: frozenset[str] = frozenset()
    seen: frozenset[str] = frozenset()

    kind = "soft_prompt"

    @property
    def key(self) -> str:
        """Hash of the embeddings."""
        values = np.ascontiguousarray(self.embeddings, dtype=np.float32)
        return f"SoftPrompt{values.shape}{blake2b(values.tobytes(), digest_size=16).hexdigest()}"

    @property
    def is_identity(self) -> bool:
        """Whether the records are asked as they are."""
        return len(self.embeddings) == 0

    @property
    def details(self) -> dict[str, Any]:
        """How it was learned."""
        return self.learned

    def close(self) -> None:
        """Nothing to free."""

    def check(self) -> None:
        """Raises ValueError for what is no sequence of embeddings."""
        if self.embeddings.ndim != 2:
            raise ValueError(f"embeddings of shape {self.embeddings.shape} are no (token, width) matrix")

    def ask(self, target: Target, records: Records) -> tuple[TokenSignals, ...]:
        """Signals behind the prompt, whose key/values are computed once. Raises AttackError without weights."""
        target = weights_of(target, "SoftPrompt")
        sequences = target.encode(records.contents, records.ids)
        if self.is_identity:
            return (target.signals(sequences),)
        with torch.no_grad():
            prefix = target.key_values(self._tensor(target))
        return (target.signals(sequences, prefix),)

    def _tensor(self, target: LanguageModel) -> torch.Tensor:
        width = target.embeddings.shape[1]
        if self.embeddings.shape[1] != width:
            raise AttackError(
                "The program was learned on a model of another width.",
                expected=f"embeddings of width {width}",
                found=f"width {self.embeddings.shape[1]}",
                hint="learn it on a shadow model of the target's architecture",
            )
        return torch.from_numpy(self.embeddings).to(target.device, target.embeddings.dtype)
