"""Tables of benchmarks as Markdown and as one small HTML page that opens offline."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from repromia.benchmarks.central import CentralRow, Summary, summaries
from repromia.benchmarks.figures import Claim
from repromia.benchmarks.tables import Bench, BenchCell, BenchRow, BenchTable, failures
from repromia.result import Estimate, Gain

STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:80rem;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:1rem 0;display:block;overflow-x:auto}"
    "td,th{border-bottom:1px solid #ddd;padding:.25rem .6rem;text-align:left;white-space:nowrap}"
    "tr.first td{background:#f4f1e6}caption{text-align:left;font-weight:600;padding:.4rem 0}.failed{color:#a00}"
)
NONE = "–"


class Grid(NamedTuple):
    """A table. first: whether its first row is the one to be beaten."""

    caption: str
    heading: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    first: bool = False


class Section(NamedTuple):
    """A heading, sentences, and tables."""

    title: str
    sentences: tuple[str, ...]
    grids: tuple[Grid, ...] = ()


def sections(bench: Bench) -> list[Section]:
    """What both forms say."""
    opening = Section(
        "Benchmarks",
        (
            f"`{bench.command}` (repromia {bench.versions.get('repromia', '')}, preset {bench.preset}).",
            "Figures are of the eval role; brackets are 95 % intervals. Seeds share records: they are not pooled.",
            "The blind baseline never sees the model and is the first row: an attack that is no better says nothing "
            "about the model. `null` is the same attack on a model that cannot have seen the records.",
            _where(bench),
            *(f"Could not be measured: {one}" for one in failures(bench.tables)),
        ),
    )
    return [opening, _central(bench), *map(_section, bench.tables)]


def _where(bench: Bench) -> str:
    devices = dict.fromkeys(one.device for table in bench.tables for one in table.cells if one.device)
    said = "; ".join(f"{name} {number}" for name, number in bench.versions.items())
    return f"Measured on {', '.join(devices) or 'the CPU'} with {said}." if said else "Nothing was measured."


def _central(bench: Bench) -> Section:
    if not bench.central:
        said = "No i.i.d. suite was measured in this run: only the claims are shown."
        return Section("Does reprogramming help?", (said,), (_claims(bench.claims),))
    return central_section(bench.central, bench.claims)


def central_section(rows: Sequence[CentralRow], claims: Sequence[Claim]) -> Section:
    """Gains over all targets, beside what the paper claims, and target by target."""
    said = (
        "Paired gains on the same eval records, members drawn by lot. Over best passive: what is gained over an attack "
        "that learns nothing. Over same supervision: what the program adds to a head that learns from the same labels.",
        "Means are over targets, some of which share records: no interval is given for them.",
        "Gains between heads are of the heads as fitted: of equal heads 7 to 8 % of intervals lie above 0, not 2.5 %.",
    )
    summed = tuple(map(_summed, summaries(rows)))
    heading = ("modality", "attack", "over", "targets", "AUC, mean", "intervals > 0, across, < 0")
    over_all = Grid("Over all targets", (*heading, "TPR at 1 % FPR, mean", "intervals > 0, across, < 0"), summed)
    each = Grid("Target by target", ("suite", "attack", "over", "AUC", "TPR at 1 % FPR"), _suite_rows(rows))
    return Section("Does reprogramming help?", said, (over_all, _claims(claims), each))


def _summed(one: Summary) -> tuple[str, ...]:
    auc = (f"{one.auc:+.3f}", "{}, {}, {}".format(*one.auc_signs))
    tpr = (NONE, NONE) if one.tpr is None else (f"{one.tpr:+.3f}", "{}, {}, {}".format(*one.tpr_signs))
    return (one.modality, one.attack, one.role.replace("_", " "), str(one.targets), *auc, *tpr)


def _claims(claims: Sequence[Claim]) -> Grid:
    rows = tuple(
        (one.modality, "best passive", f"{one.auc / 100:+.4f}", f"{one.tpr / 100:+.4f}", one.source) for one in claims
    )
    return Grid("Claimed for ReproMIA", ("modality", "over", "AUC", "TPR at 1 % FPR", "source"), rows)


def _suite_rows(rows: Sequence[CentralRow]) -> tuple[tuple[str, ...], ...]:
    """One row a suite, attack and rival; its targets side by side."""
    suites: dict[tuple[str, str, str], list[CentralRow]] = {}
    for one in rows:
        suites.setdefault((one.benchmark, one.attack, one.role.replace("_", " ")), []).append(one)
    return tuple(
        (*name, "; ".join(_signed(one.auc) for one in own), "; ".join(_signed(one.tpr) for one in own if one.tpr))
        for name, own in suites.items()
    )


def _section(table: BenchTable) -> Section:
    stated = [f"{one.path}: {_known(one.known)}" for one in table.files if one.sha256 and not table.stand_in]
    sentences = [
        *(["Measured on a small likeness of the data, not on the data: a test of the machinery."] * table.stand_in),
        f"Data: {table.source}. Licence: {table.licence}. Protocol: {table.protocol}",
        f"Target: {table.target}. Asked: {', '.join(dict.fromkeys(_asked(one.model) for one in table.cells))}.",
        *(f"Known against it: {one}" for one in table.against),
        *([f"Files: {'; '.join(stated)}."] if stated else []),
        *(["Published figures: none that we know of."] if not table.published else []),
        *(_cell_sentence(one) for one in table.cells),
    ]
    grids = [_attacks(table.cells), _gains(table.cells), _published(table)]
    return Section(f"{table.title} ({table.name})", tuple(sentences), tuple(one for one in grids if one.rows))


def _asked(model: str) -> str:
    """A hub's name as it is, of a folder the last part."""
    return Path(model).name if Path(model).is_absolute() else model


def _known(known: bool | None) -> str:
    said = {True: "the file that our figures are of", False: "NOT the file that our figures are of"}
    return said.get(known, "no hash is known") if known is not None else "no hash is known"


def _cell_sentence(cell: BenchCell) -> str:
    if cell.status == "failed":
        return f"Seed {cell.seed} FAILED: {cell.reason}"
    joint = "not enough to test" if cell.null_joint_p is None else f"joint p of all null AUCs {cell.null_joint_p:.3f}"
    null = joint if cell.null_status == "measured" else f"no null target: {cell.null_reason}"
    sizes = f"{cell.eval_members} + {cell.eval_nonmembers} eval records"
    return f"Seed {cell.seed} ({sizes}): {cell.sentence} Control: {null}."


def _attacks(cells: Sequence[BenchCell]) -> Grid:
    measured = [one for one in cells if one.status == "measured"]
    names = list(dict.fromkeys(row.name for one in measured for row in one.rows))
    found = [{row.name: row for row in one.rows} for one in measured]
    rows = [
        (
            *(name, next(one[name].kind for one in found if name in one)),
            *(part for one in found for part in _figures(one.get(name))),
        )
        for name in names
    ]
    order = {kind: at for at, kind in enumerate(dict.fromkeys(row[1] for row in rows))}
    per_seed = [part for one in measured for part in (f"seed {one.seed}: AUC", "TPR at 1 % FPR", "null AUC")]
    return Grid(
        "Attacks", ("attack", "kind", *per_seed), tuple(sorted(rows, key=lambda row: order[row[1]])), first=True
    )


def _figures(row: BenchRow | None) -> tuple[str, str, str]:
    if row is None or row.auc is None:
        return (row.status if row else NONE), NONE, NONE
    tpr = NONE
    if row.tpr is not None and row.tpr.tpr is not None:
        mark = " *" if row.tpr.status == "coarse" else ""
        tpr = f"{row.tpr.tpr:.3f} [{row.tpr.low:.3f}, {row.tpr.high:.3f}]{mark}"
    null = f"{row.null_auc.estimate:.3f}" if row.null_auc else NONE
    return f"{row.auc.estimate:.3f} [{row.auc.low:.3f}, {row.auc.high:.3f}]", tpr, null


def _gains(cells: Sequence[BenchCell]) -> Grid:
    measured = [one for one in cells if one.status == "measured"]
    found = [{(gain.attack, gain.role): gain for gain in one.gains} for one in measured]
    names = list(dict.fromkeys(name for one in found for name in one))
    rows = tuple(
        (f"{attack} − {role.replace('_', ' ')}", *(part for one in found for part in _gain(one.get((attack, role)))))
        for attack, role in names
    )
    per_seed = (part for one in measured for part in (f"seed {one.seed}: AUC", "TPR at 1 % FPR"))
    return Grid("Paired gains on the same records", ("gain", *per_seed), rows)


def _gain(gain: Gain | None) -> tuple[str, str]:
    if gain is None:
        return NONE, NONE
    tpr = next((one for fpr, one in gain.tpr_at_fpr if fpr == 0.01), None)
    return _signed(gain.auc), _signed(tpr) if tpr else NONE


def _signed(one: Estimate) -> str:
    return f"{one.estimate:+.3f} [{one.low:+.3f}, {one.high:+.3f}]"


def _published(table: BenchTable) -> Grid:
    rows = []
    for one in table.published:
        auc = NONE if one.auc is None else f"{one.auc:.3f}"
        tpr = NONE if one.tpr is None else f"{one.tpr:.3f} at {one.fpr * 100:g} % FPR"
        rows.append((one.attack, one.on, auc, tpr, f"{one.source}{'; ' if one.note else ''}{one.note}"))
    return Grid("Published", ("attack", "on", "AUC", "TPR", "source"), tuple(rows))


def markdown(bench: Bench) -> str:
    """Markdown."""
    return as_markdown(sections(bench))


def as_markdown(parts: Sequence[Section]) -> str:
    """Sections as Markdown, the first one's title above all."""
    lines: list[str] = []
    for level, section in enumerate(parts):
        lines += [f"{'#' if level == 0 else '##'} {section.title}", ""]
        for sentence in section.sentences:
            lines += [" ".join(sentence.split()), ""]
        for grid in section.grids:
            lines += [f"**{grid.caption}**", ""] if grid.caption else []
            bars = [grid.heading, ("---",) * len(grid.heading), *grid.rows]
            lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in bars] + [""]
    return "\n".join(lines)


def html(bench: Bench) -> str:
    """One page without scripts; nothing of a result is read as markup."""
    parts = [
        "<!doctype html><html lang=en><head><meta charset=utf-8><title>repromia bench</title>",
        f"<meta name=viewport content='width=device-width'><style>{STYLE}</style></head><body>",
    ]
    for level, section in enumerate(sections(bench)):
        tag = "h1" if level == 0 else "h2"
        parts.append(f"<{tag}>{escape(section.title)}</{tag}>")
        for sentence in section.sentences:
            bad = " class=failed" if "FAILED" in sentence or sentence.startswith("Could not") else ""
            parts.append(f"<p{bad}>{escape(sentence)}</p>")
        parts += map(_html_grid, section.grids)
    return "\n".join([*parts, "</body></html>\n"])


def _html_grid(grid: Grid) -> str:
    head = "".join(f"<th>{escape(one)}</th>" for one in grid.heading)
    rows = [
        f"<tr{' class=first' if grid.first and at == 0 else ''}>" + "".join(f"<td>{escape(one)}</td>" for one in row)
        for at, row in enumerate(grid.rows)
    ]
    caption = f"<caption>{escape(grid.caption)}</caption>" if grid.caption else ""
    return f"<table>{caption}<tr>{head}</tr>\n" + "\n".join(rows) + "\n</table>"
