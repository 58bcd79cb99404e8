"""From a file or a dataset to rows, with the place of each row for error messages.

Parsers' own messages may quote a record, so they are never passed on: errors hold line numbers and counts.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repromia.errors import RecordsError

if TYPE_CHECKING:
    import polars

Row = Mapping[str, object]

FORMATS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt", ".parquet")
_GZIP = b"\x1f\x8b"
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(:[\w.\[\]:%+-]+)?")
_KNOWN = f"{', '.join(FORMATS)} (each but parquet also .gz), a saved dataset folder, or owner/name[:split]"


@dataclass(frozen=True)
class Table:
    """Rows of one source, in order; `places` are their line or row numbers, counted from 1."""

    source: str
    rows: tuple[Row, ...]
    places: tuple[int, ...]
    unit: str = "row"

    def where(self, positions: Sequence[int]) -> str:
        """How many rows and the first five of them: "3 rows (rows 1, 2, 9)"."""
        shown = ", ".join(str(self.places[position]) for position in positions[:5])
        more = ", …" if len(positions) > 5 else ""
        return f"{len(positions)} of {len(self.rows)} rows ({self.unit} {shown}{more})"


def read_rows(path: str | Path) -> Table:
    """The rows of a file, of a dataset folder written by `save_to_disk`, or of a hub dataset.

    Formats: see `FORMATS`; all but parquet may end in .gz. Raises RecordsError when nothing is there or it is
    damaged.
    """
    place = Path(path)
    if place.is_dir():
        return _read_dataset_folder(place)
    if place.is_file():
        table = _read_file(place)
    elif not place.suffix.endswith(FORMATS) and place.suffix != ".gz" and _HUB_NAME.fullmatch(str(path)):
        table = _read_hub(str(path))
    else:
        raise RecordsError(f"{place}: there is no such file", expected=_KNOWN, hint="check the path")
    if not table.rows:
        raise RecordsError(
            f"{table.source}: no records", expected="at least one record", found="none", hint="check the file"
        )
    return table


def rows_of_objects(source: str, objects: object) -> Table:
    """The rows of a list of strings or dicts, or of a polars DataFrame."""
    to_dicts = getattr(objects, "to_dicts", None)
    values = to_dicts() if callable(to_dicts) else objects
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Sequence):
        raise RecordsError(
            f"{source} cannot be read",
            expected="a list of strings, a list of dicts, or a polars DataFrame",
            found=type(objects).__name__,
            hint="give both sides as paths, or both as lists",
        )
    return _table(source, list(values), range(1, len(values) + 1), "row")


def _table(source: str, values: Sequence[object], places: Sequence[int], unit: str) -> Table:
    rows = []
    for value, place in zip(values, places, strict=True):
        if isinstance(value, str):
            rows.append({"text": value})
        elif isinstance(value, Mapping):
            rows.append({str(key): item for key, item in value.items()})
        else:
            raise RecordsError(
                f"{source}, {unit} {place}: not a record",
                expected="an object with named fields, or a string",
                found=type(value).__name__,
                hint='write one {"text": …} per record',
            )
    return Table(source, tuple(rows), tuple(places), unit)


def _read_file(path: Path) -> Table:
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    zipped = suffixes[-1:] == [".gz"]
    kind = "".join(suffixes[:-1] if zipped else suffixes[-1:])
    kind = "." + kind.rsplit(".", 1)[-1]
    if kind not in FORMATS or (zipped and kind == ".parquet"):
        raise RecordsError(
            f"{path}: unknown format",
            expected=_KNOWN,
            found=repr(path.name),
            hint="convert or rename the file",
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RecordsError(f"{path}: cannot be read", found=str(error.strerror), hint="check access") from None
    if not data:
        raise RecordsError(f"{path}: the file is empty", expected="records", found="0 bytes", hint="write it again")
    if zipped or data.startswith(_GZIP):
        data = _unzip(path, data)
    match kind:
        case ".parquet":
            return _read_parquet(path, data)
        case ".csv" | ".tsv":
            return _read_csv(path, _decode(path, data), "," if kind == ".csv" else "\t")
        case ".json":
            return _read_json(path, _decode(path, data))
        case ".txt":
            return _read_lines(path, _decode(path, data), parse=False)
        case _:
            return _read_lines(path, _decode(path, data), parse=True)


def _unzip(path: Path, data: bytes) -> bytes:
    if not data.startswith(_GZIP):
        raise RecordsError(
            f"{path}: no gzip file", expected="gzip data", found="other data", hint="leave .gz out of its name"
        )
    try:
        return gzip.decompress(data)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise RecordsError(
            f"{path}: the gzip file is damaged or cut off",
            expected="a complete gzip file",
            found=f"{len(data)} bytes that end in {type(error).__name__}",
            hint="copy or download the file again",
        ) from None


def _decode(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
        raise RecordsError(
            f"{path}, line {line}: not valid UTF-8",
            expected="UTF-8 text",
            found=f"byte 0x{data[error.start]:02x} at offset {error.start}",
            hint=f"convert it, for example: iconv -f {'UTF-16' if wide else 'LATIN1'} -t UTF-8",
        ) from None


def _read_lines(path: Path, text: str, *, parse: bool) -> Table:
    # Not splitlines(): U+2028 and the like may stand unescaped inside a JSON string.
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    places = [number for number, _ in lines]
    if not parse:
        return _table(str(path), [line.strip() for _, line in lines], places, "line")
    values: list[object] = []
    for number, line in lines:
        try:
            values.append(json.loads(line))
        except (ValueError, RecursionError):
            last = number == places[-1]
            raise RecordsError(
                f"{path}, line {number}: not valid JSON",
                expected="one complete JSON object per line",
                found=f"a line of {len(line)} characters" + (", the last one: cut off?" if last else ""),
                hint="write the file again" if last else "repair or delete that line",
            ) from None
    return _table(str(path), values, places, "line")


def _read_json(path: Path, text: str) -> Table:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        line = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise RecordsError(
            f"{path}{line}: not valid JSON",
            expected="a list of objects or of strings",
            hint="write the file again; for one object per line, name it .jsonl",
        ) from None
    if not isinstance(values, list):
        raise RecordsError(
            f"{path}: not a list of records",
            expected="a list of objects or of strings",
            found=type(values).__name__,
            hint="for one object per line, name it .jsonl",
        )
    return _table(str(path), values, range(1, len(values) + 1), "item")


def _frame(source: str, frame: polars.DataFrame) -> Table:
    return Table(source, tuple(frame.to_dicts()), tuple(range(1, frame.height + 1)))


def _read_csv(path: Path, text: str, separator: str) -> Table:
    import polars

    try:
        frame = polars.read_csv((text.rstrip("\r\n") + "\n").encode(), separator=separator, infer_schema=False)
    except (polars.exceptions.PolarsError, OSError):
        raise RecordsError(
            f"{path}: not a readable table",
            expected=f"a header line, then rows with as many fields, separated by {separator!r}",
            hint=_other_separator(text, separator)
            or "quote fields that hold separators, quotes or line breaks; close every quote",
        ) from None
    if len(frame.columns) == 1 and _other_separator(text, separator):
        raise RecordsError(
            f"{path}: one field alone",
            expected=f"fields separated by {separator!r}",
            found="a header line without one",
            hint=_other_separator(text, separator),
        )
    return _frame(str(path), frame)


def _other_separator(text: str, separator: str) -> str:
    """What to do where the header line is cut by another sign; empty where it is not."""
    header = text.split("\n", 1)[0]
    if separator not in header and "\t" in header:
        return "its fields are separated by tabs: name it .tsv"
    return "its fields are separated by ';': write it with commas" if separator not in header and ";" in header else ""


def _read_parquet(path: Path, data: bytes) -> Table:
    import polars

    try:
        frame = polars.read_parquet(data)
    except (polars.exceptions.PolarsError, OSError):
        raise RecordsError(
            f"{path}: the parquet file is damaged or cut off",
            expected="a complete parquet file",
            found=f"{len(data)} bytes",
            hint="copy or write the file again",
        ) from None
    return _frame(str(path), frame)


def _read_dataset_folder(path: Path) -> Table:
    if not any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
        raise RecordsError(
            f"{path}: a folder, but not a saved dataset",
            expected="a folder written by datasets' save_to_disk, or one file",
            found=f"{len(list(path.iterdir()))} entries",
            hint="name one file in it",
        )
    datasets = _datasets(str(path))
    try:
        loaded = datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordsError(f"{path}: the saved dataset is damaged", found=type(error).__name__) from None
    return _one_split(str(path), loaded, f"{path}/")


def _read_hub(name: str) -> Table:
    datasets = _datasets(name)
    repository, _, split = name.partition(":")
    try:
        loaded = datasets.load_dataset(repository, split=split or None)
    except (OSError, ValueError, RuntimeError) as error:
        raise RecordsError(
            f"{name}: no such file, and no dataset of this name could be loaded from the hub",
            found=type(error).__name__,
            hint="check the path, the name, the split and the network",
        ) from None
    return _one_split(name, loaded, f"{repository}:")


def _datasets(name: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise RecordsError(
            f"{name}: reading a dataset needs the package `datasets`", hint="pip install repromia[hub]"
        ) from None
    return datasets


def _one_split(source: str, loaded: object, prefix: str) -> Table:
    if isinstance(loaded, Mapping):
        if len(loaded) != 1:
            raise RecordsError(
                f"{source}: the dataset has several splits",
                expected="one split",
                found=", ".join(map(str, loaded)),
                hint=f"for example {prefix}{next(iter(loaded), 'train')}",
            )
        loaded = next(iter(loaded.values()))
    for name, kind in dict(getattr(loaded, "features", None) or {}).items():
        if type(kind).__name__ == "Image":  # encoded bytes: decoded whole they would not fit, and say less
            loaded = loaded.cast_column(name, type(kind)(decode=False))  # type: ignore[attr-defined]
    rows: Sequence[object] = [dict(row) for row in loaded]  # type: ignore[attr-defined]
    return _table(source, rows, range(1, len(rows) + 1), "row")
