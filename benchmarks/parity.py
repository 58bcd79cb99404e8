"""Our scores beside formulas of public reference code, its defects included: `python -m benchmarks.parity --work DIR`.

The other side of each line is written here from the formula that the code computes, not copied from it. Everything is
made on the spot: small models trained on real texts, images and graphs that ship with packages. Two minutes on a core.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks import parity_classes, parity_images, parity_metrics, parity_texts
from benchmarks.parity_lines import Line
from repromia.benchmarks.page import Grid, Section, as_markdown

HEADING = ("what", "public code", "figure", "ours", "theirs")
PARTS = {
    "Language models": parity_texts.lines,
    "Diffusion models": parity_images.lines,
    "Classifiers and graphs": parity_classes.lines,
    "Figures": parity_metrics.lines,
}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the small models")
    parser.add_argument("--part", choices=list(PARTS), help="one table alone")
    given = parser.parse_args()
    for title, lines in PARTS.items():
        if given.part in (None, title):
            print(printed(title, lines(given.work)), flush=True)


def printed(title: str, lines: Sequence[Line]) -> str:
    """A table as Markdown."""
    return as_markdown([Section(title, (), (Grid("", HEADING, tuple(map(tuple, lines))),))])


if __name__ == "__main__":
    main()
