"""An audit killed with SIGKILL at random moments, over and over, against the same audit left alone.

    python -m benchmarks.faults --out DIR --kills 50

The audit is that of a part of the language demo's records: it repairs a noised copy, asks programs, fits heads and
permutes labels. Moments are drawn over the time that it takes undisturbed, or that the quickest one took that went on
where others were killed. Whenever it finishes in spite of kills, its
figures and scores are compared with the undisturbed ones, and a new one is begun until all kills are spent.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Iterator, Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import polars

from repromia.demo.language import prepare
from repromia.progress import Silent
from repromia.result import AuditResult

# Every audit is a process of its own, forked from one that has imported the libraries and done nothing else.
_PROCESSES = multiprocessing.get_context("forkserver")
_LIBRARIES = ("transformers.models.llama", "skops.io", "matplotlib.figure")
_MODULES = ("pipeline", "report", "blind_tables", "targets.load", "targets.classifiers")
# Not this module: the first process has not this one's path, and would take the `benchmarks` that opacus installs.
_PROCESSES.set_forkserver_preload([*_LIBRARIES, *(f"repromia.{one}" for one in _MODULES)])
_ATTACKS = (
    "loss,zlib,min_k,reference,recall,wbc:reference=noise_and_repair/steps=8,"
    "probe_bank:programs=band/width=2+skipped_layers+lower_case"
)
_VOLATILE = {"created", "seconds", "views", "config", "families"}  # clocks, and the name of the folder


def flags_of(files: Path) -> dict[str, object]:
    """The audit of the part of the demo's records."""
    return {
        "--model": files / "finetuned",
        "--reference": files / "base",
        "--members": files / "some-members.jsonl",
        "--nonmembers": files / "some-nonmembers.jsonl",
        "--attacks": _ATTACKS,
        "--fprs": "0.05",
        "--program-permutations": "1",
        "--max-tokens": "64",
    }


def begin(flags: Mapping[str, object], out: Path) -> ForkServerProcess:
    """The audit as a process."""
    arguments = [str(part) for flag in {**flags, "--out": out}.items() for part in flag]
    process = _PROCESSES.Process(target=_audit, args=(["audit", *arguments], out.with_suffix(".log")))
    process.start()
    return process


def _audit(arguments: list[str], log: Path) -> None:
    from repromia.cli import main

    told = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(told, 1)
    os.dup2(told, 2)
    main(arguments)


def endure(flags: Mapping[str, object], out: Path, *, kills: int, seed: int = 0) -> Iterator[tuple[int, list[str]]]:
    """For each audit that ended in spite of kills: how many there were so far, and what differs from the calm one."""
    first = _PROCESSES.Process(target=time.sleep, args=(0,))  # by which the libraries are imported
    first.start()
    first.join()
    started = time.perf_counter()
    calm = begin(flags, out / "calm")
    calm.join()
    if calm.exitcode != 0:
        sys.exit(f"The undisturbed audit did not end well: {out / 'calm.log'}")
    longest = time.perf_counter() - started
    moments, killed, finished = random.Random(seed), 0, 0  # noqa: S311 -- moments of kills
    while True:
        folder = out / f"killed-{finished}"
        process, began = begin(flags, folder), time.perf_counter()
        process.join(moments.uniform(0.1, longest) if killed < kills else None)
        if process.exitcode is None:
            process.kill()
            process.join()
            killed += 1
            continue
        finished += 1
        longest = min(longest, time.perf_counter() - began)
        yield killed, [f"exit code {process.exitcode}"] if process.exitcode else differences(out / "calm", folder)
        if killed >= kills:
            return


def differences(calm: Path, killed: Path) -> list[str]:
    """What two audits do not agree on, to the last bit; empty: nothing."""
    one, other = (AuditResult.model_validate_json((path / "result.json").read_bytes()) for path in (calm, killed))
    found = [
        name
        for name in AuditResult.model_fields
        if name not in _VOLATILE | {"attacks"} and getattr(one, name) != getattr(other, name)
    ]
    for row, again in zip(one.attacks, other.attacks, strict=True):
        if row.model_copy(update={"seconds": 0}) != again.model_copy(update={"seconds": 0}):
            found.append(f"attack {row.name}")
    if not polars.read_parquet(calm / "scores.parquet").equals(polars.read_parquet(killed / "scores.parquet")):
        found.append("scores")
    return found


def main() -> None:
    """Print how many kills, how many audits finished in spite of them, and what differed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--records", type=int, default=120, help="of each side")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    prepare(given.out, seed=given.seed, progress=Silent())
    for side in ("members", "nonmembers"):
        lines = (given.out / f"{side}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        (given.out / f"some-{side}.jsonl").write_text("".join(lines[: given.records]), encoding="utf-8")
    outcomes = []
    for killed, found in endure(flags_of(given.out), given.out, kills=given.kills, seed=given.seed):
        outcomes.append(found)
        print(f"finished after {killed} kills: {found or 'the same to the last bit'}", flush=True)
    differing = sum(bool(found) for found in outcomes)
    print(f"{given.kills} kills, {len(outcomes)} audits finished, {differing} of them differ")


if __name__ == "__main__":
    main()
