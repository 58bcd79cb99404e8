"""Figures of the pages that sum up stand in the pages that they link to, which say how they were measured."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
FIGURE = re.compile(r"(?<![\w.])[+-]?(?:0?\.\d+)(?![\w.]*\d)")
LINK = re.compile(r"\]\(([^)#]+\.md)(?:#[^)]*)?\)")


def figures(text: str) -> set[str]:
    """Decimal fractions without sign and leading zero, to three places at most as the pages round them."""
    return {one.lstrip("+-0") for one in FIGURE.findall(text)}


def statements(page: str) -> list[tuple[str, list[Path]]]:
    """Rows of tables, items of lists and paragraphs that have figures and name their source."""
    text = re.sub(r"(?m)^(?=[|*])", "\n", (DOCS / page).read_text(encoding="utf-8"))
    parts = [(part, [DOCS / one for one in LINK.findall(part)]) for part in re.split(r"\n\s*\n", text)]
    return [(part, links) for part, links in parts if figures(part) and links]


@pytest.mark.parametrize("page", ["science.md", "what-can-go-wrong.md"])
def test_figures_stand_in_the_linked_pages(page: str) -> None:
    found = statements(page)
    assert len(found) >= 3
    for part, links in found:
        known = set().union(*(figures(link.read_text(encoding="utf-8")) for link in links))
        assert figures(part) - known == set(), f"{part.strip()[:100]} … of {[link.name for link in links]}"


def test_a_figure_from_nowhere_would_be_found() -> None:
    assert figures("+.143 [+0.100, .186] in 12.5 s, v1.2.3") == {".143", ".100", ".186"}
    assert figures(".999") - figures("AUC 0.998") == {".999"}
