"""What a result shows in a notebook, after a real audit of a real small classifier."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import polars
import pytest

import repromia
from repromia.errors import ConfigError, StoreError
from repromia.result import AuditResult
from test_report import a_result, failed, row


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A forest on digits, audited with the files of the command line."""
    from sklearn.datasets import load_digits
    from sklearn.ensemble import RandomForestClassifier

    images, digits = load_digits(return_X_y=True)
    inside = np.random.default_rng(0).permutation(len(images)) < len(images) // 2
    model = RandomForestClassifier(20, random_state=0, n_jobs=1).fit(images[inside], digits[inside])
    records = repromia.load_records((images[inside], digits[inside]), (images[~inside], digits[~inside]))
    out = tmp_path_factory.mktemp("audit")
    target = repromia.classifier(model, records)
    returned = repromia.audit(target, records, out=out, attacks="loss,entropy", fprs=(0.05,), bootstrap=200)
    assert returned == repromia.read_audit(out)
    assert np.array_equal(returned.roc().tpr, repromia.read_audit(out).roc().tpr)
    assert np.array_equal(
        repromia.audit(target, records, out=out, attacks="loss,entropy", fprs=(0.05,), bootstrap=200).roc().fpr,
        returned.roc().fpr,
    )  # found finished, and read back
    return out


def test_curves_are_those_of_the_scores(folder: Path) -> None:
    result, scores = repromia.read_audit(folder), polars.read_parquet(folder / "scores.parquet")
    measured = scores.filter(polars.col("role") == "eval")
    ours, member = measured["loss"].to_numpy(), measured["member"].to_numpy()
    curve = result.roc("loss")
    for fpr, tpr, threshold in zip(curve.fpr, curve.tpr, curve.thresholds, strict=True):
        assert (ours[~member] >= threshold).mean() == pytest.approx(fpr)
        assert (ours[member] >= threshold).mean() == pytest.approx(tpr)
    area = result.attack("loss").auc
    assert area is not None
    assert np.trapezoid(curve.tpr, curve.fpr) == pytest.approx(area.estimate)
    with pytest.raises(KeyError, match="there are"):
        result.roc("lira")


def test_the_table_has_every_figure(folder: Path) -> None:
    result = repromia.read_audit(folder)
    table = result.table()
    assert {"loss", "entropy"} <= set(table["attack"])
    for line in table.iter_rows(named=True):
        rows = [one for one in (*result.attacks, *(one.fitted for one in result.blind)) if one.name == line["attack"]]
        area, (point,) = rows[0].auc, rows[0].tpr_at_fpr
        assert area is not None
        assert (line["auc"], line["auc_low"], line["auc_high"]) == (area.estimate, area.low, area.high)
        assert (line["tpr@0.05"], line["tpr@0.05_low"]) == (point.tpr, point.low)
    assert table.filter(polars.col("headline"))["attack"].to_list() == [result.headline]


def test_a_failed_attack_is_null_and_never_zero() -> None:
    table = a_result(attacks=(row("loss", "passive", 0.6), failed("ratio"))).table()
    line = table.filter(polars.col("attack") == "ratio").row(0, named=True)
    assert (line["status"], line["auc"], line["tpr@0.1"]) == ("failed", None, None)
    assert line["reason"]


def test_the_plot_is_shown_and_saved(folder: Path, tmp_path: Path) -> None:
    drawn = repromia.read_audit(folder).plot()
    shown: Any = drawn
    assert shown._repr_html_() == drawn.page
    assert "loss" in drawn.page
    assert "var(" not in drawn.page + drawn.svg
    drawn.save(tmp_path / "roc.svg")
    assert ElementTree.fromstring((tmp_path / "roc.svg").read_text()).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314
    drawn.save(tmp_path / "roc.html")
    assert drawn.page in (tmp_path / "roc.html").read_text()
    with pytest.raises(ConfigError, match=r"roc\.pdf"):
        drawn.save(tmp_path / "roc.pdf")


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.add(tag)


def test_the_short_page_escapes_names_and_runs_nothing(folder: Path) -> None:
    result: Any = repromia.read_audit(folder)
    assert result.findings[0].sentence.split(":")[0] in result._repr_html_()
    hostile = '<script>alert(1)</script><img src=x onerror="alert(1)">\u202e'
    parser = _Tags()
    page: str = a_result(attacks=(row(hostile, "passive", 0.6),), headline=hostile)._repr_html_()
    parser.feed(page)
    assert parser.seen <= {"div", "p", "table", "thead", "tbody", "tr", "th", "td", "b"}
    assert "\u202e" not in page


def test_without_scores_there_are_no_curves(folder: Path, tmp_path: Path) -> None:
    read = AuditResult.model_validate_json((folder / "result.json").read_bytes())
    for ask in (read.roc, read.plot):
        with pytest.raises(StoreError, match="read_audit"):
            ask()
    with pytest.raises(StoreError, match=str(tmp_path)):
        repromia.read_audit(tmp_path)
