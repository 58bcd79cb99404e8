"""What a classifier wraps: texts, estimators and functions of others, called alike."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repromia.class_records import class_name
from repromia.targets.inputs import Images, Inputs, Reader
from repromia.targets.nodes import Nodes


@dataclass(frozen=True)
class ModuleForward:
    """Asks a module of numbers: pixels scaled as it was trained with, logits as a tensor or in an object."""

    module: torch.nn.Module
    reader: Reader

    def __call__(self, inputs: Tensor) -> Any:
        """Its answers."""
        weight = next(self.module.parameters(), None)
        dtype = weight.dtype if weight is not None else torch.float32
        scaled = self.reader.scaled(inputs) if isinstance(self.reader, Images) else inputs
        answer = self.module(scaled.to(dtype))
        return getattr(answer, "logits", answer)


@dataclass(frozen=True)
class TextForward:
    """Asks a module of token ids. limit: longest text, in tokens; padded: whether it knows what padding is."""

    module: torch.nn.Module
    tokenizer: Any
    limit: int
    padded: bool

    def __call__(self, texts: Sequence[str]) -> Any:
        """Its answers; without known padding, texts are asked one by one."""
        if not self.padded and len(texts) > 1:
            return torch.cat([self([one]) for one in texts])
        device = next(self.module.parameters()).device
        given = self.tokenizer(
            list(texts),
            truncation=True,
            max_length=self.limit,
            padding=self.padded,
            padding_side="right",  # positions are counted from the left
            return_tensors="pt",
        )
        answer = self.module(**{name: one.to(device) for name, one in given.items()})
        return getattr(answer, "logits", answer)


@dataclass(frozen=True)
class EstimatorForward:
    """Asks an estimator. places: of its classes among those named; empty: its own order. label: names alone.

    order: where each feature that it was fitted on stands in a record; empty: in the same places. framed: the names
    of its features, where it takes them from a data frame.
    """

    estimator: Any
    places: tuple[int, ...] = ()
    classes: int = 0
    label: bool = False
    order: tuple[int, ...] = ()
    framed: tuple[str, ...] = ()

    @property
    def architecture(self) -> str:
        """Its class."""
        return type(self.estimator).__name__

    def __call__(self, inputs: Inputs) -> Any:
        """Probabilities in double precision, or predicted names."""
        given = self._ordered(as_given(inputs))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "X does not have valid feature names")  # they are in its order
            answer = np.asarray((self.estimator.predict if self.label else self.estimator.predict_proba)(given))
        if self.label:
            return np.array([class_name(one) for one in answer.tolist()], dtype=str)
        found = answer.astype(np.float64)
        if not self.places or found.ndim != 2 or found.shape[1] != len(self.places):
            return found
        rows = np.zeros((len(found), self.classes))  # a class that it was never shown has probability 0
        rows[:, list(self.places)] = found
        return rows

    def _ordered(self, given: Any) -> Any:
        columns = given[:, list(self.order)] if self.order else given
        if not self.framed:
            return columns
        import polars

        return polars.DataFrame(columns, schema=list(self.framed))


@dataclass(frozen=True)
class FunctionForward:
    """Asks a function of numpy arrays, (record, channel, height, width) in [0, 1] or (record, feature), or of texts."""

    function: Callable[[Any], Any]

    def __call__(self, inputs: Inputs) -> Any:
        """What it returns."""
        return self.function(as_given(inputs))


def as_given(inputs: Inputs) -> Any:
    """Inputs as code of others takes them: an array, or a list of texts."""
    assert not isinstance(inputs, Nodes)  # noqa: S101 — modules alone are asked about nodes
    return inputs.cpu().numpy() if isinstance(inputs, Tensor) else list(inputs)
