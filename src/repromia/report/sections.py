"""Parts of the report beside attacks and gains: usable thresholds, kinds of records, epsilon, how to run it again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, NamedTuple

from repromia.report import words
from repromia.result import AttackResult, AuditResult, Estimate, SliceFigures


class ThresholdRow(NamedTuple):
    """What one threshold, fixed on the select role, gave on eval."""

    wanted: str
    fpr: str
    tpr: str


class SliceRow(NamedTuple):
    """One kind of records."""

    name: str
    sizes: str
    auc: str
    tpr: words.Cell
    difference: str
    reading: str


def thresholds(row: AttackResult | None) -> list[ThresholdRow]:
    """Thresholds chosen without the eval records, as someone who names members would have to."""
    points = row.tpr_at_fpr if row is not None else ()
    return [
        ThresholdRow(words.fpr_words(one.fpr), _share(one.from_select.fpr), _share(one.from_select.tpr))
        for one in points
        if one.from_select is not None
    ]


def _share(one: Estimate) -> str:
    return words.share_words(one.estimate, one.low, one.high)


def slice_rows(result: AuditResult) -> list[SliceRow]:
    """Kinds of records that were tested, most exposed first."""
    return [_slice_row(one) for one in result.slices if one.auc is not None and one.difference is not None]


def _slice_row(one: SliceFigures) -> SliceRow:
    assert one.auc is not None  # noqa: S101 — the caller chose such rows
    assert one.difference is not None  # noqa: S101
    reading = "more exposed" if one.more_exposed else "not told apart from the rest"
    tpr = one.tpr
    if tpr is None or tpr.status == "refused" or tpr.tpr is None:
        cell = words.Cell("refused", tpr.reason if tpr is not None else "", measured=False)
    else:
        cell = words.Cell(words.share_words(tpr.tpr, tpr.low, tpr.high))
    return SliceRow(
        f"{one.name} = {one.value}",
        f"{one.n_members:,} and {one.n_nonmembers:,}",
        words.auc_words(one.auc),
        cell,
        words.gain_words(one.difference),
        "less exposed" if one.less_exposed else reading,
    )


def untested_slices(result: AuditResult) -> int:
    """Kinds of records with too few of them."""
    return sum(one.auc is None for one in result.slices)


def command(config: Mapping[str, Any]) -> str:
    """The command line of an audit: its settings that are not the defaults. Empty for an audit made from Python."""
    from repromia.config import AuditConfig

    if not config.get("model") or not config.get("out"):
        return ""
    parts = ["repromia audit"]
    for name, field in AuditConfig.model_fields.items():
        given = config.get(name)
        if given is None or _plain(given) == _plain(field.default):
            continue
        flag = f"--{name.replace('_', '-')}"
        if isinstance(given, bool):
            parts.append(flag if given else f"--no-{flag[2:]}")
            continue
        values = given if isinstance(given, list | tuple) else [given]
        if name in ("attacks", "fprs"):
            values = [",".join(map(str, values))]
        parts += [f"{flag} {shlex.quote(str(value))}" for value in values]
    return " ".join(parts)


def _plain(value: object) -> object:
    if isinstance(value, PurePath):
        return str(value)
    return list(value) if isinstance(value, tuple | list) else value
