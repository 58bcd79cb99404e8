"""Graph networks trained here on the subgraph of a random half of the nodes; both sides are asked on one graph."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from repromia.benchmarks.benchmark import Job, Scale
from repromia.errors import ConfigError
from repromia.graph_files import GraphFile, read_graph, save_graph
from repromia.records import Node, Records
from repromia.result import AuditResult

if TYPE_CHECKING:
    from torch import nn

WIDTH, EPOCHS = 64, 100
EVERYTHING = ("default", "probe_bank:preset=full", "reprogram:prompts=5", "reprogram:recipe=paper")
SMOKE = Scale(
    attacks=("loss,confidence,rmia,reprogram:steps=3,probe_bank",),
    takes="half a minute",
    records=250,
    training=40,
    shadows=2,
    bootstrap=500,
)


def read_one(files: tuple[Path, ...]) -> GraphFile:
    """The graph of the only file, or folder of Planetoid's raw files. Raises RecordsError."""
    return read_graph(files[0])


def network(kind: str, features: int, classes: int) -> nn.Module:
    """gcn (Kipf and Welling 2017), gat (Veličković et al. 2018, 8 heads of 8) or sage (Hamilton et al. 2017, mean)."""
    from torch import nn
    from torch_geometric.nn import GATConv, GCNConv, SAGEConv

    if kind == "gat":
        return _two(GATConv(features, 8, heads=8), GATConv(64, classes, heads=1), nn.functional.elu)
    layer: Any = {"gcn": GCNConv, "sage": SAGEConv}[kind]
    return _two(layer(features, WIDTH), layer(WIDTH, classes), nn.functional.relu)


def _two(first: nn.Module, second: nn.Module, activation: Callable[[Any], Any]) -> nn.Module:
    from repromia.benchmarks.two_convolutions import Network

    return Network(first, second, activation)


def train(
    records: Records, seed: int, *, kind: str, classes: int, epochs: int = EPOCHS, transductive: bool = False
) -> nn.Module:
    """Adam at 0.01 with weight decay 5e-4 and no dropout, on the subgraph that the records' nodes induce. Transductive:
    on the whole graph, with the labels of the records' nodes alone."""
    import torch
    from torch import nn

    nodes = [one for one in records.contents if isinstance(one, Node)]
    graph = nodes[0].graph
    torch.manual_seed(seed)
    model = network(kind, graph.features.shape[1], classes)
    number = np.array([one.number for one in nodes])
    inner = graph if transductive else graph.induced(number)
    features, edges = torch.from_numpy(graph.features), torch.from_numpy(inner.edges)
    rows, wanted = torch.from_numpy(number), torch.tensor([int(one.label) for one in nodes])
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
    for _ in range(epochs):
        loss = nn.functional.cross_entropy(model(features, edges)[rows], wanted)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return model.eval().requires_grad_(False)


def run_graph(job: Job, *, kind: str = "gcn") -> AuditResult:
    """Halves by lot from all nodes; target and shadow models are trained alike on the subgraphs of their own halves."""
    import repromia
    from repromia.shadows import seeded

    if job.model:
        raise ConfigError(
            "This suite trains its own graph networks.",
            hint="audit a network of your own with `repromia audit --graph …`; leave --model out",
        )
    graph, scale = job.benchmark.read(job.files), job.scale
    order = np.random.default_rng(job.seed).permutation(len(graph.labels))
    each = min(scale.records or len(order) // 2, len(order) // 2)
    labelled = repromia.load_nodes(graph, order[:each], order[each : 2 * each])
    taught = partial(train, kind=kind, classes=len(set(graph.labels)), epochs=scale.training)
    with seeded(job.seed):
        target = repromia.classifier(taught(labelled.members(), job.seed), labelled)
    references = repromia.shadow_models(taught, target, labelled, count=scale.shadows, seed=1000 + job.seed)
    return repromia.audit(target, labelled, shadows=references, out=job.folder / "audit", **job.settings)


def graph_steps(job: Job, *, kind: str = "gcn") -> tuple[str, ...]:
    """What a run does."""
    scale = job.scale
    each = f"{scale.records:,} + {scale.records:,} nodes" if scale.records else "all nodes in halves"
    return (
        f"read {job.files[0]}",
        f"members and non-members: {each}, by lot, seed {job.seed}",
        f"target: {kind} of two layers and width {WIDTH}, {scale.training} epochs, Adam 0.01, weight decay 5e-4, "
        "trained on the subgraph of its members",
        f"references: {scale.shadows} shadow models on halves by lot, trained alike; one more is the null target",
        "members and non-members are asked on the whole graph",
        job.roles,
    )


def write_graph(folder: Path, *, path: str) -> None:
    """Handwritten digits, joined to those that look most like them, as a graph file."""
    from repromia.demo.graph import digits_graph

    place = folder / path
    place.parent.mkdir(parents=True, exist_ok=True)
    save_graph(digits_graph(0), place)
