"""Graphs from files: the same graph from every format, Planetoid as torch_geometric reads it, and no code is run."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import save_file
from scipy import sparse

from repromia.errors import RecordsError
from repromia.graph_files import holds_graph, read_graph, save_graph
from repromia.graphs import Graph, GraphFile

X = np.eye(5, 3, dtype=np.float32)
EDGES = np.array([[0, 1, 1, 2, 4], [1, 0, 2, 1, 4]])


def same(first: GraphFile, second: GraphFile) -> bool:
    def alike(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
        return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)

    return (
        first.graph.digest == second.graph.digest
        and first.labels == second.labels
        and alike(dict(first.masks), dict(second.masks))
        and alike(dict(first.numbers), dict(second.numbers))
    )


@settings(max_examples=40, deadline=None)
@given(
    arrays(np.float32, (5, 3), elements=st.floats(-9, 9, width=32)),
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=9),
    st.lists(st.sampled_from(["", "0", "7", "cats", "dogs", "07"]), min_size=5, max_size=5),
    st.booleans(),
    st.sampled_from([".npz", ".safetensors"]),
)
def test_what_is_saved_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    features: np.ndarray,
    pairs: list[tuple[int, int]],
    labels: list[str],
    weighted: bool,
    suffix: str,
) -> None:
    edges = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    weights = np.arange(len(pairs), dtype=np.float32) if weighted else None
    masks = {"train_mask": np.array([True, False, True, False, False])}
    held = GraphFile(Graph(features, edges, weights), tuple(labels), masks, {"member": np.array([1, 0, -1, 0, 1])})
    path = tmp_path_factory.mktemp("graph") / f"graph{suffix}"
    save_graph(held, path)
    assert same(read_graph(path), held)
    assert [one.name for one in path.parent.iterdir()] == [path.name]  # nothing half-written is left


def test_saving_live_objects_and_refusals(tmp_path: Path) -> None:
    data = SimpleNamespace(x=X, edge_index=EDGES, y=np.array([0, 1, 2, -1, 0]), val_mask=np.ones(5, dtype=bool))
    save_graph(data, tmp_path / "a.npz")
    found = read_graph(tmp_path / "a.npz")
    assert found.labels == ("0", "1", "2", "", "0")
    assert found.masks["val_mask"].all()
    with pytest.raises(RecordsError, match="unknown format"):
        save_graph(data, tmp_path / "a.pt")
    with pytest.raises(RecordsError, match="cannot be written"):
        save_graph(data, tmp_path / "no" / "a.npz")


def test_parts_of_a_sparse_matrix(tmp_path: Path) -> None:
    matrix = sparse.csr_array(X)
    parts = {"x_data": matrix.data, "x_indices": matrix.indices, "x_indptr": matrix.indptr, "x_shape": X.shape}
    np.savez(tmp_path / "a.npz", edge_index=EDGES, **parts)
    assert read_graph(tmp_path / "a.npz").graph.digest == Graph(X, EDGES).digest
    for wrong in ({"x_indices": matrix.indices + 3}, {"x_indptr": matrix.indptr[:-1]}, {"x_shape": np.array([5])}):
        np.savez(tmp_path / "b.npz", edge_index=EDGES, **{**parts, **wrong})
        with pytest.raises(RecordsError, match="parts of a CSR matrix"):
            read_graph(tmp_path / "b.npz")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "whole.npz", x=X, edge_index=EDGES)
    whole = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "cut.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{")
    np.savez(tmp_path / "objects.npz", x=X, edge_index=np.array([{}, 1], dtype=object))
    with (tmp_path / "single.npz").open("wb") as file:
        np.save(file, X)
    for name in ("cut.npz", "empty.npz", "text.npz", "cut.safetensors", "objects.npz", "single.npz"):
        with pytest.raises(RecordsError, match="cannot be read"):
            read_graph(tmp_path / name)
    for name in ("none.npz", "none.safetensors"):
        with pytest.raises(RecordsError, match="no such file"):
            read_graph(tmp_path / name)
    with pytest.raises(RecordsError, match="unknown format"):
        read_graph(tmp_path / "a.csv")
    with pytest.raises(RecordsError, match="no graph of Planetoid's"):
        read_graph(tmp_path)
    np.savez(tmp_path / "lacks.npz", y=np.zeros(5))
    with pytest.raises(RecordsError, match=r"lacks\.npz: there is no array 'x'"):
        read_graph(tmp_path / "lacks.npz")


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pkl", ".pickle"])
def test_pickles_are_refused_unread(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(RecordsError, match="save_graph") as caught:
        read_graph(tmp_path / f"data{suffix}")
    assert "can run any code" in str(caught.value)


def test_names_of_classes_beside_tensors(tmp_path: Path) -> None:
    tensors = {"x": X, "edge_index": EDGES, "y": np.array([0, 1, 9, -1, 0])}
    save_file(tensors, tmp_path / "a.safetensors", metadata={"classes": json.dumps(["cat", "dog"])})
    with pytest.raises(RecordsError, match="cannot be read"):
        read_graph(tmp_path / "a.safetensors")
    tensors["y"][2] = 1
    save_file(tensors, tmp_path / "a.safetensors", metadata={"classes": json.dumps(["cat", "dog"])})
    assert read_graph(tmp_path / "a.safetensors").labels == ("cat", "dog", "dog", "", "cat")


def test_what_looks_like_a_graph(tmp_path: Path) -> None:
    assert holds_graph("a.npz")
    assert holds_graph("a.pt")  # for the error that says how to convert it
    assert not holds_graph("a.jsonl")
    assert not holds_graph(tmp_path)
    planetoid(tmp_path / "raw", "pubmed")
    assert holds_graph(tmp_path)


@pytest.mark.parametrize("name", ["Cora", "CiteSeer"])
def test_raw_files_equal_the_arrays_made_of_them(shared_data: Path, name: str) -> None:
    folder = shared_data / "planetoid"
    from_raw, from_npz = read_graph(folder / name), read_graph(folder / f"{name.lower()}.npz")
    assert same(from_raw, from_npz)
    assert same(from_raw, read_graph(folder / name / "raw"))
    counts = {"Cora": (2708, 1433, 10556, 7, 140), "CiteSeer": (3327, 3703, 9104, 6, 120)}[name]
    nodes, width = from_raw.graph.features.shape
    train = int(from_raw.masks["train_mask"].sum())
    assert (nodes, width, from_raw.graph.edges.shape[1], len(set(from_raw.labels)), train) == counts


@pytest.mark.filterwarnings("ignore")  # of torch_geometric's own imports and pickles
@pytest.mark.parametrize("name", ["Cora", "CiteSeer"])
def test_raw_files_are_read_as_torch_geometric_reads_them(shared_data: Path, tmp_path: Path, name: str) -> None:
    datasets = pytest.importorskip("torch_geometric.datasets")
    shutil.copytree(shared_data / "planetoid" / name, tmp_path / name)
    for place in (tmp_path, *tmp_path.rglob("*")):
        place.chmod(0o700)  # torch_geometric writes beside the raw files
    data = datasets.Planetoid(str(tmp_path), name)[0]
    save_graph(data, tmp_path / "graph.npz")
    assert same(read_graph(tmp_path / "graph.npz"), read_graph(shared_data / "planetoid" / name))


def planetoid(folder: Path, name: str, **changed: object) -> None:
    """Six known nodes (three to train on), tests 9, 6, 8; node 7 is in no list."""
    folder.mkdir(parents=True, exist_ok=True)
    features = sparse.csr_matrix(np.arange(1, 28, dtype=np.float32).reshape(9, 3))
    classes = np.eye(3, dtype=np.int32)[[0, 1, 2, 0, 1, 2, 1, 2, 0]]
    parts: dict[str, object] = {
        "x": features[:3],
        "allx": features[:6],
        "tx": features[6:],
        "y": classes[:3],
        "ally": classes[:6],
        "ty": classes[6:],
        "graph": {0: [1, 1, 0, 9], 1: [0], 9: [0, 6], 6: [9], 2: []},
    }
    for part, value in {**parts, **changed}.items():
        (folder / f"ind.{name}.{part}").write_bytes(value if isinstance(value, bytes) else pickle.dumps(value, 2))
    (folder / f"ind.{name}.test.index").write_text("9\n6\n8\n")


def test_another_graph_in_the_same_layout(tmp_path: Path) -> None:
    planetoid(tmp_path / "raw", "pubmed")
    found = read_graph(tmp_path)
    assert found.graph.features[:, 0].tolist() == [1, 4, 7, 10, 13, 16, 22, 0, 25, 19]  # rows of tx: nodes 9, 6, 8
    assert found.labels == ("0", "1", "2", "0", "1", "2", "2", "0", "0", "1")
    assert found.graph.edges.tolist() == [[1, 9, 0, 9, 0, 6], [0, 0, 1, 6, 9, 9]]
    assert np.flatnonzero(found.masks["train_mask"]).tolist() == [0, 1, 2]
    assert np.flatnonzero(found.masks["val_mask"]).tolist() == list(range(3, 10))
    assert np.flatnonzero(found.masks["test_mask"]).tolist() == [6, 8, 9]


def test_a_graph_of_pubmeds_size(tmp_path: Path) -> None:
    """19,717 nodes, 500 features of which a tenth are not 0, 3 classes, 44,324 edges, the last 1,000 nodes tested."""
    count, known, drawn = 19_717, 18_717, np.random.default_rng(0)
    places = np.sort(drawn.choice(count * 500, 988_031, replace=False))
    start = np.searchsorted(places, 500 * np.arange(count + 1))
    features = sparse.csr_matrix((drawn.random(len(places)), places % 500, start), shape=(count, 500))
    label, pairs = drawn.integers(0, 3, count), drawn.integers(0, count, (44_324, 2))
    classes, tested = np.eye(3, dtype=np.int32)[label], drawn.permutation(np.arange(known, count))
    lists: dict[int, list[int]] = {at: [] for at in range(count)}
    for one, other in pairs.tolist():
        lists[one].append(other)
        lists[other].append(one)
    rows = {"": slice(60), "all": slice(known), "t": tested}
    matrices = {f"{part}x": features[some] for part, some in rows.items()}
    planetoid(tmp_path, "pubmed", **matrices, **{f"{part}y": classes[some] for part, some in rows.items()}, graph=lists)
    (tmp_path / "ind.pubmed.test.index").write_text("\n".join(map(str, tested.tolist())))
    found = read_graph(tmp_path)
    np.testing.assert_array_equal(found.graph.features, features.toarray().astype(np.float32))
    assert found.labels == tuple(map(str, label.tolist()))
    both = {(one, other) for pair in pairs.tolist() for one, other in (pair, pair[::-1]) if one != other}
    assert set(zip(*found.graph.edges.tolist(), strict=True)) == both
    assert found.graph.edges.shape[1] == len(both)
    assert [int(one.sum()) for one in found.masks.values()] == [60, 500, 1000]


class Runs:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("part", ["x", "ally", "graph"])
def test_no_code_of_a_pickle_is_run(tmp_path: Path, part: str) -> None:
    for place, hostile in enumerate((Runs(tmp_path / "run"), {0: [Runs(tmp_path / "run")]})):
        planetoid(tmp_path / str(place), "cora", **{part: hostile})
        with pytest.raises(RecordsError, match=r"posix\.mkdir|nt\.mkdir") as caught:
            read_graph(tmp_path / str(place))
        assert "no part of a graph" in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "source",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"c__builtin__\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n(S'a.npy'\ntR.",
        b"cnumpy.core.multiarray\nscalar\n.",
        b"ccollections\nOrderedDict\n)R.",
        b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93.",
        b"",
        b"garbage",
        b"\x80\x02cscipy.sparse.csr\ncsr_matrix\n)\x81.",  # a matrix of which nothing is said
    ],
)
def test_hostile_and_damaged_pickles(tmp_path: Path, source: bytes) -> None:
    planetoid(tmp_path, "cora", tx=source)
    with pytest.raises(RecordsError, match="not one of Planetoid's files"):
        read_graph(tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"graph": {0: [77]}}, "edges to other nodes, such as 77"),
        ({"graph": {0: [0.5]}}, "whole numbers"),
        ({"graph": [1, 2]}, "do not fit together"),
        ({"tx": sparse.csr_matrix(np.ones((2, 3)))}, "do not fit together"),
        ({"tx": sparse.csr_matrix(np.ones((3, 4)))}, "do not fit together"),
        ({"allx": sparse.csr_matrix(np.ones((5, 3)))}, "do not fit together"),
        ({"ally": np.ones(6)}, "do not fit together"),
    ],
)
def test_raw_files_that_do_not_fit(tmp_path: Path, changed: dict[str, object], message: str) -> None:
    planetoid(tmp_path, "cora", **changed)
    with pytest.raises(RecordsError, match=message):
        read_graph(tmp_path)


def test_raw_files_that_are_missing_or_too_many(tmp_path: Path) -> None:
    planetoid(tmp_path / "a", "cora")
    (tmp_path / "a" / "ind.cora.tx").unlink()
    with pytest.raises(RecordsError, match=r"ind\.cora\.tx: there is no such file"):
        read_graph(tmp_path / "a")
    planetoid(tmp_path / "b", "cora")
    (tmp_path / "b" / "ind.cora.test.index").write_text("1\ntwo\n")
    with pytest.raises(RecordsError, match="one node number a line"):
        read_graph(tmp_path / "b")
    planetoid(tmp_path / "c", "cora")
    planetoid(tmp_path / "c", "pubmed")
    with pytest.raises(RecordsError, match=r"ind\.cora\.graph, ind\.pubmed\.graph"):
        read_graph(tmp_path / "c")
    planetoid(tmp_path / "d", "nell.0.001")
    with pytest.raises(RecordsError, match="NELL"):
        read_graph(tmp_path / "d")
