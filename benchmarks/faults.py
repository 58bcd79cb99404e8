"""An audit killed with SIGKILL at random moments, over and over, against the same audit left alone.

    python -m benchmarks.faults --out DIR --kills 50

The audit is the language demo's, which learns programs and permutes labels. Whenever it finishes in spite of kills, its
figures and scores are compared with the undisturbed ones, and a new one is begun until all kills are spent.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import time
from pathlib import Path

import polars

from repromia.demo.language import ATTACKS, prepare
from repromia.progress import Silent
from repromia.result import AuditResult

_COMMAND = [sys.executable, "-c", "from repromia.cli import main; main()"]
_VOLATILE = {"created", "seconds", "views", "config", "families"}  # clocks, and the name of the folder


def begin(files: Path, out: Path) -> subprocess.Popen[bytes]:
    """The demo's audit as a process."""
    flags = {
        "--model": files / "finetuned",
        "--reference": files / "base",
        "--members": files / "members.jsonl",
        "--nonmembers": files / "nonmembers.jsonl",
        "--out": out,
        "--attacks": ATTACKS,
        "--fprs": "0.05",
        "--program-permutations": "1",
        "--max-tokens": "160",
    }
    arguments = [str(part) for flag in flags.items() for part in flag]
    return subprocess.Popen([*_COMMAND, "audit", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


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
    parser.add_argument("--longest", type=float, default=30.0, help="seconds before a kill, at most")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    prepare(given.out, seed=given.seed, progress=Silent())
    started = time.perf_counter()
    if begin(given.out, given.out / "calm").wait() != 0:
        sys.exit("The undisturbed audit did not end well.")
    print(f"undisturbed: {time.perf_counter() - started:.0f} s", flush=True)
    moments, kills, finished, differing = random.Random(given.seed), 0, 0, 0  # noqa: S311 -- moments of kills
    while True:
        folder = given.out / f"killed-{finished}"
        process = begin(given.out, folder)
        try:
            code = process.wait(moments.uniform(0.1, given.longest) if kills < given.kills else None)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
            continue
        found = [f"exit code {code}"] if code else differences(given.out / "calm", folder)
        finished, differing = finished + 1, differing + bool(found)
        print(f"finished after {kills} kills: {found or 'the same to the last bit'}", flush=True)
        if kills >= given.kills:
            break
    print(f"{kills} kills, {finished} audits finished, {differing} of them differ")


if __name__ == "__main__":
    main()
