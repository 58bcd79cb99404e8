"""A comparison on a terminal and as one self-contained page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from repromia.comparison import Comparison, Difference
from repromia.report.words import fpr_words, gain_words, moment, percent, visible
from repromia.result import Estimate
from repromia.verdict import interval, signed

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

OUTCOMES = {"less": "less", "more": "more", "not_shown": "not shown", "identical": "identical"}
READINGS = {
    "highest_risk": "Attack of the highest risk, chosen on the baseline's select role",
    "own_headline": "Each run's own headline attack",
}
COLOURS = 6  # as many as the page has variables for
_WIDTH = 400  # of the plot, about what a phone shows
_HEADING = 9  # columns of a terminal that the heading of a figure may take by itself
PLOTTED = 40  # lines that still can be read; the table has all


def print_comparison(found: Comparison, console: Console, *, page: Path | None = None) -> None:
    """Sentences, tables of all attacks, what could not be compared, notes. Nothing is read as markup."""
    for one in found.headlines:
        console.print(_text(console, f"{READINGS[one.reading]}: {one.sentence}", "bold"))
    if not found.headlines:
        console.print(_text(console, "No headline attack was measured in all runs.", "bold red"))
    for table in _tables(found, console):
        console.print(table)
    for sentence in missing_lines(found):
        console.print(_text(console, sentence, "red"))
    for note in (_counted(found), *found.notes):
        console.print(_text(console, note, "dim"))
    if page is not None:
        console.print(_text(console, f"Page: {page}", ""), soft_wrap=True)


def _tables(found: Comparison, console: Console) -> list[Table]:
    """One table of all runs where the terminal is wide enough, else one a run, of AUCs without their intervals."""
    names = [one.name for one in found.runs]
    if console.width >= 24 + 24 * len(names) + 36 * (len(names) - 1):
        changes = [cell for name in names[1:] for cell in (f"{name} - {names[0]}", "gives away")]
        return [_table(["Attack", *names, *changes], attack_lines(found), console)]
    return [
        _table(["Attack", names[0], name, f"{name} - {names[0]}", "gives away"], _short_lines(found, name), console)
        for name in names[1:]
    ]


def _table(headings: Sequence[str], lines: Sequence[Sequence[str]], console: Console) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0), safe_box=True)
    short = [heading[:_HEADING] for heading in headings]
    longest, *figures = (max(map(len, column)) for column in zip(short, *lines, strict=True))
    room = console.width - 2 - sum(3 + one for one in figures)  # names fold, figures do not
    for heading, width in zip(headings, (max(_HEADING, min(longest, room)), *figures), strict=True):
        table.add_column(_text(console, heading, ""), overflow="fold", width=width)
    for line in lines:
        table.add_row(*(_text(console, cell, "") for cell in line))
    return table


def _counted(found: Comparison) -> str:
    tied = ", resampled in groups" if found.grouped else ""
    return (
        f"On {found.n_members:,} members and {found.n_nonmembers:,} non-members that every run measured{tied}. "
        "Brackets are 95 % intervals; what is given away is judged by the distance from .5, corrected for the "
        "number of attacks."
    )


def attack_lines(found: Comparison) -> list[list[str]]:
    """Cells of the table: attack, AUC in each run, then difference and outcome for each run but the first."""
    lines = []
    for name in dict.fromkeys(one.attack for one in found.attacks):
        own = {one.run: one for one in found.attacks if one.attack == name}
        base = interval(next(iter(own.values())).baseline_auc)
        aucs = [interval(own[run.name].run_auc) if run.name in own else "not compared" for run in found.runs[1:]]
        changes = [_change(own.get(run.name)) for run in found.runs[1:]]
        lines.append([name, base, *aucs, *(cell for change in changes for cell in change)])
    return lines


def missing_lines(found: Comparison) -> list[str]:
    """What was not compared, a line for each reason in each run."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for one in found.missing:
        reasons.setdefault((one.run, one.reason), []).append(one.attack)
    return [f"Not compared: {', '.join(names)} ({run}: {reason})" for (run, reason), names in reasons.items()]


def _short_lines(found: Comparison, run: str) -> list[list[str]]:
    """The same for one run beside the baseline: attack, two AUCs, difference, outcome."""
    own = [one for one in found.attacks if one.run == run]
    return [
        [one.attack, *(f"{auc.estimate:.3f}" for auc in (one.baseline_auc, one.run_auc)), *_change(one)] for one in own
    ]


def _change(one: Difference | None) -> tuple[str, str]:
    return ("", "") if one is None else (signed(one.auc), OUTCOMES[one.outcome])


def tpr_lines(found: Comparison) -> list[list[str]]:
    """Cells of the table of TPRs: attack, run where there are several, FPR, baseline, run, difference in points."""
    several = len(found.runs) > 2
    return [
        [
            *([one.attack, one.run] if several else [one.attack]),
            *(fpr_words(at.fpr), percent(at.baseline), percent(at.run), gain_words(at.difference, points=True)),
        ]
        for one in found.attacks
        for at in one.tpr_at_fpr
    ]


def _tpr_headings(found: Comparison) -> Sequence[str]:
    names = [run.name for run in found.runs]
    run = ("FPR", *(f"TPR in {one}" for one in names))
    if len(names) > 2:
        run = ("Run", "FPR", f"TPR in {names[0]}", "TPR in run")
    return [visible(one) for one in ("Attack", *run, "Difference")]


def _text(console: Console, content: str, style: str) -> Text:
    from rich.text import Text

    shown = visible(content)
    if not console.encoding.lower().startswith("utf"):
        shown = shown.replace("→", "->").encode(console.encoding, "backslashreplace").decode(console.encoding)
    return Text(shown, style=style, overflow="fold")


def plot(found: Comparison) -> str:
    """SVG: AUC of every attack in every run with its interval; colours are variables of the page. Names are escaped."""
    from html import escape

    rows: list[tuple[str, list[Estimate | None]]] = []
    for name in dict.fromkeys(one.attack for one in found.attacks):
        own = {one.run: one for one in found.attacks if one.attack == name}
        base = next(iter(own.values())).baseline_auc
        others = [own[run.name].run_auc if run.name in own else None for run in found.runs[1:]]
        rows.append((name, [base, *others]))
    rows = rows[:PLOTTED]
    known = [one for _, areas in rows for one in areas if one is not None]
    low, high = min([0.45, *(one.low for one in known)]), max([0.55, *(one.high for one in known)])
    step = 16 * len(found.runs) + 22
    height = step * len(rows) + 34

    def x(value: float) -> float:
        return 10 + (_WIDTH - 20) * (value - low) / (high - low)

    parts = [_axis(low, high, height, x(0.5))]
    for at, (name, areas) in enumerate(rows):
        top = at * step + 16
        parts.append(f'<text x="10" y="{top}" font-size="13">{escape(_short(name))}</text>')
        for run, one in enumerate(areas):
            if one is not None:
                parts.append(_whisker(x(one.low), x(one.estimate), x(one.high), top + 12 + 16 * run, run))
    label = escape(f"AUC of each attack in {len(found.runs)} runs, with 95 % intervals")
    body = "".join(parts)
    return f'<svg class="plot" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{label}">{body}</svg>'


def _short(name: str, length: int = 50) -> str:
    shown = visible(name).replace("\n", " ")
    return shown if len(shown) <= length else shown[: length - 1] + "…"


def _axis(low: float, high: float, height: int, middle: float) -> str:
    ends = "".join(
        f'<text x="{at}" y="{height - 4}" font-size="12" text-anchor="{anchor}">{value:.2f}</text>'
        for at, value, anchor in ((10, low, "start"), (_WIDTH - 10, high, "end"))
        if abs(at - middle) > 50
    )
    line = f'<line x1="{middle:.1f}" y1="0" x2="{middle:.1f}" y2="{height - 18}" stroke="currentColor" opacity=".5"/>'
    return f'{line}{ends}<text x="{middle:.1f}" y="{height - 4}" font-size="12" text-anchor="middle">.5</text>'


def _whisker(low: float, middle: float, high: float, y: int, run: int) -> str:
    colour = f"var(--r{run % COLOURS})"
    shape = f'<circle cx="{middle:.1f}" cy="{y}" r="4.5" fill="{colour}"/>'
    if run % 2:
        shape = f'<rect x="{middle - 4:.1f}" y="{y - 4}" width="8" height="8" fill="{colour}"/>'
    return f'<line x1="{low:.1f}" y1="{y}" x2="{high:.1f}" y2="{y}" stroke="{colour}" stroke-width="2.4"/>{shape}'


def render_comparison(found: Comparison) -> str:
    """One HTML page without scripts or outside files; every name and sentence is escaped."""
    from importlib.resources import files

    from jinja2 import Environment
    from markupsafe import Markup

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(visible=visible, moment=moment)
    source = files("repromia.report").joinpath("compare.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        found=found,
        readings=READINGS,
        plot=Markup(plot(found)) if found.attacks else "",  # noqa: S704 — names are escaped in plot()
        headings=_headings(found),
        lines=[[visible(cell) for cell in line] for line in attack_lines(found)],
        tprs=[[visible(cell) for cell in line] for line in tpr_lines(found)],
        tpr_headings=_tpr_headings(found),
        counted=_counted(found),
        missing=missing_lines(found),
        colours=COLOURS,
    )


def _headings(found: Comparison) -> Sequence[str]:
    base = found.runs[0].name
    changes = [cell for run in found.runs[1:] for cell in (f"{run.name} − {base}", "gives away")]
    return [visible(one) for one in ("Attack", *(f"AUC in {run.name}" for run in found.runs), *changes)]
