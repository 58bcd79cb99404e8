"""The report's plots: SVG text to be placed inside a page, the same bytes every time.

Colours are CSS variables of the page, so that one plot reads in light, dark and print.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from html import escape
from io import StringIO
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from repromia.report.words import fpr_words, visible
from repromia.result import Gain, Kind

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FloatArray = NDArray[np.float64]

# Inches of 72 units: about what a phone shows, so that letters there are as large as in the text.
_WIDTH: Final = 4.8
# matplotlib knows no CSS variables: it draws with these stand-ins, which are then replaced.
_INK: Final = "#0a0b00"
_STAND_INS: Final[dict[str, str]] = {
    "passive": "#0a0b01",
    "reprogrammed": "#0a0b02",
    "head": "#0a0b03",
    "blind": "#0a0b04",
    "reference": "#0a0b05",
    "faint": "#0a0b06",
}
# As many as there can be labelled curves of one kind, so that no two of them look the same.
_DASHES: Final[tuple[tuple[float, ...], ...]] = (
    (),
    (1.2, 1.6),
    (7.0, 2.0, 1.2, 2.0),
    (11.0, 2.5),
    (7.0, 2.0, 1.2, 2.0, 1.2, 2.0),
    (1.2, 4.0),
    (11.0, 2.5, 4.0, 2.5),
    (4.0, 1.2),
)
_BLIND_DASHES: Final = ((4.5, 2.5), (2.5, 2.0), (4.5, 2.0, 1.2, 2.0))


class RocPoints(NamedTuple):
    """Exact points of a ROC curve, both ascending, from (0, 0) to (1, 1)."""

    fpr: FloatArray
    tpr: FloatArray


class Spread(NamedTuple):
    """Eval scores of one attack. Shapes: member, nonmember."""

    members: FloatArray
    nonmembers: FloatArray


class Line(NamedTuple):
    """How one curve is drawn. `dash` is in points, () for a solid line."""

    colour: str
    dash: tuple[float, ...]
    width: float


class Band(NamedTuple):
    """Intervals of the TPR at single FPRs, ascending. joined: near enough to each other to be drawn as an area."""

    fpr: FloatArray
    low: FloatArray
    high: FloatArray
    joined: bool


class Curve(NamedTuple):
    """One ROC curve and how it is drawn. Curves without a label are thin and grey."""

    name: str
    points: RocPoints
    line: Line
    labelled: bool
    band: Band | None = None


def line_styles(kinds: Sequence[Kind], *, headline: int | None) -> list[Line]:
    """A line for each labelled curve: colour by kind, dashes within a kind, the headline bold."""
    seen: dict[Kind, int] = {}
    lines = []
    for index, kind in enumerate(kinds):
        dashes = _BLIND_DASHES if kind == "blind" else _DASHES
        dash = dashes[seen.get(kind, 0) % len(dashes)]
        seen[kind] = seen.get(kind, 0) + 1
        lines.append(Line(kind, dash, 3.2 if index == headline else 1.5))
    return lines


FAINT: Final = Line("faint", (), 0.6)


def swatch(line: Line) -> str:
    """A short piece of the line for a legend in HTML."""
    dash = " ".join(f"{step * line.width:g}" for step in line.dash)
    attribute = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        '<svg class="swatch" viewBox="0 0 34 8" width="34" height="8" aria-hidden="true">'
        f'<line x1="1" y1="4" x2="33" y2="4" stroke="var(--c-{line.colour})" '
        f'stroke-width="{line.width:g}"{attribute}></line></svg>'
    )


def thin_out(points: RocPoints, *, smallest: float, per_decade: int) -> RocPoints:
    """Drop points that a plot with a logarithmic x axis cannot show.

    Read as "best TPR with FPR at most x", a curve is exact where one step of FPR is wider than one of the
    `per_decade` columns: every point at low FPR is kept, and elsewhere the last of its column.
    """
    fpr = np.asarray(points.fpr, dtype=np.float64)
    tpr = np.asarray(points.tpr, dtype=np.float64)
    column = np.floor(np.log10(np.maximum(fpr, smallest / 10)) * per_decade)
    last = np.append(column[1:] != column[:-1], True)
    return RocPoints(np.maximum(fpr[last], smallest), tpr[last])


def smallest_shown(n_nonmembers: int) -> float:
    """Where the axes begin: the power of ten at or below one false positive, from 0.01 % to 1 %."""
    exponent = math.floor(math.log10(1 / max(n_nonmembers, 1)) + 1e-9)
    return float(10.0 ** min(max(exponent, -4), -2))


def roc_svg(curves: Sequence[Curve], *, n_nonmembers: int, title: str) -> str:
    """ROC curves on logarithmic axes, without a legend (the page has one)."""
    smallest = smallest_shown(n_nonmembers)
    with _drawing("roc"):
        figure, axes = _blank(width=_WIDTH, height=4.0)
        axes.set(xscale="log", yscale="log", xlim=(smallest, 1), ylim=(smallest, 1.06))
        axes.plot([smallest, 1], [smallest, 1], color=_INK, linewidth=0.9, alpha=0.7, dashes=(1, 3))
        for curve in sorted(curves, key=lambda curve: (curve.labelled, curve.line.width)):
            if curve.band is not None:
                _draw_band(axes, curve.band, _STAND_INS[curve.line.colour], smallest)
            _draw(axes, curve, smallest)
        _percent_ticks(axes, smallest)
        axes.set_xlabel("False positive rate (share of non-members flagged)")
        axes.set_ylabel("True positive rate (share of members flagged)")
        return _to_svg(figure, title)


def _draw(axes: Axes, curve: Curve, smallest: float) -> None:
    kept = thin_out(curve.points, smallest=smallest, per_decade=100 if curve.labelled else 40)
    if kept.fpr.size == 0:
        return
    begin = np.concatenate([[smallest], kept.fpr])  # a curve that first rises later is 0 until then
    values = np.concatenate([[0.0], kept.tpr])
    (drawn,) = axes.plot(begin, np.maximum(values, smallest), drawstyle="steps-post")
    drawn.set(color=_STAND_INS[curve.line.colour], linewidth=curve.line.width, dash_capstyle="butt")
    if curve.line.dash:
        drawn.set_dashes(curve.line.dash)


def _draw_band(axes: Axes, band: Band, colour: str, smallest: float) -> None:
    low, high = (np.maximum(one, smallest) for one in (band.low, band.high))
    if band.joined:
        axes.fill_between(band.fpr, low, high, color=colour, alpha=0.18, linewidth=0)
    else:
        axes.vlines(band.fpr, low, high, color=colour, linewidth=1.2)


def _percent_ticks(axes: Axes, smallest: float) -> None:
    ticks = [10.0**power for power in range(round(math.log10(smallest)), 1)]
    axes.set_xticks(ticks, [fpr_words(tick) for tick in ticks])
    axes.set_yticks(ticks, [fpr_words(tick) for tick in ticks])
    axes.minorticks_off()
    axes.grid(visible=True, color=_INK, alpha=0.16, linewidth=0.6)


def spread_svg(spread: Spread, *, title: str, bars: int = 40) -> str:
    """Histograms of the two sides over the middle 99 % of all scores; the outermost bars hold the rest."""
    low, high = np.percentile(np.concatenate(spread), [0.5, 99.5])
    edges = np.linspace(low, high if high > low else low + 1, bars + 1)
    shares = [np.histogram(np.clip(side, edges[0], edges[-1]), edges)[0] / side.size for side in spread]
    with _drawing("spread"):
        figure, axes = _blank(width=_WIDTH, height=2.2)
        axes.stairs(shares[0], edges, fill=True, color=_STAND_INS["reprogrammed"], alpha=0.45)
        axes.stairs(shares[1], edges, color=_INK, linewidth=1.3)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("Score (higher: more like a member)")
        axes.set_ylabel("Share of records")
        return _to_svg(figure, title)


def gains_svg(gains: Sequence[Gain], kinds: Sequence[Kind], *, title: str) -> str:
    """Paired differences in AUC with their intervals, one line each, and a line at zero."""
    with _drawing("gains"):
        figure, axes = _blank(width=_WIDTH, height=0.62 + 0.46 * len(gains))
        axes.axvline(0, color=_INK, linewidth=1.0)
        for index, (gain, kind) in enumerate(zip(gains, kinds, strict=True)):
            _draw_gain(axes, gain, colour=_STAND_INS[kind], y=-float(index))
        bounds = [0.0, *(figure_ for gain in gains for figure_ in (gain.auc.low, gain.auc.high))]
        margin = 0.06 * (max(bounds) - min(bounds) or 1.0)
        axes.set(xlim=(min(bounds) - margin, max(bounds) + margin), ylim=(-len(gains) + 0.6, 0.8))
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.grid(visible=True, axis="x", color=_INK, alpha=0.16, linewidth=0.6)
        axes.set_xlabel("Difference in AUC (95 % interval)")
        return _to_svg(figure, title)


def _draw_gain(axes: Axes, gain: Gain, *, colour: str, y: float) -> None:
    axes.plot([gain.auc.low, gain.auc.high], [y, y], color=colour, linewidth=2.4, solid_capstyle="butt")
    axes.plot([gain.auc.estimate], [y], color=colour, marker="o", markersize=6.5)
    label = f"{_plain(gain.attack)} over {_plain(gain.over)} ({gain.role.replace('_', ' ')})"
    # Above its line and across the whole width: names stay readable on a phone.
    text = axes.text(0.0, y + 0.26, label, transform=axes.get_yaxis_transform(), color=_INK, fontsize=8.5)
    text.set_in_layout(False)


def _plain(name: str, length: int = 22) -> str:
    """A name in characters that the measuring font has; the table beside the plot has it in full."""
    shown = "".join(character if ord(character) < 0x250 else "?" for character in visible(name).replace("\n", " "))
    return shown if len(shown) <= length else shown[: length - 1] + "…"


def _drawing(salt: str) -> AbstractContextManager[None]:
    """Settings under which the same data gives the same bytes, and `$` in a name is only a `$`."""
    import matplotlib

    return matplotlib.rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": salt,
            "text.parse_math": False,
            "text.usetex": False,
            "font.size": 10.0,
            "path.simplify": False,
        }
    )


def _blank(*, width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_visible(False)
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_INK)
    axes.tick_params(colors=_INK)
    axes.xaxis.label.set_color(_INK)
    axes.yaxis.label.set_color(_INK)
    return figure, axes


def _shorten_tag(tag: re.Match[str]) -> str:
    short = re.sub(r"\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), tag[0])
    return re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", short)  # the page's font


def _to_svg(figure: Figure, title: str) -> str:
    buffer = StringIO()
    empty: dict[str, str | None] = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(buffer, format="svg", metadata=empty)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    # Ids of groups repeat from plot to plot; ids of clips and markers are salted and stay.
    svg = re.sub(r'<g id="[^"]*"', "<g", svg).replace("xlink:href=", "href=")
    svg = re.sub(r"<[^>]*>", _shorten_tag, svg)  # tags only: names in the text stay as they are
    for name, stand_in in {**_STAND_INS, "ink": _INK}.items():
        svg = svg.replace(stand_in, "currentColor" if name == "ink" else f"var(--c-{name})")
    view_box = re.search(r'viewBox="[^"]*"', svg)
    box = view_box[0] if view_box else ""
    text = escape(title)
    head = f'<svg class="plot" {box} role="img" aria-label="{text}"><title>{text}</title>'
    return re.sub(r"^<svg[^>]*>", lambda _: head, svg).strip()
