"""The audit behind a question about whole sets: who was scored by what, in the order of the files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from repromia.compare_folders import Run, read_run
from repromia.dataset_inference import strongest_blind
from repromia.progress import watched
from repromia.records import LabelledRecords, Records
from repromia.result import AttackResult, AuditResult, Estimate
from repromia.run import audit_to_folder
from repromia.set_config import ForgetConfig, SuspectConfig
from repromia.signals import Scores
from repromia.sources import read_records


@dataclass(frozen=True)
class SetAudit:
    """A finished audit of two sets.

    labelled: the records that were audited, without duplicates, in the order of the files. run: their scores, in an
    order of its own.
    """

    labelled: LabelledRecords
    result: AuditResult
    run: Run

    @property
    def headline(self) -> AttackResult | None:
        """The attack that answers: named beforehand, or chosen on the select role; None where it has no scores."""
        name = self.result.headline
        row = next((row for row in self.result.attacks if row.name == name), None)
        return row if row is not None and row.auc is not None and name in self.run.scores else None

    @property
    def in_eval(self) -> Bool[np.ndarray, " record"]:
        """Who fitted nothing and chose nothing."""
        known = dict(zip(self.run.ids, self.run.in_eval.tolist(), strict=True))
        return np.array([known[name] for name in self.labelled.records.ids], dtype=np.bool_)

    @property
    def groups(self) -> tuple[str, ...] | None:
        """Groups as the audit tied them; None where each record is by itself."""
        if not self.result.records.grouped or self.run.groups is None:
            return None
        known = dict(zip(self.run.ids, self.run.groups, strict=True))
        return tuple(known[name] for name in self.labelled.records.ids)

    def scores(self, attack: str) -> Scores:
        """Scores by one attack."""
        known = dict(zip(self.run.ids, self.run.scores[attack].tolist(), strict=True))
        return np.array([known[name] for name in self.labelled.records.ids], dtype=np.float64)

    @property
    def blind(self) -> Estimate:
        """The blind baseline that comes nearest to telling the two sets apart."""
        return strongest_blind({one.name: one.cross_validated_auc for one in self.result.blind})


def audit_sets(config: SuspectConfig | ForgetConfig, unlabelled: Records | None = None) -> SetAudit:
    """Run or resume the audit in the folder `audit` of config.out."""
    own = config.audit_config()
    result = audit_to_folder(own, watched(), unlabelled)
    labelled = read_records(own)
    run = read_run(own.out, "audit")
    kept = set(run.ids)
    rows = [row for row, name in enumerate(labelled.records.ids) if name in kept]
    return SetAudit(labelled.take(rows), result, run)


def label_free(row: AttackResult) -> bool:
    """Whether no label and no choice on labelled records entered an attack's scores."""
    return row.kind in ("passive", "reference") and set(row.needs) <= {"reference"}


def failed_words(audit: SetAudit) -> str:
    """Why there is no answer, where the headline has no scores."""
    return audit.result.findings[0].sentence if audit.result.findings else "No attack could be measured."
