"""A graph whose nodes a model classifies, and what is known of its nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float32, Int64

from repromia.errors import RecordsError

if TYPE_CHECKING:
    from scipy import sparse

# How the arrays of a graph are called; the first is how `repromia.graph_files.save_graph` calls them.
FEATURES = ("x", "features", "feat")
EDGES = ("edge_index", "edges")
WEIGHTS = ("edge_weight", "edge_weights", "weights")
CLASSES = ("y", "labels")


@dataclass(frozen=True, eq=False)
class Graph:
    """A homogeneous graph as torch_geometric has it.

    features: of every node; edges: source row above destination row, both directions of an undirected edge;
    weights: of the edges, None where they have none; labels: the class of every node, "" where it has none; empty: of
    no node. Node numbers count from 0. Raises RecordsError for arrays that do
    not fit together, for edges to nodes that do not exist, and for numbers that are not finite.
    """

    features: Float32[np.ndarray, "node feature"] = field(repr=False)
    edges: Int64[np.ndarray, "2 edge"] = field(repr=False)
    weights: Float32[np.ndarray, " edge"] | None = field(default=None, repr=False)
    labels: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or not self.features.shape[0] or not self.features.shape[1]:
            raise _wrong("the features of the nodes", "an array (node, feature)", f"shape {self.features.shape}")
        if self.edges.ndim != 2 or self.edges.shape[0] != 2:
            raise _wrong("the edges", "an array (2, edge)", f"shape {self.edges.shape}")
        wrong = (self.edges < 0) | (self.edges >= len(self.features))
        if wrong.any():
            raise _wrong(
                "the edges",
                f"node numbers from 0 to {len(self.features) - 1}",
                f"{int(wrong.any(axis=0).sum())} edges to other nodes, such as {int(self.edges[wrong][0])}",
            )
        if self.weights is not None and self.weights.shape != self.edges.shape[1:]:
            raise _wrong("the weights of the edges", f"{self.edges.shape[1]}, one an edge", str(self.weights.shape))
        if self.labels and len(self.labels) != len(self.features):
            raise _wrong("the classes of the nodes", f"{len(self.features)}, one a node", str(len(self.labels)))
        for name, values in (("features", self.features), ("edge weights", self.weights)):
            if values is not None and not np.isfinite(values).all():
                rows = int((~np.isfinite(values.reshape(len(values), -1))).any(axis=1).sum())
                raise _wrong(f"the {name}", "finite numbers", f"NaN or infinity in {rows} rows")

    def __len__(self) -> int:
        return len(self.features)

    @cached_property
    def digest(self) -> str:
        """Hash of all of it."""
        hasher = blake2b(digest_size=16)
        for one in (self.features, self.edges, self.weights):
            hasher.update(repr(None if one is None else one.shape).encode())
            hasher.update(b"" if one is None else np.ascontiguousarray(one).tobytes())
        if self.labels:
            hasher.update(repr(self.labels).encode("utf-8", "surrogatepass"))
        return hasher.hexdigest()

    @cached_property
    def adjacency(self) -> sparse.csr_array:
        """(source, destination), 1 where there is an edge, however often; without weights. Indices are sorted."""
        from scipy import sparse

        joined = sparse.csr_array((np.ones(self.edges.shape[1]), tuple(self.edges)), shape=(len(self), len(self)))
        joined.sum_duplicates()
        joined.data[:] = 1
        return joined

    def induced(self, nodes: Int64[np.ndarray, " some"]) -> Graph:
        """The same nodes, with those edges alone that join two of these."""
        kept = np.zeros(len(self), dtype=bool)
        kept[nodes] = True
        inner = kept[self.edges].all(axis=0)
        weights = None if self.weights is None else self.weights[inner]
        return Graph(self.features, self.edges[:, inner], weights, self.labels)


@dataclass(frozen=True, eq=False)
class GraphFile:
    """A graph and what is said of its nodes.

    labels: name of the class of every node, "" where it has none; masks: one or more sets of nodes; numbers: further
    whole numbers of every node; source: how errors call it. Raises RecordsError where one does not fit the graph.
    """

    graph: Graph
    labels: tuple[str, ...] = field(repr=False)
    masks: Mapping[str, Bool[np.ndarray, " node"]] = field(default_factory=dict, repr=False)
    numbers: Mapping[str, Int64[np.ndarray, " node"]] = field(default_factory=dict, repr=False)
    source: str = "the graph"

    def __post_init__(self) -> None:
        for name, one in {"the classes": np.array(self.labels), **self.masks, **self.numbers}.items():
            if one.shape != (len(self.graph),):
                raise RecordsError(
                    f"{self.source}: {name} and the nodes differ in number",
                    expected=f"one for each of {len(self.graph)} nodes",
                    found=f"shape {one.shape}",
                )


def graph_of(data: object) -> GraphFile:
    """The graph of a live object: torch_geometric's Data, anything with `x` and `edge_index`, a mapping, or a Graph.

    Arrays may be of numpy, torch (sparse too) or scipy.sparse; they are copied. What is read of them: `from_arrays`.
    Raises RecordsError where it is no graph.
    """
    if isinstance(data, GraphFile):
        return data
    if isinstance(data, Graph):
        return GraphFile(data, ("",) * len(data))
    to_dict = getattr(data, "to_dict", None)
    held = data if isinstance(data, Mapping) else to_dict() if callable(to_dict) else getattr(data, "__dict__", {})
    named = {name: getattr(data, name, None) for name in (*FEATURES, *EDGES, *WEIGHTS, "edge_attr", *CLASSES)}
    arrays = {str(name): _as_array(value) for name, value in {**named, **held}.items()}
    return from_arrays({name: one for name, one in arrays.items() if one is not None}, "the graph")


def from_arrays(arrays: Mapping[str, np.ndarray], source: str) -> GraphFile:
    """A graph of named arrays.

    x or features (node, feature), or the parts x_data, x_indices, x_indptr, x_shape of a CSR matrix; edge_index
    (2, edge) of whole numbers; optionally edge_weight (or an edge_attr of one number an edge), and y (node,): names,
    or whole numbers of which negative ones mean none. Boolean arrays (node,) are masks, those of shape (node, split)
    masks called NAME.0, NAME.1, …, and other whole numbers (node,) are kept. Raises RecordsError for anything else.
    """
    features, edges = _features(arrays, source), _first(arrays, EDGES, source)
    if edges.dtype.kind not in "iu":
        raise _wrong(f"{source}: the edges", "whole numbers", f"dtype {edges.dtype}")
    if edges.ndim == 2 and edges.shape[0] != 2 and edges.shape[1] == 2:
        raise _wrong(f"{source}: the edges", "an array (2, edge)", f"shape {edges.shape}: turned round?")
    if features.dtype.kind not in "fiub":
        raise _wrong(f"{source}: the features of the nodes", "numbers", f"dtype {features.dtype}")
    weights = _weights(arrays, source)
    try:
        with np.errstate(over="ignore"):  # what becomes infinite is an error of the graph's own
            graph = Graph(
                np.array(features, dtype=np.float32, order="C"), np.array(edges, dtype=np.int64, order="C"), weights
            )
    except RecordsError as error:
        raise RecordsError(f"{source}: {error}") from None
    masks: dict[str, np.ndarray] = {}
    numbers: dict[str, np.ndarray] = {}
    known = {*FEATURES, *EDGES, *WEIGHTS, *CLASSES, "edge_attr"}
    for name, values in arrays.items():
        if name in known or values.shape[:1] != (len(graph),):
            continue
        if values.ndim == 2 and values.dtype == bool:
            masks |= {f"{name}.{split}": column.copy() for split, column in enumerate(values.T)}
        elif values.ndim == 1 and _is_mask(name, values):
            masks[name] = values.astype(bool)
        elif values.ndim == 1 and values.dtype.kind in "iu":
            numbers[name] = values.astype(np.int64)
    return GraphFile(graph, _classes(arrays, len(graph), source), masks, numbers, source)


def _as_array(value: Any) -> np.ndarray | None:
    """An array of what may be a tensor or a sparse matrix; None for anything else."""
    if hasattr(value, "to_dense") and (not hasattr(value, "layout") or "sparse" in str(value.layout)):
        value = value.to_dense()
    if hasattr(value, "toarray"):
        value = value.toarray()
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (value.float() if "bfloat16" in str(value.dtype) else value).numpy()
    elif isinstance(value, list | tuple):
        try:
            value = np.array(value)
        except ValueError:  # of unequal lengths
            return None
    return value if isinstance(value, np.ndarray) and value.dtype.kind in "biufU" else None


def _first(arrays: Mapping[str, np.ndarray], names: Iterable[str], source: str) -> np.ndarray:
    for name in names:
        if name in arrays:
            return arrays[name]
    raise RecordsError(
        f"{source}: there is no array {next(iter(names))!r}",
        expected="x (node, feature) and edge_index (2, edge) of one kind of nodes, as torch_geometric's Data has them",
        found=", ".join(sorted(arrays)[:12]) or "no array",
        hint="write it with repromia.save_graph(data, 'graph.npz')",
    )


def _features(arrays: Mapping[str, np.ndarray], source: str) -> np.ndarray:
    for name in FEATURES:
        parts = [arrays.get(f"{name}_{part}") for part in ("data", "indices", "indptr", "shape")]
        if name not in arrays and all(part is not None for part in parts):
            from scipy import sparse

            data, indices, indptr, shape = (np.asarray(part) for part in parts)
            try:
                matrix = sparse.csr_array((data, indices, indptr), shape=tuple(shape.tolist()))
                matrix.check_format(full_check=True)  # a wrong index would read past the array
                return matrix.toarray()
            except (ValueError, TypeError, IndexError, MemoryError) as error:
                raise _wrong(f"{source}: {name}", "the parts of a CSR matrix that fits", type(error).__name__) from None
    return _first(arrays, FEATURES, source)


def _weights(arrays: Mapping[str, np.ndarray], source: str) -> np.ndarray | None:
    for name in (*WEIGHTS, "edge_attr"):
        if name in arrays:
            values = arrays[name]
            values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
            if values.ndim != 1 or values.dtype.kind not in "fiub":
                raise RecordsError(
                    f"{source}: {name} cannot be used",
                    expected="one number an edge",
                    found=f"shape {values.shape}, dtype {values.dtype}",
                    hint="leave it out where the model does not use it",
                )
            with np.errstate(over="ignore"):
                return np.array(values, dtype=np.float32)
    return None


def _is_mask(name: str, values: np.ndarray) -> bool:
    """safetensors of other libraries may hold a mask as 0 and 1."""
    return values.dtype == bool or (
        name.endswith("mask") and values.dtype.kind in "iu" and bool(np.isin(values, (0, 1)).all())
    )


def _classes(arrays: Mapping[str, np.ndarray], count: int, source: str) -> tuple[str, ...]:
    values = next((arrays[name] for name in CLASSES if name in arrays), None)
    if values is None:
        return ("",) * count
    values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    whole = values.dtype.kind in "iubU" or (
        values.dtype.kind == "f" and all(map(float.is_integer, values.ravel().tolist()))
    )
    if values.shape != (count,) or not whole:
        raise RecordsError(
            f"{source}: y cannot be used",
            expected=f"one class for each of {count} nodes: whole numbers, negative where there is none, or names",
            found=f"shape {values.shape}, dtype {values.dtype}" + ("" if whole else ", with NaN or fractions"),
        )
    if values.dtype.kind == "U":
        return tuple(one.strip() for one in values.tolist())
    return tuple("" if one < 0 else str(int(one)) for one in values.tolist())


def _wrong(what: str, expected: str, found: str) -> RecordsError:
    return RecordsError(f"{what} of the graph cannot be used", expected=expected, found=found)
