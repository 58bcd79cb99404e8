"""The module of the graph networks: apart, so that a registry of benchmarks needs no torch."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class Network(nn.Module):
    """Two convolutions; called as (features, edges)."""

    def __init__(self, first: nn.Module, second: nn.Module, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.activation = first, second, activation

    def forward(self, features: Tensor, edges: Tensor) -> Tensor:
        """Logits."""
        found: Tensor = self.second(self.activation(self.first(features, edges)), edges)
        return found
