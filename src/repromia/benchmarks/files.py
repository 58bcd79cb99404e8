"""Where a benchmark's files lie, and whether they are the ones that our figures were measured on."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from repromia.benchmarks.benchmark import Benchmark, DataFile
from repromia.errors import ConfigError
from repromia.rows import FORMATS

_HUB_NAME = re.compile(r"\w[\w.-]*/[\w.-]+(:[\w.\[\]:%+-]+)?")


class FoundFile(BaseModel):
    """A file that was read. known: equal to the one that our figures were measured on; None: there is none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    sha256: str = ""  # empty: a folder or a dataset of a hub
    known: bool | None = None


def located(benchmark: Benchmark, data: str) -> tuple[tuple[DataFile, Path], ...]:
    """The files of the first complete layout; of none (shipped with packages) nothing; `owner/name` of a hub as it is.

    Raises ConfigError that says where the data comes from and how it must look.
    """
    if is_hub_name(data):
        _one_table(benchmark, data)
        return ((DataFile(data, "a dataset of a hub"), Path(data)),)
    root = Path(data)
    for layout in benchmark.layouts:
        if data and not missing(layout, root):
            return tuple((one, root / one.path) for one in layout)
    if not benchmark.layouts:
        return ()
    ways = [" and ".join(one.described for one in layout) for layout in benchmark.layouts]
    raise ConfigError(
        f"The data of {benchmark.name!r} is not {'under ' + repr(data) if data else 'named'}.",
        expected="; or ".join(ways),
        found=f"missing: {', '.join(missing(benchmark.layouts[0], root))}" if data else "no --data",
        hint=f"get it from {benchmark.source}, and name the folder that holds it with --data",
    )


def is_hub_name(data: str) -> bool:
    """Whether --data names a dataset of a hub, and nothing here."""
    return bool(data) and not Path(data).exists() and bool(_HUB_NAME.fullmatch(data))


def _one_table(benchmark: Benchmark, data: str) -> None:
    """Raise ConfigError where no single table holds the data: a hub's dataset is one."""
    layouts = benchmark.layouts
    if any(len(one) == 1 and one[0].path.removesuffix(".gz").endswith(FORMATS) for one in layouts) or not layouts:
        return
    ways = "; or ".join(" and ".join(one.described for one in layout) for layout in layouts)
    raise ConfigError(
        f"The data of {benchmark.name!r} is no single table that a hub could be asked for by name.",
        expected=f"--data with a folder that holds {ways}",
        found=f"{data!r}, which is no folder here",
        hint=f"get it from {benchmark.source}, and name the folder that holds it with --data",
    )


def missing(layout: tuple[DataFile, ...], root: Path) -> list[str]:
    """Files of a layout that are not there."""
    return [one.path for one in layout if not (root / one.path).exists()]


def described(files: tuple[tuple[DataFile, Path], ...], *, compare: bool) -> tuple[FoundFile, ...]:
    """The files with their hashes. compare: whether they ought to be ours (a stand-in need not)."""
    return tuple(_described(wanted, path, compare) for wanted, path in files)


def _described(wanted: DataFile, path: Path, compare: bool) -> FoundFile:
    if not path.is_file():
        return FoundFile(path=wanted.path)
    own = file_hash(path)
    return FoundFile(path=wanted.path, sha256=own, known=own == wanted.sha256 if compare and wanted.sha256 else None)


def file_hash(path: Path) -> str:
    """sha256, read in parts."""
    hasher = sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            hasher.update(part)
    return hasher.hexdigest()
