"""The tables of `python -m benchmarks.parity`: where formulas agree the figures do, where they do not they differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import parity
from benchmarks.parity_lines import Line

AGREE = "largest relative difference"


def table(title: str, folder: Path) -> list[Line]:
    """A table, written as it is printed."""
    found = parity.PARTS[title](folder)
    (folder / "table.md").write_text(parity.printed(title, found))
    assert (folder / "table.md").read_text().count("\n| ") == len(found) + 2
    return found


@pytest.mark.parametrize(
    ("title", "formulas"),
    [
        pytest.param("Language models", 5, marks=pytest.mark.slow),
        pytest.param("Diffusion models", 4, marks=pytest.mark.slow),
        pytest.param("Classifiers and graphs", 2, marks=pytest.mark.slow),
        ("Figures", 0),
    ],
)
def test_equal_formulas_give_equal_figures_and_defects_do_not(title: str, formulas: int, tmp_path: Path) -> None:
    found = table(title, tmp_path)
    equal = [one for one in found if one.figure == AGREE]
    assert len(equal) == formulas
    assert all(float(one.theirs) < 1e-4 for one in equal)
    others = [one for one in found if one.figure != AGREE and "same order" not in one.code]
    assert others
    assert all(one.ours != one.theirs for one in others)
