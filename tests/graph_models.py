"""A small graph of handwritten digits, each joined to those most like it, and networks trained on parts of it."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn
from torch_geometric.nn import GATConv, GCNConv, SAGEConv

from classifier_models import CLASSES
from repromia.demo.classifier import half_hidden_digits
from repromia.graphs import Graph
from repromia.records import LabelledRecords, Node, Records
from repromia.targets.classifier import Classifier
from repromia.targets.classifier_options import ClassifierOptions
from repromia.targets.classifiers import wrap_classifier

COUNT, WIDTH, EPOCHS = 600, 16, 150
KINDS = ("gcn", "sage", "gat")
LAYERS = 2
DRAWN: list[int] = np.random.default_rng(1).integers(0, 10, COUNT).tolist()
LABELS = [DRAWN[at] if at % 3 == 0 else CLASSES[at] for at in range(COUNT)]  # a third can only be learned by heart
ORDER = np.random.default_rng(0).permutation(COUNT)
INSIDE, OUTSIDE, ELSEWHERE = ORDER.reshape(3, -1)  # leaky models have seen the first, private ones the last


class Network(nn.Module):
    """Two convolutions, with dropout between them where it is asked for."""

    def __init__(self, first: nn.Module, second: nn.Module, dropout: float = 0.0) -> None:
        super().__init__()
        self.first, self.second, self.dropout = first, second, nn.Dropout(dropout)

    def forward(self, features: Tensor, edges: Tensor, weights: Tensor | None = None) -> Tensor:
        more = () if weights is None else (weights,)
        found: Tensor = self.second(self.dropout(self.first(features, edges, *more).relu()), edges, *more)
        return found


def network(kind: str, dropout: float = 0.0, features: int = 64) -> Network:
    """Untrained."""
    if kind == "gat":
        return Network(GATConv(features, 8, heads=2), GATConv(WIDTH, 10), dropout)
    layer: Any = {"gcn": GCNConv, "sage": SAGEConv}[kind]
    return Network(layer(features, WIDTH), layer(WIDTH, 10), dropout)


@cache
def graph() -> Graph:
    """600 digits without their lower halves, each joined both ways to its four nearest; no weights."""
    features = (half_hidden_digits()[:COUNT].reshape(COUNT, 64) / 255).astype(np.float32)
    nearest = NearestNeighbors(n_neighbors=5).fit(features).kneighbors(return_distance=False)[:, 1:]
    pairs = np.stack([nearest.ravel(), np.repeat(np.arange(COUNT), 4)])
    return Graph(features, np.unique(np.concatenate([pairs, pairs[::-1]], axis=1), axis=1).astype(np.int64))


@torch.enable_grad()
def trained(model: Network, numbers: np.ndarray, epochs: int = EPOCHS) -> Network:
    """On the subgraph that these nodes induce."""
    inner = graph().induced(numbers)
    features, edges, rows = (torch.from_numpy(one) for one in (inner.features, inner.edges, numbers))
    wanted = torch.tensor(LABELS)[rows]
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(epochs):
        loss = nn.functional.cross_entropy(model(features, edges)[rows], wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model


@cache
def model(kind: str = "sage", *, private: bool = False) -> Network:
    """Trained on INSIDE, or on OUTSIDE; left in train mode, dropout and all."""
    torch.manual_seed(0)
    return trained(network(kind, 0.2 if kind == "gat" else 0.0), ELSEWHERE if private else INSIDE)


def nodes(numbers: Any, of: Graph | None = None) -> Records:
    """Records of these nodes."""
    of = of or graph()
    found = tuple(Node(int(one), str(LABELS[int(one) % COUNT]), of.digest, of) for one in numbers)
    names = tuple(f"{of.digest[:4]} {at}" for at in range(len(found)))
    return Records(names, found, names)


def labelled(count: int = 400, start: int = 0) -> LabelledRecords:
    """Half of them from INSIDE, half from OUTSIDE, from position `start` of each on."""
    half = count // 2
    numbers = np.concatenate([INSIDE[start : start + half], OUTSIDE[start : start + half]])
    return LabelledRecords(nodes(numbers), np.arange(2 * half) < half)


def target(
    kind: str | nn.Module = "sage", of: Graph | None = None, *, private: bool = False, **options: Any
) -> Classifier:
    """A model as it is audited."""
    module = kind if isinstance(kind, nn.Module) else model(kind, private=private)
    return wrap_classifier(module, records=nodes([0], of), options=ClassifierOptions(**options))
