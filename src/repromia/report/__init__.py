"""The report: one HTML file with everything inside it, for people who were not there when the audit ran."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib.resources import files
from typing import Any, Final, NamedTuple

from repromia.report import plots, sections, words
from repromia.report.plots import RocPoints, Spread
from repromia.report.roc import Legend, roc_and_legend
from repromia.report.vocabulary import glossary, vocabulary
from repromia.report.words import Cell
from repromia.result import AttackResult, AuditResult, Exposed, Gain, Kind, ProbeFamily

__all__ = ["Excerpt", "Legend", "RocPoints", "Spread", "render_html", "roc_and_legend"]

_GAINS_DRAWN: Final = 16
_GAIN_ORDER: Final = ("best_passive", "same_supervision", "null_target", "blind", "identity")


class Excerpt(NamedTuple):
    """What is shown of a record: its text, and an image as a data URI."""

    text: str
    image: str = ""


class _Row(NamedTuple):
    """One line of the attack table."""

    row: AttackResult
    kind_words: str
    headline: bool
    failure: str
    auc: Cell
    null: Cell
    tprs: tuple[Cell, ...]
    seconds: str


class _Exposed(NamedTuple):
    """One line of the list of most exposed members."""

    entry: Exposed
    share: str
    by_chance: str
    excerpt: str
    image: str


class _GainRow(NamedTuple):
    """One line of the gains table."""

    gain: Gain
    over_words: str
    auc: str
    reading: str
    tprs: tuple[str, ...]


class _FamilyRow(NamedTuple):
    """One line of the table of program families."""

    family: ProbeFamily
    gain: str
    tokens: str
    seconds: str


def render_html(
    result: AuditResult,
    *,
    curves: Mapping[str, RocPoints],
    excerpts: Mapping[str, Excerpt],
    spread: Spread | None = None,
) -> str:
    """The whole report as one self-contained page.

    `curves` holds the exact ROC points of the eval role for each measured attack. `excerpts` maps record ids
    to what is shown beside the most exposed members; without it only ids are shown. `spread`: the headline
    attack's eval scores. The same input gives the same bytes.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, finalize=_finalize, trim_blocks=True, lstrip_blocks=True
    )
    folder = files("repromia.report")
    source, script = (folder.joinpath(name).read_text(encoding="utf-8") for name in ("template.html.j2", "sort.js"))
    context = _context(result, curves, excerpts) | _script(script) | {"distribution": _distribution(spread)}
    return environment.from_string(source).render(context) + "\n"


def _script(source: str) -> dict[str, Any]:
    """The page's own script, and the hash by which the page allows this one and no other."""
    from markupsafe import Markup

    hashed = b64encode(sha256(source.encode()).digest()).decode()
    return {"script": Markup(source), "script_hash": Markup(f"sha256-{hashed}")}  # noqa: S704 -- a file of ours


def _distribution(spread: Spread | None) -> object:
    from markupsafe import Markup

    if spread is None or not (spread.members.size and spread.nonmembers.size):
        return ""
    return Markup(plots.spread_svg(spread, title="Scores of members and non-members"))  # noqa: S704 -- numbers only


def _finalize(value: object) -> object:
    """Every value on the page passes here: nothing that was audited may hide or reorder text."""
    if value is None:
        return ""
    return value if hasattr(value, "__html__") else words.visible(str(value))


def _context(result: AuditResult, curves: Mapping[str, RocPoints], excerpts: Mapping[str, Excerpt]) -> dict[str, Any]:
    rows, said = words.table_rows(result), vocabulary(result.modality)
    fprs = words.all_fprs(result)
    kinds = {row.name: row.kind for row in rows}
    gains = sorted(result.gains, key=lambda gain: _gain_order(result, kinds, gain))
    first = [one for one in gains if one.attack == result.headline or kinds.get(one.attack) == "reprogrammed"] or gains
    others = [one for one in gains if one not in first]
    gain_fprs = sorted({fpr for gain in gains for fpr, _ in gain.tpr_at_fpr}, reverse=True)
    lines = [_table_row(result, row, fprs) for row in rows]
    roc, legend = roc_and_legend(result, rows, curves)
    return {
        "result": result,
        "words": words,
        "glossary": glossary(result.modality),
        "target": _name_of(result.target),
        "headline": words.headline_row(result),
        "levels": {
            level: [finding for finding in result.findings if finding.level == level]
            for level in ("headline", "warning", "note")
        },
        "fprs": [words.fpr_words(fpr) for fpr in fprs],
        "rows": lines,
        "remarks": _remarks(lines),
        "unmeasured": [row for row in rows if not words.auc_cell(row).measured],
        "roc": roc,
        "legend": legend,
        "gains": [_gain_row(gain, gain_fprs) for gain in first],
        "other_gains": [_gain_row(gain, gain_fprs) for gain in others],
        "gain_fprs": [words.fpr_words(fpr) for fpr in gain_fprs],
        "gain_plot": _gain_plot(first[:_GAINS_DRAWN], kinds),
        "gains_drawn": _GAINS_DRAWN,
        "families": [_family_row(one, said.not_timed) for one in result.families],
        "said": said,
        "exposed": [_exposed(result, entry, excerpts) for entry in result.exposed],
        "exposed_row": next((row for row in rows if row.name == result.exposed_by), None),
        "thresholds": sections.thresholds(words.headline_row(result)),
        "slices": sections.slice_rows(result),
        "untested": sections.untested_slices(result),
        "command": sections.command(result.config),
        "ran": [("Target", _flat(result.target)), ("Reference", _flat(result.reference or {}))],
        "settings": _flat(result.config),
        "versions": _flat(result.versions),
        "views": _records_table([_renamed(one, "tokens", said.unit) for one in result.views]),
    }


def _renamed(entry: Mapping[str, Any], old: str, new: str) -> dict[str, Any]:
    return {new if key == old else key: value for key, value in entry.items()}


def _family_row(one: ProbeFamily, not_timed: str) -> _FamilyRow:
    return _FamilyRow(
        family=one,
        gain=words.gain_words(one.gain.auc) if one.gain else "none measured",
        tokens=_multiple(one.relative_tokens, not_timed),
        seconds=_multiple(one.relative_seconds, not_timed),
    )


def _multiple(cost: float | None, not_timed: str) -> str:
    return not_timed if cost is None else f"{cost:.1f} ×"


def _name_of(target: Mapping[str, Any]) -> str:
    for key in ("name", "model", "path", "id"):
        if isinstance(target.get(key), str) and target[key]:
            return str(target[key])
    return "unnamed model"


def _table_row(result: AuditResult, row: AttackResult, fprs: Sequence[float]) -> _Row:
    auc = words.auc_cell(row)
    return _Row(
        row=row,
        kind_words=words.kind_words(row.kind, result.modality),
        headline=row.name == result.headline,
        failure="" if auc.measured else auc.text,
        auc=auc,
        null=words.null_cell(result, row.name),
        tprs=tuple(words.tpr_cell(row, fpr) for fpr in fprs),
        seconds=words.duration(row.seconds),
    )


def _remarks(lines: Sequence[_Row]) -> dict[str, str]:
    """Each remark on a figure of the table once, with the letters that stand for it there."""
    cells = [cell for line in lines if not line.failure for cell in (line.null, *line.tprs)]
    found = dict.fromkeys(cell.remark for cell in cells if cell.remark)
    return {remark: _letters(index) for index, remark in enumerate(found)}


def _letters(index: int) -> str:
    """0 -> "a", 25 -> "z", 26 -> "aa"."""
    first, last = divmod(index, 26)
    return (_letters(first - 1) if first else "") + chr(ord("a") + last)


def _gain_order(result: AuditResult, kinds: Mapping[str, Kind], gain: Gain) -> tuple[bool, bool, str, int]:
    """What the programs add first, then the headline attack, then all others over the blind baselines."""
    reprogrammed = kinds.get(gain.attack) == "reprogrammed"
    return (not reprogrammed, gain.attack != result.headline, gain.attack, _GAIN_ORDER.index(gain.role))


def _gain_row(gain: Gain, fprs: Sequence[float]) -> _GainRow:
    at = dict(gain.tpr_at_fpr)
    return _GainRow(
        gain=gain,
        over_words=words.over_words(gain),
        auc=words.gain_words(gain.auc),
        reading=words.gain_reading(gain.auc),
        tprs=tuple(words.gain_words(at[fpr], points=True) if fpr in at else "not measured" for fpr in fprs),
    )


def _gain_plot(gains: Sequence[Gain], kinds: Mapping[str, Kind]) -> object:
    from markupsafe import Markup

    if not gains:
        return ""
    svg = plots.gains_svg(
        gains,
        [kinds.get(gain.attack, "passive") for gain in gains],
        title="Paired differences in AUC with 95 % intervals; the figures are in the table below",
    )
    return Markup(svg)  # noqa: S704 -- drawn by us; matplotlib escapes the names in it


def _exposed(result: AuditResult, entry: Exposed, excerpts: Mapping[str, Excerpt]) -> _Exposed:
    row = next((row for row in words.table_rows(result) if row.name == result.exposed_by), None)
    members, nonmembers = (row.n_members, row.n_nonmembers) if row is not None else (0, 0)
    if entry.nonmember_share == 0:
        share = f"none of {nonmembers:,}" if nonmembers else "none"
    else:
        share = words.percent(entry.nonmember_share)
    # With no non-member above, 3/n is the usual 95 % upper bound on the share.
    bound = entry.nonmember_share or 3 / max(nonmembers, 1)
    number = f"{min(bound, 1.0) * members:,.1f}"
    by_chance = (number if entry.nonmember_share else f"at most {number}") if members and nonmembers else "unknown"
    shown = excerpts.get(entry.id, Excerpt(""))
    return _Exposed(entry, share, by_chance, words.excerpt(shown.text), shown.image)


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (dotted name, value) pairs."""
    pairs: list[tuple[str, str]] = []
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            pairs += _flat(item, f"{prefix}{key}.")
        else:
            pairs.append((f"{prefix}{key}", _value_words(item)))
    return pairs


def _value_words(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.6g}"
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def _records_table(entries: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Columns in order of first appearance, and one line for each entry."""
    columns = list(dict.fromkeys(key for entry in entries for key in entry))
    lines = [[_value_words(entry[key]) if key in entry else "" for key in columns] for entry in entries]
    return columns, lines
