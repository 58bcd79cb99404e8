"""What nodes of a graph show without any model: the blind baselines' inputs and pipelines.

Everything is read from the graph that the record itself is asked about: two protocols of asking that give the sides
other edges are told apart here. A graph is measured once. Weights of edges are not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from repromia.graphs import Graph
from repromia.records import Node, Records

Rows = Float[np.ndarray, "_ value"] | sparse.csr_array
# Share of values other than 0 up to which features are held as a sparse matrix.
SPARSE = 0.1
# Paths of two edges that are followed at most, in all: beyond, walks stand for nodes within two edges, and clustering
# is not measured.
MOST_PATHS = 500_000_000
_BLOCK_PATHS = 5_000_000  # bounds the memory of a block of rows: about 16 bytes each


def nodes_in(records: Records) -> list[Node]:
    """The nodes of graphs among the contents, in order."""
    return [content for content in records.contents if isinstance(content, Node)]


def degrees(records: Records) -> Float[np.ndarray, "record 2"]:
    """Logarithms of 1 + the numbers of edges that lead to the node and from it, self-loops included."""
    return _dense(_each_graph(records, lambda graph, numbers: _degrees(graph)[numbers]))


def structure(records: Records) -> Float[np.ndarray, "record 9"]:
    """What the edges around a node look like, directions aside but for the degrees.

    Logarithms of 1 + the edges to and from it, whether it has a self-loop, the clustering coefficient, logarithms of
    1 + mean and largest degree of the neighbours, of 1 + the nodes within two edges, and of the size of its component;
    the largest k of which it is in the k-core. Counts but for the first two are of neighbours, not of edges.
    """
    return _dense(_each_graph(records, lambda graph, numbers: _measured(_Held(graph.digest, graph))[numbers]))


def node_features(records: Records) -> Rows:
    """The features of the nodes as they are; sparse where most are 0."""
    return _each_graph(records, lambda graph, numbers: _features(_Held(graph.digest, graph))[numbers])


def neighbour_features(records: Records) -> Rows:
    """Mean of the features of the nodes from which an edge leads to this one, itself aside; 0 where there is none."""

    def read(graph: Graph, numbers: Int[np.ndarray, " some"]) -> Rows:
        incoming = graph.adjacency.T.tocsr()[numbers].tocoo()
        others = incoming.col != numbers[incoming.row]
        row, column = incoming.row[others], incoming.col[others]
        many = np.bincount(row, minlength=len(numbers))
        share = sparse.csr_array((1 / many[row], (row, column)), shape=incoming.shape)
        found: Rows = share @ _features(_Held(graph.digest, graph))
        return found

    return _each_graph(records, read)


class Wide:
    """Logistic regression on many columns.

    Sparse columns are all divided by one number, the root mean square length of a row, with C = 0.1: chosen on Cora
    and CiteSeer, where columns divided by their own deviations showed planted differences of words with an AUC of .50
    to .60 instead of .59 to .69. Dense columns have no common unit: each is standardised, C = 0.01.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._model: Any = None

    def fit(self, values: Any, member: Bool[np.ndarray, " record"]) -> Wide:
        """Itself, fitted."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        if isinstance(values, sparse.csr_array):
            length = float(np.sqrt((values.data**2).sum() / values.shape[0])) or 1.0
            self._model = LogisticRegression(C=0.1 / length**2, max_iter=2000, random_state=self._seed)
        else:
            self._model = make_pipeline(
                StandardScaler(), LogisticRegression(C=0.01, max_iter=2000, random_state=self._seed)
            )
        self._model.fit(values, member)
        return self

    def decision_function(self, values: Rows) -> Float[np.ndarray, " record"]:
        """Log-odds of membership."""
        found: Float[np.ndarray, " record"] = self._model.decision_function(values)
        return found


def of_columns(seed: int, least_records: int) -> Wide:
    """Many columns, logistic regression."""
    return Wide(seed)


@dataclass(frozen=True)
class _Held:
    """A graph as a key of a cache: equal where the digests are."""

    digest: str
    graph: Graph = field(compare=False)


def _each_graph(records: Records, read: Callable[[Graph, Int[np.ndarray, " some"]], Rows]) -> Rows:
    """Rows of all records, read graph by graph."""
    nodes = nodes_in(records)
    by_graph: dict[str, list[int]] = {}
    for row, node in enumerate(nodes):
        by_graph.setdefault(node.source, []).append(row)
    parts = [read(nodes[rows[0]].graph, np.array([nodes[row].number for row in rows])) for rows in by_graph.values()]
    back = np.argsort(np.array([row for rows in by_graph.values() for row in rows]))
    thin = [one for one in parts if isinstance(one, sparse.csr_array)]
    if len(thin) == len(parts):
        found: sparse.csr_array = sparse.vstack(thin, format="csr")[back]
        return found
    return np.concatenate([_dense(one) for one in parts])[back]


def _dense(rows: Rows) -> np.ndarray:
    return rows.toarray() if isinstance(rows, sparse.csr_array) else rows


@lru_cache(maxsize=4)
def _features(held: _Held) -> Rows:
    features = held.graph.features
    return sparse.csr_array(features) if np.count_nonzero(features) <= SPARSE * features.size else features


def _degrees(graph: Graph) -> Float[np.ndarray, "node 2"]:
    counts = [np.bincount(ends, minlength=len(graph)) for ends in graph.edges[::-1]]
    return np.log1p(np.stack(counts, axis=1))


@lru_cache(maxsize=4)
def _measured(held: _Held) -> Float[np.ndarray, "node 9"]:
    """`structure` of every node."""
    graph = held.graph
    joined = undirected(graph)
    own = np.diff(joined.indptr).astype(np.float64)
    theirs = sparse.csr_array((own[joined.indices], joined.indices, joined.indptr), shape=joined.shape)
    mean = theirs.sum(axis=1) / np.maximum(own, 1)
    largest = theirs.max(axis=1).toarray().ravel()
    clustering, within = _within_two(joined, own)
    _, component = connected_components(joined, directed=False)
    sizes = np.bincount(component)[component]
    loops = graph.adjacency.diagonal()
    logs = np.log1p(np.stack([mean, largest, within, sizes - 1], axis=1))
    return np.column_stack([_degrees(graph), loops, clustering, logs, cores(joined)])


def undirected(graph: Graph) -> sparse.csr_array:
    """(node, node), 1 where an edge joins two different nodes in any direction."""
    both = (graph.adjacency + graph.adjacency.T).tocoo()
    row, column = both.row[both.row != both.col], both.col[both.row != both.col]
    return sparse.csr_array((np.ones(len(row)), (row, column)), shape=both.shape)


def _within_two(
    joined: sparse.csr_array, own: Float[np.ndarray, " node"]
) -> tuple[Float[np.ndarray, " node"], Float[np.ndarray, " node"]]:
    """Clustering coefficient, and number of other nodes within two edges (see `MOST_PATHS`)."""
    paths = joined @ own
    if paths.sum() > MOST_PATHS:
        return np.zeros(len(own)), paths
    triangles, within = np.zeros(len(own)), np.zeros(len(own))
    for rows in _blocks(paths):
        here = joined[rows]
        reached = (here @ joined).tocsr()
        closed = reached.multiply(here).tocsr()
        triangles[rows] = closed.sum(axis=1)
        # Two edges lead back from every node that has one.
        within[rows] = np.diff(reached.indptr) - np.diff(closed.indptr) + own[rows] - (own[rows] > 0)
    return triangles / np.maximum(own * (own - 1), 1), within


def _blocks(work: Float[np.ndarray, " node"]) -> Iterator[slice]:
    """Runs of rows whose paths add up to about `_BLOCK_PATHS`."""
    place = np.floor(np.cumsum(work) / _BLOCK_PATHS)
    edges = [0, *(np.flatnonzero(np.diff(place)) + 1).tolist(), len(work)]
    for start, stop in pairwise(edges):
        yield slice(start, stop)


def cores(joined: sparse.csr_array) -> Int[np.ndarray, " node"]:
    """Of every node the largest k of which it is in the k-core: nodes of the fewest neighbours are peeled off."""
    left = np.diff(joined.indptr).astype(np.int64)
    found = np.zeros(len(left), dtype=np.int64)
    alive = np.ones(len(left), dtype=bool)
    least = 0
    while alive.any():
        least = max(least, int(left[alive].min()))
        front = np.flatnonzero(alive & (left <= least))
        while len(front):
            found[front] = least
            alive[front] = False
            near = joined[front].indices
            touched, many = np.unique(near[alive[near]], return_counts=True)
            left[touched] -= many
            front = np.asarray(touched[left[touched] <= least], dtype=np.int64)
    return found
