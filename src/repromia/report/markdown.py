"""The report as Markdown, and a short section of it for a model card."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from repromia.report import sections, words
from repromia.report.vocabulary import glossary
from repromia.result import AttackResult, AuditResult

_SPECIAL = re.compile(r"([\\`*_|~$]|(?<=\])[\[(])")  # brackets alone make no link


def escaped(text: str) -> str:
    """Text of others on one line, in which nothing is markup, hidden or a link."""
    shown = html.escape(words.visible(text).replace("\n", " ").replace("\t", " "), quote=False)
    return _SPECIAL.sub(r"\\\1", shown).replace("://", ":&#47;&#47;").strip()


def render_markdown(result: AuditResult) -> str:
    """The figures of the report, without plots and record texts."""
    parts = [
        "# Membership-inference audit\n",
        f"Target: {_target(result)} ({result.modality}). {escaped(words.moment(result.created))}\n",
        "Does this model give away which records it was trained on?\n",
        *_findings(result),
        _measured_on(result),
        "## Attacks\n",
        "Eval role, 95 % intervals in brackets; per kind the best on the select role first.\n",
        _attacks(result, words.table_rows(result)),
        *_thresholds(result),
        "## Differences on the same records\n",
        _gains(result),
        *_families(result),
        "## Controls\n",
        *_controls(result),
        "## Kinds of records\n",
        _slices(result),
        "## Epsilon\n",
        _epsilon(result),
        "## Records\n",
        _records(result),
        "## Most exposed members\n",
        _exposed(result),
        "## How to run it again\n",
        _again(result),
        "## Sources of the attacks\n",
        *(f"- {escaped(row.name)}: {escaped(row.citation)}" for row in words.table_rows(result) if row.citation),
        "\n## Glossary\n",
        *(f"- **{escaped(term)}**: {escaped(meaning)}" for term, meaning in glossary(result.modality)),
    ]
    return "\n".join(parts) + "\n"


def render_card(result: AuditResult) -> str:
    """A section for the README of a model: what was asked, what was found, under which conditions."""
    row = words.headline_row(result)
    shown = [row] if row is not None else []
    notes = [one.sentence for one in result.findings if one.level == "warning"]
    parts = [
        "## Membership-inference audit\n",
        *_sentences(one.sentence for one in result.findings if one.level == "headline"),
        _measured_on(result),
        _attacks(result, shown),
        *_sentences(notes),
        _epsilon(result),
        "An attack that finds nothing is no proof that nothing can be found.\n",
    ]
    return "\n".join(parts)


def _target(result: AuditResult) -> str:
    named = (result.target.get(key) for key in ("name", "model", "path", "id"))
    return escaped(next((str(one) for one in named if one), "unnamed model"))


def _measured_on(result: AuditResult) -> str:
    """The conditions of the first sentence."""
    row = words.headline_row(result)
    sizes = f"{row.n_members:,} members and {row.n_nonmembers:,} non-members" if row is not None else "no records"
    rule = f"Headline attack: {escaped(result.headline_rule.rstrip('.'))}."
    return f"Measured on {sizes} that no attack learned from, with repromia {escaped(_version(result))}. {rule}\n"


def _version(result: AuditResult) -> str:
    return str(result.versions.get("repromia", "of unknown version"))


def _sentences(found: Iterable[str]) -> list[str]:
    return [escaped(one) + "\n" for one in found]


def _findings(result: AuditResult) -> list[str]:
    parts = []
    for level, mark in (("headline", "**{}**\n"), ("warning", "> **Warning.** {}\n"), ("note", "- {}")):
        parts += [mark.format(escaped(one.sentence)) for one in result.findings if one.level == level]
    unmeasured = [row for row in words.table_rows(result) if not words.auc_cell(row).measured]
    if unmeasured:
        parts.append(f"\n{len(unmeasured)} attacks gave no figure: what they would have shown is unknown.")
    return [*parts, ""]


def _table(head: Sequence[str], lines: Iterable[Sequence[str]], *, empty: str) -> str:
    body = [f"| {' | '.join(line)} |" for line in lines]
    if not body:
        return empty + "\n"
    return "\n".join([f"| {' | '.join(head)} |", "|" + "---|" * len(head), *body, ""])


def _cell(cell: words.Cell) -> str:
    return escaped(f"{cell.text} ({cell.remark})" if cell.remark else cell.text)


def _attacks(result: AuditResult, rows: Sequence[AttackResult]) -> str:
    fprs = words.all_fprs(result)
    head = ["Attack", "Kind", "AUC", "AUC on null target", *(f"TPR at {words.fpr_words(one)} FPR" for one in fprs)]
    head += ["Time", "Passes per record"]
    lines = []
    for row in rows:
        name = f"**{escaped(row.name)}** (headline)" if row.name == result.headline else escaped(row.name)
        cells = (words.auc_cell(row), words.null_cell(result, row.name), *(words.tpr_cell(row, one) for one in fprs))
        shown = [_cell(one) for one in cells] if cells[0].measured else [_cell(cells[0]), *("" for _ in cells[1:])]
        lines.append([name, row.kind, *shown, words.duration(row.seconds), f"{row.forward_passes:,.4g}"])
    return _table(head, lines, empty="No attack was run.")


def _thresholds(result: AuditResult) -> list[str]:
    found = sections.thresholds(words.headline_row(result))
    if not found:
        return []
    title = f"Thresholds of {escaped(result.headline)} fixed on the select role, applied to eval:\n"
    return [title, _table(["Meant for FPR", "FPR reached", "TPR"], found, empty="")]


def _gains(result: AuditResult) -> str:
    lines = [
        [escaped(one.attack), escaped(one.over), escaped(words.over_words(one)), words.gain_words(one.auc)]
        for one in result.gains
    ]
    return _table(["Attack", "Over", "Which is", "AUC"], lines, empty="No differences were measured.")


def _families(result: AuditResult) -> list[str]:
    if not result.families:
        return []
    lines = [
        [
            escaped(one.attack),
            escaped(one.family),
            words.gain_words(one.gain.auc) if one.gain else "none measured",
            f"{one.passes:,.4g}",
        ]
        for one in result.families
    ]
    head = ["Bank", "Family of programs", "AUC gain of a head on this family alone", "Passes per record"]
    return ["## Families of programs\n", _table(head, lines, empty="")]


def _controls(result: AuditResult) -> list[str]:
    blind = [
        [escaped(one.name), words.auc_words(one.cross_validated_auc), _cell(words.auc_cell(one.fitted))]
        for one in result.blind
    ]
    permuted = [
        [
            escaped(one.name),
            f"{one.mean:.3f} [{one.low:.3f}, {one.high:.3f}]",
            f"{one.compared_with:g}",
            "as expected" if one.passed else "**not as expected**",
        ]
        for one in result.permuted
    ]
    null = result.null_target
    said = words.failure(null.status, null.reason) if null.status != "measured" else f"joint p {null.joint_p}"
    return [
        _table(
            ["Blind baseline", "AUC (cross-validated)", "AUC (fitted on fit, measured on eval)"],
            blind,
            empty="No blind baseline was run.",
        ),
        f"Null target: {escaped(said)}.\n",
        _table(["Permuted labels", "Mean", "Expected", "Outcome"], permuted, empty="No labels were permuted."),
    ]


def _slices(result: AuditResult) -> str:
    lines = [
        [escaped(one.name), one.sizes, one.auc, _cell(one.tpr), one.difference, one.reading]
        for one in sections.slice_rows(result)
    ]
    head = ["Records", "Members and non-members", "AUC", "TPR at 1 % FPR", "Against the rest", "Reading"]
    return _table(head, lines, empty="No kind of records was measured apart.")


def _epsilon(result: AuditResult) -> str:
    found = result.epsilon
    if found.status != "measured":
        return f"No bound on epsilon: {escaped(found.reason)}.\n"
    lines = [
        [escaped(one.name), f"{one.epsilon:.3f}", f"{100 * one.confidence:g} %", escaped(one.assumes)]
        for one in found.bounds
    ]
    of = f"Scores of {escaped(found.attack)}, delta {found.delta:g}: the training is not differentially private below"
    return f"{of}\n\n{words.WHICH_BOUND}\n\n" + _table(
        ["Bound", "Epsilon (nats)", "Confidence", "Assumes"], lines, empty="no figure"
    )


def _records(result: AuditResult) -> str:
    roles = result.records.roles
    lines = [[name, *(f"{one:,}" for one in getattr(roles, name))] for name in ("fit", "select", "eval")]
    lines.append(["given", f"{result.records.n_members:,}", f"{result.records.n_nonmembers:,}"])
    left_out = len(result.records.duplicates.excluded)
    return _table(["Role", "Members", "Non-members"], lines, empty="") + f"\nLeft out as duplicates: {left_out}.\n"


def _exposed(result: AuditResult) -> str:
    lines = [[escaped(one.id), f"{one.score:.4g}", words.percent(one.nonmember_share)] for one in result.exposed]
    return _table(["Record", "Score", "Non-members at least as high"], lines, empty="No list was made.")


def _again(result: AuditResult) -> str:
    line = sections.command(result.config)
    versions = ", ".join(f"{name} {number}" for name, number in result.versions.items())
    # Indented code, in which nothing is markup and no fence can be closed.
    shown = "\n".join(f"    {one}" for one in words.visible(line).splitlines())
    parts = [shown + "\n"] if line else []
    parts.append(
        f"Duration: {words.duration(result.seconds)}. Digest of the records: {escaped(result.records.digest)}\n"
    )
    return "\n".join([*parts, f"Versions: {escaped(versions)}. Key: {escaped(result.key)}\n"])
