"""Run one attack: get its views and facts, call its function, check what comes back."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int

from repromia.attacks import Ask, Chosen, Fact
from repromia.attacks.probe_bank import FAMILIES, bank_statistics
from repromia.bank import Bank, ask_bank, describe
from repromia.errors import AttackError, StoreError
from repromia.programs import Identity
from repromia.signals import Scores, TokenSignals
from repromia.views import Views, take_fact


@dataclass(frozen=True)
class Scored:
    """An attack's scores, or the reason why there are none.

    used: ids of records that its programs were made from (no head may be fitted on them).
    details: what its programs say of themselves. passes: forward passes a record on the target.
    bank: features that wait for a head, in place of scores.
    """

    chosen: Chosen
    scores: Scores | None
    reason: str = ""
    used: frozenset[str] = frozenset()
    details: dict[str, Any] = field(default_factory=dict)
    passes: float = 0.0
    seconds: float = 0.0
    bank: Bank | None = None


def run_attack(chosen: Chosen, views: Views, rows: Int[np.ndarray, " row"] | None = None) -> Scored:
    """Scores of all records of the views, or of some rows. A failure becomes a reason, never a score."""
    began = time.perf_counter()
    try:
        if chosen.attack.head:
            return _ask_bank(chosen, views, began)
        inputs, used, details, passes = _inputs(chosen, views, rows)
        scores = np.asarray(chosen.attack.function(**inputs, **chosen.options), dtype=np.float64)
        _check(scores, len(views.records) if rows is None else len(rows))
    except StoreError:
        raise  # a full disk is no property of the attack
    except Exception as error:  # noqa: BLE001 — any failure of an attack is a failed row with its reason
        reason = str(error) or type(error).__name__
        if not isinstance(error, AttackError):
            reason = f"{type(error).__name__}: {reason}"
        return Scored(chosen, None, reason=reason, seconds=time.perf_counter() - began)
    return Scored(chosen, scores, "", used, details, passes, time.perf_counter() - began)


def _ask_bank(chosen: Chosen, views: Views, began: float) -> Scored:
    bank = ask_bank(views, chosen.programs(), bank_statistics(chosen.options["statistics"]), FAMILIES)
    seconds = time.perf_counter() - began
    return Scored(chosen, None, "", bank.used, {"bank": describe(bank)}, 1 + bank.passes, seconds, bank)


def identity_scores(chosen: Chosen, views: Views, rows: Int[np.ndarray, " row"] | None = None) -> Scores:
    """The same attack with every program of the target replaced by the identity."""
    inputs: dict[str, Any] = {}
    for name, (mark, variants) in chosen.inputs.items():
        if isinstance(mark, Ask):
            asked = views.ask(mark.of, Identity(), rows)
            inputs[name] = asked if variants else asked[0]
        elif isinstance(mark, Fact):
            fact = views.fact(mark.name, chosen.options)
            inputs[name] = fact if rows is None else take_fact(fact, rows)
    return np.asarray(chosen.attack.function(**inputs, **chosen.options), dtype=np.float64)


def _inputs(
    chosen: Chosen, views: Views, rows: Int[np.ndarray, " row"] | None
) -> tuple[dict[str, Any], frozenset[str], dict[str, Any], float]:
    inputs: dict[str, Any] = {}
    used: frozenset[str] = frozenset()
    details: dict[str, Any] = {}
    passes = 0.0
    for name, (mark, variants) in chosen.inputs.items():
        if isinstance(mark, Ask):
            program = views.program(mark.plan, chosen.options)
            asked = views.ask(mark.of, program, rows)
            _check_told(chosen, asked)
            inputs[name] = asked if variants else asked[0]
            used |= program.used
            if program.details:
                details[name] = program.details
            passes += len(asked) if mark.of == "target" else 0
        elif isinstance(mark, Fact):
            fact = views.fact(mark.name, chosen.options)
            used |= getattr(fact, "used", frozenset())
            inputs[name] = fact if rows is None else take_fact(fact, rows)
    return inputs, used, details, passes


def _check_told(chosen: Chosen, asked: tuple[TokenSignals, ...]) -> None:
    """Not told is NaN or -1, which a comparison takes for a figure."""
    if "distribution" in chosen.attack.access and not all(one.told for one in asked):
        raise AttackError(
            f"The attack {chosen.attack.name!r} needs more than the model tells.",
            expected=chosen.attack.access,
            found="log-probabilities of the given tokens only",
            hint="load the model itself, or leave the attack out",
        )


def _check(scores: Scores, expected: int) -> None:
    if scores.shape != (expected,):
        raise AttackError(
            "The attack returned the wrong number of scores.",
            expected=f"{expected} numbers, one a record",
            found=f"shape {scores.shape}",
        )
    broken = int((~np.isfinite(scores)).sum())
    if broken:
        raise AttackError(
            "The attack returned scores that are not finite.",
            expected="a number a record",
            found=f"{broken} of {expected} are NaN or infinite",
        )
