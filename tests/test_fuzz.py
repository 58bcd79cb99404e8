"""Files of others: whatever bytes they hold, reading them ends in what was written or in an error that says what to do.

Damage is made by cutting a good file, changing bytes of it, or putting arbitrary ones in its place.
"""

from __future__ import annotations

import gzip
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import save

from repromia.class_records import read_class_records
from repromia.compare_folders import read_run
from repromia.errors import RepromiaError
from repromia.folders import read_audit
from repromia.graph_files import read_graph
from repromia.manifest import read_manifest
from repromia.pictures import read_pictures
from repromia.readers import read_labelled, read_members
from repromia.shadow_files import SavedShadows
from test_report import a_result

QUICK = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
ROWS = [{"id": f"r{row}", "text": f"text number {row}", "label": row % 2, "page": f"p{row}"} for row in range(8)]


def damaged(whole: bytes) -> st.SearchStrategy[bytes]:
    """Arbitrary bytes, a beginning of the file, or the file with some bytes changed."""
    changes = st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), min_size=1, max_size=6)

    def changed(some: list[tuple[int, int]]) -> bytes:
        data = bytearray(whole)
        for at, value in some:
            data[at] = value
        return bytes(data)

    return st.one_of(
        st.binary(max_size=200), st.integers(0, len(whole)).map(lambda at: whole[:at]), changes.map(changed)
    )


def table(kind: str) -> bytes:
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    frame = polars.DataFrame(ROWS)
    buffer = io.BytesIO()
    match kind:
        case ".jsonl" | ".ndjson":
            return lines.encode()
        case ".jsonl.gz":
            return gzip.compress(lines.encode(), mtime=0)
        case ".json":
            return json.dumps(ROWS).encode()
        case ".csv":
            return frame.write_csv().encode()
        case ".tsv":
            return frame.write_csv(separator="\t").encode()
        case ".txt":
            return "".join(f"{row['text']}\n" for row in ROWS).encode()
    frame.write_parquet(buffer)
    return buffer.getvalue()


def survives(read: Callable[[], Any]) -> Any:
    """What was read; None where it was refused in one readable block, without a record's text."""
    try:
        return read()
    except RepromiaError as error:
        said = str(error)
    assert said.strip()
    assert "text number" not in said
    return None


@pytest.mark.parametrize("kind", [".jsonl", ".jsonl.gz", ".json", ".csv", ".tsv", ".txt", ".parquet"])
def test_tables(kind: str, tmp_path: Path) -> None:
    whole, path = table(kind), tmp_path / f"data{kind}"
    other = tmp_path / "other.jsonl"
    other.write_text('{"text": "one"}\n{"text": "two"}\n')

    @QUICK
    @given(damaged(whole))
    def check(data: bytes) -> None:
        path.write_bytes(data)
        found = survives(lambda: read_members(path, other))
        assert found is None or len(found) >= 3
        survives(lambda: read_labelled(path, label="label", group="page"))
        survives(lambda: read_class_records(path, path, class_field="label", text="text"))

    check()
    path.write_bytes(whole)
    assert len(read_members(path, other)) == 10


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
fields = st.sampled_from(["text", "id", "label", "messages", "prompt", "completion", "group"])


@QUICK
@given(rows=st.lists(st.dictionaries(fields, json_values, max_size=4) | json_values, max_size=6))
def test_any_json_is_rows_or_refused(rows: list[Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("json") / "data.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    survives(lambda: read_labelled(path, label="label"))
    survives(lambda: read_members(path, path, group="group"))
    survives(lambda: read_class_records(path, path, class_field="label", text="text"))


@QUICK
@given(texts=st.lists(st.text(min_size=1).filter(lambda one: one.strip()), min_size=2, max_size=6, unique=True))
def test_texts_come_back_as_they_were(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("texts")
    texts = [one.encode("utf-8", "replace").decode() for one in texts]
    if len(set(texts)) < 2:
        return
    rows = [{"text": one} for one in texts]
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "a.json").write_text(json.dumps(rows), encoding="utf-8")
    polars.DataFrame(rows).write_parquet(folder / "a.parquet")
    for name in ("a.jsonl", "a.json", "a.parquet"):
        assert [*read_members(folder / name, folder / name).records.contents] == [*texts, *texts]


def an_npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def a_graph() -> dict[str, np.ndarray]:
    edges = np.array([[0, 1, 2, 3], [1, 2, 3, 0]])
    return {"x": np.eye(4, dtype=np.float32), "edge_index": edges, "y": np.array([0, 1, 0, 1])}


@pytest.mark.parametrize("kind", [".npz", ".safetensors"])
def test_graphs(kind: str, tmp_path: Path) -> None:
    whole = an_npz(**a_graph()) if kind == ".npz" else save(a_graph())
    path = tmp_path / f"graph{kind}"

    @QUICK
    @given(damaged(whole))
    def check(data: bytes) -> None:
        path.write_bytes(data)
        survives(lambda: read_graph(path))

    check()
    path.write_bytes(whole)
    assert len(read_graph(path).graph.features) == 4


def test_pictures_in_npz(tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)
    whole, path = an_npz(images=pictures), tmp_path / "some.npz"
    good = tmp_path / "good.npz"
    good.write_bytes(an_npz(images=pictures[::-1]))

    @QUICK
    @given(damaged(whole))
    def check(data: bytes) -> None:
        path.write_bytes(data)
        survives(lambda: read_pictures(path, good))

    check()


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "webp", "bmp", "tiff"])
def test_picture_files(kind: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    folder, other = tmp_path / "members", tmp_path / "nonmembers"
    for one in (folder, other):
        one.mkdir()
    buffer = io.BytesIO()
    Image.fromarray(pixels[0]).save(buffer, kind)
    Image.fromarray(pixels[0]).save(other / "a.png")
    Image.fromarray(pixels[1]).save(folder / "b.png")
    path = folder / f"a.{kind}"

    @QUICK
    @given(damaged(buffer.getvalue()))
    def check(data: bytes) -> None:
        path.write_bytes(data)
        survives(lambda: read_pictures(folder, other))
        found = survives(lambda: read_pictures(folder, other, skip_unreadable=True))
        assert found is None or len(found) >= 2

    check()


def test_masks_of_shadow_models(tmp_path: Path) -> None:
    ids = np.array(["a", "b", "c"])
    whole = an_npz(inside=np.eye(3, dtype=np.bool_), ids=ids)
    path = tmp_path / "masks.npz"
    shadows = SavedShadows(tmp_path, lambda _: pytest.fail("nothing to load"))

    @QUICK
    @given(damaged(whole))
    def check(data: bytes) -> None:
        path.write_bytes(data)
        survives(shadows.describe)

    check()
    path.write_bytes(whole)
    assert shadows.describe()["name"].endswith("shadow models")


def a_manifest() -> bytes:
    names = [f"{one:032x}" for one in range(4)]
    content = {
        "format": 1,
        "repromia": "0.1",
        "seed": 0,
        "holdout": 0.5,
        "kind": "record",
        "source": "d.jsonl",
        "reading": {"text": "text"},
        "records": {"members": 2, "nonmembers": 2},
        "members": names[:2],
        "nonmembers": names[2:],
        "units": {},
        "files": {},
    }
    return json.dumps(content).encode()


def test_manifests(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"

    @QUICK
    @given(damaged(a_manifest()) | json_values.map(lambda one: json.dumps(one).encode()))
    def check(data: bytes) -> None:
        path.write_bytes(data)
        survives(lambda: read_manifest(path))

    check()
    path.write_bytes(a_manifest())
    assert read_manifest(path).seed == 0


def a_run(folder: Path) -> None:
    folder.mkdir()
    (folder / "result.json").write_text(a_result().model_dump_json(), encoding="utf-8")
    count = 20
    columns = {
        "id": [f"r{row}" for row in range(count)],
        "role": ["eval"] * count,
        "member": [row % 2 == 0 for row in range(count)],
        "group": [f"r{row}" for row in range(count)],
        "loss": [float(row) for row in range(count)],
    }
    polars.DataFrame(columns).write_parquet(folder / "scores.parquet")


@pytest.mark.parametrize("name", ["result.json", "scores.parquet"])
def test_results(name: str, tmp_path: Path) -> None:
    folder, kept = tmp_path / "run", tmp_path / "kept"
    a_run(folder)
    shutil.copytree(folder, kept)
    whole = (folder / name).read_bytes()

    @QUICK
    @given(damaged(whole))
    def check(data: bytes) -> None:
        (folder / name).write_bytes(data)
        survives(lambda: read_run(folder, "run"))
        survives(lambda: read_audit(folder))

    check()
    assert len(read_run(kept, "run").ids) == 20


frames = st.sampled_from(
    [
        {"id": [[1], [2]], "role": ["eval", "eval"], "member": [True, False]},
        {"id": [1, 2], "role": ["eval", "eval"], "member": [True, False]},
        {"id": ["a", None], "role": ["eval", "eval"], "member": [True, False]},
        {"id": ["a", "b"], "role": ["eval", None], "member": [True, None]},
        {"id": ["a", "b"], "role": [1, 2], "member": [True, False]},
        {"id": ["a", "b"], "role": ["eval", "eval"], "member": [True, False], "loss": ["x", "y"]},
        {"id": ["a", "b"], "role": ["eval", "eval"], "member": [True, False], "loss": [[1.0], [2.0]]},
        {"id": ["a", "b"], "role": ["eval", "eval"], "member": [True, False], "loss": [None, float("nan")]},
        {"id": [], "role": [], "member": []},
        {"id": ["a", "b"], "role": ["eval", "eval"], "member": [1, 0]},
        {"x": [1]},
    ]
)


@QUICK
@given(columns=frames)
def test_score_tables_of_other_types(columns: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("types") / "run"
    a_run(folder)
    polars.DataFrame(columns).write_parquet(folder / "scores.parquet")
    survives(lambda: read_run(folder, "run"))
    survives(lambda: read_audit(folder))
