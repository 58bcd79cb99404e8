"""What a notebook shows of a result: a table to compute with, exact curves, a short page and a plot."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from repromia.errors import ConfigError
from repromia.metrics import RocCurve
from repromia.report import RocPoints, roc_and_legend, words
from repromia.result import AuditResult, Estimate

if TYPE_CHECKING:
    import polars

_COLOURS: Final = {
    "passive": "#6c7580",
    "reference": "#3d6fb0",
    "reprogrammed": "#c4550c",
    "head": "#8157c4",
    "blind": "#b8346b",
    "faint": "#b9bec5",
}


@dataclass(frozen=True)
class Drawing:
    """ROC curves as notebooks show them. svg: stands alone, without a legend; page: a piece of HTML with one."""

    svg: str
    page: str

    def _repr_html_(self) -> str:
        return self.page

    def save(self, path: str | Path) -> None:
        """Write to a file: .svg the curves alone, .html with the legend. Raises ConfigError for another ending."""
        kinds = {".svg": self.svg, ".html": f'<!doctype html><meta charset="utf-8"><title>ROC</title>{self.page}'}
        path = Path(path)
        if path.suffix.lower() not in kinds:
            raise ConfigError("A plot is written as .svg or .html.", expected="roc.svg or roc.html", found=path.name)
        path.write_text(kinds[path.suffix.lower()] + "\n", encoding="utf-8")


def table_of(result: AuditResult) -> polars.DataFrame:
    """One line an attack, blind baselines included; order as in the report.

    Columns: attack, kind, status, reason, headline, auc with auc_low and auc_high, null_auc, and for every
    false-positive rate asked for tpr@F with tpr@F_low and tpr@F_high; shares, not per cent; null where nothing was
    measured.
    """
    import polars

    null = {row.name: row.auc for row in result.null_target.rows}
    lines = []
    for row in words.table_rows(result):
        line: dict[str, Any] = {"attack": row.name, "kind": row.kind, "status": row.status, "reason": row.reason}
        line |= {"headline": row.name == result.headline}
        line |= _interval("auc", row.auc) | {"null_auc": _middle(null.get(row.name))}
        at = {point.fpr: point for point in row.tpr_at_fpr}
        for fpr in words.all_fprs(result):
            point, name = at.get(fpr), f"tpr@{fpr:g}"
            line |= {
                name: point and point.tpr,
                f"{name}_low": point and point.low,
                f"{name}_high": point and point.high,
            }
        lines.append(line)
    shares = {name: polars.Float64 for line in lines for name in line if "auc" in name or name.startswith("tpr@")}
    return polars.DataFrame(lines, schema_overrides=shares, infer_schema_length=None)


def _interval(name: str, found: Estimate | None) -> dict[str, float | None]:
    if found is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: found.estimate, f"{name}_low": found.low, f"{name}_high": found.high}


def _middle(found: Estimate | None) -> float | None:
    return None if found is None else found.estimate


def page_of(result: AuditResult) -> str:
    """Findings and the attack table as HTML without scripts; every text of others is escaped."""
    fprs = words.all_fprs(result)
    head = ["Attack", "Kind", "AUC", "AUC on null target", *(f"TPR at {words.fpr_words(fpr)} FPR" for fpr in fprs)]
    lines = []
    for row in words.table_rows(result):
        cells = [words.auc_cell(row), words.null_cell(result, row.name), *(words.tpr_cell(row, fpr) for fpr in fprs)]
        name = f"<b>{_text(row.name)}</b>" if row.name == result.headline else _text(row.name)
        lines.append("".join(f"<td>{one}</td>" for one in (name, row.kind, *(_text(cell.text) for cell in cells))))
    said = "".join(f"<p>{_text(one.sentence)}</p>" for one in result.findings if one.level != "note")
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    heads = "".join(f'<th scope="col">{_text(one)}</th>' for one in head)
    return f"<div>{said}<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"


def _text(text: str) -> str:
    return html.escape(words.visible(text))


def plot_of(result: AuditResult, curves: Mapping[str, RocCurve]) -> Drawing:
    """The report's ROC curves on logarithmic axes. Raises ConfigError where no curve can be drawn."""
    points = {name: RocPoints(curve.fpr, curve.tpr) for name, curve in curves.items()}
    svg, legend = roc_and_legend(result, words.table_rows(result), points)
    if not svg:
        raise ConfigError("No attack was measured: there is no curve to draw.", expected="a measured attack")
    names = "".join(f"<li>{one.swatch} {_text(one.name)} ({one.kind})</li>" for one in legend)
    alone = str(svg).replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    page = _coloured(f'<div style="max-width:42rem">{svg}<ul style="list-style:none;padding:0">{names}</ul></div>')
    return Drawing(svg=_coloured(alone).replace("currentColor", "#1b1f23"), page=page)


def _coloured(drawn: str) -> str:
    """Colours in place of the variables of the report's page."""
    for name, colour in _COLOURS.items():
        drawn = drawn.replace(f"var(--c-{name})", colour)
    return drawn
