"""The site builds without a warning, needs no network, and says what the README says where it is included."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def text_of(page: Path) -> str:
    article = re.search(r"<article.*?</article>", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert article
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", article[0])).split())


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert listed == {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["theme"]["font"] is False


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=[\"']?([^\"' >]+)", page.read_text("utf-8"))
        assert [one for one in loaded if one.startswith(("http:", "https:", "//"))] == [], page


def test_sections_of_the_readme_stand_where_they_are_linked(site: Path) -> None:
    said = text_of(site / "language" / "index.html")
    assert "'same_supervision:references=true' tells members from non-members with AUC 0.933" in said
    assert "Null AUC is the same attack on a model that cannot have seen the records" in said
    assert "--members train.jsonl --nonmembers heldout.jsonl" in text_of(site / "start" / "index.html")


def test_the_api_has_every_public_name(site: Path) -> None:
    import repromia

    page = (site / "api" / "index.html").read_text(encoding="utf-8")
    for name in set(repromia.__all__) - {"__version__"}:
        assert f'id="repromia.{name}"' in page, name
    assert "Raises RepromiaError." in text_of(site / "api" / "index.html")
