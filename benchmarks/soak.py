"""Peak memory and time of an audit against the number of records: growth must be that of scores, not of texts.

    python -m benchmarks.soak --data shared/data --out DIR --records 10000 30000 100000

Records are 25 words each, drawn at random from AG News: the figures mean nothing, the memory does. The model is
stories260K; both lie under --data.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

_ATTACKS = "loss,zlib,min_k,min_k_plus_plus"


def write(data: Path, out: Path, records: int) -> None:
    """Members and non-members as the user's two files."""
    with gzip.open(data / "ag_news" / "ag_news.jsonl.gz", "rt", encoding="utf-8") as lines:
        words = sorted({word for line in lines for word in json.loads(line)["text"].split()})
    draws = random.Random(0)  # noqa: S311 -- words of a benchmark
    texts = [" ".join(draws.choices(words, k=25)) for _ in range(records)]
    for name, some in (("members", texts[: records // 2]), ("nonmembers", texts[records // 2 : records])):
        rows = "".join(json.dumps({"text": text}) + "\n" for text in some)
        (out / f"{name}-{records}.jsonl").write_text(rows, encoding="utf-8")


def audit(data: Path, out: Path, records: int) -> tuple[float, float, int]:
    """Seconds, peak resident MB and exit code of one audit in a process of its own."""
    command = [sys.executable, "-c", "from repromia.cli import main; main()", "audit"]
    command += [
        "--model",
        str(data / "stories260k"),
        "--attacks",
        _ATTACKS,
        "--max-tokens",
        "64",
        "--fprs",
        "0.01",
        "--fprs",
        "0.001",
    ]
    command += [
        "--members",
        str(out / f"members-{records}.jsonl"),
        "--nonmembers",
        str(out / f"nonmembers-{records}.jsonl"),
    ]
    started = time.perf_counter()
    child = subprocess.Popen([*command, "--out", str(out / f"audit-{records}")], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    return time.perf_counter() - started, usage.ru_maxrss / 1024, os.waitstatus_to_exitcode(status)


def main() -> None:
    """Print a line for each number of records."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--records", type=int, nargs="+", default=[10_000, 30_000, 100_000])
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for records in given.records:
        write(given.data, given.out, records)
        seconds, peak, code = audit(given.data, given.out, records)
        size = (given.out / f"audit-{records}" / "report.html").stat().st_size / 1e6 if not code else float("nan")
        print(
            f"{records:>8,} records: {seconds:6.0f} s, peak {peak:6.0f} MB, report {size:.2f} MB, exit {code}",
            flush=True,
        )


if __name__ == "__main__":
    main()
