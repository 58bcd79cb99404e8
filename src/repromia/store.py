"""A run directory: content-addressed parts, atomic writes, one audit at a time.

A part is written under the hash of everything that decides its content, so that a run that was killed goes on
where it stopped and a changed model, program, record or version of the code misses by itself.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, get_args

import numpy as np
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from repromia.errors import StoreError
from repromia.signals import Signals

_TEMPORARY = re.compile(r"\..+\.\d+\.tmp")  # as `write_atomic` names them
_KINDS: dict[str, type[Signals]] = {one.__name__: one for one in get_args(Signals)}


@cache
def code_digest() -> str:
    """Hash of the package's own source files: other code, other cache."""
    hasher = blake2b(digest_size=16)
    root = Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        hasher.update(path.relative_to(root).as_posix().encode())
        hasher.update(path.read_bytes())
    return hasher.hexdigest()


def digest(*parts: object) -> str:
    """Hash of the JSON form of these parts."""
    text = json.dumps(parts, sort_keys=True, default=repr)
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def file_name(name: str) -> str:
    """A safe file name of at most 80 characters; where it is cut, a hash tells names that begin alike apart."""
    kept = "".join(one if one.isalnum() or one in "._-" else "_" for one in name.replace("'", "")).strip("_")
    return kept if len(kept) <= 80 else f"{kept[:71]}_{digest(name)[:8]}"


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part. Raises StoreError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):  # a folder that is a file: there is nothing to clear up
            temporary.unlink(missing_ok=True)
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"Cannot write {path.name!r} under {str(path.parent)!r}.",
        found=f"{error.strerror or error}",
        hint="free disk space or choose another --out; what was stored so far is kept and will be used again",
    )


@contextmanager
def saving(path: Path) -> Iterator[None]:
    """Turns what libraries raise when they cannot write into a StoreError."""
    try:
        yield
    except OSError as error:
        raise _cannot_write(path, error) from error
    except SafetensorError as error:
        raise _cannot_write(path, OSError(str(error))) from error


class Store:
    """A run directory (or none: everything then stays in memory).

    spent: seconds that earlier runs took for what this one read back.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.spent = 0.0
        self._known: set[str] = set()

    def clock(self) -> float:
        """Seconds on a clock on which what was read back took as long as it once did."""
        return time.perf_counter() + self.spent

    def first(self, key: str) -> bool:
        """Whether this run has neither made nor read what is under this key: its cost is not counted yet."""
        new = key not in self._known
        self._known.add(key)
        return new

    @contextmanager
    def locked(self) -> Iterator[Store]:
        """Hold the directory for one audit. Raises StoreError when another holds it or it cannot be made."""
        if self.folder is None:
            yield self
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(str(self.folder / ".lock"))
            lock.acquire(timeout=0.1)
        except Timeout as error:
            raise StoreError(
                f"Another audit is running in {str(self.folder)!r}.",
                hint="wait for it, or choose another --out",
            ) from error
        except OSError as error:
            raise StoreError(
                f"Cannot use {str(self.folder)!r} as a run directory.",
                expected="a directory that can be made and written to",
                found=error.strerror or str(error),
            ) from error
        try:
            for place in (self.folder, self.folder / "parts"):
                for left in place.glob(".*.tmp"):
                    if _TEMPORARY.fullmatch(left.name):  # of a process that was killed while it wrote
                        left.unlink(missing_ok=True)
            yield self
        finally:
            lock.release()

    def get(self, key: str) -> Signals | None:
        """Stored signals, or None. A damaged part counts as missing and is made again."""
        if self.folder is None:
            return None
        path = self._part(key)
        try:
            with safe_open(str(path), framework="numpy") as file:
                about = file.metadata() or {}
                kind = _KINDS[about.get("kind", "")]
                arrays = {one.name: file.get_tensor(one.name) for one in fields(kind)}
        except (OSError, SafetensorError, KeyError):
            return None
        return kind(**arrays) if about.get("checksum") == _checksum(arrays) else None

    def put(self, key: str, signals: Signals) -> None:
        """Store signals under a key."""
        if self.folder is None:
            return
        arrays = {one.name: np.ascontiguousarray(getattr(signals, one.name)) for one in fields(signals)}
        about = {"kind": type(signals).__name__, "checksum": _checksum(arrays)}
        write_atomic(self._part(key), save(arrays, metadata=about))

    def get_json(self, key: str) -> Any:
        """A stored JSON value, or None."""
        if self.folder is None:
            return None
        try:
            return json.loads((self.folder / "parts" / f"{key}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def put_json(self, key: str, value: Any) -> None:
        """Store a JSON value under a key."""
        if self.folder is not None:
            write_atomic(self.folder / "parts" / f"{key}.json", json.dumps(value).encode())

    def event(self, name: str, **facts: str | float | int) -> None:
        """Append a line to events.jsonl. Facts are counts, names and seconds, never record text."""
        if self.folder is not None:
            line = json.dumps({"time": round(time.time(), 3), "event": name, **facts})
            path = self.folder / "events.jsonl"
            try:
                with path.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")
            except OSError as error:
                raise _cannot_write(path, error) from error

    def _part(self, key: str) -> Path:
        assert self.folder is not None  # noqa: S101
        return self.folder / "parts" / f"{key}.safetensors"


def _checksum(arrays: dict[str, np.ndarray]) -> str:
    hasher = blake2b(digest_size=16)
    for name in sorted(arrays):
        hasher.update(name.encode() + str(arrays[name].shape).encode() + arrays[name].tobytes())
    return hasher.hexdigest()
