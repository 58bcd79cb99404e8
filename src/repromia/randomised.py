"""Epsilon from below, where membership is known to have been drawn by lot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from repromia.epsilon import epsilon_bounds
from repromia.errors import RepromiaError, one_line
from repromia.evaluate import Judge
from repromia.intervals import Labelled
from repromia.manifest import DrawVerdict, check_manifest
from repromia.records import LabelledRecords
from repromia.result import EpsilonFigure, EpsilonFigures
from repromia.signals import Scores

NOT_DRAWN = "membership was not drawn by lot before training (`repromia split`), or no manifest says so (--manifest)"


def drawn_by_lot(manifest: str, labelled: LabelledRecords) -> DrawVerdict | None:
    """Whether the membership given is what a manifest drew; None where no manifest was named. Raises RecordsError."""
    return check_manifest(Path(manifest), labelled) if manifest else None


def epsilon_figures(
    drawn: DrawVerdict | None,
    labelled: LabelledRecords,
    judge: Judge,
    headline: tuple[str, Scores | None],
    delta: float,
) -> EpsilonFigures:
    """Bounds for one attack's scores of all records, or why there are none. labelled: what `drawn` is about.

    Threshold and number of guesses are chosen on select and measured on eval; records of one unit of the draw, and
    near-duplicates that were left on one side, count once.
    """
    name, scores = headline

    def without(reason: str) -> EpsilonFigures:
        return EpsilonFigures(status="not_available", reason=reason, attack=name, delta=delta)

    if drawn is None:
        return without(NOT_DRAWN)
    if not drawn.randomised:
        return without(f"the audited membership is not what the manifest drew: {drawn.reason}")
    if drawn.holdout != 0.5:
        return without(f"the coins were not fair: the chance to be left out was {drawn.holdout:g}, and .5 is needed")
    if scores is None:
        return without("no attack could be measured")
    unit = dict(zip(labelled.records.ids, drawn.units, strict=True))
    roles = judge.roles
    select = Labelled(scores[judge.select_rows], roles.select.member)
    measured = Labelled(scores[judge.eval_rows], judge.member)
    groups = tuple(_joined([unit[one] for one in part.ids], part.groups) for part in (roles.select.records, roles.eval))
    try:
        bounds = epsilon_bounds(select, measured, delta=delta, groups=(groups[0], groups[1]))
    except RepromiaError as error:
        return without(one_line(str(error)))
    figures = tuple(
        EpsilonFigure(
            name=one.name, epsilon=one.epsilon, confidence=one.confidence, assumes=one.assumes, source=one.source
        )
        for one in bounds
    )
    return EpsilonFigures(
        status="measured", reason=drawn.reason, attack=name, delta=delta, complete=drawn.complete, bounds=figures
    )


def _joined(units: Sequence[str], groups: Sequence[str]) -> list[str]:
    """One name for all records that share a unit or a group, directly or through others."""
    columns = [np.unique(list(one), return_inverse=True)[1] for one in (units, groups)]
    count = len(units)
    offset = int(columns[0].max(initial=-1)) + 1
    nodes = np.concatenate([columns[0], columns[1] + offset]) + count
    rows = np.tile(np.arange(count), 2)
    size = int(nodes.max(initial=count)) + 1
    graph = sparse.coo_array((np.ones(len(rows)), (rows, nodes)), shape=(size, size))
    return [str(one) for one in connected_components(graph, directed=False)[1][:count]]
