"""Cells (benchmark, target, seed) as units of work: here or on a cluster, and none is done twice."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from pydantic import BaseModel, ConfigDict

from repromia.benchmarks.benchmark import Job
from repromia.benchmarks.files import FoundFile, file_hash
from repromia.cluster import Unit, run_units
from repromia.errors import RepromiaError, one_line
from repromia.function_key import described
from repromia.progress import Progress
from repromia.result import AuditResult
from repromia.store import code_digest, digest, write_atomic


class Finished(BaseModel):
    """What became of a cell. result: None where it failed, for this reason."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: str = ""
    result: AuditResult | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """The same as arrays, which a cluster can send and copy. document: an AuditResult, or a reason, as UTF-8."""

    measured: UInt8[np.ndarray, ""]
    seconds: Float[np.ndarray, ""]
    document: UInt8[np.ndarray, " byte"]

    @classmethod
    def of(cls, document: str, *, measured: bool, seconds: float) -> Outcome:
        """From text."""
        data = np.frombuffer(document.encode("utf-8", "backslashreplace"), dtype=np.uint8)
        return cls(np.array(measured, dtype=np.uint8), np.array(seconds), data)

    def finished(self) -> Finished:
        """To values."""
        text, seconds = self.document.tobytes().decode(), round(float(self.seconds), 1)
        if not self.measured:
            return Finished(reason=text, seconds=seconds)
        return Finished(result=AuditResult.model_validate_json(text), seconds=seconds)


class FinishedCells:
    """A folder of cells in which every attack was measured; what failed is tried again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str, /) -> Outcome | None:
        """The cell of this key, or None; a damaged file counts as missing."""
        try:
            kept = Finished.model_validate_json((self.folder / f"{key}.json").read_bytes())
        except (OSError, ValueError):
            return None
        text = kept.result.model_dump_json() if kept.result else kept.reason
        return Outcome.of(text, measured=kept.result is not None, seconds=kept.seconds)

    def put(self, key: str, outcome: Outcome, /) -> None:
        """Keep a cell that needs not be done again."""
        kept = outcome.finished()
        if kept.result is not None and kept.result.status == "complete":
            write_atomic(self.folder / f"{key}.json", kept.model_dump_json().encode())


def run_cells(
    jobs: Sequence[tuple[Job, tuple[FoundFile, ...]]], *, out: Path, cluster: str, progress: Progress
) -> list[Finished]:
    """What became of every cell, in order. Raises ConfigError for a cluster that is not there."""
    units = [
        Unit(cell_key(job, files), run_cell, (job,), name=f"{job.benchmark.name}, seed {job.seed}")
        for job, files in jobs
    ]
    found = run_units(
        units, cluster=cluster, store=FinishedCells(out / "cells"), progress=progress, what="cells", failed=_failed
    )
    return [one.finished() for one in found]


def run_cell(job: Job) -> Outcome:
    """Prepare and audit one target; goes on where it was stopped."""
    began = time.perf_counter()
    job.folder.mkdir(parents=True, exist_ok=True)
    result = job.benchmark.run(job)
    return Outcome.of(result.model_dump_json(), measured=True, seconds=time.perf_counter() - began)


def _failed(unit: Unit, error: RepromiaError) -> Outcome:
    return Outcome.of(one_line(str(error)), measured=False, seconds=0.0)


def cell_key(job: Job, files: Sequence[FoundFile]) -> str:
    """Hash of everything that decides a cell: code, benchmark, sizes, seed, data and models."""
    return digest(
        "cell",
        code_digest(),
        job.benchmark.name,
        [described(one) for one in (job.benchmark.run, job.benchmark.read)],
        repr(job.scale),
        job.preset,
        job.seed,
        job.attacks,
        [one.sha256 or _tree(Path(one.path)) for one in files],
        [_tree(path) for path in job.files if path.is_dir()],
        [_weights(one) for one in (job.model, job.reference)],
    )


def _tree(path: Path) -> str:
    """Names and sizes of a folder's files: sets of many images are not read twice."""
    files = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else []
    return digest(str(path.name), [(one.relative_to(path).as_posix(), one.stat().st_size) for one in files])


def _weights(model: str) -> str:
    """A folder's files by content; of a hub its name."""
    path = Path(model)
    if not model or not path.is_dir():
        return model
    hasher = blake2b(digest_size=16)
    for one in sorted(path.rglob("*")):
        if one.is_file():
            hasher.update(f"{one.relative_to(path).as_posix()} {file_hash(one)}\n".encode())
    return hasher.hexdigest()
