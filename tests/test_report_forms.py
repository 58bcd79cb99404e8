"""The report in other forms, of a real audit: Markdown, model card, PDF, and the page in a real browser."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier

import repromia
from repromia.class_records import class_records_from_objects
from repromia.cli import app, main
from repromia.config import AuditConfig
from repromia.errors import ConfigError, StoreError
from repromia.report import Excerpt, sections
from repromia.report.command import NAMES, Form, report_bytes, report_command
from repromia.report.markdown import escaped, render_markdown
from repromia.result import AuditResult, EpsilonFigure, EpsilonFigures, Exposed, SliceFigures
from test_report import a_result, curves_of, estimate, only_our_script, render_html, text_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = (
    "<script>document.title='run'</script>",
    "<img src=x onerror=\"document.title='run'\">",
    "x" * 100_000,
    "\u202eright to left \u05d0\u05d1\u05d2",
    "👩‍👩‍👧 | table | `code` [link](http://example.invalid)",
    "\x00\x07\x1b[31m",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An audit of a forest on real rows."""
    data = load_breast_cancer()
    order = np.random.default_rng(0).permutation(len(data.target))
    members, nonmembers = ((data.data[side], data.target[side]) for side in (order[:280], order[280:560]))
    records = class_records_from_objects(members, nonmembers)
    forest = RandomForestClassifier(n_estimators=20, random_state=0).fit(
        data.data[order[:280]], data.target[order[:280]]
    )
    out = tmp_path_factory.mktemp("audit") / "run"
    target = repromia.classifier(forest, records)
    repromia.audit(target, records, attacks="passive", fprs=(0.05,), bootstrap=200, out=out)
    return out


def found_in(folder: Path) -> AuditResult:
    return AuditResult.model_validate_json((folder / "result.json").read_bytes())


@pytest.mark.parametrize("form", ["md", "card", "html"])
def test_every_form_has_the_finding_and_the_headline_figure(folder: Path, form: Form) -> None:
    text = report_bytes(folder, form).decode()
    result = found_in(folder)
    row = result.attack(result.headline)
    assert row.auc is not None
    assert f"{row.auc.estimate:.3f} [{row.auc.low:.3f}, {row.auc.high:.3f}]" in text
    assert (text_of(text) if form == "html" else text).count(result.headline)
    assert report_bytes(folder, form).decode() == text


def test_the_page_made_again_differs_in_record_texts_only(folder: Path) -> None:
    page = (folder / "report.html").read_text(encoding="utf-8")
    again = report_bytes(folder, "html").decode()
    exposed = re.compile(r'<section id="exposed">.*?</section>', re.DOTALL)
    assert exposed.sub("", page).rstrip() == exposed.sub("", again).rstrip()
    assert page != again


def test_the_command_writes_beside_the_audit(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (folder / "report.html").read_bytes()
    for form, name in NAMES.items():
        with pytest.raises(SystemExit) as ended:
            main(["report", str(folder), "--format", form])
        assert ended.value.code == 0
        assert (folder / name).stat().st_size > 500
    assert (folder / "report.pdf").read_bytes().startswith(b"%PDF-")
    assert (folder / "report.html").read_bytes() == before
    assert "report.md" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", ["missing", "truncated", "foreign"])
def test_folders_that_hold_no_audit(folder: Path, tmp_path: Path, wrong: str) -> None:
    copy = tmp_path / "run"
    if wrong != "missing":
        shutil.copytree(folder, copy)
    if wrong == "truncated":
        (copy / "result.json").write_bytes((copy / "result.json").read_bytes()[:900])
    if wrong == "foreign":
        (copy / "result.json").write_text(json.dumps({"accuracy": 0.9}))
    with pytest.raises(StoreError, match="no finished audit"):
        report_bytes(copy, "md")


def test_a_pdf_needs_its_library(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    with pytest.raises(ConfigError, match=r"repromia\[pdf\]"):
        report_bytes(folder, "pdf")


EPSILON = EpsilonFigures(
    status="measured",
    reason="",
    attack="loss",
    delta=1e-5,
    complete=True,
    bounds=(EpsilonFigure(name="rates", epsilon=0.4321, confidence=0.95, assumes="lots <b>", source="Jagielski 2020"),),
)
SLICES = (
    SliceFigures(
        attack="loss",
        name="language",
        value="<de>|",
        n_members=40,
        n_nonmembers=41,
        auc=estimate(0.7),
        difference=estimate(0.12),
        more_exposed=True,
    ),
    SliceFigures(attack="loss", name="language", value="fr", n_members=3, n_nonmembers=2, reason="too few"),
)


def test_epsilon_and_slices_are_shown() -> None:
    result = a_result(epsilon=EPSILON, slices=SLICES)
    page = text_of(render_html(result, curves={}, excerpts={}))
    for text in (page, render_markdown(result)):
        assert "0.432" in text
        assert "The bound to name is the first" in text
        assert "95 %" in text
        assert "more exposed" in text
        assert "0.700 [0.663, 0.737]" in text
    assert "language = <de>|" in page
    assert "1 more kind has too few records" in page
    without = a_result(epsilon=EpsilonFigures(status="not_available", reason="no lot was drawn"))
    assert "No bound on epsilon: no lot was drawn." in text_of(render_html(without, curves={}, excerpts={}))
    assert "No bound on epsilon: no lot was drawn" in render_markdown(without)


def test_the_audit_itself_is_not_written_over(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"result\.json of the audit"):
        report_command(tmp_path, out=tmp_path / "result.json")


def test_the_command_of_an_audit_is_the_one_that_was_typed() -> None:
    typed = ["--model", "./a b", "--members", "m.jsonl", "--nonmembers", "n.jsonl", "--out", "o", "--attacks", "loss"]
    config = AuditConfig(
        model="./a b", members="m.jsonl", nonmembers="n.jsonl", out="o", attacks="loss", fprs=(0.01,), controls=False
    )
    line = sections.command(json.loads(config.model_dump_json()))
    assert shlex.split(line)[:2] == ["repromia", "audit"]
    assert set(typed) <= set(shlex.split(line))
    bound = app.parse_args(shlex.split(line)[1:])[1]
    assert bound.arguments["config"] == config
    assert sections.command({"seed": 0}) == ""


@given(st.text(max_size=60))
def test_nothing_in_markdown_is_markup(text: str) -> None:
    shown = escaped(text)
    assert "\n" not in shown
    assert not set("<>") & set(shown)
    assert "://" not in shown
    assert not re.search(r"(?<!\\)(?:\\\\)*(?:[`*_<>|~$]|\][\[(])", shown)


def test_hostile_names_stay_in_their_cells() -> None:
    exposed = tuple(Exposed(id=text[:300], score=1.0, nonmember_share=0.5) for text in HOSTILE)
    text = render_markdown(a_result(exposed=exposed))
    table = text[text.index("## Most exposed") : text.index("## How to run")]
    lines = [line for line in table.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(HOSTILE)
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {4}
    assert "<script" not in text


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.parametrize("width", [390, 1366])
def test_hostile_records_in_a_real_browser(tmp_path: Path, width: int) -> None:
    """No script of a record runs, the page's own does, and nothing is wider than the window."""
    exposed = tuple(Exposed(id=text[:300], score=1.0, nonmember_share=0.5) for text in HOSTILE)
    result = a_result(exposed=exposed, epsilon=EPSILON, slices=SLICES)
    shown = {text[:300]: Excerpt(text) for text in HOSTILE}
    page = render_html(result, curves=curves_of(result, n=2000), excerpts=shown)
    assert only_our_script(page)
    path = tmp_path / "report.html"
    # Chromium's own windows are never narrower than 500 pixels: a frame is.
    frame = f'<iframe id="f" src="report.html" width="{width}" height="800" style="border:0"></iframe>'
    ask = (
        "<script>onload=()=>{const d=document.getElementById('f').contentDocument;"
        "document.body.dataset.wide=d.documentElement.scrollWidth;"
        "document.body.dataset.name=d.title;"
        "document.body.dataset.buttons=d.querySelectorAll('th button').length}</script>"
    )
    path.write_text(page, encoding="utf-8")
    (tmp_path / "outer.html").write_text(f"<body>{frame}{ask}</body>", encoding="utf-8")
    done = subprocess.run(
        [
            CHROMIUM or "",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--allow-file-access-from-files",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=5000",
            "--dump-dom",
            (tmp_path / "outer.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    told = dict(re.findall(r'data-(\w+)="([^"]*)"', done.stdout))
    assert told["name"].startswith("Membership-inference audit")
    assert int(told["wide"]) <= width
    assert int(told["buttons"]) > 10
