"""Key/values of a shared prefix: computed once, expanded over every batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import DynamicCache


@dataclass(frozen=True)
class KeyValues:
    """Per layer (keys, values), each (1, head, token, width). Gradients flow through them."""

    layers: tuple[tuple[Tensor, Tensor], ...]

    def __len__(self) -> int:
        return int(self.layers[0][0].shape[-2])


def read_key_values(output: Any) -> KeyValues | None:
    """The cache of a forward pass, or None where it cannot be expanded over a batch (state space models)."""
    cache = getattr(output, "past_key_values", None)
    layers = getattr(cache, "layers", None)
    if not layers or type(cache) is not DynamicCache:
        return None
    if any(getattr(layer, "is_sliding", False) for layer in layers):
        return None  # a sliding layer keeps its window only; reading the prefix again is exact
    pairs: list[tuple[Tensor, Tensor]] = []
    for layer in layers:
        keys, values = getattr(layer, "keys", None), getattr(layer, "values", None)
        if keys is None or values is None or keys.dim() != 4:
            return None
        pairs.append((keys, values))
    return KeyValues(tuple(pairs))


def cache_for_batch(prefix: KeyValues, batch: int, model: Any) -> DynamicCache:
    """A fresh cache: the forward pass writes into it, so it is never used twice."""
    return DynamicCache(
        [(keys.expand(batch, -1, -1, -1), values.expand(batch, -1, -1, -1)) for keys, values in prefix.layers],
        config=model.config,
    )
