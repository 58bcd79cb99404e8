"""Fixed changes of what a graph model is shown when it is asked about a node, the same for every record.

What is drawn by lot is drawn by what the nodes are, so that no answer depends on how nodes are numbered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from repromia.errors import AttackError
from repromia.programs import at_least
from repromia.programs.queries import Query
from repromia.targets.drawn import codes, told_apart, uniform
from repromia.targets.inputs import Inputs
from repromia.targets.nodes import Nodes, Seen

NOISES = 4096  # rows of noise that nodes share
NEAR = 2  # hops of the neighbourhoods where the asked node sees something else than its neighbours do


@dataclass(frozen=True)
class NodeQuery(Query):
    """A change of the graph that is shown."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """Nodes."""
        return ("node",)

    def changed(self, inputs: Inputs) -> Sequence[Inputs]:
        """The variants."""
        assert isinstance(inputs, Nodes)  # noqa: S101 — of a kind that is
        return self.variants(inputs)

    def variants(self, nodes: Nodes) -> Sequence[Nodes]:
        """What is asked about in place of the nodes."""
        raise NotImplementedError


@dataclass(frozen=True)
class Hops(NodeQuery):
    """Each node on its own neighbourhood. far: hops; 0: the node alone."""

    far: int = 0

    def variants(self, nodes: Nodes) -> Sequence[Nodes]:
        """One."""
        at_least(0, far=self.far)
        return (replace(nodes, hops=self.far),)


@dataclass(frozen=True)
class MaskedFeatures(NodeQuery):
    """A share of the features 0, the same of all nodes."""

    share: float = 0.3
    draws: int = 2

    def variants(self, nodes: Nodes) -> Sequence[Nodes]:
        """One a draw."""
        _check_share(self.share, self.draws)
        return [self._masked(nodes, draw) for draw in range(self.draws)]

    def _masked(self, nodes: Nodes, draw: int) -> Nodes:
        width = nodes.graphs[0].features.shape[1]
        kept = torch.from_numpy(np.random.default_rng([draw, width]).random(width) >= self.share)
        return replace(nodes, graphs=tuple(replace(one, features=one.features * kept) for one in nodes.graphs))


@dataclass(frozen=True)
class DroppedEdges(NodeQuery):
    """Without a share of the edges; both directions of an edge go together."""

    share: float = 0.3
    draws: int = 2

    def variants(self, nodes: Nodes) -> Sequence[Nodes]:
        """One a draw."""
        _check_share(self.share, self.draws)
        return [
            replace(nodes, graphs=tuple(_without(one, self.share, draw) for one in nodes.graphs))
            for draw in range(self.draws)
        ]


@dataclass(frozen=True)
class NoisyFeatures(NodeQuery):
    """Normal noise on the features of all nodes. level: in root mean squares of the graph's features."""

    level: float = 0.3
    draws: int = 2

    def variants(self, nodes: Nodes) -> Sequence[Nodes]:
        """One a draw."""
        at_least(1, draws=self.draws)
        at_least(0, level=self.level)
        return [replace(nodes, graphs=_noised(nodes.graphs, self.level, draw)) for draw in range(self.draws)]


@dataclass(frozen=True)
class NoisyNeighbours(NodeQuery):
    """Normal noise on the features of all nodes but the one that is asked about, on its neighbourhood."""

    level: float = 1.0
    draws: int = 2
    far: int = NEAR

    def variants(self, nodes: Nodes) -> Sequence[Nodes]:
        """One a draw."""
        at_least(1, draws=self.draws, far=self.far)
        at_least(0, level=self.level)
        own = tuple(one.features for one in nodes.graphs)
        return [
            replace(nodes, graphs=_noised(nodes.graphs, self.level, draw), own=own, hops=self.far)
            for draw in range(self.draws)
        ]


@dataclass(frozen=True)
class HiddenSelf(NodeQuery):
    """The node's own features 0, those of its neighbourhood as they are."""

    far: int = NEAR

    def variants(self, nodes: Nodes) -> Sequence[Nodes]:
        """One."""
        at_least(1, far=self.far)
        own = tuple(torch.zeros_like(one.features) for one in nodes.graphs)
        return (replace(nodes, own=own, hops=self.far),)


def _check_share(share: float, draws: int) -> None:
    at_least(1, draws=draws)
    if not 0 <= share <= 1:
        raise AttackError("The option share is from 0 to 1.", found=f"{share:g}")


def _noised(graphs: Sequence[Seen], level: float, draw: int) -> tuple[Seen, ...]:
    found = []
    for one in graphs:
        rows = torch.from_numpy((codes(one.features) % NOISES).astype(np.int64))
        size = float(one.features.double().square().mean().sqrt())
        generator = torch.Generator().manual_seed(draw)
        noises = torch.randn(NOISES, one.features.shape[1], generator=generator)
        found.append(replace(one, features=one.features + level * size * noises[rows]))
    return tuple(found)


def _without(graph: Seen, share: float, draw: int) -> Seen:
    code = told_apart(graph.features, graph.edges)
    source, destination = graph.edges.numpy()
    kept = torch.from_numpy(uniform(code[source] + code[destination], draw) >= share)
    return replace(graph, edges=graph.edges[:, kept], weights=None if graph.weights is None else graph.weights[kept])
