"""Datasets of torch_geometric by name, from a folder of their raw files; downloaded only where that is asked for.

Loaders that read pickles are not used: Planetoid's files are read by `repromia.graph_files`, and what the library
processed before is made anew from the raw files.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, NoReturn

from repromia.errors import RecordsError, RepromiaError
from repromia.graph_files import read_graph
from repromia.graphs import GraphFile, graph_of

PREFIX = "pyg:"
HOW = "pyg:NAME:root=FOLDER, with further arguments of the dataset as :name=Photo, and :download=true"
# One graph of one kind of nodes, raw files without pickles.
KNOWN = (
    *("Planetoid", "Actor", "Airports", "Amazon", "CitationFull", "Coauthor", "Flickr", "HeterophilousGraphDataset"),
    *("KarateClub", "Reddit", "Reddit2", "WebKB", "WikiCS"),
)


def read_named(path: str | Path) -> GraphFile:
    """The graph of a file (`repromia.graph_files.read_graph`), or of `pyg:NAME:root=FOLDER`: a dataset of
    torch_geometric from its raw files under FOLDER, downloaded to there with `:download=true` alone. Raises
    RecordsError."""
    text = str(path)
    if not text.startswith(PREFIX):
        return read_graph(path)
    name, *given = text.removeprefix(PREFIX).split(":")
    options = dict(one.partition("=")[::2] for one in given)
    if name not in KNOWN or not all(options.values()):
        raise RecordsError(
            f"{text}: no dataset that is read by its name",
            expected=f"{HOW}; NAME: {', '.join(KNOWN)}",
            found=repr(name) if name not in KNOWN else "an option without a value",
            hint="load others yourself, and write repromia.save_graph(data, 'graph.npz')",
        )
    download = options.pop("download", "false") == "true"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the library's own on versions
            return _read(text, name, options, download)
    except RepromiaError:
        raise
    except Exception as error:  # a dataset's loader may raise anything
        raise RecordsError(
            f"{text}: torch_geometric cannot load it",
            expected=HOW,
            found=f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}",
        ) from error


def _read(text: str, name: str, options: dict[str, str], download: bool) -> GraphFile:
    from torch_geometric import datasets

    def refused(self: Any) -> NoReturn:
        raise RecordsError(
            f"{text}: its raw files are not there",
            expected=", ".join(self.raw_paths),
            hint="put them there, or let torch_geometric fetch them: :download=true",
        )

    kind: Any = getattr(datasets, name)
    changed: dict[str, Any] = {} if download or name == "KarateClub" else {"download": refused}
    if name == "Planetoid":
        changed |= {"_process": lambda self: None, "load": lambda self, *_, **__: None}
    more = {} if name in ("KarateClub", "Planetoid") else {"force_reload": True}
    dataset = type(name, (kind,), changed)(**options, **more)
    if name == "Planetoid":
        return read_graph(dataset.raw_dir)
    return graph_of(dataset[0])
