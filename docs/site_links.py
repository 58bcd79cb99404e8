"""For the site: what lies outside docs/ has no page there.

A line that is nothing but a link to a section of the README becomes that section, so that it is written once; other
links to source, tests and README become the path they lead to.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
README = DOCS.parent / "README.md"
LINK = r"\[([^\]]+)\]\(([^)#\s]+)(#[^)]*)?\)"


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """The page without links that lead out of docs/."""
    folder = (DOCS / page.file.src_uri).parent
    whole = re.sub(rf"^{LINK}$", lambda link: _section(link, folder), markdown, flags=re.MULTILINE)
    return re.sub(LINK, lambda link: _named(link, folder), whole)


def _section(link: re.Match[str], folder: Path) -> str:
    if (folder / link[2]).resolve() != README:
        return link[0]
    for section in re.split(r"^## ", README.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        title, _, text = section.partition("\n")
        if link[3] == "#" + re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-"):
            return re.sub(LINK, lambda one: _moved(one, folder), text.strip())
    raise ValueError(f"the README has no section {link[3]}")


def _moved(link: re.Match[str], folder: Path) -> str:
    """A link of the README, seen from the page's folder."""
    if "://" in link[2]:
        return link[0]
    return f"[{link[1]}]({os.path.relpath(README.parent / link[2], folder)}{link[3] or ''})"


def _named(link: re.Match[str], folder: Path) -> str:
    path = (folder / link[2]).resolve()
    if "://" in link[2] or path.is_relative_to(DOCS):
        return link[0]
    return f"`{path.relative_to(DOCS.parent)}`"
