"""Programs that change what layers do: skip one at a time, or drop part of what each adds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from repromia.errors import AttackError
from repromia.programs import Fixed, Target, at_least, weights_of
from repromia.records import Records
from repromia.signals import TokenSignals
from repromia.targets.blocks import changed_outputs, decoder_blocks, recorded, skipped

if TYPE_CHECKING:
    from repromia.targets.language import LanguageModel


@dataclass(frozen=True)
class SkippedLayers(Fixed):
    """The model without one of its layers, each in turn; of deep models `most` layers, evenly spread.

    The layers before the skipped one are computed once for all, so that the whole costs about half as many
    passes as there are variants.
    """

    most: int = 6

    def ask(self, target: Target, records: Records) -> tuple[TokenSignals, ...]:
        """One signal a skipped layer, the first layer first. Raises AttackError without weights."""
        target = weights_of(target, "SkippedLayers")
        at_least(1, most=self.most)
        blocks = decoder_blocks(target.model)
        chosen = self.chosen(len(blocks))

        def way(target: LanguageModel, ids: Tensor) -> Iterator[Tensor]:
            inputs: list[Tensor] = []
            outputs: list[Any] = []
            with recorded(blocks, inputs, outputs):
                target.hidden(input_ids=ids)
            if len(inputs) != len(blocks):
                raise AttackError("The model does not run through its layers one after the other.")
            for skip in chosen:
                with skipped(blocks, skip, inputs, outputs):
                    hidden = target.hidden(input_ids=ids)
                target.asked -= ids.numel() * (skip + 1) // len(blocks)
                yield hidden

        return target.ask(target.encode(records.contents, records.ids), way)

    def chosen(self, layers: int) -> list[int]:
        """The layers that are skipped, of that many."""
        return sorted({int(at) for at in np.linspace(0, layers - 1, min(layers, self.most)).round()})


@dataclass(frozen=True)
class Dropout(Fixed):
    """Part of what each layer adds is dropped: `rate` of the units, the same ones for every token and record.

    Injected behind each layer, as many models have no dropout of their own. One signal a draw.
    """

    rate: float = 0.1
    draws: int = 2
    seed: int = 0

    def ask(self, target: Target, records: Records) -> tuple[TokenSignals, ...]:
        """One signal a draw. Raises AttackError without weights."""
        target = weights_of(target, "Dropout")
        at_least(1, draws=self.draws)
        if not 0 < self.rate < 1:
            raise AttackError("A dropout rate lies between 0 and 1.", found=str(self.rate))
        blocks = decoder_blocks(target.model)

        def way(target: LanguageModel, ids: Tensor) -> Iterator[Tensor]:
            for draw in range(self.draws):

                def thinned(at: int, before: Tensor, after: Tensor, draw: int = draw) -> Tensor:
                    kept = torch.from_numpy(self.kept(draw, at, after.shape[-1])).to(after.device, after.dtype)
                    return before + (after - before) * kept

                with changed_outputs(blocks, thinned):
                    yield target.hidden(input_ids=ids)

        return target.ask(target.encode(records.contents, records.ids), way)

    def kept(self, draw: int, layer: int, width: int) -> np.ndarray:
        """Factor of each unit: 0 where dropped, 1 / (1 - rate) elsewhere."""
        units = np.random.default_rng([self.seed, draw, layer]).random(width)
        return ((units >= self.rate) / (1 - self.rate)).astype(np.float32)
