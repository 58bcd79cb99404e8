"""Noise on the input embeddings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from repromia.programs import Fixed, Target, at_least, weights_of
from repromia.records import Records
from repromia.signals import TokenSignals

if TYPE_CHECKING:
    from repromia.targets.language import LanguageModel

SAMPLED_ROWS = 4096  # embeddings whose standard deviation sets the scale


@dataclass(frozen=True)
class EmbeddingNoise(Fixed):
    """Gaussian noise of `scale` standard deviations of the embeddings, in `draws` draws.

    Noise belongs to a place in the text, not to a record: every record gets the same (common random numbers), so
    that records differ by what the model knows, and not by luck; batches change nothing.
    """

    scale: float = 0.6
    draws: int = 2
    seed: int = 0

    def ask(self, target: Target, records: Records) -> tuple[TokenSignals, ...]:
        """One signal a draw. Raises AttackError without weights."""
        target = weights_of(target, "EmbeddingNoise")
        at_least(1, draws=self.draws)
        at_least(0, scale=self.scale)
        sequences = target.encode(records.contents, records.ids)
        longest = max(len(one.ids) for one in sequences)
        rows = torch.linspace(0, target.vocabulary - 1, min(SAMPLED_ROWS, target.vocabulary)).long()

        def way(target: LanguageModel, ids: Tensor) -> Iterator[Tensor]:
            embedded = target.embed(ids)
            for one in noise:
                yield target.hidden(inputs_embeds=embedded + one[: ids.shape[1]])

        with target.asking(), torch.no_grad():
            spread = float(target.embed(rows).float().std()) * self.scale
        width = target.embeddings.shape[1]
        noise = [
            torch.from_numpy(self._draw(draw, longest, width) * spread).to(target.device, target.embeddings.dtype)
            for draw in range(self.draws)
        ]
        return target.ask(sequences, way)

    def _draw(self, draw: int, length: int, width: int) -> np.ndarray:
        """(token, width); a longer text begins with the noise of a shorter one."""
        return np.random.default_rng([self.seed, draw]).standard_normal((length, width), dtype=np.float32)
