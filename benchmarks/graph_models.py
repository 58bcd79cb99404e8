"""Two-layer graph networks of the benchmarks, and how they are trained on the subgraph of their members."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.nn import GATConv, GCNConv, SAGEConv

from repromia.records import Node, Records

WIDTH, EPOCHS = 64, 100


class Network(nn.Module):
    """Two convolutions; called as (features, edges)."""

    def __init__(self, first: nn.Module, second: nn.Module, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.activation = first, second, activation

    def forward(self, features: Tensor, edges: Tensor) -> Tensor:
        """Logits."""
        found: Tensor = self.second(self.activation(self.first(features, edges)), edges)
        return found


def network(kind: str, features: int, classes: int) -> Network:
    """gcn (Kipf and Welling 2017), gat (Veličković et al. 2018, 8 heads of 8) or sage (Hamilton et al. 2017, mean)."""
    if kind == "gat":
        return Network(GATConv(features, 8, heads=8), GATConv(64, classes, heads=1), nn.functional.elu)
    layer: Any = {"gcn": GCNConv, "sage": SAGEConv}[kind]
    return Network(layer(features, WIDTH), layer(WIDTH, classes), nn.functional.relu)


def train(records: Records, seed: int, *, kind: str, classes: int, epochs: int = EPOCHS) -> Network:
    """Adam at 0.01 with weight decay 5e-4 and no dropout, on the subgraph that the records' nodes induce."""
    nodes = [one for one in records.contents if isinstance(one, Node)]
    graph = nodes[0].graph
    torch.manual_seed(seed)
    model = network(kind, graph.features.shape[1], classes)
    number = np.array([one.number for one in nodes])
    features, edges = torch.from_numpy(graph.features), torch.from_numpy(graph.induced(number).edges)
    rows, wanted = torch.from_numpy(number), torch.tensor([int(one.label) for one in nodes])
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
    for _ in range(epochs):
        loss = nn.functional.cross_entropy(model(features, edges)[rows], wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval().requires_grad_(False)
