"""Reading images: every kind of source gives the same pictures, and one test per kind of damage."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console
from sklearn.datasets import load_digits

from repromia.checking import check_command
from repromia.config import AuditConfig
from repromia.errors import RecordsError
from repromia.folders import _excerpts
from repromia.picture_values import picture_of
from repromia.pictures import holds_pictures, pictures_from_objects, read_labelled_pictures, read_pictures
from repromia.readers import from_objects
from repromia.records import LabelledRecords, Picture, content_digest, decoded
from repromia.report import Excerpt
from repromia.sources import read_records

PLANTED = "Zanzibar"  # stands in every caption; no error may repeat it
DIGITS = (load_digits().images * 15.9).astype(np.uint8)


def noise(count: int, seed: int, size: tuple[int, int] = (24, 20)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def encoded(pixels: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def folder_of(path: Path, images: np.ndarray, suffix: str = ".png", kind: str = "PNG", **options: object) -> Path:
    path.mkdir(parents=True)
    for row, pixels in enumerate(images):
        (path / f"{row:03d}{suffix}").write_bytes(encoded(pixels, kind, **options))
    return path


def picture(labelled: LabelledRecords, row: int) -> Picture:
    content = labelled.records.contents[row]
    assert isinstance(content, Picture)
    return content


def refused(read: Callable[[], object]) -> str:
    with pytest.raises(RecordsError) as caught:
        read()
    assert PLANTED not in str(caught.value)
    assert caught.value.__cause__ is None
    return str(caught.value)


def test_folders_are_read_in_order_of_their_paths(tmp_path: Path) -> None:
    images = noise(5, 0)
    members = folder_of(tmp_path / "m/b", images[:2]).parent
    folder_of(members / "a", images[2:3])
    folder_of(members / ".hidden", images[3:4])
    (members / "notes.md").write_text("no image")
    (members / "._000.png").write_bytes(b"no image either")
    labelled = read_pictures(members, folder_of(tmp_path / "n", images[3:]))
    assert labelled.records.ids == ("m:a/000.png", "m:b/000.png", "m:b/001.png", "n:000.png", "n:001.png")
    assert labelled.records.groups == labelled.records.ids
    assert labelled.member.tolist() == [True, True, True, False, False]
    for row, pixels in enumerate(images[[2, 0, 1, 3, 4]]):
        one = picture(labelled, row)
        assert isinstance(one.source, Path)
        np.testing.assert_array_equal(one.pixels(), pixels)
        assert (one.facts.format, one.facts.width, one.facts.height, one.facts.channels) == ("PNG", 20, 24, 3)
        assert one.facts.size == one.source.stat().st_size
        assert one.caption == ""


def test_every_kind_of_source_gives_the_same_pictures(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    images = [noise(3, 1), noise(2, 2)]
    wanted = [pixels for side in images for pixels in side]
    sources: dict[str, list[Path]] = {"folder": [], "npz": [], "parquet": [], "dataset": [], "jsonl": [], "bytes": []}
    for name, side in zip("mn", images, strict=True):
        sources["folder"].append(folder_of(tmp_path / name, side))
        sources["npz"].append(tmp_path / f"{name}.npz")
        np.savez(sources["npz"][-1], images=side, seeds=np.arange(len(side)))
        rows = [{"bytes": encoded(pixels), "path": None} for pixels in side]
        sources["dataset"].append(tmp_path / f"{name}-saved")
        saved = datasets.Dataset.from_dict({"picture": rows}, features=datasets.Features({"picture": datasets.Image()}))
        saved.save_to_disk(str(sources["dataset"][-1]))
        sources["parquet"].append(tmp_path / f"{name}.parquet")
        saved.to_parquet(str(sources["parquet"][-1]))
        sources["bytes"].append(tmp_path / f"{name}-bytes.parquet")
        polars.DataFrame({"picture": [row["bytes"] for row in rows]}).write_parquet(sources["bytes"][-1])
        sources["jsonl"].append(tmp_path / f"{name}.jsonl")
        lines = [json.dumps({"picture": f"{name}/{row:03d}.png"}) for row in range(len(side))]
        sources["jsonl"][-1].write_text("\n".join(lines))
    digests = set()
    for name, (members, nonmembers) in sources.items():
        assert holds_pictures(members), name
        labelled = read_pictures(members, nonmembers)
        digests.add(tuple(picture(labelled, row).digest for row in range(5)))
        for row, pixels in enumerate(wanted):
            np.testing.assert_array_equal(picture(labelled, row).pixels(), pixels, err_msg=name)
        if name != "folder":
            assert labelled.records.ids == ("m0", "m1", "m2", "n0", "n1")
    assert len(digests) == 1


def test_live_objects(tmp_path: Path) -> None:
    images, others = noise(3, 3), noise(2, 4)
    folder_of(tmp_path / "m", images)
    forms = [
        images,
        images / 255,
        (images / 255).astype(np.float32),
        list(images),
        [Image.fromarray(one) for one in images],
        [tmp_path / f"m/{row:03d}.png" for row in range(3)],
        [str(tmp_path / f"m/{row:03d}.png") for row in range(3)],
        [encoded(one) for one in images],
        [{"photo": Image.fromarray(one), "about": 3} for one in images],
    ]
    for form in forms:
        assert holds_pictures(form)
        labelled = pictures_from_objects(form, others)
        for row in range(3):
            np.testing.assert_array_equal(picture(labelled, row).pixels(), images[row])
    grey = pictures_from_objects(DIGITS[:3], DIGITS[3:6].astype(np.float64) / 255)
    assert [picture(grey, row).pixels().shape for row in (0, 5)] == [(8, 8, 1), (8, 8, 1)]
    np.testing.assert_array_equal(picture(grey, 5).pixels()[:, :, 0], DIGITS[5])
    datasets = pytest.importorskip("datasets")
    rows = [{"bytes": encoded(one, "JPEG", quality=80), "path": None} for one in images]
    live = datasets.Dataset.from_dict({"photo": rows}, features=datasets.Features({"photo": datasets.Image()}))
    assert holds_pictures(live)
    assert [picture(pictures_from_objects(live, others), row).facts.quality for row in (0, 3)] == [80, None]
    for texts in (["a.png", "b.png"], [{"text": "a"}], "a text", ["x" * 5000 + ".png", "a\0.png"], np.zeros(3), 3):
        assert not holds_pictures(texts)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 100))
def test_the_quality_of_a_jpeg_is_found(quality: int) -> None:
    for pixels in (noise(1, 5)[0], DIGITS[0]):
        facts = picture_of(encoded(pixels, "JPEG", quality=quality)).facts
        assert facts.format == "JPEG"
        assert facts.quality == quality


def test_file_facts_of_other_formats() -> None:
    pixels = noise(1, 6)[0]
    for kind in ("PNG", "BMP", "TIFF", "WEBP", "GIF"):
        data = encoded(pixels, kind)
        facts = picture_of(data).facts
        assert (facts.format, facts.size, facts.quality) == (kind, len(data), None)
        assert (facts.width, facts.height) == (20, 24)
    assert picture_of(pixels).facts.format == "array"
    buffer = io.BytesIO()
    Image.fromarray(np.dstack([pixels, pixels[:, :, :1]])).save(buffer, "PNG")
    assert picture_of(buffer.getvalue()).facts.channels == 4
    assert picture_of(encoded(pixels[:, :, 0])).facts.channels == 1


def test_modes_that_need_care() -> None:
    deep = (np.arange(64 * 64, dtype=np.uint16) * 16).reshape(64, 64)
    np.testing.assert_array_equal(decoded(encoded(deep))[:, :, 0], deep // 256)
    clear = np.zeros((4, 4, 4), dtype=np.uint8)
    clear[0, 0] = (10, 20, 30, 255)
    pixels = decoded(encoded(clear))
    assert pixels[0, 0].tolist() == [10, 20, 30]
    assert (pixels[1:] == 255).all()
    array = picture_of(clear)
    assert array.facts.channels == 4
    np.testing.assert_array_equal(array.pixels(), pixels)
    turned = Image.fromarray(noise(1, 7)[0])
    exif = turned.getexif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    turned.save(buffer, "PNG", exif=exif)
    assert decoded(buffer.getvalue()).shape == (20, 24, 3)
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), dtype=np.float32)).save(buffer, "TIFF")
    with pytest.raises(OSError, match="decoded"):
        decoded(buffer.getvalue())


def test_captions_and_groups_of_a_folder(tmp_path: Path) -> None:
    members = folder_of(tmp_path / "m", noise(2, 8))
    lines = [{"file_name": f"{row:03d}.png", "caption": f"a {row}", "page": "p"} for row in (1, 0)]
    (members / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    nonmembers = folder_of(tmp_path / "n/x", noise(1, 9)).parent
    with (nonmembers / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file_name", "text", "page"], ["x/000.png", "b, c", "q"]])
    labelled = read_pictures(members, nonmembers, group="page")
    assert labelled.records.texts() == ["a 0", "a 1", "b, c"]
    assert labelled.records.groups == ("p", "p", "q")
    beside = folder_of(tmp_path / "s", noise(2, 10))
    for row in range(2):
        (beside / f"{row:03d}.txt").write_text(f"c {row}\n")
    assert read_pictures(members, beside).records.texts() == ["a 0", "a 1", "c 0", "c 1"]


def test_labels_in_metadata_and_in_columns(tmp_path: Path) -> None:
    data = folder_of(tmp_path / "d", noise(4, 11))
    lines = [{"file_name": f"{row:03d}.png", "member": row % 2, "caption": str(row)} for row in range(4)]
    (data / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    labelled = read_labelled_pictures(data, label="member")
    assert labelled.records.ids == tuple(f"{row:03d}.png" for row in range(4))
    assert labelled.member.tolist() == [False, True] * 2
    np.savez(tmp_path / "d.npz", images=noise(4, 11), member=np.array([1, 0, 0, 1]), ids=np.arange(4) + 10)
    labelled = read_labelled_pictures(tmp_path / "d.npz", label="member")
    assert labelled.records.ids == ("10", "11", "12", "13")
    assert labelled.member.tolist() == [True, False, False, True]
    (data / "002.png").write_bytes(b"damaged")
    labelled = read_labelled_pictures(data, label="member", skip_unreadable=True)
    assert labelled.records.ids == ("000.png", "001.png", "003.png")
    assert labelled.member.tolist() == [False, True, True]


def test_unreadable_images_are_named_or_left_out(tmp_path: Path) -> None:
    members, nonmembers = folder_of(tmp_path / "m", noise(9, 12)), folder_of(tmp_path / "n", noise(2, 13))
    whole = (members / "000.png").read_bytes()
    for row in range(6):
        (members / f"{row:03d}.png").write_bytes(whole[: 40 + 100 * row])
    message = refused(lambda: read_pictures(members, nonmembers))
    assert "6 of 9 images cannot be read" in message
    assert "000.png, 001.png, 002.png, 003.png, 004.png, …" in message
    assert "--skip-unreadable" in message
    told: list[str] = []
    labelled = read_pictures(members, nonmembers, skip_unreadable=True, on_skipped=told.extend)
    assert labelled.records.ids[:3] == ("m:006.png", "m:007.png", "m:008.png")
    assert told == [f"{row:03d}.png" for row in range(6)]
    for row in range(6, 9):
        (members / f"{row:03d}.png").write_bytes(b"")
    assert "9 of 9" in refused(lambda: read_pictures(members, nonmembers, skip_unreadable=True))
    assert "2 of 2" in refused(lambda: pictures_from_objects(["gone.png", "a\0b"], noise(1, 1)))


def test_a_decompression_bomb_is_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members, nonmembers = folder_of(tmp_path / "m", noise(2, 14)), folder_of(tmp_path / "n", noise(2, 15))
    for limit in (20 * 24 - 1, 20 * 24 // 3):  # PIL warns above the limit, raises above twice the limit
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert "2 of 2 images cannot be read" in refused(lambda: read_pictures(members, nonmembers))


def test_damaged_bytes_never_raise_anything_else() -> None:
    rng = np.random.default_rng(0)
    outcomes = {"read": 0, "refused": 0}
    for kind in ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"):
        data = np.frombuffer(encoded(noise(1, 16)[0], kind), dtype=np.uint8)
        for _ in range(60):
            broken = data.copy()
            places = rng.integers(0, min(len(data), 200), 4)
            broken[places] = rng.integers(0, 256, 4)
            try:
                picture_of(broken.tobytes())
                outcomes["read"] += 1
            except OSError:
                outcomes["refused"] += 1
    assert min(outcomes.values()) > 50


GOOD = noise(3, 17)
BAD_ARRAYS = {
    "signed floats": (GOOD / 127.5 - 1, "(images + 1) / 2"),
    "255 floats": (GOOD.astype(np.float32), "divide by"),
    "nan": (np.where(np.arange(3)[:, None, None, None] == 1, np.nan, GOOD / 255), "1 of 3 images hold NaN"),
    "int64": (GOOD.astype(np.int64), "dtype int64"),
    "bool": (GOOD > 4, "dtype bool"),
    "channels first": (GOOD.transpose(0, 3, 1, 2), "transpose(0, 2, 3, 1)"),
    "flat": (GOOD.reshape(3, -1), "shape 3, 1440"),
    "none": (GOOD[:0], "shape 0, 24, 20, 3"),
}


@pytest.mark.parametrize("kind", BAD_ARRAYS)
def test_arrays_that_are_not_images(kind: str) -> None:
    array, words = BAD_ARRAYS[kind]
    assert words in refused(lambda: pictures_from_objects(array, GOOD))
    assert words in refused(lambda: pictures_from_objects(GOOD, array))


def test_damaged_npz(tmp_path: Path) -> None:
    path, good = tmp_path / "a.npz", tmp_path / "good.npz"
    np.savez(good, noise(3, 17))  # the only array, under any name
    np.savez_compressed(path, images=noise(3, 18))
    data = path.read_bytes()
    assert len(read_pictures(path, good)) == 6
    for cut in (0, 10, len(data) // 2, len(data) - 5):
        path.write_bytes(data[:cut])
        assert "damaged" in refused(lambda: read_pictures(path, good))
    broken = bytearray(data)
    broken[len(data) // 2] ^= 0xFF
    path.write_bytes(broken)
    assert "damaged" in refused(lambda: read_pictures(path, good))
    np.savez(path, images=np.array([PLANTED, {}], dtype=object))
    assert "Python objects" in refused(lambda: read_pictures(path, good))
    np.savez(path, first=noise(2, 1), second=noise(2, 2))
    assert "'first', 'second'" in refused(lambda: read_pictures(path, good))
    assert len(read_pictures(path, path, image="second")) == 4
    assert "no array 'third'" in refused(lambda: read_pictures(path, good, image="third"))
    assert "no such file" in refused(lambda: read_pictures(tmp_path / "b.npz", good))


def test_what_cannot_be_audited(tmp_path: Path) -> None:
    members, same = folder_of(tmp_path / "m", noise(3, 19)), folder_of(tmp_path / "s", noise(1, 20).repeat(3, 0))
    (tmp_path / "empty").mkdir()
    assert "holds no images" in refused(lambda: read_pictures(tmp_path / "empty", members))
    assert "no such file" in refused(lambda: read_pictures(members, tmp_path / "missing/deep/er"))
    assert "all 3 non-members are the same picture" in refused(lambda: read_pictures(members, same))
    assert "no records" in refused(lambda: pictures_from_objects([], noise(2, 1)))
    rows = [{"id": "a", "image": one} for one in noise(2, 21)]
    assert "not unique" in refused(lambda: pictures_from_objects(rows[:1], rows[1:]))
    assert "holds no image in 1 of 2" in refused(lambda: pictures_from_objects([rows[0], {"id": "b"}], noise(2, 1)))
    two = [{"first": one, "second": one} for one in noise(2, 22)]
    assert "more than one field holds images" in refused(lambda: pictures_from_objects(two, noise(2, 1)))
    assert len(pictures_from_objects(two, two[:1], image="second")) == 3
    assert "no field holds images" in refused(lambda: pictures_from_objects([{"text": PLANTED}], noise(2, 1)))


def test_captions_for_some_only(tmp_path: Path) -> None:
    members, nonmembers = folder_of(tmp_path / "m", noise(3, 23)), folder_of(tmp_path / "n", noise(2, 24))
    (members / "001.txt").write_text(PLANTED)
    message = refused(lambda: read_pictures(members, nonmembers))
    assert "2 of 3 images have no caption" in message
    assert "000.png, 002.png" in message
    (members / "001.txt").write_bytes(b"\xff\xfe\xff")
    assert "UTF-8" in refused(lambda: read_pictures(members, nonmembers))
    (members / "001.txt").unlink()
    (members / "metadata.jsonl").write_text(json.dumps({"file_name": "000.png", "text": PLANTED}))
    assert "2 of 3 images have no caption" in refused(lambda: read_pictures(members, nonmembers))
    (members / "metadata.jsonl").write_text(json.dumps({"file_name": "9.png", "text": PLANTED}))
    assert "files are not there in 1 of 1" in refused(lambda: read_pictures(members, nonmembers))
    (members / "metadata.jsonl").write_text(json.dumps({"file_name": "000.png", "text": PLANTED}) + "\n")
    (members / "metadata.csv").write_text("file_name,text\n000.png,a\n")
    assert "named more than once" in refused(lambda: read_pictures(members, nonmembers))


def test_a_folder_of_links_to_folders_is_one_of_images(tmp_path: Path) -> None:
    """Read as anything else, or without what is behind the links, classes would be missing unseen."""
    folder_of(tmp_path / "store/cat", noise(2, 31))
    (tmp_path / "train/.cache").mkdir(parents=True)
    (tmp_path / "train/.cache/old").symlink_to(tmp_path / "store")
    assert not holds_pictures(tmp_path / "train")
    (tmp_path / "train/cat").symlink_to(tmp_path / "store/cat")
    assert holds_pictures(tmp_path / "train")
    nonmembers = folder_of(tmp_path / "held/cat", noise(2, 32)).parent
    message = refused(lambda: read_pictures(tmp_path / "train", nonmembers, caption="folder"))
    assert "1 folders in it are links" in message
    assert "cat" in message


def test_a_path_is_no_pattern_of_paths(tmp_path: Path) -> None:
    pixels = [encoded(one) for one in noise(3, 33)]
    path, other = tmp_path / "pool [a]*.parquet", tmp_path / "pool a.parquet"
    polars.DataFrame({"text": ["a"]}).write_parquet(other)
    buffer = io.BytesIO()
    polars.DataFrame({"image": pixels}).write_parquet(buffer)
    path.write_bytes(buffer.getvalue())
    assert holds_pictures(path)
    assert len(read_pictures(path, folder_of(tmp_path / "n", noise(2, 34)))) == 5


def test_texts_are_not_taken_for_pictures(tmp_path: Path) -> None:
    folder_of(tmp_path / "m", noise(1, 25))
    texts = {
        "a.jsonl": json.dumps({"text": "see m/000.png for more"}),
        "b.jsonl": json.dumps({"text": "hello", "image": "m/gone.png"}),
        "c.csv": "text,file\nhello,photo.png\n",
        "d.txt": "m/000.png\n",
        "e.jsonl": "{damaged .png",
        "f.jsonl": json.dumps({"text": "x" * 5000 + ".png"}),
        "g.parquet": "not parquet",
    }
    for name, content in texts.items():
        (tmp_path / name).write_text(content)
        assert not holds_pictures(tmp_path / name), name
    sounds = [{"bytes": b"RIFF....WAVE", "path": "a.wav"}]
    polars.DataFrame({"audio": sounds, "text": ["a"], "key": [b"\x00\x01"]}).write_parquet(tmp_path / "h.parquet")
    polars.DataFrame({"text": []}).write_parquet(tmp_path / "i.parquet")
    for name in ("h.parquet", "i.parquet", "missing", "missing.png"):
        assert not holds_pictures(tmp_path / name), name
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list([{"text": "a"}]).save_to_disk(str(tmp_path / "saved"))
    assert not holds_pictures(tmp_path / "saved")


def test_a_hub_dataset_is_asked_for_its_features(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    kinds = {"o/pictures": {"img": datasets.Image(), "text": datasets.Value("string")}, "o/unknown": None}

    def builder(name: str) -> object:
        return SimpleNamespace(info=SimpleNamespace(features=kinds[name]))

    monkeypatch.setattr(datasets, "load_dataset_builder", builder)
    assert holds_pictures("o/pictures:train")
    assert not holds_pictures("o/unknown")
    assert not holds_pictures("o/missing")


def checked(members: Path, nonmembers: Path, **more: object) -> tuple[int, str]:
    console = Console(file=io.StringIO(), width=200)
    flags = {"data": "", "label": "", "text": "", "group": "", "seed": 0, **more}
    code = check_command(members, nonmembers, console=console, **flags)
    assert isinstance(console.file, io.StringIO)
    return code, console.file.getvalue()


def test_check_tells_formats_apart_and_nothing_where_nothing_is(tmp_path: Path) -> None:
    drawn = DIGITS[np.random.default_rng(0).permutation(len(DIGITS))]  # in their own order, writers differ
    members = folder_of(tmp_path / "m", drawn[:80], ".jpg", "JPEG", quality=75)
    nonmembers = folder_of(tmp_path / "n", drawn[80:160])
    code, shown = checked(members, nonmembers)
    assert code == 1
    assert "file_properties" in shown
    assert "texts" not in shown
    code, shown = checked(folder_of(tmp_path / "p", drawn[:80]), nonmembers)
    assert code == 0, shown
    assert "No blind baseline is above chance on 160 records" in shown
    (nonmembers / "003.png").write_bytes(b"")
    code, shown = checked(tmp_path / "p", nonmembers, skip_unreadable=True)
    assert "1 images could not be read and were left out" in shown
    assert "on 159 records" in shown


def test_the_configuration_chooses_between_texts_and_pictures(tmp_path: Path) -> None:
    images = noise(2, 26)
    folder_of(tmp_path / "m", images)
    rows = [{"image": f"m/{row:03d}.png", "about": f"a {row}", "member": row} for row in range(2)]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    common = {"model": "", "out": tmp_path / "out", "data": str(tmp_path / "d.jsonl"), "label": "member"}
    found = read_records(AuditConfig(**common, caption="about"))
    assert found.records.texts() == ["a 0", "a 1"]
    np.testing.assert_array_equal(picture(found, 1).pixels(), images[1])
    assert read_records(AuditConfig(**common, text="about")).records.contents == ("a 0", "a 1")
    assert "'gone'" in refused(lambda: read_records(AuditConfig(**common, image="gone")))


def test_excerpts_show_pictures_and_captions() -> None:
    rows = [{"image": one, "caption": f"{row} {'x' * 500}"} for row, one in enumerate(DIGITS[:4])]
    shown = _excerpts(pictures_from_objects(rows[:2], rows[2:]).records, {"m1", "n0"})
    assert set(shown) == {"m1", "n0"}
    assert shown["m1"].text == f"1 {'x' * 298}"
    data = base64.b64decode(shown["m1"].image.removeprefix("data:image/png;base64,"))
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), DIGITS[1])
    assert _excerpts(from_objects(["a text"], ["b"]).records, {"m0"}) == {"m0": Excerpt("a text", "")}


def test_the_same_pixels_in_two_encodings_are_one_content(tmp_path: Path) -> None:
    """Else a program carried over would not know the records it was learned on."""
    pixels = noise(4, 21)
    np.savez(tmp_path / "n.npz", images=pixels[2:])
    files = read_pictures(folder_of(tmp_path / "m", pixels[:2]), tmp_path / "n.npz")
    np.savez(tmp_path / "m.npz", images=pixels[:2])
    arrays = read_pictures(tmp_path / "m.npz", folder_of(tmp_path / "n", pixels[2:], ".bmp", "BMP"))
    digests = [[content_digest(one) for one in source.records.contents] for source in (files, arrays)]
    assert digests[0] == digests[1]
    assert len(set(digests[0])) == 4
