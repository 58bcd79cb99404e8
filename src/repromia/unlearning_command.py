"""Was this set forgotten? The command: an attack that learns from retained and never-seen records only.

Forget records are asked and scored like those of eval, in no role: their membership enters nothing that is fitted or
chosen. The attack is the one that recognises retained records best on the select role, or named beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.text import Text

from repromia.areas import area
from repromia.dataset_inference import blind_check
from repromia.duplicates import remove_duplicates
from repromia.intervals import for_tests
from repromia.records import LabelledRecords, Records, joined
from repromia.result import AttackResult, Estimate, Figures, TprAtFpr
from repromia.set_audit import SetAudit, audit_sets, failed_words
from repromia.set_config import ForgetConfig
from repromia.signals import Scores
from repromia.sources import read_records
from repromia.store import write_atomic
from repromia.unlearning import Outcome, SetScores, unlearning_check
from repromia.verdict import UNAMBIGUOUS, interval

if TYPE_CHECKING:
    import polars

FILE = "unlearning.json"
PREFIX = "forget:"  # of ids, which may be the same in several files


class ForgetRow(Figures):
    """What one attack sees of forget records against never-seen ones, and whether that is beyond chance.

    differs: the interval, widened for the number of attacks, leaves out .5.
    """

    attack: str
    auc: Estimate
    differs: bool


class UnlearningAnswer(Figures):
    """Whether a set was forgotten, as written to unlearning.json; names as in `UnlearningEvidence`.

    left_out: forget records that repeat others, exactly or nearly. attacks: every attack's figure.
    """

    schema_version: int = 1
    outcome: Outcome
    sentence: str
    attack: str
    attack_rule: str
    forget: Estimate
    retained: Estimate
    forget_tpr: TprAtFpr
    margin: float
    blind: Estimate
    blind_retained: Estimate
    n_forget: int
    n_never_seen: int
    n_retained: int
    left_out: int
    attacks: tuple[ForgetRow, ...]
    audit: str


def unlearning_command(config: ForgetConfig, console: Console | None = None) -> int:
    """Audit, check, print, and write unlearning.json. 0: checked; 1: nothing could be measured."""
    console = console or Console()
    forget = forget_set(config)
    audit = audit_sets(config, forget.records)
    row = audit.headline
    if row is None:
        console.print(Text(failed_words(audit)))
        return 1
    answer = answer_of(audit, row, forget, config)
    path = config.out / FILE
    write_atomic(path, answer.model_dump_json(indent=2).encode())
    console.print(Text(answer.sentence))
    if forget.left_out:
        console.print(Text(f"{forget.left_out} forget records repeat others, of any set, and were left out."))
    console.print(Text(f"By {row.name} ({answer.attack_rule}). Figures: {path}, audit: {answer.audit}"), soft_wrap=True)
    return 1 if answer.outcome == "could_not_be_measured" or audit.result.status != "complete" else 0


@dataclass(frozen=True)
class ForgetSet:
    """Forget records under names of their own. repeats: ids, of any set, that left because another record repeats them.

    A record that is also retained was trained on and kept: that the model knows it is no failure to forget. One that is
    also never-seen was seen.
    """

    records: Records
    repeats: frozenset[str]

    @property
    def left_out(self) -> int:
        """Number of forget records that left."""
        return sum(name.startswith(PREFIX) for name in self.repeats)


def forget_set(config: ForgetConfig) -> ForgetSet:
    """Read the forget records, and leave out what occurs in two sets or twice in this one."""
    own = config.audit_config()
    others = read_records(own).records
    first = read_records(own.model_copy(update={"members": config.forget})).members()
    ids = tuple(f"{PREFIX}{name}" for name in first.ids)
    # Names of real groups stay: a document may lie in several sets.
    forget = Records(ids, first.contents, ids if first.groups == first.ids else first.groups)
    both = LabelledRecords(joined(forget, others), np.arange(len(forget) + len(others)) < len(forget))
    kept, _ = remove_duplicates(both, threshold=config.near_duplicates)
    return ForgetSet(kept.members(), frozenset(both.records.ids) - frozenset(kept.records.ids))


def answer_of(audit: SetAudit, row: AttackResult, forget: ForgetSet, config: ForgetConfig) -> UnlearningAnswer:
    """The check on the scores of the audit's headline."""
    table = _forget_scores(audit)
    sets = _sets(audit, row.name, forget, table)
    blind = blind_check(_forget_and_never_seen(audit, forget, config), seed=config.seed)
    found = unlearning_check(*sets, margin=config.margin, blind=blind, blind_retained=audit.blind, seed=config.seed)
    rows = _every_attack(audit, forget, table, config.seed)
    # Where the sets differ by themselves every attack tells them apart, and none may be chosen by that.
    shifted = max(blind.low, audit.blind.low) > 0.5
    return UnlearningAnswer(
        outcome=found.outcome,
        sentence=found.sentence + ("" if shifted else other_attacks(found.outcome, row.name, rows)),
        attack=row.name,
        attack_rule=audit.result.headline_rule,
        forget=found.forget,
        retained=found.retained,
        forget_tpr=found.forget_tpr,
        margin=found.margin,
        blind=blind,
        blind_retained=audit.blind,
        n_forget=len(sets[0].scores),
        n_never_seen=len(sets[1].scores),
        n_retained=len(sets[2].scores),
        left_out=forget.left_out,
        attacks=rows,
        audit=str(audit.run.folder),
    )


def _forget_and_never_seen(audit: SetAudit, forget: ForgetSet, config: ForgetConfig) -> LabelledRecords:
    """Forget records as members, never-seen ones as non-members; near copies share a group, or a baseline that knows
    one would know the other."""
    never = audit.labelled.nonmembers()
    never = never.take([row for row, name in enumerate(never.ids) if name not in forget.repeats])
    count = len(forget.records)
    pool = LabelledRecords(joined(forget.records, never), np.arange(count + len(never)) < count)
    return remove_duplicates(pool, threshold=config.near_duplicates)[0]


def _forget_scores(audit: SetAudit) -> polars.DataFrame:
    import polars

    return polars.read_parquet((audit.run.folder / "unlabelled.parquet").read_bytes())  # a path may look like a glob


def _sets(
    audit: SetAudit, attack: str, forget: ForgetSet, table: polars.DataFrame
) -> tuple[SetScores, SetScores, SetScores]:
    """Forget, never-seen and retained records of eval under one attack."""
    own = dict(zip(table["id"].to_list(), table[attack].to_list(), strict=True))
    scores, member = audit.scores(attack), audit.labelled.member
    again = np.array([name in forget.repeats for name in audit.labelled.records.ids], dtype=np.bool_)
    measured = audit.in_eval & ~again
    groups = audit.groups
    grouped = groups is not None or forget.records.grouped
    names = np.asarray(groups if groups is not None else audit.labelled.records.ids)

    def of(rows: np.ndarray) -> SetScores:
        return SetScores(scores[rows], tuple(names[rows].tolist()) if grouped else None)

    first = np.array([own[name] for name in forget.records.ids], dtype=np.float64)
    return (SetScores(first, forget.records.groups if grouped else None), of(measured & ~member), of(measured & member))


def _every_attack(audit: SetAudit, forget: ForgetSet, table: polars.DataFrame, seed: int) -> tuple[ForgetRow, ...]:
    """Forget against never-seen records by every attack that has scores."""
    names = [row.name for row in audit.result.attacks if row.auc is not None and row.name in table.columns]
    rows = []
    for name in names:
        first, never, _ = _sets(audit, name, forget, table)
        scores: Scores = np.concatenate([first.scores, never.scores])
        groups = None if first.groups is None or never.groups is None else [*first.groups, *never.groups]
        found = area(scores, np.arange(scores.size) < first.scores.size, groups, seed=seed)
        corrected = for_tests(found, len(names))
        rows.append(ForgetRow(attack=name, auc=found, differs=corrected.low > 0.5 or corrected.high < 0.5))
    return tuple(rows)


def other_attacks(outcome: Outcome, headline: str, rows: tuple[ForgetRow, ...]) -> str:
    """What attacks other than the headline add: that they tell forget records apart where it did not, or that one whose
    sign cannot turn contradicts its direction."""
    seen = [one for one in rows if one.differs and one.attack != headline]
    if outcome in ("still_remembered", "over_unlearned"):
        above = outcome == "over_unlearned"
        seen = [one for one in seen if one.attack in UNAMBIGUOUS and (one.auc.estimate > 0.5) == above]
    if not seen:
        return ""
    far = max(seen, key=lambda one: abs(one.auc.estimate - 0.5))
    figures = f"{far.attack!r} {{}} AUC {interval(far.auc)}"
    if outcome in ("still_remembered", "over_unlearned"):
        return f" But {figures.format('points the other way, with')}: they can be told apart, in whichever direction."
    return (
        f" But {len(seen)} of {len(rows)} attacks do tell forget records from never-seen ones, also when corrected for "
        f"their number: {figures.format('with')}. Name it with --headline and check other records."
    )
