"""Epsilon from below, where membership is known to have been drawn by lot."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from repromia.epsilon import epsilon_bounds
from repromia.errors import RepromiaError, one_line
from repromia.evaluate import Judge
from repromia.intervals import Labelled
from repromia.manifest import DrawVerdict, check_manifest
from repromia.records import LabelledRecords, Records
from repromia.result import EpsilonFigure, EpsilonFigures
from repromia.signals import Scores

NOT_DRAWN = "membership was not drawn by lot before training (`repromia split`), or no manifest says so (--manifest)"


def drawn_by_lot(manifest: str, labelled: LabelledRecords) -> DrawVerdict | None:
    """Whether the membership given is what a manifest drew; None where no manifest was named. Raises RecordsError."""
    return check_manifest(Path(manifest), labelled) if manifest else None


def whole_units(
    drawn: DrawVerdict | None, labelled: LabelledRecords, kept: LabelledRecords
) -> tuple[LabelledRecords, tuple[str, ...] | None]:
    """`kept` in groups that hold whole units of the draw, and the unit of each; (kept, None) where nothing was drawn.

    Else fit could hold one record of a document and eval another, whose membership the first one tells. labelled: what
    `drawn` is about, `kept` among it.
    """
    if drawn is None or not drawn.randomised:
        return kept, None
    known = dict(zip(labelled.records.ids, drawn.units, strict=True))
    units = tuple(known[one] for one in kept.records.ids)
    part = _parts(units, kept.records.groups)
    least: dict[int, str] = {}
    for number, group in zip(part, kept.records.groups, strict=True):
        least[number] = min(group, least.get(number, group))
    tied = Records(kept.records.ids, kept.records.contents, tuple(least[number] for number in part))
    return LabelledRecords(tied, kept.member), units


def canary_kinds(drawn: DrawVerdict | None, labelled: LabelledRecords) -> dict[str, dict[str, str]]:
    """Canaries as a kind of records to measure apart (`repromia.categories`); empty where none are audited."""
    if drawn is None or not any(drawn.planted):
        return {}
    told = ("planted" if one else "not planted" for one in drawn.planted)
    return {"canary": dict(zip(labelled.records.ids, told, strict=True))}


def epsilon_figures(
    drawn: DrawVerdict | None,
    labelled: LabelledRecords,
    alike: Collection[str],
    judge: Judge,
    headline: tuple[str, Scores | None],
    delta: float,
) -> EpsilonFigures:
    """Bounds for one attack's scores of all records, or why there are none. labelled: what `drawn` is about.

    Threshold and number of guesses are chosen on select and measured on eval; records of one unit of the draw count
    once. alike: ids of records that others resemble, whether or not they left the audit. Their units are left out:
    what stays of such pairs was trained on twice or not at all, and would bound the epsilon of two records; and units
    share a role where their coins fell alike, so that roles would tell coins.
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
    roles = judge.roles
    if not roles.by_lot:
        return without("there are too few records to divide them into roles whatever their membership")
    unit = dict(zip(labelled.records.ids, drawn.units, strict=True))
    touched = {unit[one] for one in alike}
    alone = {one for one, own in unit.items() if own not in touched}
    select, select_units = _alone(scores[judge.select_rows], roles.select.member, roles.select.records.ids, unit, alone)
    measured, units = _alone(scores[judge.eval_rows], judge.member, roles.eval.ids, unit, alone)
    try:
        bounds = epsilon_bounds(select, measured, delta=delta, groups=(select_units, units))
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


def _alone(
    scores: Scores, member: np.ndarray, ids: Sequence[str], unit: Mapping[str, str], alone: Collection[str]
) -> tuple[Labelled, list[str]]:
    """Scores, membership and units of the records of one role that are among `alone`."""
    rows = [row for row, one in enumerate(ids) if one in alone]
    return Labelled(scores[rows], member[rows]), [unit[ids[row]] for row in rows]


def _parts(units: Sequence[str], groups: Sequence[str]) -> list[int]:
    """One number for all records that share a unit or a group, directly or through others."""
    columns = [np.unique(list(one), return_inverse=True)[1] for one in (units, groups)]
    count = len(units)
    offset = int(columns[0].max(initial=-1)) + 1
    nodes = np.concatenate([columns[0], columns[1] + offset]) + count
    rows = np.tile(np.arange(count), 2)
    size = int(nodes.max(initial=count)) + 1
    graph = sparse.coo_array((np.ones(len(rows)), (rows, nodes)), shape=(size, size))
    found: list[int] = connected_components(graph, directed=False)[1][:count].tolist()
    return found
