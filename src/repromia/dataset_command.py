"""Was this dataset used? The command: scores by an audit, then one test on the whole set."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Bool
from rich.console import Console
from rich.text import Text

from repromia.dataset_inference import Outcome, SetEvidence, dataset_inference
from repromia.dataset_sequence import SequentialEvidence, sequential_evidence
from repromia.errors import ConfigError
from repromia.result import AttackResult, Estimate, Figures, Finding
from repromia.set_audit import SetAudit, audit_sets, failed_words, label_free
from repromia.set_config import SuspectConfig
from repromia.store import write_atomic
from repromia.verdict import DOUBTFUL

FILE = "dataset_inference.json"


class Sequence(Figures):
    """What was seen while suspect records came in: e-values, and at which record 1 / alpha was reached."""

    crossed_at: int | None
    e_value: float
    highest: float
    looked_at: int


class DatasetAnswer(Figures):
    """Whether a set was used, as written to dataset_inference.json; names as in `SetEvidence`.

    attack_rule: how the attack was chosen. tested: "all" records where the attack uses no label and was named
    beforehand, else those of the "eval" role. p_value: None where refused; of a sequence valid at any time.
    """

    schema_version: int = 1
    outcome: Outcome
    sentence: str
    attack: str
    attack_rule: str
    tested: Literal["all", "eval"]
    p_value: float | None
    alpha: float
    effect: Estimate | None
    blind: Estimate
    n_suspect: int
    n_heldout: int
    statistic: str = ""
    permutations: int = 0
    false_positive_rate: Estimate | None = None
    order_p_value: float | None = None
    sequence: Sequence | None = None
    audit: str


def dataset_command(config: SuspectConfig, console: Console | None = None) -> int:
    """Audit, test, print, and write dataset_inference.json. 0: tested; 1: refused, or nothing could be measured."""
    console = console or Console()
    if config.sequential and not config.headline:
        raise ConfigError(
            "Looking while records come in needs an attack that does not change with them.",
            expected="--headline with an attack that uses no labels, such as min_k or reference",
            found="no headline",
        )
    audit = audit_sets(config)
    row = audit.headline
    if row is None:
        console.print(Text(failed_words(audit)))
        return 1
    answer = answer_of(audit, row, config)
    path = config.out / FILE
    write_atomic(path, answer.model_dump_json(indent=2).encode())
    console.print(Text(answer.sentence))
    console.print(Text(f"By {row.name} ({answer.attack_rule}). Figures: {path}, audit: {answer.audit}"), soft_wrap=True)
    return 0 if answer.outcome in ("used", "not_shown") and audit.result.status == "complete" else 1


def answer_of(audit: SetAudit, row: AttackResult, config: SuspectConfig) -> DatasetAnswer:
    """The test on the scores of the audit's headline."""
    free = label_free(row) and bool(config.headline)
    if config.sequential and not free:
        raise ConfigError(
            f"{row.name!r} uses labels or a program of its own, and may change as records come in.",
            expected="a --headline that uses no labels, such as min_k or reference",
            found=", ".join(row.needs) or row.kind,
        )
    rows = np.ones(len(audit.labelled), dtype=np.bool_) if free else audit.in_eval
    if config.sequential:
        found, sequence = _sequence(audit, row.name, rows, config)
    else:
        found, sequence = _one_look(audit, row.name, rows, config), None
    found = _heeding(found, audit.result.findings[0])
    named = audit.result.headline_rule
    tested: Literal["all", "eval"] = "all" if free else "eval"
    return found.model_copy(update={"attack_rule": named, "tested": tested, "sequence": sequence})


def _heeding(found: DatasetAnswer, audit: Finding) -> DatasetAnswer:
    """What the audit of the same records holds against the model as the cause: null target, paired blind baseline."""
    if found.outcome != "used" or audit.code not in DOUBTFUL:
        return found
    if audit.code == "shifted_data_no_null":  # the blind check of the test itself found no shift
        return found.model_copy(update={"sentence": f"{found.sentence} Caution: {audit.sentence}"})
    words = f"Cannot be told from data shift, so no p-value is given. {audit.sentence}"
    return found.model_copy(update={"outcome": "shifted", "p_value": None, "sentence": words})


def _one_look(audit: SetAudit, attack: str, rows: Bool[np.ndarray, " record"], config: SuspectConfig) -> DatasetAnswer:
    groups = None if audit.groups is None else [one for one, kept in zip(audit.groups, rows, strict=True) if kept]
    found: SetEvidence = dataset_inference(
        audit.scores(attack)[rows],
        audit.labelled.member[rows],
        groups,
        blind=audit.blind,
        statistic=config.statistic,
        alpha=config.alpha,
        seed=config.seed,
    )
    return DatasetAnswer(
        outcome=found.outcome,
        sentence=found.sentence,
        attack=attack,
        attack_rule="",
        tested="eval",
        p_value=found.p_value,
        alpha=found.alpha,
        effect=found.effect,
        blind=audit.blind,
        n_suspect=found.n_suspect,
        n_heldout=found.n_heldout,
        statistic=found.statistic,
        permutations=found.permutations,
        false_positive_rate=found.false_positive_rate,
        order_p_value=found.order_p_value,
        audit=str(audit.run.folder),
    )


def _sequence(
    audit: SetAudit, attack: str, rows: Bool[np.ndarray, " record"], config: SuspectConfig
) -> tuple[DatasetAnswer, Sequence | None]:
    scores, suspect = audit.scores(attack), audit.labelled.member & rows
    names = np.asarray(audit.groups or audit.labelled.records.ids)
    groups = None if audit.groups is None else (names[suspect].tolist(), names[~suspect & rows].tolist())
    found: SequentialEvidence = sequential_evidence(
        scores[suspect], scores[~suspect & rows], groups=groups, blind=audit.blind, alpha=config.alpha, seed=config.seed
    )
    outcome: Outcome = "used" if found.crossed_at is not None else "not_shown"
    answer = DatasetAnswer(
        outcome="shifted" if found.p_value is None else outcome,
        sentence=found.sentence,
        attack=attack,
        attack_rule="",
        tested="all",
        p_value=found.p_value,
        alpha=found.alpha,
        effect=None,
        blind=audit.blind,
        n_suspect=len(set(names[suspect].tolist())),
        n_heldout=len(set(names[~suspect & rows].tolist())),
        audit=str(audit.run.folder),
    )
    worth = found.e_values
    if not worth.size:
        return answer, None
    return answer, Sequence(
        crossed_at=found.crossed_at, e_value=float(worth[-1]), highest=float(worth.max()), looked_at=worth.size
    )
