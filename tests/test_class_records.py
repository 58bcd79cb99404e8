"""Records with classes: texts, rows and images are read alike from files and objects, and bad ones are refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
from PIL import Image

from classifier_models import CLASSES, DIGITS, IMAGES
from repromia.categories import read_categories
from repromia.class_records import (
    class_name,
    class_records_from_objects,
    read_class_records,
    read_labelled_class_records,
)
from repromia.config import AuditConfig
from repromia.errors import RecordsError
from repromia.pictures import read_pictures
from repromia.records import Example, LabelledRecords, Picture, TableRow, class_of
from repromia.sources import read_records

ROWS: list[dict[str, Any]] = [{"age": 30 + at, "size": at / 3, "y": at % 3} for at in range(12)]
TEXTS: list[dict[str, Any]] = [
    {"text": f"film number {at}", "stars": at, "y": ("good", "bad")[at % 2]} for at in range(8)
]


def written(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    frame = polars.DataFrame(rows)
    match path.suffix:
        case ".csv":
            frame.write_csv(path)
        case ".parquet":
            frame.write_parquet(path)
        case _:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def refused(members: object, nonmembers: object = None, **options: Any) -> str:
    with pytest.raises(RecordsError) as caught:
        class_records_from_objects(members, ROWS[6:] if nonmembers is None else nonmembers, class_field="y", **options)
    return str(caught.value)


def changed(at: int, **values: Any) -> list[dict[str, Any]]:
    return [row | values if place == at else row for place, row in enumerate(ROWS[:6])]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_tables_are_the_same_in_every_format(tmp_path: Path, suffix: str) -> None:
    paths = written(tmp_path / f"m{suffix}", ROWS[:6]), written(tmp_path / f"n{suffix}", ROWS[6:])
    found = read_class_records(*paths, class_field="y")
    assert found.records.contents == tuple(TableRow((float(row["age"]), row["size"]), str(row["y"])) for row in ROWS)
    assert found.records.ids == (*(f"m{at}" for at in range(6)), *(f"n{at}" for at in range(6)))
    assert found.member.tolist() == [True] * 6 + [False] * 6
    assert found.records.contents == class_records_from_objects(ROWS[:6], ROWS[6:], class_field="y").records.contents
    frames = polars.DataFrame(ROWS[:6]), polars.DataFrame(ROWS[6:])
    assert class_records_from_objects(*frames, class_field="y").records.contents == found.records.contents


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_texts(tmp_path: Path, suffix: str) -> None:
    paths = written(tmp_path / f"m{suffix}", TEXTS[:4]), written(tmp_path / f"n{suffix}", TEXTS[4:])
    found = read_class_records(*paths, class_field="y")
    assert found.records.contents == tuple(Example(row["text"], row["y"]) for row in TEXTS)
    named = [{"remark": row["text"], "other": "a", "y": row["y"]} for row in TEXTS]
    paths = written(tmp_path / f"a{suffix}", named[:4]), written(tmp_path / f"b{suffix}", named[4:])
    assert read_class_records(*paths, class_field="y", text="remark").records.contents == found.records.contents
    with pytest.raises(RecordsError, match="some features are no numbers"):
        read_class_records(*paths, class_field="y")
    alone = [{"remark": row["remark"], "y": row["y"]} for row in named]
    assert class_records_from_objects(alone[:4], alone[4:], class_field="y").records.contents == found.records.contents


def test_one_source_with_labels_ids_and_groups(tmp_path: Path) -> None:
    rows = [row | {"id": f"r-{at}", "in": at % 2, "person": f"p{at // 4}"} for at, row in enumerate(ROWS)]
    path = written(tmp_path / "all.csv", rows)
    found = read_labelled_class_records(path, label="in", class_field="y", group="person")
    assert found.records.ids[3] == "r-3"
    assert found.records.groups[5] == "p1"
    assert found.member.tolist() == [bool(at % 2) for at in range(12)]
    assert found.records.contents[1] == TableRow((31.0, 1 / 3), "1")
    with pytest.raises(RecordsError, match="are one field"):
        read_labelled_class_records(path, label="y", class_field="y")


def test_features_are_matched_by_name() -> None:
    turned = [dict(reversed(row.items())) for row in ROWS[6:]]
    found = class_records_from_objects(ROWS[:6], turned, class_field="y")
    assert found.records.contents == class_records_from_objects(ROWS[:6], ROWS[6:], class_field="y").records.contents
    assert "'weight'" in refused(ROWS[:6], [row | {"weight": 1} for row in ROWS[6:]])
    assert names(found) == ("age", "size")


def names(labelled: LabelledRecords) -> tuple[str, ...]:
    """Of the features of the first record."""
    first = labelled.records.contents[0]
    assert isinstance(first, TableRow)
    return first.names


def test_data_frames_keep_the_names_of_their_columns() -> None:
    frame = polars.DataFrame({"id": [1.0, 2, 3], "class": [4.0, 5, 6]})  # columns of X are features, however called
    turned = frame.select("class", "id")
    found = class_records_from_objects((frame, [0, 1, 0]), (frame + 1, [1, 0, 1]))
    assert names(found) == ("id", "class")
    assert found.records.ids[0] == "m0"
    assert names(class_records_from_objects((frame.to_numpy(), [0, 1, 0]), (frame + 1, [1, 0, 1]))) == ()
    with pytest.raises(RecordsError, match="another order"):
        class_records_from_objects((frame, [0, 1, 0]), (turned, [1, 0, 1]))


@pytest.mark.parametrize("labelled", [False, True])
def test_fields_to_slice_by_are_no_features(tmp_path: Path, labelled: bool) -> None:
    rows = [row | {"source": "ab"[at % 2], "year": 1990 + at, "in": at % 2} for at, row in enumerate(ROWS)]
    sides: dict[str, Any] = {"data": str(written(tmp_path / "all.csv", rows)), "label": "in"}
    if not labelled:
        sides = {name: written(tmp_path / f"{name}.csv", [{**row, "in": 0} for row in part])
                 for name, part in (("members", rows[:6]), ("nonmembers", rows[6:]))}  # fmt: skip
    beside = ("source", "year") if labelled else ("source", "year", "in")
    config = AuditConfig(model="m", out=tmp_path, class_field="y", slice=beside, **sides)
    found = read_records(config)
    assert names(found) == ("age", "size")
    assert set(read_categories(config, found.records)) == set(beside)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"age": float("nan")}, "NaN or infinite numbers in 1 of 6 rows (row 3)"),
        ({"size": float("inf")}, "in 'size'"),
        ({"age": 10**400}, "NaN or infinite numbers in 1 of 6 rows (row 3)"),
        ({"age": None}, "'age' holds no number in 1 of 6 rows (row 3)"),
        ({"age": "old"}, "'age' holds no number"),
        ({"age": [1]}, "1 × list"),
        ({"y": None}, "'y' names no class in 1 of 6 rows (row 3)"),
        ({"y": ""}, "names no class"),
        ({"y": 0.5}, "names no class"),
        ({"y": float("nan")}, "names no class"),
    ],
)
def test_rows_that_cannot_be_read(value: dict[str, Any], said: str) -> None:
    assert said in refused(changed(2, **value))


def test_tables_that_cannot_be_audited() -> None:
    assert "there are no features" in refused([{"y": at % 2} for at in range(6)], [{"y": at % 2} for at in range(6)])
    assert "no records" in refused([], ROWS)
    assert "no class field 'y'" in refused([{"age": 1}, {"age": 2}])
    assert "all 6 members are the same" in refused([ROWS[0]] * 6)
    assert "one class" in refused([row | {"y": 1} for row in ROWS[:6]], [row | {"y": 1} for row in ROWS[6:]])
    city = [row | {"city": "Bern"} for row in ROWS]
    message = refused(city[:6], city[6:])
    assert "'city'" in message
    assert "Bern" not in message
    same = [row | {"id": "one"} for row in ROWS]
    assert "ids are not unique" in refused(same[:6], same[6:])
    blank = [row | {"text": "  "} for row in TEXTS]
    assert "holds no text" in refused(blank[:4], blank[4:], text="text")
    several = [row | {"content": "b"} for row in TEXTS]
    assert "more than one field" in refused(several[:4], several[4:])


def test_pairs_of_arrays() -> None:
    values, names = DIGITS.data[:8], CLASSES[:8]
    rows = class_records_from_objects((values[:4], names[:4]), (values[4:], names[4:]))
    assert rows.records.contents[5] == TableRow(tuple(values[5].tolist()), str(names[5]))
    frames = class_records_from_objects(
        (polars.DataFrame(values[:4]), polars.Series(names[:4])), (polars.DataFrame(values[4:]), names[4:])
    )
    assert frames.records.contents == rows.records.contents
    for images in (IMAGES[:8], IMAGES[:8, :, :, None], IMAGES[:8] / 255):
        found = class_records_from_objects((images[:4], names[:4]), (images[4:], np.array(names[4:]))).records
        pixels = [one.pixels()[:, :, 0] for one in found.contents if isinstance(one, Picture)]
        np.testing.assert_array_equal(pixels, IMAGES[:8])
        assert [class_of(one) for one in found.contents] == [str(one) for one in names]
    texts = class_records_from_objects((["a b", "c"], ["x", "y"]), (np.array(["d", "e"]), ["y", "x"]))
    assert texts.records.contents == (Example("a b", "x"), Example("c", "y"), Example("d", "y"), Example("e", "x"))


def test_pairs_that_cannot_be_read() -> None:
    good = (DIGITS.data[:4], CLASSES[:4])
    assert "as many of one as of the other" in refused((DIGITS.data[:4], CLASSES[:3]), good)
    assert "3 parts" in refused((DIGITS.data[:4], CLASSES[:4], 1), good)
    assert "not one class a record" in refused((DIGITS.data[:4], np.eye(4)), good)
    assert "X cannot be read" in refused(([[1, 2], [3]], [0, 1]), good)
    assert "X cannot be read" in refused((np.zeros(4), CLASSES[:4]), good)
    assert "floats out of range" in refused((IMAGES[:4] * 1.0, CLASSES[:4]), good)
    broken = DIGITS.data[:4].copy()
    broken[1, 3] = np.nan
    assert "(row 2)" in refused((broken, CLASSES[:4]), good)
    assert "names no class" in refused((DIGITS.data[:4], [0, 1, None, 2]), good)


def test_classes_are_called_alike() -> None:
    assert [class_name(one) for one in (3, 3.0, "3", np.int64(3), True)] == ["3", "3", "3", "3", "True"]


def pictures_of(found: LabelledRecords) -> list[str]:
    return [class_of(one) for one in found.records.contents]


def test_folders_of_images_name_classes(tmp_path: Path) -> None:
    for at in range(8):
        folder = tmp_path / ("m", "n")[at // 4] / "train" / ("cat", "dog")[at % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(IMAGES[at]).save(folder / f"{at}.png")
    found = read_class_records(tmp_path / "m", tmp_path / "n", class_field="folder")
    assert pictures_of(found) == ["cat", "cat", "dog", "dog"] * 2
    Image.fromarray(IMAGES[9]).save(tmp_path / "m" / "9.png")
    with pytest.raises(RecordsError, match=r"9\.png"):
        read_class_records(tmp_path / "m", tmp_path / "n", class_field="folder")


@pytest.mark.parametrize("name", ["labels", "y"])
def test_npz_files_hold_classes_as_numbers(tmp_path: Path, name: str) -> None:
    for side, rows in (("m", slice(0, 4)), ("n", slice(4, 8))):
        np.savez(tmp_path / f"{side}.npz", images=IMAGES[rows], **{name: np.array(CLASSES[rows])})
    found = read_pictures(tmp_path / "m.npz", tmp_path / "n.npz", caption=name)
    assert pictures_of(found) == [str(one) for one in CLASSES[:8]]
    assert pictures_of(read_class_records(tmp_path / "m.npz", tmp_path / "n.npz", class_field=name)) == pictures_of(
        found
    )


def test_tables_of_images(tmp_path: Path) -> None:
    for at in range(8):
        Image.fromarray(IMAGES[at]).save(tmp_path / f"{at}.png")
    rows = [{"file": f"{at}.png", "digit": CLASSES[at], "in": at % 2} for at in range(8)]
    found = read_labelled_class_records(written(tmp_path / "all.csv", rows), label="in", class_field="digit")
    assert pictures_of(found) == [str(one) for one in CLASSES[:8]]
