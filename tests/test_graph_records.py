"""Node records: both sides share one graph unless asked otherwise, and what cannot be audited is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repromia.duplicates import find_duplicates, remove_duplicates
from repromia.errors import RecordsError
from repromia.graph_files import save_graph
from repromia.graph_records import node_records, read_labelled_node_records, read_node_records
from repromia.graphs import Graph, GraphFile
from repromia.records import LabelledRecords, Node

MASK = np.isin(np.arange(12), (0, 3, 11))


def held(labels: tuple[str, ...] = ("a", "b", "c") * 4) -> GraphFile:
    """Twelve nodes on a ring, each with a self-loop but the last, which is isolated."""
    ring = np.arange(11)
    edges = np.concatenate([np.stack([ring, (ring + 1) % 11]), np.stack([(ring + 1) % 11, ring]), [ring, ring]], axis=1)
    graph = Graph(np.eye(12, 4, dtype=np.float32) + 1, edges)
    masks = {"train_mask": MASK, "test_mask": ~MASK & (np.arange(12) < 9), "none": np.zeros(12, dtype=bool)}
    member = np.array([1, 0, -1] * 4)
    return GraphFile(graph, labels, masks, {"member": member, "year": member + 2001}, "g.npz")


def known() -> Graph:
    """It, with its classes."""
    return replace(held().graph, labels=held().labels)


def nodes(labelled: LabelledRecords) -> list[Node]:
    return [one for one in labelled.records.contents if isinstance(one, Node)]


def test_masks_of_the_graph(tmp_path: Path) -> None:
    save_graph(held(), tmp_path / "g.npz")
    labelled = read_node_records(tmp_path / "g.npz", "train_mask", "test_mask")
    assert labelled.records.ids == ("node00", "node03", "node11", *(f"node{at:02d}" for at in (1, 2, 4, 5, 6, 7, 8)))
    assert labelled.records.groups == labelled.records.ids
    assert labelled.member.tolist() == [True] * 3 + [False] * 7
    found = nodes(labelled)
    assert len({id(one.graph) for one in found}) == 1  # both sides are asked about on one graph
    assert {one.source for one in found} == {known().digest}
    assert found[0].graph.labels == held().labels
    assert [(one.number, one.label) for one in found[:3]] == [(0, "a"), (3, "a"), (11, "c")]


@pytest.mark.parametrize("suffix", [".txt", ".npy", ".npz", ".json", "mask.npy", "mask.json"])
def test_files_of_nodes(tmp_path: Path, suffix: str) -> None:
    save_graph(held(), tmp_path / "g.npz")
    path, numbers = tmp_path / f"members{suffix}", np.array([11, 0, 3], dtype=np.int32)
    given = MASK if suffix.startswith("mask") else numbers
    match path.suffix:
        case ".txt":
            path.write_text("\n11\n 0\n3\n\n")
        case ".json":
            path.write_text(json.dumps(given.tolist()))
        case ".npz":
            np.savez(path, members=given)
        case _:
            np.save(path, given)
    labelled = read_node_records(tmp_path / "g.npz", path, "test_mask")
    expected = [0, 3, 11] if suffix.startswith("mask") else [11, 0, 3]  # the order of the file
    assert [one.number for one in nodes(labelled)][:3] == expected
    assert labelled.records.digest() == node_records(held(), expected, "test_mask").records.digest()


def test_an_array_that_says_who_is_a_member(tmp_path: Path) -> None:
    save_graph(held(), tmp_path / "g.safetensors")
    labelled = read_labelled_node_records(tmp_path / "g.safetensors", label="member")
    assert [one.number for one in nodes(labelled)] == [0, 3, 6, 9, 1, 4, 7, 10]
    assert labelled.member.sum() == 4
    everyone = read_labelled_node_records(tmp_path / "g.safetensors", label="train_mask")
    assert (len(everyone), everyone.member.sum()) == (12, 3)
    with pytest.raises(RecordsError, match="12 other numbers, such as 2002"):
        read_labelled_node_records(tmp_path / "g.safetensors", label="year")
    for name in ("y", "nothing"):
        with pytest.raises(RecordsError, match="there is no array"):
            read_labelled_node_records(tmp_path / "g.safetensors", label=name)


def test_live_objects_and_every_way_to_name_nodes() -> None:
    torch = pytest.importorskip("torch")
    graph = held().graph
    data = SimpleNamespace(
        x=torch.tensor(graph.features), edge_index=torch.tensor(graph.edges), y=torch.arange(12) % 3, train_mask=MASK
    )
    expected = node_records(data, [0, 3, 11], [1, 2]).records.digest()
    for members in (MASK, MASK.tolist(), torch.tensor(MASK), torch.tensor([0, 3, 11]), {0, 3, 11}, "train_mask"):
        assert node_records(data, members, range(1, 3)).records.digest() == expected
    assert node_records(data, (0, 3, 11), np.array([1, 2], dtype=np.uint8)).records.digest() == expected


def test_the_protocol_of_older_papers() -> None:
    labelled = node_records(held(), [0, 1, 5], [2, 11], asymmetric=True)
    inside, outside = nodes(labelled)[:3], nodes(labelled)[3:]
    assert {one.source for one in inside} == {known().induced(np.array([0, 1, 5])).digest}
    assert {one.source for one in outside} == {known().digest}
    assert {tuple(edge) for edge in inside[0].graph.edges.T.tolist()} == {(0, 1), (1, 0), (0, 0), (1, 1), (5, 5)}
    assert labelled.records.ids == node_records(held(), [0, 1, 5], [2, 11]).records.ids


@pytest.mark.parametrize(
    ("members", "nonmembers", "message"),
    [
        ([0, 1], [2, 1, 0], "2 shared, such as 0"),
        ([0, 12], [1], "1 others, such as 12"),
        ([0, -1], [1], "numbers from 0 to 11"),
        ([0, 1, 0], [2], "1 repeats among 3"),
        (MASK.astype(int), [2], "must be boolean"),
        ([], [2], "the members: there are none"),
        ([0], "none", "the non-members: there are none"),
        ([0], "val_mask", "no mask 'val_mask'"),
        ([0], MASK[:5], "for 12 nodes"),
        ([0], [1.0, 2.0], "cannot be read"),
        ([0], [[1, 2]], "cannot be read"),
        ([0], [[1], [2, 3]], "cannot be read"),
        ([0], None, "cannot be read"),
        ([0], ["1"], "cannot be read"),
        ([0, 3], [6, 9], "one class"),
    ],
)
def test_sides_that_cannot_be_audited(members: object, nonmembers: object, message: str) -> None:
    with pytest.raises(RecordsError, match=message):
        node_records(held(), members, nonmembers)


def test_nodes_without_a_class() -> None:
    labels = ("", "b", "c") * 4
    with pytest.raises(RecordsError, match="2 of 4 nodes have no class") as caught:
        node_records(held(labels), [0, 1], [2, 3])
    assert "leave them out" in str(caught.value)
    with pytest.raises(RecordsError, match="write the graph with its y"):
        node_records(held().graph, [0, 1], [2, 3])
    assert len(node_records(held(labels), [1, 4], [2, 5])) == 4


def test_files_of_nodes_that_cannot_be_read(tmp_path: Path) -> None:
    save_graph(held(), tmp_path / "g.npz")
    contents = {
        "words.txt": "1\ntwo\n",
        "half.json": "[1, 2",
        "object.json": '{"a": 1}',
        "numbers.csv": "1\n",
        "cut.npy": "\x93NUMPY",
    }
    for name, text in contents.items():
        (tmp_path / name).write_text(text, encoding="latin1")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe")
    np.savez(tmp_path / "two.npz", a=[1], b=[2])
    messages = {
        "words.txt": "line 2: not a node number",
        "half.json": "not valid JSON",
        "object.json": "cannot be read",
        "numbers.csv": "unknown format",
        "cut.npy": "cannot be read",
        "bytes.txt": "UTF-8",
        "two.npz": "one array",
        "missing.txt": "neither a mask",
    }
    for name, message in messages.items():
        with pytest.raises(RecordsError, match=message):
            read_node_records(tmp_path / "g.npz", tmp_path / name, "test_mask")
    with pytest.raises(RecordsError, match="train_mask"):
        read_node_records(tmp_path / "g.npz", "trian_mask", "test_mask")


def test_real_public_split(shared_data: Path) -> None:
    labelled = read_node_records(shared_data / "planetoid" / "Cora", "train_mask", "test_mask")
    assert (len(labelled), int(labelled.member.sum())) == (1140, 140)
    assert labelled.records.ids[17] == "node0017"


@settings(max_examples=150, deadline=None)
@given(
    st.integers(2, 7).flatmap(
        lambda count: st.tuples(
            st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=10),
            st.lists(st.sampled_from([(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)]), min_size=count, max_size=count),
            st.lists(st.sampled_from("ab"), min_size=count, max_size=count),
            st.permutations(range(count)),
            st.booleans(),
        )
    )
)
def test_duplicates_equal_their_definition_whatever_the_order_of_nodes(
    drawn: tuple[list[tuple[int, int]], list[tuple[float, float]], list[str], list[int], bool],
) -> None:
    pairs, features, labels, order, undirected = drawn
    pairs = pairs + [(b, a) for a, b in pairs] if undirected else pairs
    count = len(labels)
    if len(set(labels)) == 1:
        labels = ["c", *labels[1:]]

    def records(place: list[int]) -> LabelledRecords:
        """The same graph, in which node `at` is called `place[at]`."""
        back = np.argsort(place)
        edges = np.array([(place[a], place[b]) for a, b in pairs], dtype=np.int64).reshape(-1, 2).T
        graph = Graph(np.array(features, dtype=np.float32)[back], edges)
        named = GraphFile(graph, tuple(labels[at] for at in back))
        return node_records(named, place[: count // 2], place[count // 2 :])

    def seen(node: int) -> tuple[object, ...]:
        into = {a for a, b in pairs if b == node} - {node}
        out = {b for a, b in pairs if a == node} - {node}
        return features[node], labels[node], into, out, (node, node) in pairs

    report = find_duplicates(records(list(range(count))))
    for first in range(count):
        for second in range(first):
            expected = seen(first) == seen(second) and any(features[first])
            assert (report.text[first] == report.text[second]) == expected
    assert len(report.near) == 0
    np.testing.assert_array_equal(find_duplicates(records(order)).text, report.text)


def test_twins_across_the_sides_leave() -> None:
    features = np.array([[1, 0], [1, 0], [1, 0], [0, 1], [0, 1], [0, 0], [0, 0]], dtype=np.float32)
    star = np.array([[0, 3], [1, 3], [2, 3], [4, 0]]).T  # 0 has one neighbour more than its twins 1 and 2
    graph = GraphFile(Graph(features, np.concatenate([star, star[::-1]], axis=1)), tuple("aaabbcc"))
    kept, found = remove_duplicates(node_records(graph, [0, 1, 3, 5], [2, 4, 6]))
    assert (found.exact_across, found.exact_within, found.near_across) == (2, 0, 0)
    assert kept.records.ids == ("node0", "node3", "node5", "node4", "node6")  # 5 and 6 have no features to share
