"""A comparison on a terminal and as one self-contained page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from repromia.comparison import Comparison, Difference
from repromia.report.words import moment, visible
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
        f"On {found.n_members} members and {found.n_nonmembers} non-members that every run measured{tied}. Brackets are "
        "95 % intervals; what is given away is judged by the distance from .5, corrected for the number of attacks."
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
    return [f"Not compared, {run}: {', '.join(names)}: {reason}" for (run, reason), names in reasons.items()]


def _short_lines(found: Comparison, run: str) -> list[list[str]]:
    """The same for one run beside the baseline: attack, two AUCs, difference, outcome."""
    own = [one for one in found.attacks if one.run == run]
    return [
        [one.attack, *(f"{auc.estimate:.3f}" for auc in (one.baseline_auc, one.run_auc)), *_change(one)] for one in own
    ]


def _change(one: Difference | None) -> tuple[str, str]:
    return ("", "") if one is None else (signed(one.auc), OUTCOMES[one.outcome])


def tpr_lines(found: Comparison) -> list[list[str]]:
    """Cells of the table of TPRs: attack, run, FPR, baseline, run, difference."""
    return [
        [one.attack, one.run, f"{at.fpr:.1%}", f"{at.baseline:.3f}", f"{at.run:.3f}", signed(at.difference)]
        for one in found.attacks
        for at in one.tpr_at_fpr
    ]


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
    from jinja2 import Environment
    from markupsafe import Markup

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(visible=visible, moment=moment)
    return environment.from_string(_PAGE).render(
        found=found,
        readings=READINGS,
        plot=Markup(plot(found)) if found.attacks else "",  # noqa: S704 — names are escaped in plot()
        headings=_headings(found),
        lines=[[visible(cell) for cell in line] for line in attack_lines(found)],
        tprs=[[visible(cell) for cell in line] for line in tpr_lines(found)],
        counted=_counted(found),
        missing=missing_lines(found),
        colours=COLOURS,
    )


def _headings(found: Comparison) -> Sequence[str]:
    base = found.runs[0].name
    changes = [cell for run in found.runs[1:] for cell in (f"{run.name} − {base}", "gives away")]
    return [visible(one) for one in ("Attack", *(f"AUC in {run.name}" for run in found.runs), *changes)]


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Comparison of membership-inference audits</title>
<style>
:root { --ink: #1c2126; --soft: #58616b; --paper: #fff; --panel: #f4f5f6; --rule: #d5d9dd; --alert: #a8281f;
  --r0: #3f73ad; --r1: #c4560b; --r2: #7a4fc0; --r3: #b0316f; --r4: #2e7d4f; --r5: #6e757d; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ea; --soft: #a3acb5; --paper: #14171a; --panel: #1e2328;
  --rule: #3a4148; --alert: #ff8f84; --r0: #7fb0e6; --r1: #f5934b; --r2: #b597f0; --r3: #f082b2; --r4: #6fc794;
  --r5: #9ba3ab; } }
body { margin: 0 auto; padding: 1.5rem 1.25rem 4rem; max-width: 66rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.25rem; }
p, li { max-width: 46rem; overflow-wrap: anywhere; } .lead { font-size: 1.125rem; } .soft { color: var(--soft); }
.note { border-left: 4px solid var(--alert); background: var(--panel); padding: .5rem .875rem; }
svg.plot { display: block; width: 100%; max-width: 34rem; height: auto; fill: currentColor; }
svg.plot text { paint-order: stroke; stroke: var(--paper); stroke-width: 3px; stroke-linejoin: round; }
figure { margin: .5rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--rule); }
caption { text-align: left; color: var(--soft); }
tbody th { font-weight: 500; overflow-wrap: anywhere; min-width: 8rem; max-width: 16rem; }
td { white-space: nowrap; }
@media (max-width: 40rem) { body { padding: 1rem .875rem 3rem; }
  tbody th { position: sticky; left: 0; background: var(--paper); } }
@media print { body { max-width: none; padding: 0; font-size: 9pt; } .scroll { overflow: visible; }
  td { white-space: normal; } tr, figure { break-inside: avoid; } }
</style>
</head>
<body>
<h1>What changed between these models?</h1>
{% for one in found.headlines %}
<p class="lead">{{ one.sentence|visible }}<br><span class="soft">{{ readings[one.reading] }}</span></p>
{% else %}
<p class="lead">No headline attack was measured in all runs.</p>
{% endfor %}
{% for one in missing %}
<p class="note"><bdi>{{ one|visible }}</bdi></p>
{% endfor %}
<h2>AUC in each run</h2>
<figure>{{ plot }}
<figcaption>{% for run in found.runs %}<span style="color: var(--r{{ loop.index0 % colours }})">
{{- "■" if loop.index0 % 2 else "●" }}</span>
<bdi>{{ run.name|visible }}</bdi>{{ " (baseline)" if loop.first else "" }} {% endfor %}</figcaption></figure>
<div class="scroll" role="region" aria-label="AUC" tabindex="0"><table><caption>AUC with 95 % intervals</caption><thead>
<tr>{% for one in headings %}<th scope="col">{{ one }}</th>{% endfor %}</tr></thead>
<tbody>
{% for line in lines %}
<tr><th scope="row">{{ line[0] }}</th>{% for cell in line[1:] %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
<p class="soft">{{ counted }}</p>
<h2>Members named at few false alarms</h2>
{% if tprs %}
<div class="scroll" role="region" aria-label="TPR" tabindex="0"><table><caption>TPR, differences with
95 % intervals</caption><thead><tr><th scope="col">Attack</th><th scope="col">Run</th>
<th scope="col">FPR</th><th scope="col">TPR, baseline</th><th scope="col">TPR, run</th>
<th scope="col">Difference</th></tr></thead><tbody>
{% for line in tprs %}
<tr><th scope="row">{{ line[0] }}</th>{% for cell in line[1:] %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% else %}
<p>The runs have no false-positive rate in common that these records can measure.</p>
{% endif %}
<h2>The runs</h2>
<ul>
{% for run in found.runs %}
<li><bdi>{{ run.name|visible }}</bdi> ({{ run.created|moment }}, headline <bdi>{{ run.headline|visible }}</bdi>):
{{ run.finding|visible }}</li>
{% endfor %}
</ul>
{% for note in found.notes %}
<p class="soft">{{ note|visible }}</p>
{% endfor %}
</body>
</html>
"""
