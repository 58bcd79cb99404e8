"""The central question: what do learned programs and probe banks add on targets whose members were drawn by lot?"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from repromia.result import Estimate, Figures, Gain

FPR = 0.01
CENTRAL = ("reprogram", "probe_bank")
ROLES = ("best_passive", "same_supervision")


class CentralRow(Figures):
    """A paired gain of `reprogram` or `probe_bank` on one target: eval records, 95 % intervals."""

    benchmark: str
    modality: str
    seed: int
    attack: str
    role: str
    over: str
    auc: Estimate
    tpr: Estimate | None  # at 1 % FPR


class Summary(NamedTuple):
    """Gains of one attack over one rival on several targets. auc, tpr: means; above, across, below: how many of the
    targets' intervals lie above 0, hold it, lie below it."""

    modality: str
    attack: str
    role: str
    targets: int
    auc: float
    auc_signs: tuple[int, int, int]
    tpr: float | None
    tpr_signs: tuple[int, int, int]


def rows_of(
    gains: Iterable[Gain], central: Collection[str], *, benchmark: str, modality: str, seed: int
) -> list[CentralRow]:
    """Central gains among those of an audit. central: names of its rows of `reprogram` and `probe_bank`."""
    return [
        CentralRow(
            benchmark=benchmark,
            modality=modality,
            seed=seed,
            attack=one.attack,
            role=one.role,
            over=one.over,
            auc=one.auc,
            tpr=next((gain for fpr, gain in one.tpr_at_fpr if fpr == FPR), None),
        )
        for one in gains
        if one.attack in central and one.role in ROLES
    ]


def summaries(rows: Sequence[CentralRow]) -> list[Summary]:
    """One line for every modality, attack and rival. Targets that share records are no independent repetitions."""
    kinds = dict.fromkeys((one.modality, one.attack, one.role) for one in rows)
    return [_summary(kind, [one for one in rows if (one.modality, one.attack, one.role) == kind]) for kind in kinds]


def _summary(kind: tuple[str, str, str], rows: Sequence[CentralRow]) -> Summary:
    auc, tpr = [one.auc for one in rows], [one.tpr for one in rows if one.tpr]
    mean_auc = sum(one.estimate for one in auc) / len(auc)
    mean_tpr = sum(one.estimate for one in tpr) / len(tpr) if tpr else None
    return Summary(*kind, len(rows), mean_auc, _signs(auc), mean_tpr, _signs(tpr))


def _signs(gains: Sequence[Estimate]) -> tuple[int, int, int]:
    above, below = sum(one.low > 0 for one in gains), sum(one.high < 0 for one in gains)
    return above, len(gains) - above - below, below
