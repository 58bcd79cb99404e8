"""The two sides of a split on disk, in the format of the data they come from."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from io import BytesIO
from pathlib import Path

from repromia.errors import RecordsError, StoreError
from repromia.readers import fields_of
from repromia.rows import FORMATS, Table
from repromia.store import write_atomic

METADATA = "metadata.jsonl"
_METADATA = (METADATA, "metadata.csv")


def format_of(data: str) -> str:
    """The ending under which a side of this source is written: that of the file; of datasets .jsonl."""
    suffixes = [suffix.lower() for suffix in Path(data).suffixes]
    zipped = suffixes[-1:] == [".gz"]
    kind = (suffixes[:-1] if zipped else suffixes)[-1:] or [""]
    if not Path(data).is_file() or kind[0] not in FORMATS:
        return ".jsonl"
    return kind[0] + (".gz" if zipped else "")


def write_rows(path: Path, table: Table, rows: Sequence[int], data: str) -> None:
    """The rows at these positions, in this order.

    data: where the table was read from; rows beyond those of the file (canaries) stand at the end of `table`. Raises
    RecordsError for what the format cannot hold, StoreError where it cannot be written.
    """
    chosen = [table.rows[row] for row in rows]
    writers: dict[str, Callable[[], bytes]] = {
        ".parquet": lambda: _parquet(table, rows, data),
        ".csv": lambda: _separated(table, rows, ","),
        ".tsv": lambda: _separated(table, rows, "\t"),
        ".txt": lambda: _lines(str(row["text"]) for row in chosen),
        ".json": lambda: b"[" + b",\n".join(_json(table, row) for row in chosen) + b"]\n",
    }
    kind = Path(path.name.removesuffix(".gz")).suffix
    write = writers.get(kind, lambda: b"".join(_json(table, row) + b"\n" for row in chosen))
    made = write()
    write_atomic(path, gzip.compress(made, mtime=0) if path.suffix == ".gz" else made)


def _lines(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _json(table: Table, row: object) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half a character in a field that nobody reads: kept as it was escaped
        return json.dumps(row).encode()
    except (TypeError, ValueError):
        raise RecordsError(
            f"{table.source}: some field can be written to neither side",
            expected="fields that JSON can hold: texts, numbers, lists and objects of them",
            hint="drop this field, or give the data as a parquet file",
        ) from None


def _separated(table: Table, rows: Sequence[int], separator: str) -> bytes:
    import polars

    columns = {name: [table.rows[row].get(name) for row in rows] for name in fields_of(table)}
    frame = polars.DataFrame(columns, schema=dict.fromkeys(columns, polars.String))
    return frame.write_csv(separator=separator).encode()


def _parquet(table: Table, rows: Sequence[int], data: str) -> bytes:
    """From the file itself, so that types stay."""
    import polars

    try:
        frame = polars.read_parquet(Path(data).read_bytes())  # a path may look like a pattern
        added = [dict(row) for row in table.rows[frame.height :]]
        if added:
            schema = {name: frame.schema[name] for name in added[0]}
            frame = polars.concat([frame, polars.DataFrame(added, schema=schema)], how="diagonal")
    except (polars.exceptions.PolarsError, OSError, TypeError):
        raise RecordsError(
            f"{table.source}: canaries do not fit into the fields of the file",
            expected="text, id and group in fields of strings",
            hint="write the ids as strings, or leave them out",
        ) from None
    buffer = BytesIO()
    frame[list(rows)].write_parquet(buffer)
    return buffer.getvalue()


def copy_images(side: Path, folder: Path, table: Table, rows: Sequence[int]) -> None:
    """The image files at these positions, each with the text beside it, and their rows of metadata.

    Raises StoreError where they cannot be copied.
    """
    described = any(True for name in _METADATA for _ in folder.rglob(name))
    lines = []
    try:
        for row in rows:
            facts = dict(table.rows[row])
            name, _ = str(facts.pop("id")), facts.pop("image")
            (side / name).parent.mkdir(parents=True, exist_ok=True)
            for source in (folder / name, (folder / name).with_suffix(".txt")):
                if source.is_file():
                    shutil.copyfile(source, (side / name).with_suffix(source.suffix))
            if facts and described:
                lines.append(_json(table, {"file_name": name, **facts}) + b"\n")
    except OSError as error:
        raise StoreError(
            f"Cannot copy images into {str(side)!r}.",
            found=error.strerror or type(error).__name__,
            hint="free disk space or choose another --out",
        ) from error
    if lines:
        write_atomic(side / METADATA, b"".join(lines))


def file_digests(folder: Path) -> dict[str, str]:
    """Hash of every file in the folder, by its path in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _file_digest(path) for path in files}


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        hasher = blake2b(digest_size=16)
        while piece := file.read(1 << 20):
            hasher.update(piece)
    return hasher.hexdigest()
