"""The central table from finished audits: `python -m benchmarks.central language:SUITE=FOLDER … --out central.md`.

Every result.json under a folder is one target of the suite; its members must have been drawn by lot from one pool.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from repromia.benchmarks.central import CENTRAL, CentralRow, rows_of
from repromia.benchmarks.figures import CLAIMS
from repromia.benchmarks.page import as_markdown, central_section
from repromia.result import AuditResult


def rows_under(modality: str, suite: str, folder: Path) -> list[CentralRow]:
    """Central gains of all audits under a folder."""
    found: list[CentralRow] = []
    for number, path in enumerate(sorted(folder.rglob("result.json"))):
        result = AuditResult.model_validate_json(path.read_bytes())
        central = {row.name for row in result.attacks if row.attack in CENTRAL}
        found += rows_of(result.gains, central, benchmark=suite, modality=modality, seed=number)
    return found


def main() -> None:
    """Read the audits, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suites", nargs="+", metavar="MODALITY:SUITE=FOLDER")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    rows = [row for one in given.suites for row in rows_under(*_split(one))]
    given.out.write_text(as_markdown([central_section(rows, CLAIMS)]), encoding="utf-8")
    print(f"{given.out}: {len(rows)} gains")


def _split(suite: str) -> tuple[str, str, Path]:
    name, _, folder = suite.partition("=")
    modality, _, own = name.partition(":")
    if not own or not Path(folder).is_dir():
        raise SystemExit(f"expected MODALITY:SUITE=FOLDER with a folder that is there, found {suite!r}")
    return modality, own, Path(folder)


if __name__ == "__main__":
    main()
