"""Datasets of torch_geometric by name: from their raw files alone, and fetched only where that is asked for."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

import repromia
from repromia.errors import RecordsError
from repromia.graph_datasets import read_named
from repromia.graph_files import read_graph
from repromia.graph_records import read_node_records
from repromia.graphs import graph_of
from test_graph_files import planetoid, same

datasets = pytest.importorskip("torch_geometric.datasets")


def photo(folder: Path) -> Path:
    """Raw files of Amazon Photo, with 30 nodes drawn by lot."""
    folder.mkdir(parents=True)
    drawn = np.random.default_rng(0)
    parts: dict[str, Any] = {"labels": drawn.integers(0, 3, 30)}
    for name, shape in (("attr", (30, 8)), ("adj", (30, 30))):
        matrix = sparse.csr_array((drawn.random(shape) < 0.2).astype(np.float32))
        held = {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr, "shape": np.array(shape)}
        parts |= {f"{name}_{part}": value for part, value in held.items()}
    np.savez(folder / "amazon_electronics_photo.npz", **parts)
    return folder / "amazon_electronics_photo.npz"


def test_a_dataset_is_read_as_its_own_library_reads_it(tmp_path: Path) -> None:
    photo(tmp_path / "Photo" / "raw")
    found = read_named(f"pyg:Amazon:root={tmp_path}:name=Photo")
    assert same(found, graph_of(datasets.Amazon(str(tmp_path), "Photo")[0]))
    assert found.graph.features.shape == (30, 8)
    assert len(set(found.labels)) == 3
    records = repromia.load_nodes(f"pyg:Amazon:root={tmp_path}:name=Photo", range(10), range(10, 20))
    assert len(records) == 20


def test_what_was_processed_before_is_made_anew(tmp_path: Path) -> None:
    """A processed file is a pickle of whoever made it."""
    photo(tmp_path / "Photo" / "raw")
    whole = read_named(f"pyg:Amazon:root={tmp_path}:name=Photo")
    (tmp_path / "Photo" / "processed" / "data.pt").write_bytes(b"hostile")
    assert same(whole, read_named(f"pyg:Amazon:root={tmp_path}:name=Photo"))


def test_nothing_is_fetched_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []

    def fetch(url: str, folder: str) -> None:
        fetched.append(url)
        shutil.copy(photo(tmp_path / "elsewhere"), folder)

    monkeypatch.setattr("torch_geometric.datasets.amazon.download_url", fetch)
    named = f"pyg:Amazon:root={tmp_path}:name=Photo"
    with pytest.raises(RecordsError, match=r"raw files are not there(.|\n)*photo\.npz(.|\n)*download=true"):
        read_named(named)
    assert not fetched
    assert len(read_named(f"{named}:download=true").graph) == 30
    assert len(fetched) == 1
    assert len(read_named(named).graph) == 30  # now they are there


def test_planetoids_pickles_are_not_left_to_the_library(tmp_path: Path) -> None:
    planetoid(tmp_path / "PubMed" / "raw", "pubmed")
    found = read_named(f"pyg:Planetoid:root={tmp_path}:name=PubMed")
    assert same(found, read_graph(tmp_path / "PubMed"))
    records = read_node_records(f"pyg:Planetoid:root={tmp_path}:name=PubMed", "train_mask", "test_mask")
    assert len(records) == 6
    assert not (tmp_path / "PubMed" / "processed").exists()
    with pytest.raises(RecordsError, match=r"raw files are not there(.|\n)*ind\.cora\.x"):
        read_named(f"pyg:Planetoid:root={tmp_path}:name=Cora")


def test_a_dataset_without_files() -> None:
    assert same(read_named("pyg:KarateClub"), graph_of(datasets.KarateClub()[0]))


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("pyg:Planet:root=x", "found: +'Planet'"),
        ("pyg:MovieLens:root=x", "save_graph"),  # no single graph of one kind of nodes
        ("pyg:Amazon:root", "an option without a value"),
        ("pyg:Amazon:root=x", "TypeError"),
        ("pyg:Amazon:root=x:name=Books", "AssertionError"),
        ("pyg:Amazon:folder=x:name=Photo", "TypeError"),
    ],
)
def test_names_that_are_refused(named: str, message: str) -> None:
    with pytest.raises(RecordsError, match=message):
        read_named(named)
