"""From scores to rows of the report: the only place, with controls, where eval labels are opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float

from repromia.areas import group_area, group_tpr
from repromia.bootstrap import Bootstrap, BootstrapStatistics, percentile, widened
from repromia.intervals import Labelled, clopper_pearson, delong, delong_difference, tpr_figures
from repromia.metrics import auc, best_threshold, rates_at, tpr_at_fpr
from repromia.records import LabelledRecords, Records
from repromia.result import AttackResult, Estimate, Gain, TprAtFpr
from repromia.roles import Roles
from repromia.scoring import Scored
from repromia.signals import Scores


@dataclass
class Judge:
    """Measures scores on eval, with thresholds and choices from select.

    Scores come for all records in the order fit, select, eval.
    """

    roles: Roles
    fprs: tuple[float, ...]
    repeats: int
    seed: int
    _statistics: dict[str, BootstrapStatistics] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.member: Bool[np.ndarray, " record"] = self.roles.eval_labels.open_to_measure()
        groups = self.roles.eval.groups if self.roles.eval.grouped else None
        self._bootstrap = Bootstrap(self.member, groups, repeats=self.repeats, seed=self.seed)
        n_fit, n_select = len(self.roles.fit), len(self.roles.select)
        self.fit_rows = np.arange(n_fit)
        self.select_rows = np.arange(n_fit, n_fit + n_select)
        self.eval_rows = np.arange(n_fit + n_select, n_fit + n_select + len(self.roles.eval))

    @property
    def grouped(self) -> bool:
        """Whether intervals must come from resampling groups."""
        return self._bootstrap.grouped

    @property
    def least_groups(self) -> int | None:
        """Groups on the side that has fewer; None where records are independent."""
        return self._bootstrap.least if self.grouped else None

    def statistics(self, name: str, scores: Float[np.ndarray, " eval"]) -> BootstrapStatistics:
        """Resampled figures of a score on eval; the same resamples for every name, made once."""
        if name not in self._statistics:
            self._statistics[name] = self._bootstrap.statistics(scores, self.fprs)
        return self._statistics[name]

    def auc(self, name: str, scores: Float[np.ndarray, " eval"]) -> tuple[Estimate, Estimate]:
        """AUC with its interval (DeLong, or group bootstrap) and the bootstrap interval."""
        statistics = self.statistics(name, scores)
        if self.grouped:
            found = group_area(self._bootstrap, scores, statistics)
            return found, found
        return delong(scores, self.member), percentile(statistics.auc, auc(scores, self.member))

    def row(self, name: str, scored: Scored) -> AttackResult:
        """The row of one attack; a failed one keeps its reason."""
        attack = scored.chosen.attack
        row = AttackResult(
            name=name,
            attack=attack.name,
            kind=attack.kind,
            access=attack.access,
            needs=attack.needs,
            citation=attack.citation,
            seconds=round(scored.seconds, 3),
            forward_passes=scored.passes,
            details=scored.details,
        )
        if scored.scores is None:
            return row.model_copy(update={"status": "failed", "reason": scored.reason})
        return row.model_copy(update=self.figures(name, scored.scores))

    def figures(self, name: str, scores: Scores) -> dict[str, object]:
        """Every figure of a score array over all records."""
        own, chosen = scores[self.eval_rows], scores[self.select_rows]
        area, resampled = self.auc(name, own)
        select = Labelled(chosen, self.roles.select.member)
        independent = not self.grouped  # Clopper-Pearson counts records, and those of a group are not independent
        return {
            "auc": area,
            "auc_bootstrap": resampled,
            "tpr_at_fpr": self._tprs(name, own, select),
            "balanced_accuracy": self._balanced_accuracy(own, select) if independent else None,
            "select_auc": auc(chosen, select.member),
            "n_members": int(self.member.sum()),
            "n_nonmembers": int((~self.member).sum()),
        }

    def _tprs(self, name: str, own: Float[np.ndarray, " eval"], select: Labelled) -> tuple[TprAtFpr, ...]:
        if not self.grouped:
            return tuple(tpr_figures(own, self.member, fpr, select=select) for fpr in self.fprs)
        resampled = self.statistics(name, own).tpr
        return tuple(
            group_tpr(self._bootstrap, own, fpr, samples) for fpr, samples in zip(self.fprs, resampled, strict=True)
        )

    def _balanced_accuracy(self, own: Float[np.ndarray, " eval"], select: Labelled) -> Estimate:
        counts = rates_at(own, self.member, best_threshold(select.scores, select.member))
        inside = clopper_pearson(counts.true_positives, counts.members, level=0.975)
        outside = clopper_pearson(counts.false_positives, counts.nonmembers, level=0.975)
        return Estimate(
            estimate=(inside.estimate + 1 - outside.estimate) / 2,
            low=(inside.low + 1 - outside.high) / 2,
            high=(inside.high + 1 - outside.low) / 2,
            method="threshold from select; Clopper-Pearson on both rates, jointly 95 %",
        )

    def gain(
        self,
        role: str,
        attack: tuple[str, Scores],
        over: tuple[str, Scores],
        *,
        at_fpr: Mapping[float, tuple[str, Scores]] | None = None,
    ) -> Gain:
        """Paired difference of two score arrays (all records) on eval. at_fpr: what TPR is compared with instead."""
        (name, scores), (other_name, other) = attack, over
        own, base = scores[self.eval_rows], other[self.eval_rows]
        ours, theirs = self.statistics(name, own), self.statistics(other_name, base)
        difference = auc(own, self.member) - auc(base, self.member)
        if self.grouped:
            area = self.of_groups(percentile(ours.auc - theirs.auc, difference))
        else:
            area = delong_difference(own, base, self.member)
        tprs, rivals = [], []
        for at, fpr in enumerate(self.fprs):
            if fpr * (~self.member).sum() < 1:
                continue
            rival, its = (at_fpr or {}).get(fpr, over)
            its = its[self.eval_rows]
            found = tpr_at_fpr(own, self.member, fpr) - tpr_at_fpr(its, self.member, fpr)
            moved = percentile(ours.tpr[at] - self.statistics(rival, its).tpr[at], found)
            tprs.append((fpr, self.of_groups(moved)))
            rivals += [(fpr, rival)] if rival != other_name else []
        return Gain.model_validate(
            {
                "attack": name,
                "over": other_name,
                "role": role,
                "auc": area,
                "tpr_at_fpr": tuple(tprs),
                "over_at_fpr": tuple(rivals),
            }
        )

    def of_groups(self, difference: Estimate) -> Estimate:
        """A resampled difference, as wide as few groups ask for."""
        return widened(difference, self.least_groups, (-1.0, 1.0)) if self.least_groups else difference

    def sharpest(self, rows: Sequence[AttackResult], scores: Mapping[str, Scores]) -> dict[float, tuple[str, Scores]]:
        """For each FPR the row with the highest TPR on select; among equals the higher AUC there, then the name.

        The best by AUC may be a vote, whose many equal scores name nobody at a low FPR: no fair rival there.
        """
        label = self.roles.select.member
        known = [(row, scores[row.name]) for row in rows if row.select_auc is not None and row.name in scores]
        found = {}
        for fpr in self.fprs if known else ():
            order = [
                (-tpr_at_fpr(one[self.select_rows], label, fpr), -(row.select_auc or 0.0), row.name, at)
                for at, (row, one) in enumerate(known)
            ]
            row, one = known[min(order)[3]]
            found[fpr] = (row.name, one)
        return found


def all_records(roles: Roles) -> Records:
    """The records of all roles in the order fit, select, eval, without labels."""
    parts = (roles.fit.records, roles.select.records, roles.eval)
    return Records(
        tuple(one for part in parts for one in part.ids),
        tuple(one for part in parts for one in part.contents),
        tuple(one for part in parts for one in part.groups),
    )


def best_on_select(rows: Sequence[AttackResult]) -> AttackResult | None:
    """The measured row with the highest AUC on select; ties go to fewer forward passes, then to the first by name."""
    measured = [row for row in rows if row.select_auc is not None]
    return min(measured, key=lambda row: (-(row.select_auc or 0.0), row.forward_passes, row.name), default=None)


def permuted(labelled: LabelledRecords, generator: np.random.Generator) -> LabelledRecords:
    """The same records with their labels shuffled."""
    return LabelledRecords(labelled.records, generator.permutation(labelled.member))
