"""Nodes as a graph model is asked about them: on the whole graph, or each on a neighbourhood of its own.

All records of an audit are asked on the same kind of neighbourhood. A neighbourhood is a component of its own in the
batch, so that no answer depends on who else is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from repromia.errors import TargetError
from repromia.graphs import Graph
from repromia.records import Content, Node
from repromia.targets.drawn import Same, told_apart, uniform

WHOLE = -1  # hops: no neighbourhood is cut out
VALUES = 20_000_000  # features of all neighbourhoods that are held at a time
Features = Float[Tensor, "node feature"]


@dataclass(frozen=True, eq=False)
class Seen:
    """What of a graph the model is shown. edges: source above destination."""

    features: Features
    edges: Int[Tensor, "2 edge"]
    weights: Float[Tensor, " edge"] | None = None

    def to(self, device: torch.device | str) -> Seen:
        """The same there."""
        weights = None if self.weights is None else self.weights.to(device)
        return Seen(self.features.to(device), self.edges.to(device), weights)


@dataclass(frozen=True, eq=False)
class Nodes:
    """Nodes and what is shown of their graphs.

    place: which of the graphs each is in; number: its row there. hops: how far each one's neighbourhood reaches
    against the direction of the edges; WHOLE: all are asked on the whole graph. own: a graph's features for the asked
    node itself, where they are not those that its neighbours see; needs neighbourhoods.
    """

    graphs: tuple[Seen, ...]
    place: Int[Tensor, " record"]
    number: Int[Tensor, " record"]
    hops: int = WHOLE
    own: tuple[Features, ...] = ()

    def __len__(self) -> int:
        return len(self.number)

    @property
    def apart(self) -> bool:
        """Whether each is asked on a neighbourhood of its own."""
        return self.hops != WHOLE or bool(self.own)

    def __getitem__(self, rows: slice | Sequence[int]) -> Nodes:
        return replace(self, place=self.place[rows], number=self.number[rows])

    def to(self, device: torch.device | str) -> Nodes:
        """The same there."""
        return replace(
            self,
            graphs=tuple(one.to(device) for one in self.graphs),
            place=self.place.to(device),
            number=self.number.to(device),
            own=tuple(one.to(device) for one in self.own),
        )


@dataclass(frozen=True)
class NodeReader:
    """Reads nodes of graphs with `features` numbers a node.

    hops: of the neighbourhood that every node is asked on; WHOLE: the whole graph. neighbours: most edges that lead to
    a node, drawn once for all; 0: all of them.
    """

    features: int
    hops: int = WHOLE
    neighbours: int = 0

    kind = "node"

    def __post_init__(self) -> None:
        if self.hops < WHOLE or self.neighbours < 0:
            raise TargetError(
                "The neighbourhood of the nodes is out of range.",
                expected="hops at least 0 (-1: the whole graph), neighbours at least 0 (0: all)",
                found=f"hops {self.hops}, neighbours {self.neighbours}",
            )

    @property
    def shape(self) -> tuple[Any, ...]:
        """Kind and width."""
        return (self.kind, self.features)

    @property
    def key(self) -> str:
        """All of it."""
        return repr(self)

    def read(self, contents: Sequence[Content]) -> Nodes:
        """The nodes. Raises TargetError for records of another kind or width."""
        nodes = [one for one in contents if isinstance(one, Node)]
        if len(nodes) < len(contents):
            raise TargetError("The model classifies nodes of a graph.", expected="nodes", found="other records")
        graphs = {one.source: one.graph for one in nodes}
        widths = {graph.features.shape[1] for graph in graphs.values()} - {self.features}
        if widths:
            raise TargetError(
                "A graph has another number of features than the one that the model was loaded for.",
                expected=str(self.features),
                found=str(min(widths)),
            )
        places = {source: at for at, source in enumerate(graphs)}
        return Nodes(
            tuple(seen(graph, self.neighbours) for graph in graphs.values()),
            torch.tensor([places[one.source] for one in nodes], dtype=torch.long),
            torch.tensor([one.number for one in nodes], dtype=torch.long),
            self.hops,
        )

    def describe(self) -> str:
        """Width and neighbourhood."""
        where = "the whole graph" if self.hops == WHOLE else f"neighbourhoods of {self.hops} hops"
        most = f", at most {self.neighbours} edges to a node" if self.neighbours else ""
        return f"nodes of {self.features} features, asked on {where}{most}"


@lru_cache(maxsize=8)
def seen(graph: Graph, neighbours: int = 0) -> Seen:
    """A graph as tensors. neighbours: of a node's incoming edges at most so many, drawn by what both ends are, the
    same every time."""
    kept = np.arange(graph.edges.shape[1])
    if neighbours:
        code = told_apart(torch.from_numpy(graph.features), torch.from_numpy(graph.edges))
        source, destination = graph.edges
        order = np.lexsort((uniform(code[source] + code[destination], 0), destination))
        reached = graph.edges[1, order]
        first = np.searchsorted(reached, reached)
        kept = np.sort(order[np.arange(len(order)) - first < neighbours])
    weights = None if graph.weights is None else torch.from_numpy(graph.weights[kept])
    return Seen(torch.from_numpy(graph.features), torch.from_numpy(graph.edges[:, kept]), weights)


@dataclass(frozen=True)
class NodeForward:
    """Asks a module called as (features, edges) or, on graphs with weights, (features, edges, weights)."""

    module: torch.nn.Module

    def __call__(self, inputs: Nodes) -> Tensor:
        """(record, class) answers. Raises TargetError where they are not one row a node."""
        found: list[Tensor] = []
        order: list[Tensor] = []
        for place in range(len(inputs.graphs)):
            rows = torch.nonzero(inputs.place == place).flatten()
            if not len(rows):
                continue
            graph, number = inputs.graphs[place], inputs.number[rows]
            if inputs.apart:
                own = inputs.own[place] if inputs.own else None
                found += [self._around(graph, own, some, inputs.hops) for some in torch.split(number, 64)]
            else:  # the module may change in place what it is given
                found.append(self._answers(replace(graph, features=graph.features.clone()))[number])
            order.append(rows)
        if not found:
            raise TargetError("There is no node to ask about.")
        return torch.cat(found)[torch.cat(order).argsort()]

    def _around(self, graph: Seen, own: Features | None, number: Int[Tensor, " some"], hops: int) -> Tensor:
        nodes, asked, edges, used, _ = neighbourhoods(graph.edges, len(graph.features), number, hops)
        if len(number) > 1 and len(nodes) * graph.features.shape[1] > VALUES:
            half = len(number) // 2
            return torch.cat([self._around(graph, own, one, hops) for one in (number[:half], number[half:])])
        features = graph.features[nodes]
        if own is not None:
            features = features.index_put((asked,), own[number])
        weights = None if graph.weights is None else graph.weights[used]
        return self._answers(Seen(features, edges, weights))[asked]

    def _answers(self, graph: Seen) -> Tensor:
        weight = next(self.module.parameters(), None)
        features = graph.features.to(weight.dtype) if weight is not None else graph.features
        more = () if graph.weights is None else (graph.weights.to(features.dtype),)
        answer = self.module(features, graph.edges, *more)
        answer = getattr(answer, "logits", answer)
        if not isinstance(answer, Tensor) or answer.dim() != 2 or len(answer) != len(features):
            shown = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
            raise TargetError(
                "The model does not answer with one row a node.",
                expected=f"a tensor ({len(features)}, classes) for (features, edges)",
                found=str(shown),
            )
        return answer


class Side(NamedTuple):
    """Neighbourhoods side by side. nodes: which of the graph each one here is; asked: where those stand whose
    neighbourhoods they are; edges: in numbers of here; used: which of the graph's they are; place: whose neighbourhood
    each node is in."""

    nodes: Int[Tensor, " here"]
    asked: Int[Tensor, " some"]
    edges: Int[Tensor, "2 used"]
    used: Int[Tensor, " used"]
    place: Int[Tensor, " here"]


def neighbourhoods(
    edges: Int[Tensor, "2 edge"],
    count: int,
    number: Int[Tensor, " some"],
    hops: int,
    kept: Bool[np.ndarray, " node"] | None = None,
) -> Side:
    """The neighbourhoods of some nodes side by side, as one graph whose parts are not joined.

    A neighbourhood holds the nodes from which the asked one is reached in at most `hops` edges, and all edges among
    them. count: nodes of the graph. kept: which of them there are, beside the asked one; None: all.
    """
    sources, start, which = _incoming(edges, count)
    asked = np.arange(len(number)) * count + number.cpu().numpy()  # neighbourhood and node in one number
    known = asked
    newest = asked
    for _ in range(max(hops, 0)):
        place, edge = _expanded(newest, start, count)
        reached = np.unique(place * count + sources[edge])
        newest = np.setdiff1d(reached, known, assume_unique=True)
        newest = newest if kept is None else newest[kept[newest % count]]
        if not len(newest):
            break
        known = np.union1d(known, newest)
    place, edge = _expanded(known, start, count)
    source = place * count + sources[edge]
    at = np.searchsorted(known, source).clip(max=len(known) - 1)
    inner = known[at] == source
    target = np.repeat(np.arange(len(known)), start[known % count + 1] - start[known % count])
    device = edges.device
    joined = np.stack([at[inner], target[inner]])
    found = (known % count, np.searchsorted(known, asked), joined, which[edge[inner]], known // count)
    return Side(*(torch.from_numpy(one).to(device) for one in found))


def _expanded(
    keys: Int[np.ndarray, " key"], start: Int[np.ndarray, " node"], count: int
) -> tuple[Int[np.ndarray, " edge"], Int[np.ndarray, " edge"]]:
    """Of every node (of a neighbourhood) the neighbourhood and the positions of the edges that lead to it."""
    place, node = np.divmod(keys, count)
    many = start[node + 1] - start[node]
    before = np.concatenate([[0], np.cumsum(many)[:-1]]) if len(many) else many
    edge = np.repeat(start[node] - before, many) + np.arange(int(many.sum()))
    return np.repeat(place, many), edge


Sorted = tuple[Int[np.ndarray, " edge"], Int[np.ndarray, " start"], Int[np.ndarray, " edge"]]


def _incoming(edges: Int[Tensor, "2 edge"], count: int) -> Sorted:
    return _sorted(Same(edges), count)


@lru_cache(maxsize=8)
def _sorted(edges: Same, count: int) -> Sorted:
    """Sources of the edges sorted by destination, where each destination's begin, and which edges they are."""
    source, destination = edges.tensor.cpu().numpy()
    which = np.argsort(destination, kind="stable")
    start = np.concatenate([[0], np.cumsum(np.bincount(destination, minlength=count))])
    return source[which], start, which
