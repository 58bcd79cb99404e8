"""No file that comes with an audit is run or followed out of its folder, and no record is repeated in an error."""

from __future__ import annotations

import ast
import io
import json
import zipfile
from importlib.metadata import requires
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

import repromia
from repromia.class_records import class_records_from_objects
from repromia.cli import main
from repromia.errors import RecordsError, RepromiaError
from repromia.graph_files import read_graph
from repromia.pictures import pictures_from_objects, read_pictures
from repromia.readers import from_objects, read_members
from repromia.records import without_records
from small import SmallModels, small_models

ROOT = Path(__file__).parent.parent
SOURCES = sorted(path for folder in ("src", "benchmarks", "examples") for path in (ROOT / folder).rglob("*.py"))
MARKER = "my number is 555-0199 and nobody may read it"
# Unpickles arrays, lists and dicts alone, for the raw files of Planetoid; see tests/test_graph_files.py.
UNPICKLERS = {"src/repromia/graph_files.py"}


def called(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    """Every call with the dotted name that it is written by."""
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def objections(source: str) -> list[str]:
    """Calls and imports by which a file of others could run code."""
    tree, found = ast.parse(source), []
    for name, call in called(tree):
        options = {one.arg: ast.unparse(one.value) for one in call.keywords}
        last = name.rpartition(".")[2]
        if name in ("eval", "exec", "compile", "__import__") or name in ("os.system", "os.popen"):
            found.append(name)
        if name in (
            "torch.load",
            "pickle.load",
            "pickle.loads",
            "joblib.load",
            "yaml.load",
            "yaml.full_load",
            "marshal.loads",
        ):
            found.append(name)
        if name.startswith("yaml.") and last.startswith("unsafe"):
            found.append(name)
        if options.get("allow_pickle", "False") != "False" and last != "savez":
            found.append(f"{name} with allow_pickle")
        if options.get("trust_remote_code") == "True" or options.get("shell") == "True":
            found.append(f"{name} with {options}")
        if last in ("extractall", "unpack_archive"):
            found.append(name)
    imported = {
        one.name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for one in (node.names if isinstance(node, ast.Import) else [ast.alias(node.module or "")])
    }
    return found + sorted(imported & {"pickle", "cPickle", "dill", "shelve", "marshal", "cloudpickle"})


def test_the_scan_finds_what_it_looks_for() -> None:
    for bad in (
        "import pickle",
        "joblib.load(path)",
        "torch.load(path)",
        "np.load(path, allow_pickle=True)",
        "eval(text)",
        "yaml.load(text)",
        "f(trust_remote_code=True)",
        "zipfile.ZipFile(path).extractall(folder)",
        "subprocess.run(line, shell=True)",
    ):
        assert objections(bad), bad
    assert not objections("model.eval()\nnp.load(path, allow_pickle=False)\nyaml.safe_load(text)")


def test_no_source_can_run_code_of_a_file() -> None:
    assert len(SOURCES) > 200
    found = {str(path.relative_to(ROOT)): objections(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert {name: some for name, some in found.items() if some and name not in UNPICKLERS} == {}
    assert all(found[name] == ["pickle"] for name in UNPICKLERS)


def brought_along(name: str, extras: frozenset[str]) -> set[str]:
    """A distribution and all that it brings along here."""
    found: dict[str, frozenset[str]] = {}
    left = [(canonicalize_name(name), extras)]
    while left:
        name, extras = left.pop()
        if extras <= found.get(name, frozenset()) and name in found:
            continue
        found[name] = found.get(name, frozenset()) | extras
        for one in map(Requirement, requires(name) or []):
            wanted = [{"extra": extra} for extra in ("", *extras)]
            if one.marker is None or any(one.marker.evaluate(given) for given in wanted):
                left.append((canonicalize_name(one.name), frozenset(one.extras)))
    return set(found)


def test_versions_are_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(pins) > 30
    assert all(line.count("==") == 1 for line in pins)
    assert "-c constraints.txt" in (ROOT / "Makefile").read_text(encoding="utf-8")
    pinned = {canonicalize_name(line.split("==")[0]) for line in pins}
    chosen = ("nvidia-", "cuda-", "triton")  # of the build of torch that somebody chose
    unpinned = {one for one in brought_along("repromia", frozenset({"dev"})) - pinned if not one.startswith(chosen)}
    assert unpinned == {"repromia"}


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["images", "x"])
def test_objects_in_npz_are_refused_unread(tmp_path: Path, name: str) -> None:
    sprung, path = tmp_path / "sprung", tmp_path / "data.npz"
    trap = np.array([Trap(sprung)], dtype=object)
    np.savez(path, allow_pickle=True, **{name: trap, "edge_index": np.zeros((2, 1), dtype=np.int64)})  # type: ignore[arg-type]
    for read in (lambda: read_pictures(path, path), lambda: read_graph(path)):
        with pytest.raises(RecordsError, match=r"objects|pickled"):
            read()
    assert not sprung.exists()


def test_a_yaml_file_makes_no_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sprung = tmp_path / "sprung"
    (tmp_path / "c.yaml").write_text(f"model: !!python/object/apply:os.mkdir ['{sprung}']\n")
    with pytest.raises(SystemExit) as ended:
        main(["audit", str(tmp_path / "c.yaml")])
    assert ended.value.code == 2
    assert not sprung.exists()
    assert "cannot be read" in " ".join(capsys.readouterr().err.split())


def test_a_tensor_that_lies_about_its_place_is_refused(tmp_path: Path) -> None:
    header = json.dumps({"x": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4 << 40]}}).encode()
    path = tmp_path / "graph.safetensors"
    for length in (len(header), 1 << 60):
        path.write_bytes(length.to_bytes(8, "little") + header)
        with pytest.raises(RecordsError, match="cannot be read"):
            read_graph(path)


def test_a_zip_is_read_by_name_and_never_unpacked(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((2, 4, 4, 3), dtype=np.uint8))
    path = tmp_path / "in" / "data.npz"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../climbed.npy", buffer.getvalue())
        archive.writestr("/tmp/absolute.npy", buffer.getvalue())  # noqa: S108 — a name in an archive
    with pytest.raises(RecordsError):
        read_pictures(path, path)
    assert sorted(one.name for one in tmp_path.rglob("*")) == ["data.npz", "in"]


def pictures_in(folder: Path, count: int = 3, first: int = 0) -> Path:
    folder.mkdir(parents=True)
    for at in range(first, first + count):
        Image.fromarray(np.full((4, 4, 3), at * 9, dtype=np.uint8)).save(folder / f"{at}.png")
    return folder


def test_links_out_of_a_folder_of_images_are_refused(tmp_path: Path) -> None:
    private = pictures_in(tmp_path / "private", 1, 20) / "20.png"
    members, others = pictures_in(tmp_path / "members"), pictures_in(tmp_path / "others", first=8)
    (members / "inside.png").symlink_to("0.png")
    assert len(read_pictures(members, others)) == 7
    (members / "9.png").symlink_to(private)
    with pytest.raises(RecordsError, match=r"(?s)links to files outside.*9\.png.*cp -rL") as refused:
        read_pictures(members, others)
    assert "20.png" not in str(refused.value)
    (members / "9.png").unlink()
    (members / "more").symlink_to(private.parent)
    (members / "again").symlink_to(members)
    with pytest.raises(RecordsError, match=r"(?s)2 folders in it are links.*again, more.*cp -rL"):
        read_pictures(members, others)
    for name in ("more", "again"):
        (members / name).unlink()
    (members / "round.png").symlink_to("round.png")
    with pytest.raises(RecordsError, match="cannot be read"):
        read_pictures(members, others)


@pytest.mark.parametrize("name", ["../private/20.png", "images/../../private/20.png", "images/link.png"])
def test_paths_in_a_table_stay_below_it(tmp_path: Path, name: str) -> None:
    private = pictures_in(tmp_path / "private", 1, 20)
    images = pictures_in(tmp_path / "data" / "images")
    others = pictures_in(tmp_path / "others", first=8)
    (images / "link.png").symlink_to(private / "20.png")
    path = tmp_path / "data" / "table.csv"
    path.write_text("image\nimages/0.png\nimages/1.png\nimages/../images/2.png\n")  # stays where it is
    assert len(read_pictures(path, others)) == 6
    path.write_text(f"image\nimages/0.png\n{name}\n")
    with pytest.raises(RecordsError, match="leads out of the folder"):
        read_pictures(path, path)
    path.write_text(f"image\nimages/0.png\n{private / '20.png'}\n")  # said in full, so meant
    other = tmp_path / "data" / "others.csv"
    other.write_text("image\nimages/1.png\nimages/../images/2.png\n")
    assert len(read_pictures(path, other)) == 4
    lists = [{"image": str(images / "0.png")}, {"image": str(private / ".." / "private" / "20.png")}]
    assert len(pictures_from_objects(lists, [{"image": str(one)} for one in others.iterdir()])) == 5


def test_metadata_names_files_of_its_folder_only(tmp_path: Path) -> None:
    pictures_in(tmp_path / "private", 1, 20)
    members, others = pictures_in(tmp_path / "members"), pictures_in(tmp_path / "others", first=8)
    (members / "metadata.jsonl").write_text('{"file_name": "../private/20.png", "text": "x"}\n')
    with pytest.raises(RecordsError, match="are not there"):
        read_pictures(members, others)


def test_messages_that_repeat_a_record_are_cut() -> None:
    records = from_objects([MARKER, "tiny secret"], ["another text", "one more"]).records
    for quoted in (f"ValueError: cannot parse '{MARKER}'", f"KeyError: {MARKER[5:30]!r}", "KeyError: 'tiny secret'"):
        shown = without_records(quoted, records)
        assert MARKER[8:28] not in shown
        assert "tiny secret" not in shown
        assert shown.startswith(quoted.split(":")[0])
        assert "left out" in shown
    plain = "RuntimeError: The size of tensor a (3) must match the size of tensor b (4)"
    assert without_records(plain, records) == plain


def failing(models: SmallModels, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the audit fail in a way that has the record in its error."""
    import zlib

    def raising(*_: object, **__: object) -> object:
        raise ValueError(f"cannot handle {MARKER!r}")

    match how:
        case "attack":
            monkeypatch.setattr(zlib, "compress", raising)
        case "model":
            monkeypatch.setattr(type(models.leaky.model), "forward", raising)
        case "tokenizer":
            monkeypatch.setattr(type(models.leaky.tokenizer), "__call__", raising)
            monkeypatch.setattr(type(models.leaky.tokenizer), "encode", raising)


@pytest.mark.parametrize("how", ["attack", "model", "tokenizer"])
def test_failures_repeat_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], how: str
) -> None:
    models = small_models()
    records = from_objects([MARKER, *models.members], models.nonmembers)
    failing(models, how, monkeypatch)
    said = ""
    try:
        result = repromia.audit(
            models.leaky, records, attacks=("loss", "zlib"), fprs=(0.05,), bootstrap=200, controls=False, out=tmp_path
        )
        assert result.status == "complete_with_failures"
        said = " ".join(row.reason for row in result.attacks)
    except RepromiaError as error:
        said = str(error)
    assert "left out" in said or "ValueError" in said, said
    shown = capfd.readouterr()
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "report.html"]
    for text in (said, shown.out, shown.err, *(path.read_text(encoding="utf-8", errors="replace") for path in written)):
        assert MARKER[:20] not in text
    assert (tmp_path / "events.jsonl") in written or how == "tokenizer"  # needed before anything is told


def test_a_classifier_that_quotes_its_input_does_not_end_up_in_the_error(tmp_path: Path) -> None:
    rows = [{"text": f"{MARKER} {at}", "label": str(at % 2)} for at in range(80)]
    records = class_records_from_objects(rows[:40], rows[40:], class_field="label", text="text")

    def predict(inputs: list[str]) -> np.ndarray:
        raise ValueError(f"could not convert string to float: {inputs[0]!r}")

    with pytest.raises(RepromiaError) as refused:
        repromia.audit(repromia.classifier(predict, records), records, attacks=("loss",), controls=False, out=tmp_path)
    assert MARKER[:20] not in str(refused.value)
    assert refused.value.__cause__ is None


def test_damaged_records_are_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(f'{{"text": "{MARKER}"\n{{"text": "b"}}\n')
    with pytest.raises(RecordsError) as refused:
        read_members(path, path)
    assert MARKER[:10] not in str(refused.value)
