"""The ROC plot of a report, its legend, and which curves are named and have a band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from repromia.report import plots, words
from repromia.report.bands import band_of
from repromia.report.plots import RocPoints
from repromia.result import AttackResult, AuditResult, Kind

_LABELLED: Final = 8
_WITH_BAND: Final[tuple[Kind, ...]] = ("reprogrammed", "passive")  # the two that a reader wants to tell apart


class Legend(NamedTuple):
    """One entry of the ROC legend."""

    swatch: object
    name: str
    kind: Kind
    headline: bool


def roc_and_legend(
    result: AuditResult, rows: Sequence[AttackResult], curves: Mapping[str, RocPoints]
) -> tuple[object, list[Legend]]:
    """The ROC plot as SVG, "" where there is no curve, and the legend of its named curves."""
    from markupsafe import Markup

    drawn = [row for row in rows if row.name in curves and len(curves[row.name].fpr) > 0]
    if not drawn:
        return "", []
    chosen = _labelled(drawn, result.headline)
    bold = next((index for index, row in enumerate(chosen) if row.name == result.headline), None)
    lines = plots.line_styles([row.kind for row in chosen], headline=bold)
    named = {row.name: line for row, line in zip(chosen, lines, strict=True)}
    grouped = result.records.grouped
    bands = {row.name: band_of(row, curves[row.name], grouped=grouped) for row in _with_band(chosen, result.headline)}
    svg = plots.roc_svg(
        [
            plots.Curve(
                row.name,
                curves[row.name],
                named.get(row.name, plots.FAINT),
                row.name in named,
                bands.get(row.name),
            )
            for row in drawn
        ],
        n_nonmembers=max(row.n_nonmembers for row in drawn),
        title="ROC curves on logarithmic axes; the figures are in the attack table below",
    )
    legend = [
        Legend(Markup(plots.swatch(line)), row.name, row.kind, index == bold)  # noqa: S704 -- numbers only
        for index, (row, line) in enumerate(zip(chosen, lines, strict=True))
    ]
    return Markup(svg), legend  # noqa: S704 -- drawn by us; matplotlib escapes text


def _labelled(rows: Sequence[AttackResult], headline: str) -> list[AttackResult]:
    """The headline, the best of each kind, then the best of all, by the select role."""
    best_first = sorted(rows, key=lambda row: (row.name != headline, -words.rank(row), row.name))
    seen: set[Kind] = set()
    first: list[AttackResult] = []
    rest: list[AttackResult] = []
    for row in best_first:
        (rest if row.kind in seen else first).append(row)
        seen.add(row.kind)
    return [*first, *rest][:_LABELLED]


def _with_band(named: Sequence[AttackResult], headline: str) -> list[AttackResult]:
    """The headline, and the best attack with a program beside the best without: more bands would hide each other."""
    first = [next((row for row in named if row.kind == kind), None) for kind in _WITH_BAND]
    chosen = [row for row in named if row.name == headline]
    return [*chosen, *(row for row in first if row is not None and row not in chosen)][:2]
