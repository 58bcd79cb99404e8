"""A graph: arrays that do not fit are refused, live objects are read, and node order is only a matter of names."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repromia.errors import RecordsError
from repromia.graphs import Graph, GraphFile, from_arrays, graph_of

X = np.arange(8, dtype=np.float32).reshape(4, 2)
EDGES = np.array([[0, 1, 1, 2, 1], [1, 0, 2, 1, 2]])
PAIRS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=25)


def edges_of(pairs: list[tuple[int, int]]) -> np.ndarray:
    return np.array(pairs, dtype=np.int64).reshape(-1, 2).T


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": None}, "no array 'x'"),
        ({"edge_index": None}, "no array 'edge_index'"),
        ({"x": np.zeros((4, 0))}, "features of the nodes"),
        ({"x": np.zeros(4)}, "features of the nodes"),
        ({"x": np.array([["a"]] * 4)}, "numbers"),
        ({"x": np.where(X == 3, np.nan, X)}, "NaN or infinity in 1 rows"),
        ({"x": X.astype(np.float64) * 1e300}, "NaN or infinity in 4 rows"),
        ({"edge_index": EDGES.T}, "turned round"),
        ({"edge_index": EDGES.astype(float)}, "whole numbers"),
        ({"edge_index": EDGES + 2}, "3 edges to other nodes, such as 4"),
        ({"edge_index": EDGES - 1}, "node numbers from 0 to 3"),
        ({"edge_index": EDGES.ravel()}, "an array"),
        ({"edge_weight": np.ones(3)}, "one an edge"),
        ({"edge_weight": np.full(5, np.inf)}, "finite"),
        ({"edge_attr": np.ones((5, 2))}, "one number an edge"),
        ({"y": np.zeros(3, dtype=int)}, "one class for each of 4 nodes"),
        ({"y": np.array([0, 1, 0.5, 1])}, "fractions"),
        ({"y": np.array([0, 1, np.nan, 1])}, "NaN or fractions"),
        ({"y": np.array([0, 1, np.inf, 1])}, "NaN or fractions"),
        ({"y": np.zeros((4, 3), dtype=int)}, "one class"),
    ],
)
def test_what_is_no_graph_is_refused(change: dict[str, np.ndarray | None], message: str) -> None:
    arrays = {"x": X, "edge_index": EDGES, "y": np.array([0, 1, 0, 1])} | change
    with pytest.raises(RecordsError, match=message):
        from_arrays({name: one for name, one in arrays.items() if one is not None}, "g.npz")


def test_classes_masks_and_other_numbers() -> None:
    found = from_arrays(
        {
            "features": X.astype(np.float16),
            "edge_index": EDGES.astype(np.uint8),
            "y": np.array([[3.0], [-1.0], [0.0], [12.0]]),
            "train_mask": np.array([True, False, False, True]),
            "test_mask": np.array([0, 1, 1, 0], dtype=np.uint8),
            "split_mask": np.array([[True, False]] * 4),
            "member": np.array([1, 0, -1, 1], dtype=np.int8),
            "position": np.zeros((4, 3)),
            "year": np.array([2001]),
        },
        "g",
    )
    assert found.labels == ("3", "", "0", "12")
    assert {name: one.tolist() for name, one in found.masks.items()} == {
        "train_mask": [True, False, False, True],
        "test_mask": [False, True, True, False],
        "split_mask.0": [True] * 4,
        "split_mask.1": [False] * 4,
    }
    assert {name: one.tolist() for name, one in found.numbers.items()} == {"member": [1, 0, -1, 1]}
    assert found.graph.features.dtype == np.float32
    assert found.graph.edges.dtype == np.int64
    assert from_arrays({"x": X, "edge_index": EDGES, "y": np.array(["a ", " ", "b", "c"])}, "g").labels == (
        *("a", "", "b", "c"),
    )
    assert from_arrays({"x": X, "edge_index": EDGES}, "g").labels == ("",) * 4


def test_live_objects_of_numpy_torch_and_scipy() -> None:
    torch = pytest.importorskip("torch")
    from scipy import sparse

    expected = Graph(X, EDGES, np.arange(5, dtype=np.float32)).digest
    x, edges, weights = torch.tensor(X, requires_grad=True), torch.tensor(EDGES), torch.arange(5.0)
    assert graph_of(SimpleNamespace(x=x, edge_index=edges, edge_attr=weights[:, None])).graph.digest == expected
    assert (
        graph_of({"x": x.to_sparse(), "edge_index": edges, "edge_weight": weights.bfloat16()}).graph.digest == expected
    )
    assert graph_of({"x": sparse.csr_array(X), "edges": EDGES.tolist(), "weights": range(5)}).graph.weights is None
    read = graph_of(SimpleNamespace(x=X, edge_index=EDGES))
    assert not np.shares_memory(read.graph.features, X)  # what is changed later does not change the records
    assert graph_of(read) is read
    assert graph_of(Graph(X, EDGES)).labels == ("",) * 4
    for wrong in (None, 3, [X, EDGES], SimpleNamespace(x=X)):
        with pytest.raises(RecordsError, match="no array"):
            graph_of(wrong)


@pytest.mark.filterwarnings("ignore")  # of torch_geometric's own imports
def test_data_of_torch_geometric() -> None:
    torch = pytest.importorskip("torch")
    data = pytest.importorskip("torch_geometric.data")
    mask = torch.tensor([True, False, True, False])
    one = data.Data(x=torch.tensor(X), edge_index=torch.tensor(EDGES), y=torch.tensor([0, 1, 1, -1]), train_mask=mask)
    found = graph_of(one)
    assert found.graph.digest == Graph(X, EDGES).digest
    assert found.labels == ("0", "1", "1", "")
    assert found.masks["train_mask"].tolist() == mask.tolist()
    many = data.HeteroData()
    many["paper"].x = torch.tensor(X)
    with pytest.raises(RecordsError, match="one kind of nodes"):
        graph_of(many)


def test_what_is_said_of_nodes_fits_the_graph() -> None:
    graph = Graph(X, EDGES)
    with pytest.raises(RecordsError, match="the classes and the nodes differ"):
        GraphFile(graph, ("a",))
    with pytest.raises(RecordsError, match="train and the nodes differ"):
        GraphFile(graph, ("a",) * 4, {"train": np.ones(3, dtype=bool)})


@settings(max_examples=50, deadline=None)
@given(PAIRS, st.sets(st.integers(0, 5)))
def test_adjacency_and_induced_graphs_equal_their_definitions(pairs: list[tuple[int, int]], kept: set[int]) -> None:
    graph = Graph(np.ones((6, 1), dtype=np.float32), edges_of(pairs), np.arange(len(pairs), dtype=np.float32))
    dense = np.zeros((6, 6))
    for source, destination in pairs:
        dense[source, destination] = 1
    np.testing.assert_array_equal(graph.adjacency.toarray(), dense)
    inner = graph.induced(np.array(sorted(kept), dtype=np.int64))
    expected = [(pair, weight) for weight, pair in enumerate(pairs) if set(pair) <= kept]
    assert [tuple(pair) for pair in inner.edges.T.tolist()] == [pair for pair, _ in expected]
    assert inner.weights is not None
    assert inner.weights.tolist() == [weight for _, weight in expected]
    assert len(inner) == len(graph)
