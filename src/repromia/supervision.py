"""What the same labels buy without reprogramming: a head on the passive scores."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from jaxtyping import Bool, Float

from repromia.attacks import Attack, Chosen
from repromia.heads import fit_head
from repromia.records import LabelledRecords
from repromia.scoring import Scored
from repromia.signals import Scores

SAME_SUPERVISION = "same_supervision"
WITH_REFERENCE = "same_supervision:references=true"


@dataclass(frozen=True)
class Supervised:
    """A head's row, with what is needed to refit it on permuted labels.

    features cover all records; usable says which fit records no feature was made from; strength is the head's C.
    """

    name: str
    scored: Scored
    features: Float[np.ndarray, "record feature"]
    usable: Bool[np.ndarray, " fit"]
    strength: float


def same_supervision(scored: Sequence[Scored], fit: LabelledRecords, *, seed: int) -> list[Supervised]:
    """Heads on all passive scores, without and (where there are any) with those that use a reference.

    The first len(fit) scores of each attack belong to the fit role. Fit records that a feature was made from
    (prefix shots) are left out of the fit; a feature made from most of a class is left out itself, and a head
    without any feature is no row.
    """
    smaller = min(int(fit.member.sum()), int((~fit.member).sum()))
    passive = [one for one in scored if one.scores is not None and one.chosen.attack.kind == "passive"]
    referred = [one for one in scored if one.scores is not None and one.chosen.attack.kind == "reference"]
    tables = {SAME_SUPERVISION: passive, WITH_REFERENCE: passive + referred if passive and referred else []}
    return [
        _supervised(name, features, fit, seed)
        for name, features in tables.items()
        if any(len(one.used) <= smaller // 2 for one in features)
    ]


def _supervised(name: str, features: Sequence[Scored], fit: LabelledRecords, seed: int) -> Supervised:
    began = time.perf_counter()
    smaller = min(int(fit.member.sum()), int((~fit.member).sum()))
    kept = [one for one in features if len(one.used) <= smaller // 2]
    used = frozenset(name for one in kept for name in one.used)
    tied = {group for name, group in zip(fit.records.ids, fit.records.groups, strict=True) if name in used}
    usable = np.array([group not in tied for group in fit.records.groups])
    columns = [one.scores for one in kept if one.scores is not None]
    matrix = np.stack(columns, axis=1)
    rows = np.flatnonzero(usable)
    learned = fit.take(rows)
    head = fit_head(matrix[rows], learned.member, groups=learned.records.groups, seed=seed)
    scores: Scores = head(matrix)
    details = {
        "features": [one.chosen.name for one in kept],
        "left_out": [one.chosen.name for one in features if one not in kept],
        "fit_records": len(rows),
        "C": head.strength,
    }
    seconds = time.perf_counter() - began
    passes = 1 + sum(one.passes - 1 for one in kept if one.passes > 1)  # the plain view is shared
    return Supervised(
        name,
        Scored(Chosen(name, _ROW, {}), scores, details={"head": details}, passes=passes, seconds=seconds),
        matrix,
        usable,
        head.strength,
    )


def _never(*_: object) -> NoReturn:
    raise AssertionError("the head is fitted by same_supervision, not called on views")


_ROW = Attack(
    SAME_SUPERVISION,
    _never,
    "head",
    "log-probabilities",
    ("labels",),
    "this project: logistic regression on the passive scores",
    default=False,
)
