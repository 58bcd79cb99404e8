"""Graphs on disk: .npz, .safetensors, and the raw files of Planetoid (Cora, CiteSeer, PubMed).

Nothing here runs code of a file: pickles of whole objects are refused, and the raw files of Planetoid, which are
pickles, are read by an unpickler that knows arrays, lists and dicts alone.
"""

from __future__ import annotations

import json
import os
import pickle
import warnings
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from scipy import sparse

from repromia.errors import RecordsError
from repromia.graphs import Graph, GraphFile, from_arrays, graph_of

__all__ = ["FORMATS", "GraphFile", "graph_of", "holds_graph", "read_array", "read_graph", "save_graph"]

FORMATS = (".npz", ".safetensors")
_PICKLES = (".pt", ".pth", ".pkl", ".pickle")
_PARTS = ("x", "tx", "allx", "y", "ty", "ally", "graph")
_VALIDATION = 500  # nodes after the training ones, in the split that all papers use
_CLASSES = "classes"  # metadata of safetensors: names of classes
_BROKEN = (
    *(OSError, ValueError, EOFError, LookupError, TypeError, AttributeError, MemoryError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error, SafetensorError),
)


def read_graph(path: str | Path) -> GraphFile:
    """A graph from .npz or .safetensors (arrays as in `repromia.graphs.from_arrays`) or a folder of Planetoid's files.

    A folder holds `ind.NAME.x` and its seven siblings, itself or in `raw`; it becomes what torch_geometric makes of
    it: test nodes put in order, missing ones (CiteSeer) with no features, as if of class 0; no self-loop, every edge
    once; `train_mask`, `val_mask` and `test_mask` of the public split. Raises RecordsError for anything else.
    """
    place = Path(path)
    if place.is_dir():
        return _read_planetoid(place)
    if place.suffix.lower() in _PICKLES:
        raise RecordsError(
            f"{place}: graphs are not read from pickles",
            expected="a graph as .npz or .safetensors, or a folder of Planetoid's raw files",
            found=f"{place.suffix}, which can run any code when it is loaded",
            hint="where you trust it, load it yourself and write repromia.save_graph(data, 'graph.npz')",
        )
    if place.suffix.lower() not in FORMATS:
        raise RecordsError(
            f"{place}: unknown format of a graph",
            expected=f"{', '.join(FORMATS)}, or a folder of Planetoid's raw files",
            found=repr(place.suffix),
            hint="write it with repromia.save_graph(data, 'graph.npz')",
        )
    arrays = read_array(place)
    assert isinstance(arrays, dict)  # noqa: S101 — of these suffixes
    return from_arrays(arrays, str(place))


def holds_graph(path: str | Path) -> bool:
    """Whether a path looks like a graph of `read_graph`, by its name or, of a folder, by what is in it."""
    place = Path(path)
    if place.is_dir():
        return any(any(folder.glob("ind.*.graph")) for folder in (place, place / "raw"))
    return place.suffix.lower() in (*FORMATS, *_PICKLES)  # pickles for the reason why they are not read


def read_array(path: Path) -> np.ndarray | dict[str, np.ndarray]:
    """The array of a .npy file, or those of .npz or .safetensors by name. Raises RecordsError where it cannot be read.

    Of safetensors, y with the names of classes beside it becomes these names.
    """
    try:
        if path.suffix.lower() == ".safetensors":
            return _read_safetensors(path)
        with path.open("rb") as file:  # numpy itself leaves a damaged file open
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray) != (path.suffix.lower() == ".npy"):
                raise ValueError("named .npy, but several arrays, or the other way round")
            return loaded if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    except FileNotFoundError:
        raise RecordsError(f"{path}: there is no such file", hint="check the path") from None
    except _BROKEN as error:
        pickled = "pickle" in str(error) or "Object arrays" in str(error)
        raise RecordsError(
            f"{path}: the file cannot be read",
            expected="whole arrays of numbers or strings",
            found=f"{_size(path)}, {'pickled objects, or another kind of file' if pickled else type(error).__name__}",
            hint="copy it again if it was cut off; write a graph with repromia.save_graph(data, 'graph.npz')",
        ) from None


def save_graph(data: object, path: str | Path) -> None:
    """Write a graph to .npz or .safetensors, all at once or not at all; `read_graph` reads it.

    data: torch_geometric's Data or anything else that `graph_of` takes, a `Graph`, or a `GraphFile` with classes and
    masks. Raises RecordsError where it is no graph, or cannot be written.
    """
    place, held = Path(path), graph_of(data)
    if place.suffix.lower() not in FORMATS:
        raise RecordsError(f"{place}: unknown format", expected=" or ".join(FORMATS), found=repr(place.suffix))
    arrays = {**held.masks, **held.numbers, **_arrays(held.graph)}
    if any(held.labels):
        arrays["y"] = np.array(held.labels)
        if all(not one or one == _plain(one) for one in held.labels):
            arrays["y"] = np.array([int(one or -1) for one in held.labels], dtype=np.int64)
    if place.suffix.lower() == ".safetensors":
        found = _safetensors(arrays)
    else:
        buffer = BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        found = buffer.getvalue()
    _write(place, found)


def _plain(name: str) -> str:
    """A whole number as `from_arrays` would call it; something else where it is none."""
    return str(int(name)) if name.isascii() and name.isdecimal() and len(name) < 16 else ""


def _safetensors(arrays: dict[str, np.ndarray]) -> bytes:
    """Names of classes, which are no tensor, go into the metadata."""
    arrays = {name: np.ascontiguousarray(one) for name, one in arrays.items()}  # else it writes another order
    if "y" not in arrays or arrays["y"].dtype.kind != "U":
        return save(arrays)
    names, y = np.unique(arrays["y"], return_inverse=True)
    y = np.where(arrays["y"] == "", -1, y - int("" in names))
    return save({**arrays, "y": y}, metadata={_CLASSES: json.dumps([one for one in names.tolist() if one])})


def _arrays(graph: Graph) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {"x": graph.features, "edge_index": graph.edges}
    return arrays if graph.weights is None else {**arrays, "edge_weight": graph.weights}


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise RecordsError(f"{path}: cannot be written", found=error.strerror or str(error)) from None


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    with safe_open(str(path), framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 — not a dict
        about = file.metadata() or {}
    names = json.loads(about.get(_CLASSES, "null"))
    if isinstance(names, list) and "y" in arrays and arrays["y"].dtype.kind in "iu":
        arrays["y"] = np.array([*map(str, names), ""])[np.where(arrays["y"] < 0, len(names), arrays["y"])]
    return arrays


def _size(path: Path) -> str:
    return f"{path.stat().st_size} bytes" if path.is_file() else "no file"


class _Matrix:
    """What a pickle says of a matrix of scipy."""

    held: Mapping[str, Any] = MappingProxyType({})

    def __setstate__(self, state: object) -> None:
        self.held = state if isinstance(state, dict) else {}


class _ArraysOnly(pickle.Unpickler):
    """Knows what Planetoid's files are made of, and refuses everything else before it is looked up."""

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name in the pickle. Raises UnpicklingError for all but seven names."""
        match module, name:
            case (("scipy.sparse.csr" | "scipy.sparse._csr"), "csr_matrix"):
                return type("Matrix", (_Matrix,), {})  # of its own: a pickle may set attributes of a class
            case "numpy", "ndarray":
                return np.ndarray
            case "numpy", "dtype":
                return np.dtype
            case (("numpy.core.multiarray" | "numpy._core.multiarray"), "_reconstruct"):
                return _reconstruct
            case "collections", "defaultdict":
                return defaultdict
            case (("__builtin__" | "builtins"), "list"):
                return list
            case "_codecs", "encode":  # bytes, as Python 3 writes them for Python 2
                return lambda text, _: text.encode("latin1")
        raise pickle.UnpicklingError(f"{module}.{name} is no part of a graph")


_reconstruct: Any = np.ndarray(0, dtype="b").__reduce__()[0]


def _read_planetoid(folder: Path) -> GraphFile:
    found = sorted({place for within in (folder, folder / "raw") for place in within.glob("ind.*.graph")})
    if len(found) != 1:
        raise RecordsError(
            f"{folder}: " + ("more than one graph" if found else "no graph of Planetoid's"),
            expected="ind.NAME.x, .tx, .allx, .y, .ty, .ally, .graph and .test.index of one NAME, here or in raw/",
            found=", ".join(one.name for one in found) or f"{len(list(folder.iterdir()))} other entries",
            hint="name one folder, or an .npz or .safetensors file in it",
        )
    stem = found[0].name.removesuffix(".graph")
    if stem.startswith("ind.nell"):
        raise RecordsError(f"{folder}: NELL is not read", hint="write it with repromia.save_graph(data, 'nell.npz')")
    parts = {name: _part(found[0].with_name(f"{stem}.{name}")) for name in _PARTS}
    index = _test_index(found[0].with_name(f"{stem}.test.index"))
    try:
        return from_arrays(_assembled(parts, index), str(folder))
    except (IndexError, ValueError, TypeError, AttributeError, OverflowError, KeyError) as error:
        raise RecordsError(
            f"{folder}: Planetoid's files do not fit together",
            expected="eight files of one graph",
            found=type(error).__name__,
            hint="download them again",
        ) from None


def _part(path: Path) -> Any:
    """A dense array, or the lists of neighbours."""
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy on how old pickles spell a dtype
            loaded = _ArraysOnly(file, encoding="latin1").load()
        if not isinstance(loaded, _Matrix):
            return loaded
        held = loaded.held
        shape = int(held["_shape"][0]), int(held["_shape"][1])
        matrix = sparse.csr_array((held["data"], held["indices"], held["indptr"]), shape=shape)
        matrix.check_format(full_check=True)
        return matrix.toarray()
    except Exception as error:  # noqa: BLE001 — a damaged pickle makes the unpickler raise anything
        forbidden = str(error) if isinstance(error, pickle.UnpicklingError) and "no part" in str(error) else ""
        missing = isinstance(error, FileNotFoundError)
        raise RecordsError(
            f"{path}: " + ("there is no such file" if missing else "not one of Planetoid's files, or damaged"),
            expected="a pickled array, CSR matrix, or dict of lists",
            found=forbidden or ("" if missing else f"{_size(path)}, {type(error).__name__}"),
            hint="download it again",
        ) from None


def _test_index(path: Path) -> np.ndarray:
    try:
        return np.array([int(line) for line in path.read_text().split()], dtype=np.int64)
    except (OSError, ValueError, OverflowError):
        raise RecordsError(f"{path}: missing, or not one node number a line", hint="download it again") from None


def _assembled(parts: Mapping[str, Any], index: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays of the graph. Raises ValueError and the like where the parts do not fit."""
    known, least = len(parts["allx"]), int(index.min())
    span = int(index.max()) - least + 1
    if least != known or len(np.unique(index)) != len(index) or len(parts["tx"]) != len(index):
        raise ValueError("the test nodes do not follow the others")
    whole = []
    for name in ("x", "y"):
        before, tested = np.asarray(parts[f"all{name}"]), np.asarray(parts[f"t{name}"])
        rows = np.zeros((span, before.shape[1]), dtype=before.dtype)  # nodes that nobody tests have nothing
        rows[np.sort(index) - least] = tested
        whole.append(np.concatenate([before, rows]))
        whole[-1][index] = whole[-1][np.sort(index)]
    features, classes = whole
    lists: Mapping[int, list[int]] = parts["graph"]
    sources = np.repeat(np.fromiter(lists, dtype=np.int64, count=len(lists)), [len(one) for one in lists.values()])
    targets = np.array([one for some in lists.values() for one in some] or np.zeros(0, dtype=np.int64))
    edges = np.stack([sources, targets])
    edges = np.unique(edges[::-1, edges[0] != edges[1]], axis=1)[::-1]  # sorted by destination, then by source
    order = np.arange(len(features))
    train = len(parts["y"])
    return {
        "x": features,
        "edge_index": edges,
        "y": classes.argmax(axis=1),
        "train_mask": order < train,
        "val_mask": (order >= train) & (order < train + _VALIDATION),
        "test_mask": np.isin(order, index),
    }
