"""From a folder, an .npz file, a dataset or live objects to rows that hold images.

A value of an image field is a path, encoded bytes, an array (H, W, C), or a PIL image.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repromia.errors import RecordsError
from repromia.picture_values import SUFFIXES, leads_nowhere_else, looks_like_image, uint8_images
from repromia.readers import fields_of, require_field, shown_names
from repromia.rows import Table, read_rows, rows_of_objects

_METADATA = ("metadata.jsonl", "metadata.csv")
_SAVED = ("state.json", "dataset_dict.json")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(:.*)?")
FILE, IMAGE = "file", "image"


def holds_pictures(source: object) -> bool:
    """Whether a path (or live objects) hold images. Looks at names, schemas and first rows; False where unsure.

    A hub dataset is asked for its description only; where that names no image feature, name the field.
    """
    if not isinstance(source, str | Path):
        return _objects_are_images(source)
    path = Path(source)
    try:
        if path.is_dir():
            if any((path / name).is_file() for name in _SAVED):
                return any(map(_describes_images, path.glob("**/dataset_info.json")))
            return next(_image_files(path), None) is not None or any(map(_directly_has_images, _linked_folders(path)))
        if not path.is_file():
            return path.suffix not in SUFFIXES and _hub_has_images(str(source))
        match path.suffix.lower():
            case ".npz":
                return True
            case ".parquet":
                return _parquet_has_images(path)
            case ".jsonl" | ".ndjson" | ".json" | ".csv" | ".tsv":
                return _names_images(path)
    except OSError:
        return False
    return False


def read_image_rows(source: str | Path, image: str | None) -> tuple[Table, str]:
    """The rows of a source and the field that holds the image. Raises RecordsError."""
    path = Path(source)
    if path.is_dir() and not any((path / name).is_file() for name in _SAVED):
        return _folder(path), IMAGE
    if path.suffix.lower() == ".npz":
        return _npz(path, image), IMAGE
    table = read_rows(source)
    return table, _image_field(table, image, path.parent)


def image_rows_of_objects(source: str, objects: Any, image: str | None) -> tuple[Table, str]:
    """The same for arrays, lists (of PIL images, paths, arrays, dicts), data frames and datasets."""
    if hasattr(objects, "__array__") and not hasattr(objects, "to_dicts"):
        images = uint8_images(np.asarray(objects), source)
        return Table(source, tuple({IMAGE: one} for one in images), tuple(range(1, len(images) + 1)), IMAGE), IMAGE
    values = [dict(row) for row in _encoded(objects)] if hasattr(objects, "cast_column") else objects
    if isinstance(values, list | tuple) and values and not isinstance(values[0], Mapping):
        rows = tuple({IMAGE: Path(one) if isinstance(one, str) else one} for one in values)
        return Table(source, rows, tuple(range(1, len(rows) + 1)), IMAGE), IMAGE
    table = rows_of_objects(source, values)
    if not table.rows:
        return table, IMAGE
    return table, _image_field(table, image, Path())


def _encoded(dataset: Any) -> Any:
    """A dataset whose images stay encoded: their file facts are kept, and less memory is needed."""
    for name, kind in dataset.features.items():
        if type(kind).__name__ == "Image":
            dataset = dataset.cast_column(name, type(kind)(decode=False))
    return dataset


def _image_field(table: Table, image: str | None, base: Path) -> str:
    if image is not None:
        require_field(table, image, "image")
        return image
    found = [name for name in fields_of(table) if looks_like_image(_first(table, name), base)]
    if len(found) == 1:
        return found[0]
    raise RecordsError(
        f"{table.source}: " + ("more than one field holds images" if found else "no field holds images"),
        expected="a field of encoded images, or of names of image files",
        found=shown_names(found or fields_of(table)),
        hint="name it with image=… (--image)",
    )


def _first(table: Table, name: str) -> object:
    return next((row[name] for row in table.rows if row.get(name) is not None), None)


def _objects_are_images(objects: Any) -> bool:
    if hasattr(objects, "__array__") and not hasattr(objects, "to_dicts"):
        return np.ndim(objects) in (3, 4)
    if hasattr(objects, "to_dicts"):
        objects = objects.head(1).to_dicts()
    if isinstance(objects, str | bytes | Mapping) or not isinstance(objects, Sequence) or not len(objects):
        features = getattr(objects, "features", None)
        return isinstance(features, Mapping) and any(type(one).__name__ == "Image" for one in features.values())
    first = objects[0]
    values = list(first.values()) if isinstance(first, Mapping) else [first]
    return any(looks_like_image(value, Path()) for value in values)


def _describes_images(info: Path) -> bool:
    try:
        features = json.loads(info.read_text(encoding="utf-8"))["features"]
        return any(one.get("_type") == "Image" for one in features.values())
    except (OSError, ValueError, KeyError, AttributeError):
        return False


def _hub_has_images(name: str) -> bool:
    if not _HUB_NAME.fullmatch(name):
        return False
    try:
        import datasets

        features = datasets.load_dataset_builder(name.partition(":")[0]).info.features
    except Exception:  # noqa: BLE001 — no package, no network, no such dataset: reading it says so
        return False
    return any(type(one).__name__ == "Image" for one in (features or {}).values())


def _parquet_has_images(path: Path) -> bool:
    import polars

    try:
        row = polars.scan_parquet(path, glob=False).head(1).collect().to_dicts()
    except (polars.exceptions.PolarsError, OSError):
        return False
    return any(looks_like_image(value, path.parent) for value in row[0].values()) if row else False


def _names_images(path: Path) -> bool:
    """Whether the first row names an image file that is there."""
    with path.open("rb") as file:
        if not any(suffix.encode() in file.read(1 << 16).lower() for suffix in SUFFIXES):
            return False
    try:
        row = read_rows(path).rows[0]
    except RecordsError:
        return False
    return any(looks_like_image(value, path.parent) for value in row.values())


def _image_files(folder: Path) -> Iterator[Path]:
    for here, inside, names in os.walk(folder):
        inside[:] = [name for name in inside if not name.startswith(".")]
        yield from (Path(here, name) for name in names if name.lower().endswith(SUFFIXES) and not name.startswith("."))


def _linked_folders(folder: Path) -> Iterator[Path]:
    """Links to folders, which may lead anywhere and back: nothing behind them is read."""
    for here, inside, _ in os.walk(folder):
        inside[:] = [name for name in inside if not name.startswith(".")]
        yield from (path for name in inside if (path := Path(here, name)).is_symlink())


def _directly_has_images(folder: Path) -> bool:
    return any(one.name.lower().endswith(SUFFIXES) and not one.name.startswith(".") for one in folder.iterdir())


def _folder(folder: Path) -> Table:
    """One row per image file, sorted by its path; `id` is that path. Metadata and sidecar texts are joined in."""
    linked = sorted(path.relative_to(folder).as_posix() for path in _linked_folders(folder))
    if linked:
        raise RecordsError(
            f"{folder}: {len(linked)} folders in it are links",
            expected="image files in the folder itself",
            found=_first_five(linked),
            hint="copy them in place of the links: cp -rL",
        )
    files = {path.relative_to(folder).as_posix(): path for path in _image_files(folder)}
    if not files:
        raise RecordsError(
            f"{folder}: the folder holds no images",
            expected=f"files ending in {', '.join(SUFFIXES)}",
            found=f"{sum(1 for _ in folder.iterdir())} entries",
            hint="check the path",
        )
    outside = [name for name, path in files.items() if path.is_symlink() and not leads_nowhere_else(path, folder)]
    if outside:
        raise RecordsError(
            f"{folder}: {len(outside)} images are links to files outside the folder",
            expected="image files in the folder itself",
            found=_first_five(sorted(outside)),
            hint="copy them in place of the links: cp -rL",
        )
    known = _metadata(folder, files)
    rows = []
    for name in sorted(files):
        row: dict[str, object] = {**known.get(name, {}), "id": name, IMAGE: files[name]}
        sidecar = files[name].with_suffix(".txt")
        if not known and sidecar.is_file():
            row["caption"] = _sidecar(sidecar)
        rows.append(row)
    return Table(str(folder), tuple(rows), tuple(range(1, len(rows) + 1)), FILE)


def _first_five(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def _sidecar(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError):
        raise RecordsError(f"{path}: the caption cannot be read", expected="UTF-8 text") from None


def _metadata(folder: Path, files: Mapping[str, Path]) -> dict[str, dict[str, object]]:
    """Rows of metadata.jsonl or metadata.csv by path, as in the `imagefolder` layout of datasets."""
    known: dict[str, dict[str, object]] = {}
    for path in sorted(path for name in _METADATA for path in folder.rglob(name)):
        table = read_rows(path)
        require_field(table, "file_name", "file")
        names = [os.path.normpath(path.parent / str(row.get("file_name"))) for row in table.rows]
        relative = [Path(os.path.relpath(name, folder)).as_posix() for name in names]
        times = Counter([*known, *relative])
        for what, wrong in (
            ("are not there", [row for row, name in enumerate(relative) if name not in files]),
            ("are named more than once", [row for row, name in enumerate(relative) if times[name] > 1]),
        ):
            if wrong:
                raise RecordsError(
                    f"{path}: files {what} in {table.where(wrong)}",
                    expected="one row for each image file, named relative to the metadata file",
                    hint="repair or drop these rows",
                )
        rows = [{key: value for key, value in row.items() if key != "file_name"} for row in table.rows]
        known |= dict(zip(relative, rows, strict=True))
    return known


def _npz(path: Path, image: str | None) -> Table:
    """One row per image; one-dimensional arrays of the same length are further fields."""
    arrays, objects = _arrays(path)
    found = [name for name, one in arrays.items() if one.ndim in (3, 4)]
    key = image or ("images" if "images" in arrays or "images" in objects else found[0] if len(found) == 1 else None)
    if key in objects:
        raise RecordsError(
            f"{path}: {key!r} holds Python objects, which are not loaded", expected="an array of numbers, N, H, W, C"
        )
    if key is None or key not in arrays:
        raise RecordsError(
            f"{path}: which array holds the images is not clear" if image is None else f"{path}: no array {image!r}",
            expected="one called 'images', or only one of three or four dimensions",
            found=shown_names([*arrays, *objects]),
            hint="name it with image=… (--image)",
        )
    if not len(arrays[key]):
        raise RecordsError(f"{path}: no records", expected="at least one image", found="none")
    images = uint8_images(arrays[key], f"{path}, {key!r}")
    names = {"captions": "caption", "ids": "id", "labels": "label"}
    lists = {name: one.tolist() for name, one in arrays.items() if one.shape == images.shape[:1]}
    columns: dict[str, list[Any]] = {names.get(name, name): one for name, one in lists.items()} | {IMAGE: list(images)}
    if "labels" in lists:  # of classes, if it is named so
        columns["labels"] = lists["labels"]
    rows = tuple(dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
    return Table(str(path), rows, tuple(range(1, len(rows) + 1)), IMAGE)


def _arrays(path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays, and the names of those that hold objects."""
    arrays: dict[str, np.ndarray] = {}
    objects: list[str] = []
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as loaded:
            for name in loaded.files:
                try:
                    arrays[name] = loaded[name]
                except ValueError as error:
                    if "allow_pickle" not in str(error):
                        raise
                    objects.append(name)
    except FileNotFoundError:
        raise RecordsError(f"{path}: there is no such file", hint="check the path") from None
    except (OSError, ValueError, EOFError, KeyError, AttributeError, TypeError, NotImplementedError) as error:
        raise _damaged(path, error) from None
    except (zipfile.BadZipFile, zlib.error) as error:
        raise _damaged(path, error) from None
    return arrays, objects


def _damaged(path: Path, error: Exception) -> RecordsError:
    return RecordsError(
        f"{path}: the .npz file is damaged or cut off",
        expected="a file written by numpy.savez",
        found=type(error).__name__,
        hint="copy or write it again",
    )
