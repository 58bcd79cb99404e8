"""Reading: what is understood, and one test per kind of damage."""

from __future__ import annotations

import gzip
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import polars
import pytest

from repromia.errors import RecordsError
from repromia.readers import from_objects, read_labelled, read_members
from repromia.records import Chat, Completion, LabelledRecords

PLANTED = "Zanzibar"  # stands in every planted record; no error may repeat it
ROWS = [{"text": f"{PLANTED} number {row}", "label": row % 2} for row in range(6)]
TEXTS = [str(row["text"]) for row in ROWS]


def write(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def jsonl(rows: list[object]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def refused(path: Path, *, label: str = "label", text: str | None = None, group: str | None = None) -> str:
    with pytest.raises(RecordsError) as caught:
        read_labelled(path, label=label, text=text, group=group)
    message = str(caught.value)
    assert PLANTED not in message
    assert caught.value.__cause__ is None
    return message


def file_of(kind: str, folder: Path) -> Path:
    frame = polars.DataFrame(ROWS)
    path = folder / f"data.{kind}"
    bare = kind.removesuffix(".gz")
    if bare == "parquet":
        frame.write_parquet(path)
        return path
    data = {
        "jsonl": jsonl([*ROWS]),
        "ndjson": jsonl([*ROWS]),
        "json": json.dumps(ROWS),
        "csv": frame.write_csv(),
        "tsv": frame.write_csv(separator="\t"),
    }[bare].encode()
    return write(path, gzip.compress(data) if kind.endswith(".gz") else data)


@pytest.mark.parametrize(
    "kind", ["jsonl", "ndjson", "json", "csv", "tsv", "parquet", "jsonl.gz", "json.gz", "csv.gz", "tsv.gz"]
)
def test_every_format_gives_the_same_records(kind: str, tmp_path: Path) -> None:
    labelled = read_labelled(file_of(kind, tmp_path), label="label")
    assert labelled.records.contents == tuple(TEXTS)
    assert labelled.records.ids == labelled.records.groups == tuple(f"r{row}" for row in range(6))
    assert labelled.member.tolist() == [False, True] * 3


def test_text_files_hold_a_record_a_line(tmp_path: Path) -> None:
    members = write(tmp_path / "m.txt", "one\r\n\n  \ntwo\n")
    nonmembers = write(tmp_path / "n.txt.gz", gzip.compress(b"\xef\xbb\xbfthree"))
    labelled = read_members(members, nonmembers)
    assert labelled.records.contents == ("one", "two", "three")
    assert labelled.records.ids == ("m0", "m1", "n0")
    assert labelled.member.tolist() == [True, True, False]


def test_line_separators_inside_json_do_not_cut_a_line(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", '{"text": "a\u2028b", "label": 1}\n{"text": "c", "label": 0}\n')
    assert read_labelled(path, label="label").records.contents == ("a\u2028b", "c")


def test_saved_datasets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    whole = datasets.Dataset.from_list(ROWS)
    whole.save_to_disk(str(tmp_path / "one"))
    assert len(read_labelled(tmp_path / "one", label="label")) == 6
    datasets.DatasetDict({"train": whole, "test": whole}).save_to_disk(str(tmp_path / "two"))
    assert "several splits" in refused(tmp_path / "two")
    assert len(read_labelled(tmp_path / "two/train", label="label")) == 6
    (tmp_path / "one/state.json").write_text("{")
    assert "damaged" in refused(tmp_path / "one")


def test_hub_names(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None]] = []

    def load_dataset(name: str, *, split: str | None) -> object:
        asked.append((name, split))
        if name == "nobody/nothing":
            raise FileNotFoundError(PLANTED)
        return ROWS if split else {"train": ROWS}

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    assert len(read_labelled("owner/name", label="label")) == 6
    assert len(read_labelled("owner/name:test[:10%]", label="label")) == 6
    assert asked == [("owner/name", None), ("owner/name", "test[:10%]")]
    assert "hub" in refused(Path("nobody/nothing"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "pip install repromia[hub]" in refused(Path("owner/name"))


def test_shapes_ids_and_groups() -> None:
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    chats = from_objects([{"messages": turns}], [{"messages": turns[:1]}])
    assert chats.records.contents == (Chat((("user", "hi"), ("assistant", "ho"))), Chat((("user", "hi"),)))
    pairs = from_objects([{"prompt": "a", "completion": "b"}], [{"prompt": "a", "completion": "c"}])
    assert pairs.records.contents == (Completion("a", "b"), Completion("a", "c"))
    named = from_objects(
        [{"id": 7, "text": "a", "page": "p"}, {"id": 8, "text": "b", "page": "p"}],
        polars.DataFrame({"id": [9], "text": ["c"], "page": ["q"]}),
        group="page",
    )
    assert named.records.ids == ("7", "8", "9")
    assert named.records.groups == ("p", "p", "q")


def test_a_shape_can_be_named() -> None:
    row = {"prompt": "a", "completion": "b", "text": "t", "messages": [{"role": "user", "content": "c"}]}

    def read(text: str | None) -> LabelledRecords:
        return from_objects([row], [row | {"prompt": "x", "text": "u", "messages": row["messages"] * 2}], text=text)  # type: ignore[operator]

    assert read("text").records.contents == ("t", "u")
    assert read("prompt+completion").records.contents[0] == Completion("a", "b")
    assert isinstance(read("messages").records.contents[0], Chat)
    with pytest.raises(RecordsError, match=r"more than one field.*\n.*\n.*'messages'"):
        read(None)


def test_the_only_string_field_is_the_text() -> None:
    assert from_objects([{"body": "a", "n": 1}], [{"body": "b", "n": 2}]).records.contents == ("a", "b")
    with pytest.raises(RecordsError, match="'body', 'title'"):
        from_objects([{"body": "a", "title": "x"}], [{"body": "b", "title": "y"}])


@pytest.mark.parametrize(
    ("member", "nonmember"),
    [
        (True, False),
        (1, 0),
        (1.0, 0.0),
        ("member", "nonmember"),
        ("Member", "non-member"),
        ("true", "FALSE"),
        ("1.0", "0.0"),
    ],
)
def test_labels_understood(member: object, nonmember: object, tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", jsonl([{"text": "a", "y": member}, {"text": "b", "y": nonmember}]))
    assert read_labelled(path, label="y").member.tolist() == [True, False]


@pytest.mark.parametrize("values", [[1, 1], [1, 0, 2], ["yes", "no"], [1, 0, None], ["a", "b", "c", "d", "e", "f"]])
def test_labels_refused(values: list[object], tmp_path: Path) -> None:
    rows: list[object] = [{"text": f"{PLANTED}{row}", "label": value} for row, value in enumerate(values)]
    message = refused(write(tmp_path / "d.jsonl", jsonl(rows)))
    assert repr(values[0]) in message
    assert "'f'" not in message


def test_a_text_field_named_as_label_is_not_repeated(tmp_path: Path) -> None:
    long = [{"text": "a", "label": PLANTED * 5}, {"text": "b", "label": "x"}]
    assert "a str of 42 characters" in refused(write(tmp_path / "d.jsonl", jsonl([*long])))


DAMAGE: dict[str, tuple[str, str | bytes, str]] = {
    "empty": ("d.jsonl", "", "0 bytes"),
    "blank lines only": ("d.jsonl", "\n\n", "no records"),
    "header only": ("d.csv", "text,label\n", "no records"),
    "cut off": ("d.jsonl", jsonl([*ROWS])[:-20], "line 6.*cut off"),
    "broken inside": ("d.jsonl", f"{jsonl([*ROWS])}{PLANTED}\n{jsonl([*ROWS])}", "line 7: not valid JSON"),
    "endless nesting": ("d.jsonl", "[" * 100_000, "not valid JSON"),
    "a number for a record": ("d.jsonl", jsonl([*ROWS, 3]), "line 7: not a record"),
    "cut off json": ("d.json", json.dumps(ROWS)[:-9], "line 1: not valid JSON"),
    "json object": ("d.json", json.dumps({"data": ROWS}), "not a list"),
    "latin-1": ("d.jsonl", jsonl([*ROWS]).encode() + b'{"text": "caf\xe9"}', "line 7: not valid UTF-8.*"),
    "utf-16": ("d.csv", f"text,label\n{PLANTED},1".encode("utf-16"), "line 1: not valid UTF-8.*iconv -f UTF-16"),
    "no csv header": ("d.csv", f"{PLANTED} one,1\n{PLANTED} two,0\n", "no label field"),
    "ragged csv": ("d.csv", f"text,label\n{PLANTED},1,2\n", "not a readable table"),
    "open quote": ("d.csv", f'text,label\n"{PLANTED},1\nb,0\n', "not a readable table"),
    "not gzip": ("d.jsonl.gz", jsonl([*ROWS]), "leave .gz out of its name"),
    "semicolons": ("d.csv", f"text;label\n{PLANTED};1\nb;0\n", "write it with commas"),
    "tabs": ("d.csv", f"text\tlabel\n{PLANTED}\t1\nb\t0\n", "name it .tsv"),
    "blank line in a table": ("d.csv", f"text,label\n{PLANTED},1\n\nb,0\n", "cannot be read|not understood"),
    "cut off gzip": ("d.jsonl.gz", gzip.compress(jsonl([*ROWS]).encode())[:-20], "damaged or cut off"),
    "not parquet": ("d.parquet", jsonl([*ROWS]), "damaged or cut off"),
    "unknown format": ("d.xlsx", "x", "unknown format"),
    "zipped parquet": ("d.parquet.gz", "x", "unknown format"),
    "null text": (
        "d.jsonl",
        jsonl([*ROWS, {"text": None, "label": 1}, {"label": 0}]),
        "2 of 8 rows.*line 7, 8",
    ),
    "number text": ("d.jsonl", jsonl([*ROWS, {"text": 5, "label": 1}]), "line 7.*1 × int"),
    "NaN text": ("d.jsonl", jsonl([*ROWS]) + '{"text": NaN, "label": 1}', "1 × float"),
    "blank text": ("d.jsonl", jsonl([*ROWS, {"text": " \n", "label": 1}]), "blank in 1 of 7 rows"),
    "surrogate": ("d.jsonl", jsonl([*ROWS, {"text": "\ud800", "label": 1}]), "surrogates"),
    "all the same": (
        "d.jsonl",
        jsonl([{"text": PLANTED, "label": row % 2} for row in range(4)]),
        "same text",
    ),
    "repeated id": ("d.jsonl", jsonl([row | {"id": 1} for row in ROWS]), "ids are not unique"),
    "missing id": ("d.jsonl", jsonl([row | {"id": None} for row in ROWS]), "'id' does not name"),
    "broken chat": (
        "d.jsonl",
        jsonl([{"messages": [{"role": "user"}], "label": 1}]),
        "one class|cannot be read",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named(name: str, tmp_path: Path) -> None:
    file_name, data, pattern = DAMAGE[name]
    message = refused(write(tmp_path / file_name, data))
    assert re.search(pattern, message, re.DOTALL), message
    assert len(message.splitlines()) > 1


def test_missing_file_and_plain_folder(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "none.jsonl")
    assert "no such file" in refused(Path("data/none.jsonl.gz"))
    assert "not a saved dataset" in refused(tmp_path)


def test_cut_off_parquet(tmp_path: Path) -> None:
    data = file_of("parquet", tmp_path).read_bytes()
    assert "parquet file is damaged" in refused(write(tmp_path / "cut.parquet", data[:-30]))


@pytest.mark.parametrize("content", ["  ", None, [], [{"role": "user"}], [{"role": "user", "content": " "}]])
def test_chats_without_content(content: object) -> None:
    with pytest.raises(RecordsError, match="'messages'"):
        from_objects([{"messages": content}], [{"messages": content}])


def test_completions_without_completion() -> None:
    with pytest.raises(RecordsError, match="blank"):
        from_objects([{"prompt": "a", "completion": " "}], [{"prompt": "a", "completion": "b"}])
    with pytest.raises(RecordsError, match="cannot be read"):
        from_objects([{"prompt": "a", "completion": "b"}], [{"prompt": "a", "completion": 1}])


def test_a_wrong_name_is_corrected(tmp_path: Path) -> None:
    path = file_of("jsonl", tmp_path)
    assert "did you mean 'text'" in refused(path, text="txt")
    assert "did you mean 'label'" in refused(path, label="lable")
    assert "no group field" in refused(path, group="page")


def test_a_header_that_is_a_record_is_refused(tmp_path: Path) -> None:
    members = write(tmp_path / "m.csv", f"{PLANTED} is where the first record begins.\nand the second\n")
    with pytest.raises(RecordsError, match="header line") as caught:
        read_members(members, members)
    assert PLANTED not in str(caught.value)


def test_one_side_empty() -> None:
    with pytest.raises(RecordsError, match="nonmembers: no records"):
        from_objects(["a"], [])


@pytest.mark.parametrize("objects", ["text", 3, None, {"text": "a"}])
def test_other_objects_are_refused(objects: object) -> None:
    with pytest.raises(RecordsError, match="a list of strings"):
        from_objects(objects, ["a"])


def test_repeated_ids_across_sides() -> None:
    with pytest.raises(RecordsError, match="ids are not unique"):
        from_objects([{"id": 1, "text": "a"}], [{"id": 1, "text": "b"}])


def test_sides_of_different_shapes_are_refused() -> None:
    """A completion alone would be scored on one side, whole texts on the other."""
    turns = [{"role": "assistant", "content": "ho"}]
    sides: list[list[object]] = [
        [{"text": "a"}, {"text": "b"}],
        [{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}],
        [{"messages": turns}, {"messages": turns * 2}],
    ]
    for one in sides:
        for other in sides:
            if one is not other:
                with pytest.raises(RecordsError, match="different shapes"):
                    from_objects(one, other)


def test_the_same_records_on_both_sides_are_told_as_such() -> None:
    rows = [{"id": 1, "text": "a"}, {"id": 2, "text": "b"}]
    with pytest.raises(RecordsError, match="the same records"):
        from_objects(rows, rows)


def test_zipped_data_and_blank_last_lines_need_no_telling(tmp_path: Path) -> None:
    table = "text,label\na,1\nb,0\n\n\n"
    zipped = write(tmp_path / "d.csv", gzip.compress(table.encode()))
    assert read_labelled(zipped, label="label").records.contents == ("a", "b")
