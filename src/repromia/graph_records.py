"""From a graph and two sets of its nodes to labelled records.

Members and non-members are asked about on one and the same graph. The protocol of older papers (rebMIGraph, 2021), in
which members are asked about on the graph of the members alone and non-members on the whole, is there as
`asymmetric`. It is confounded: a node's edges tell its side, whatever the model has learnt.

Nodes are resampled one by one although the neighbours of a node sway its score: intervals take records for
independent.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from repromia.errors import RecordsError
from repromia.graph_datasets import read_named
from repromia.graph_files import GraphFile, graph_of, read_array
from repromia.records import LabelledRecords, Node, Records

_SETS = "a mask of the graph, node numbers, or a boolean array with one value a node"
_FILES = "a mask of the graph, or a file of node numbers or of a mask: .txt (one a line), .npy, .npz, .json"


def read_node_records(
    graph_path: str | Path, members: str | Path, nonmembers: str | Path, *, asymmetric: bool = False
) -> LabelledRecords:
    """Members and non-members among the nodes of one graph (formats: `repromia.graph_datasets.read_named`).

    members, nonmembers: each the name of a mask of the graph (train_mask), or a file: .txt with one node number a
    line, .npy, .npz of one array, or .json, with node numbers or a boolean mask. asymmetric, order, ids: see
    `node_records`. Raises RecordsError as `node_records` does, and for files that cannot be read.
    """
    file = read_named(graph_path)
    sides = (_read_side(file, one) for one in (members, nonmembers))
    return node_records(file, *sides, asymmetric=asymmetric)


def read_labelled_node_records(graph_path: str | Path, *, label: str, asymmetric: bool = False) -> LabelledRecords:
    """Records of both sides from one graph file; its array `label` says which nodes are members.

    label: of a boolean array, or of whole numbers (node,): 1 a member, 0 a non-member, -1 neither. Otherwise as
    `node_records`. Raises RecordsError as it does, and where there is no such array or it holds other numbers.
    """
    file = read_named(graph_path)
    known = {**file.masks, **file.numbers}
    if label not in known:
        raise RecordsError(
            f"{file.source}: there is no array {label!r} that says who is a member",
            expected="a boolean array (node,), or whole numbers: 1 member, 0 non-member, -1 neither",
            found=_listed(list(known)),
        )
    values = known[label]
    wrong = ~np.isin(values, (-1, 0, 1))
    if wrong.any():
        raise RecordsError(
            f"{file.source}: {label!r} says more than who is a member",
            expected="1 for members, 0 for non-members, -1 for neither",
            found=f"{int(wrong.sum())} other numbers, such as {int(values[wrong][0])}",
        )
    return node_records(file, np.flatnonzero(values == 1), np.flatnonzero(values == 0), asymmetric=asymmetric)


def node_records(data: object, members: object, nonmembers: object, *, asymmetric: bool = False) -> LabelledRecords:
    """Members and non-members among the nodes of one graph in memory.

    data: a graph file that was read, torch_geometric's Data, or what else `repromia.graphs.graph_of` takes. members,
    nonmembers: each the name of a mask of the graph, node numbers, or a boolean array (node,); numpy, torch or lists.
    Members come first, in the order given (of masks that of the nodes); ids are node numbers as node0017, each a group
    of its own. All records hold one Graph.

    asymmetric: members are asked about on the graph with edges among members alone, as in older papers. Nothing found
    so is evidence of memory until baselines that see no model find nothing: the number of edges alone tells the sides
    apart.

    Raises RecordsError for nodes that do not exist, that are named twice or on both sides, or that have no class; for
    a side without nodes; and where all are of one class.
    """
    file = graph_of(data)
    inside, outside = (
        _side(file, one, name) for one, name in ((members, "the members"), (nonmembers, "the non-members"))
    )
    both = np.intersect1d(inside, outside)
    if len(both):
        raise RecordsError(
            f"{file.source}: nodes are on both sides",
            expected="members and non-members that share no node",
            found=f"{len(both)} shared, such as {int(both[0])}",
            hint="take them out of one side",
        )
    numbers = np.concatenate([inside, outside])
    _check_classes(file, numbers)
    digits = len(str(len(file.graph) - 1))
    whole = replace(file.graph, labels=file.labels)
    graphs = [whole.induced(inside) if asymmetric else whole, whole]
    asked = [graphs[0]] * len(inside) + [graphs[1]] * len(outside)
    contents = tuple(
        Node(number, file.labels[number], graph.digest, graph)
        for number, graph in zip(numbers.tolist(), asked, strict=True)
    )
    ids = tuple(f"node{number:0{digits}d}" for number in numbers.tolist())
    return LabelledRecords(Records(ids, contents, ids), np.arange(len(numbers)) < len(inside))


def _check_classes(file: GraphFile, numbers: Int64[np.ndarray, " record"]) -> None:
    without = [number for number in numbers.tolist() if not file.labels[number]]
    if without:
        raise RecordsError(
            f"{file.source}: {len(without)} of {len(numbers)} nodes have no class",
            expected="a class for every node of both sides (y, not negative)",
            found=f"none for {', '.join(map(str, without[:5]))}" + (", …" if len(without) > 5 else ""),
            hint="leave them out of both sides" if any(file.labels) else "write the graph with its y",
        )
    if len({file.labels[number] for number in numbers.tolist()}) == 1:
        raise RecordsError(
            f"{file.source}: all nodes of both sides are of one class",
            expected="at least two classes",
            found="one",
            hint="check that y is the class that the model predicts",
        )


def _side(file: GraphFile, given: object, name: str) -> Int64[np.ndarray, " record"]:
    """Numbers of the nodes of one side, each once."""
    if isinstance(given, str):
        if given not in file.masks:
            raise RecordsError(
                f"{file.source}: there is no mask {given!r}", expected=_SETS, found=_listed(list(file.masks))
            )
        given = file.masks[given]
    numbers = _numbers(given, len(file.graph), name)
    outside = (numbers < 0) | (numbers >= len(file.graph))
    if outside.any():
        raise RecordsError(
            f"{name}: nodes that are not in {file.source}",
            expected=f"numbers from 0 to {len(file.graph) - 1}",
            found=f"{int(outside.sum())} others, such as {int(numbers[outside][0])}",
        )
    repeated = len(numbers) - len(np.unique(numbers))
    if repeated:
        zeros = len(numbers) == len(file.graph) and set(numbers.tolist()) == {0, 1}
        raise RecordsError(
            f"{name}: nodes are named more than once",
            expected="every node once",
            found=f"{repeated} repeats among {len(numbers)} numbers",
            hint="a mask must be boolean, not 0 and 1" if zeros else "remove the repeats",
        )
    if not len(numbers):
        raise RecordsError(f"{name}: there are none", expected="at least one node", found="none")
    return numbers


def _numbers(given: Any, count: int, name: str) -> Int64[np.ndarray, " record"]:
    """Of a mask or of numbers, in numpy, torch or lists."""
    if hasattr(given, "detach"):
        given = given.detach().cpu().numpy()
    if isinstance(given, set | frozenset | range):
        given = sorted(given)
    try:
        values = np.asarray(given)
    except (ValueError, TypeError, OverflowError):
        values = np.empty(0, dtype=object)
    if values.size == 0 and values.dtype.kind == "f":  # an empty list
        values = values.astype(np.int64)
    mask = values.dtype == bool
    if values.ndim != 1 or values.dtype.kind not in "iub" or (mask and len(values) != count):
        raise RecordsError(
            f"{name} cannot be read",
            expected=_SETS,
            found=f"shape {values.shape}, dtype {values.dtype}" + (f" for {count} nodes" if mask else ""),
        )
    return np.flatnonzero(values) if mask else values.astype(np.int64)


def _read_side(file: GraphFile, given: str | Path) -> Bool[np.ndarray, " node"] | Int64[np.ndarray, " record"]:
    """A mask of the graph by its name, or what a file says."""
    if isinstance(given, str) and given in file.masks:
        return file.masks[given]
    path = Path(given)
    if not path.is_file():
        raise RecordsError(
            f"{path}: neither a mask of {file.source} nor a file",
            expected=_FILES,
            found=_listed(list(file.masks)),
            hint="check the name or the path",
        )
    match path.suffix.lower():
        case ".npy" | ".npz":
            arrays = read_array(path)
            if isinstance(arrays, dict) and len(arrays) != 1:
                raise RecordsError(
                    f"{path}: more or less than one array", expected="one array", found=_listed(list(arrays))
                )
            values: object = next(iter(arrays.values())) if isinstance(arrays, dict) else arrays
        case ".json" | ".txt":
            values = _read_text(path)
        case _:
            raise RecordsError(f"{path}: unknown format", expected=_FILES, found=repr(path.suffix))
    return _numbers(values, len(file.graph), str(path))


def _read_text(path: Path) -> object:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RecordsError(f"{path}: cannot be read", expected="UTF-8 text", found=type(error).__name__) from None
    if path.suffix.lower() == ".json":
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise RecordsError(f"{path}: not valid JSON", expected="a list of node numbers or of true/false") from None
    numbers = []
    for place, line in enumerate(text.splitlines(), start=1):
        try:
            numbers += [int(line)] if line.strip() else []
        except ValueError:
            raise RecordsError(
                f"{path}, line {place}: not a node number", expected="one whole number a line", hint="repair the line"
            ) from None
    return numbers


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:12])}{', …' if len(names) > 12 else ''}" if names else "none"
