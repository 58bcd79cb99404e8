"""The report can be read by everyone: contrast, structure, keyboard, print; and no record takes part in its markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from importlib.resources import files
from itertools import pairwise

import numpy as np
import pytest

from repromia.intervals import tpr_interval
from repromia.metrics import roc_curve
from repromia.report import Excerpt, RocPoints, render_html
from repromia.report.bands import band_of
from repromia.result import Exposed, RecordsSummary, TprAtFpr
from test_report import a_result, curves_of, parsed, row
from test_report_forms import EPSILON, HOSTILE, SLICES

TEMPLATE, COMPARISON = (
    files("repromia.report").joinpath(name).read_text(encoding="utf-8")
    for name in ("template.html.j2", "compare.html.j2")
)
SCHEMES = {"light": r":root \{(.*?)\}", "dark": r"prefers-color-scheme: dark\) \{ :root \{(.*?)\}"}
PAGES = {"report": TEMPLATE, "comparison": COMPARISON}
VOID = {"meta", "br", "img", "input", "col"}


def colours(page: str, scheme: str) -> dict[str, str]:
    found = re.search(SCHEMES[scheme], page, flags=re.DOTALL)
    assert found is not None
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]+)", found[1]))


def contrast(one: str, other: str) -> float:
    """WCAG 2.2: (L1 + .05) / (L2 + .05), L the relative luminance of sRGB."""

    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return float(np.dot([0.2126, 0.7152, 0.0722], linear))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#fff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_text_has_the_contrast_of_wcag_aa(name: str, scheme: str) -> None:
    shown = colours(PAGES[name], scheme)
    for text in ("ink", "soft", "alert"):
        for ground in ("paper", "panel"):
            assert contrast(shown[text], shown[ground]) >= 4.5, (text, ground)
    drawn = [one for one in shown if one.startswith(("c-", "r")) and one not in ("c-faint", "rule")]
    assert len(drawn) >= 5
    for line in drawn:  # lines of plots: 3 to 1 by criterion 1.4.11
        assert contrast(shown[line], shown["paper"]) >= 3, line


class Structure(HTMLParser):
    """Every element with its attributes and its parents."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None], tuple[str, ...]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), tuple(self.open)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), tuple(self.open)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes, _ in self.elements if name == tag]


def structure(page: str) -> Structure:
    found = Structure()
    found.feed(page)
    found.close()
    assert not found.open
    return found


def a_page(image: str = "data:image/png;base64,AA==") -> str:
    """A report with everything in it, whose records and ids are hostile."""
    exposed = tuple(Exposed(id=text[:300], score=1.0, nonmember_share=0.5) for text in HOSTILE)
    result = a_result(exposed=exposed, epsilon=EPSILON, slices=SLICES)
    excerpts = {text[:300]: Excerpt(text, image if at == 0 else "") for at, text in enumerate(HOSTILE)}
    return render_html(result, curves=curves_of(result), excerpts=excerpts)


def test_the_page_has_the_structure_that_assistive_technology_reads() -> None:
    page = a_page()
    found = structure(page)
    assert found.all("html") == [{"lang": "en"}]
    assert len(found.all("main")) == len(found.all("h1")) == 1
    assert sum(tag == "title" and parents == ("html", "head") for tag, _, parents in found.elements) == 1
    levels = [int(tag[1]) for tag, _, _ in found.elements if re.fullmatch(r"h[1-6]", tag)]
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))
    assert all(one.get("alt") for one in found.all("img"))
    drawn = [one for one in found.all("svg") if one.get("class") == "plot"]
    assert len(drawn) == 2
    assert all(one.get("role") == "img" and one.get("aria-label") for one in drawn)
    assert all(one.get("aria-hidden") == "true" for one in found.all("svg") if one not in drawn)


@pytest.mark.parametrize("name", PAGES)
def test_no_name_is_wider_than_a_phone(name: str) -> None:
    """Names of attacks have no spaces: they break anywhere, and figures in tables, which scroll, nowhere."""
    rules = dict(re.findall(r"^(body|table) \{(.*?)\}", PAGES[name], flags=re.MULTILINE | re.DOTALL))
    assert "overflow-wrap: anywhere" in rules["body"]
    assert "overflow-wrap: normal" in rules["table"]
    assert "white-space: nowrap" not in rules["body"]


def test_tables_say_what_their_cells_belong_to() -> None:
    found = structure(a_page())
    tables = found.all("table")
    assert len(tables) == len(found.all("caption")) == len(found.all("thead"))
    assert len(tables) > 8
    assert {one.get("scope") for one in found.all("th")} == {"col", "row"}
    scrolled = [one for one in found.all("div") if one.get("class") == "scroll"]
    assert len(scrolled) == len(tables)
    assert all(one.get("tabindex") == "0" and one.get("role") == "region" and one.get("aria-label") for one in scrolled)
    named = [attributes for _, attributes, _ in found.elements if "id" in attributes]
    assert len({one["id"] for one in named}) == len(named)


def test_sorting_is_by_buttons_and_is_announced() -> None:
    script = files("repromia.report").joinpath("sort.js").read_text(encoding="utf-8")
    assert 'createElement("button")' in script
    assert "aria-sort" in script
    assert 'class="sortable"' in a_page()
    assert "outline: none" not in TEMPLATE


def test_hostile_records_add_no_element_attribute_or_hidden_character() -> None:
    """The same page with harmless records has the same elements, in the same order, with the same attributes."""
    page = a_page()
    exposed = tuple(Exposed(id=f"id{at}", score=1.0, nonmember_share=0.5) for at in range(len(HOSTILE)))
    result = a_result(exposed=exposed, epsilon=EPSILON, slices=SLICES)
    excerpts = {f"id{at}": Excerpt("plain", "data:image/png;base64,AA==" if at == 0 else "") for at in range(6)}
    harmless = render_html(result, curves=curves_of(result), excerpts=excerpts)

    def bones(text: str) -> list[tuple[str, tuple[str, ...]]]:
        return [(tag, tuple(attributes)) for tag, attributes, _ in structure(text).elements]

    assert bones(page) == bones(harmless)
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00-\x08\x0b-\x1f]", page)
    assert not any(name.startswith("on") for _, attributes, _ in structure(page).elements for name in attributes)
    assert len(page) < len(harmless) + 10_000
    shown = " ".join(parsed(page).text)
    assert "👩‍👩‍👧 | table" in shown
    assert "⟨U+202E⟩right to left אבג" in shown


def test_a_band_is_the_interval_of_the_rate_along_the_curve() -> None:
    """The curve alone gives back the intervals of the scores it was made of, ties included."""
    generator = np.random.default_rng(0)
    member = np.arange(700) < 300
    scores = np.round(generator.normal(member * 0.8, 1), 1)
    curve = roc_curve(scores, member)
    own = row("loss", "passive", 0.7, n_members=300, n_nonmembers=400)
    band = band_of(own, RocPoints(curve.fpr, curve.tpr), grouped=False)
    assert band is not None
    for fpr, low, high in zip(band.fpr[::5], band.low[::5], band.high[::5], strict=True):
        expected = tpr_interval(scores, member, float(fpr))
        assert (low, high) == (expected.low, expected.high)
    of_others = row("loss", "passive", 0.7, n_members=500, n_nonmembers=500)
    assert band_of(of_others, RocPoints(curve.fpr, curve.tpr), grouped=False) is None


def test_grouped_records_get_the_intervals_of_the_table() -> None:
    own = row("loss", "passive", 0.7)
    points = RocPoints(np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    band = band_of(own, points, grouped=True)
    assert band is not None
    assert not band.joined
    assert band.fpr.tolist() == [0.1, 0.01]
    assert band.low.tolist() == [0.17, 0.008]
    refused = (TprAtFpr(fpr=0.01, status="refused", reason="too few"),)
    assert band_of(row("loss", "passive", 0.7, tpr_at_fpr=refused), points, grouped=True) is None


@pytest.mark.parametrize("grouped", [False, True])
def test_the_plot_has_bands_of_both_kinds_and_says_what_they_are(grouped: bool) -> None:
    plain = a_result()
    records: RecordsSummary = plain.records.model_copy(update={"grouped": grouped})
    result = a_result(records=records)
    page = render_html(result, curves=curves_of(result), excerpts={})
    figure = page[page.index('<section id="roc"') : page.index("</figure>")]
    assert ("Upright lines: 95 % intervals" if grouped else "Bands: 95 % intervals") in figure
    areas = re.findall(r"fill: var\(--c-(\w+)\); fill-opacity: 0.18", figure)
    assert sorted(areas) == ([] if grouped else ["passive", "reprogrammed"])
