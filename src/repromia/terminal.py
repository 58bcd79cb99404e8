"""The result of an audit on a terminal: what was found, how sure it is, what could not be measured."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repromia.progress import Shown
from repromia.report import words
from repromia.result import AttackResult, AuditResult

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

_WIDE = 110  # columns from which costs and a second false positive rate fit


def show_result(result: AuditResult, console: Console, shown: Shown, *, report_path: Path) -> None:
    """The result as it was asked for: a page of text, its first sentence, or what result.json holds."""
    if shown.as_json:
        sys.stdout.write(result.model_dump_json(indent=2) + "\n")
    elif shown.quiet:
        console.print(_text(console, result.findings[0].sentence, ""), soft_wrap=True)
    else:
        print_result(result, console, report_path=report_path)


def print_result(result: AuditResult, console: Console, *, report_path: Path | str | None = None) -> None:
    """Print headline, warnings, what reprogramming added, a table of all attacks, failures and the report's path.

    Works at 80 columns; from 110 columns the table has more of them. Nothing in the result is read as markup.
    """
    for level, label, style in (("headline", "", "bold"), ("warning", "Warning: ", "yellow")):
        for finding in result.findings:
            if finding.level == level:
                console.print(_text(console, label + finding.sentence, style))
    for finding in result.findings:
        if finding.code == "epsilon" or finding.code.startswith(("reprogramming", "slice_")):
            console.print(_text(console, finding.sentence, ""))
    console.print(_text(console, _headline_figures(result), ""))
    console.print(_table(result, console))
    unmeasured = [row for row in words.table_rows(result) if not words.auc_cell(row).measured]
    for row in unmeasured:
        console.print(_text(console, f"{row.name}: {words.auc_cell(row).text}", "red"))
    for remark in _remarks(result, _fprs_shown(result, console.width >= _WIDE)):
        console.print(_text(console, remark, "dim"))
    if report_path is not None:
        # Not wrapped: a path broken over two lines can be neither clicked nor copied.
        console.print(_text(console, f"Report: {report_path}", ""), soft_wrap=True)


def print_attacks(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """What attacks exist, by kind of model: what each measures, needs, takes as options, and where it comes from."""
    from rich.table import Table

    for model in dict.fromkeys(str(row["model"]) for row in rows):
        console.print(_text(console, f"Attacks on a {model} model", "bold"))
        grid = Table.grid(padding=(0, 2))
        grid.add_column(no_wrap=True)
        for row in (one for one in rows if one["model"] == model):
            options = ", ".join(f"{key}={value}" for key, value in row["options"].items())
            facts = [f"kind: {row['kind']}", f"needs: {', '.join(row['needs']) or 'nothing more'}"]
            facts += [f"options: {options}"] * bool(options) + [f"source: {row['citation']}"]
            about = _text(console, f"{row['about']}\n", "").append("; ".join(facts), style="dim")
            grid.add_row(_text(console, str(row["name"]), "bold"), about)
        console.print(grid)
        console.print()


def _headline_figures(result: AuditResult) -> str:
    row = words.headline_row(result)
    if row is None:
        return f"Headline attack: there is no row named {result.headline!r}"
    fpr = words.first_fpr(row)
    auc, tpr = words.auc_cell(row), words.tpr_cell(row, fpr)
    if not auc.measured:
        return f"Headline attack {row.name} {auc.text}"
    found = tpr.text if tpr.measured else f"could not be measured: {tpr.remark or tpr.text}"
    return f"Headline attack {row.name}: AUC {auc.text}; TPR at {words.fpr_words(fpr)} FPR {found}"


def _table(result: AuditResult, console: Console) -> Table:
    from rich import box
    from rich.table import Table

    wide = console.width >= _WIDE
    fprs = _fprs_shown(result, wide)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0), safe_box=True)
    table.add_column("Attack", overflow="fold", ratio=1 if not wide else None)
    table.add_column("AUC [95 %]", no_wrap=True)
    for fpr in fprs:
        table.add_column(f"TPR at {words.fpr_words(fpr)} FPR", no_wrap=not wide)
    if _has_null(result):
        table.add_column("Null AUC", no_wrap=True)
    if wide:
        table.add_column("Time", justify="right", no_wrap=True)
        table.add_column("Passes", justify="right", no_wrap=True)
    kind = ""
    for row in words.table_rows(result):
        if row.kind != kind:
            kind = row.kind
            table.add_row(_text(console, kind, "dim italic"))
        table.add_row(*_cells(result, row, fprs, console))
    return table


def _fprs_shown(result: AuditResult, wide: bool) -> tuple[float, ...]:
    """1 % where it was asked for, and on a wide terminal the next smaller one."""
    fprs = words.all_fprs(result)
    low = tuple(fpr for fpr in fprs if fpr <= 0.01) or fprs[-1:]
    return low[: 2 if wide else 1]


def _has_null(result: AuditResult) -> bool:
    return result.null_target.status == "measured"


def _cells(result: AuditResult, row: AttackResult, fprs: tuple[float, ...], console: Console) -> list[Text]:
    auc = words.auc_cell(row)
    style = "bold" if row.name == result.headline else ""
    if not auc.measured:
        status = "not available" if row.status == "not_available" else "failed"
        return [_text(console, f"  {row.name}", "red"), _text(console, status, "red")]
    cells = [_text(console, f"  {row.name}", style), _text(console, auc.text, style)]
    for fpr in fprs:
        tpr = words.tpr_cell(row, fpr)
        mark = " *" if tpr.measured and tpr.remark else ""
        cells.append(_text(console, tpr.text + mark, style if tpr.measured else "dim"))
    if _has_null(result):
        null = words.null_cell(result, row.name)
        cells.append(_text(console, null.text.split(" ")[0], "" if null.measured else "dim"))
    if console.width >= _WIDE:
        cells += [
            _text(console, words.duration(row.seconds), ""),
            _text(console, f"{row.forward_passes:,.4g}", ""),
        ]
    return cells


def _remarks(result: AuditResult, fprs: tuple[float, ...]) -> list[str]:
    """What the marks of the table mean, each once."""
    cells = [(fpr, words.tpr_cell(row, fpr)) for fpr in fprs for row in words.table_rows(result)]
    refused = (
        f"TPR at {words.fpr_words(fpr)} FPR refused: {cell.remark}"
        for fpr, cell in cells
        if cell.remark and not cell.measured
    )
    remarks = list(dict.fromkeys(refused))
    if any(cell.remark and cell.measured for _, cell in cells):
        remarks.append("* coarse, or too small to be told from chance: read it with its interval only")
    tested = [one for one in result.slices if one.auc is not None]
    if tested and not any(one.code == "slice_more_exposed" for one in result.findings):
        names = ", ".join(dict.fromkeys(one.name for one in tested))
        remarks.append(f"None of the {len(tested)} slices tested (by {names}) is more exposed than the other records")
    if not _has_null(result):
        remarks.append(f"Null target {words.failure(result.null_target.status, result.null_target.reason)}")
    return remarks


def _text(console: Console, content: str, style: str) -> Text:
    from rich.text import Text

    shown = words.visible(content)
    if not console.encoding.lower().startswith("utf"):
        shown = shown.encode(console.encoding, "backslashreplace").decode(console.encoding)
    return Text(shown, style=style, overflow="fold")
