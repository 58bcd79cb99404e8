"""A small graph network trained here on a graph of real images, members drawn by lot, ready for an audit with shadows.

Nodes are handwritten digits, joined to the digits that look most like them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from repromia.demo.classifier import half_hidden_digits
from repromia.graph_files import GraphFile, save_graph
from repromia.graphs import Graph
from repromia.records import Node, Records

NEIGHBOURS = 4
EPOCHS = 200


class Files(NamedTuple):
    """What `prepare` wrote."""

    graph: Path
    weights: Path


class Network(nn.Module):
    """Two graph convolutions that keep a node apart from its neighbours."""

    def __init__(self) -> None:
        from torch_geometric.nn import SAGEConv

        super().__init__()
        self.first, self.second = SAGEConv(64, 128), SAGEConv(128, 10)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Logits of ten digits."""
        found: Tensor = self.second(self.first(x, edge_index).relu(), edge_index)
        return found


def build() -> nn.Module:
    """The network, untrained."""
    return Network()


def train(records: Records, seed: int) -> nn.Module:
    """A network fitted to the records' classes on the graph that their nodes make among themselves."""
    nodes = [one for one in records.contents if isinstance(one, Node)]
    number = np.array([one.number for one in nodes])
    graph = nodes[0].graph.induced(number)
    features, edges, rows = (torch.from_numpy(one) for one in (graph.features, graph.edges, number))
    wanted = torch.tensor([int(one.label) for one in nodes])
    torch.manual_seed(seed)
    model = build()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(EPOCHS):
        loss = nn.functional.cross_entropy(model(features, edges)[rows], wanted)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return model.eval()


def digits_graph(seed: int) -> GraphFile:
    """The graph, with masks `members` and `nonmembers`: halves drawn by lot."""
    from sklearn.datasets import load_digits
    from sklearn.neighbors import NearestNeighbors

    features = (half_hidden_digits().reshape(-1, 64) / 255).astype(np.float32)
    nearest = NearestNeighbors(n_neighbors=NEIGHBOURS + 1).fit(features).kneighbors(return_distance=False)[:, 1:]
    count = len(features)
    pairs = np.stack([nearest.ravel(), np.repeat(np.arange(count), NEIGHBOURS)])
    edges = np.unique(np.concatenate([pairs, pairs[::-1]], axis=1), axis=1).astype(np.int64)
    inside = np.random.default_rng(seed).permutation(count) < count // 2
    labels = tuple(str(one) for one in load_digits().target)
    return GraphFile(Graph(features, edges), labels, {"members": inside, "nonmembers": ~inside})


def prepare(out: Path, *, seed: int) -> Files:
    """Write digits.npz and model.safetensors under `out`, or use what is there."""
    from safetensors.torch import save_file

    from repromia.graph_records import node_records

    files = Files(out / "digits.npz", out / "model.safetensors")
    done, recipe = out / "recipe.json", json.dumps({"seed": seed, "graph": NEIGHBOURS, "epochs": EPOCHS})
    if done.is_file() and done.read_text(encoding="utf-8") == recipe:
        return files
    out.mkdir(parents=True, exist_ok=True)
    graph = digits_graph(seed)
    save_graph(graph, files.graph)
    model = train(node_records(graph, "members", "nonmembers").members(), seed)
    save_file(model.state_dict(), files.weights)
    done.write_text(recipe, encoding="utf-8")
    return files
