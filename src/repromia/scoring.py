"""Run one attack: get its views and facts, call its function, check what comes back."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from repromia.attacks import Ask, AskReferences, BankRecipe, Chosen, Fact, Variants
from repromia.bank import Bank, ask_bank, describe
from repromia.errors import AttackError, ClusterError, StoreError
from repromia.metrics import auc
from repromia.programs import Fixed, Program, identity_of
from repromia.programs.registry import plan_for
from repromia.records import without_records
from repromia.signals import ClassSignals, ReferenceGains, ReferenceSignals, Scores, Signals, TokenSignals
from repromia.views import Of, Views, passes_of, take_fact


@dataclass(frozen=True)
class Scored:
    """An attack's scores, or the reason why there are none.

    used: ids of records that its programs were made from (no head may be fitted on them).
    details: what its programs say of themselves. passes: forward passes a record on the target.
    bank: features that wait for a head, in place of scores. variants: scores that the one on top was chosen from.
    """

    chosen: Chosen
    scores: Scores | None
    reason: str = ""
    used: frozenset[str] = frozenset()
    details: dict[str, Any] = field(default_factory=dict)
    passes: float = 0.0
    seconds: float = 0.0
    bank: Bank | None = None
    variants: Variants | None = None

    @property
    def features(self) -> Float[np.ndarray, "record feature"]:
        """What a head reads: all variants where there are some, else the score."""
        assert self.scores is not None  # noqa: S101
        return self.scores[:, None] if self.variants is None else self.variants.scores

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the features."""
        name = self.chosen.name
        return (name,) if self.variants is None else tuple(f"{name} {one}" for one in self.variants.names)


def run_attack(chosen: Chosen, views: Views, rows: Int[np.ndarray, " row"] | None = None) -> Scored:
    """Scores of all records of the views, or of some rows. A failure becomes a reason, never a score.

    Seconds are those of an unbroken run: what is read back counts as long as it once took.
    """
    began = views.store.clock()
    try:
        if chosen.attack.bank is not None:
            return _ask_bank(chosen, chosen.attack.bank, views, began)
        inputs, used, details, passes = _inputs(chosen, views, rows)
        found = chosen.attack.function(**inputs, **chosen.options)
        variants = found if isinstance(found, Variants) else None
        if isinstance(found, Variants):
            _check(found.scores, (len(views.records), len(found.names)))
            best, areas = _best_on_select(found, views)
            details["chosen_on_select"] = {"variant": found.names[best], "auc": areas}
            found = found.scores[:, best]
        scores = np.asarray(found, dtype=np.float64)
        _check(scores, (len(views.records) if rows is None else len(rows),))
    except (StoreError, ClusterError):
        raise  # a full disk or a lost worker is no property of the attack
    except Exception as error:  # noqa: BLE001 — any failure of an attack is a failed row with its reason
        reason = str(error) or type(error).__name__
        if not isinstance(error, AttackError):
            reason = f"{type(error).__name__}: {reason}"
        reason = without_records(reason, views.records)
        return Scored(chosen, None, reason=reason, seconds=views.store.clock() - began)
    seconds = views.store.clock() - began
    return Scored(chosen, scores, "", used, details, passes, seconds, variants=variants)


def _best_on_select(found: Variants, views: Views) -> tuple[int, dict[str, float]]:
    """The variant with the best AUC on the select role (the first of equals), and all their AUCs there."""
    select = views.binding.select
    place = {name: row for row, name in enumerate(views.records.ids)}
    rows = np.array([place[name] for name in select.records.ids])
    areas = [auc(one, select.member) for one in found.scores[rows].T]
    return int(np.argmax(areas)), dict(zip(found.names, areas, strict=True))


def _ask_bank(chosen: Chosen, recipe: BankRecipe, views: Views, began: float) -> Scored:
    bank = ask_bank(views, chosen.programs(), recipe, chosen.options)
    seconds = views.store.clock() - began
    passes = bank.passes + (recipe.plain not in {probe.spec for probe in bank.probes})
    return Scored(chosen, None, "", bank.used, {"bank": describe(bank)}, passes, seconds, bank)


def named_programs(chosen: Chosen) -> tuple[str, ...]:
    """The programs that an attack names; none where it cannot say (its own row will say why)."""
    try:
        return chosen.programs()
    except AttackError:
        return ()


def programs_asked(chosen: Sequence[Chosen], views: Views, of: Of) -> list[Program]:
    """Fixed programs that these attacks will ask a model: those that can be asked together."""
    found: dict[str, Program] = {}
    for one in chosen:
        wanted = [mark.plan for mark, _ in one.inputs.values() if isinstance(mark, Ask) and mark.of == of]
        if of == "target" and one.attack.bank is not None:
            wanted += [one.attack.bank.plain, *named_programs(one)]
        for spec in wanted:
            with suppress(AttackError):  # the attack itself will say what is wrong with it
                plan = plan_for(spec, one.options, views.modality)
                if isinstance(plan, Fixed) and isinstance(plan, Program):
                    found.setdefault(plan.key, plan)
    return list(found.values())


def identity_scores(chosen: Chosen, views: Views, rows: Int[np.ndarray, " row"] | None = None) -> Scores:
    """The same attack with every program of the target replaced by the identity."""
    inputs: dict[str, Any] = {}
    for name, (mark, variants) in chosen.inputs.items():
        if isinstance(mark, Ask):
            asked = views.ask(mark.of, identity_of(views.program(mark.plan, chosen.options)), rows)
            inputs[name] = asked if variants else asked[0]
        elif isinstance(mark, Fact):
            fact = views.fact(mark.name, chosen.options)
            inputs[name] = fact if rows is None else take_fact(fact, rows)
        elif isinstance(mark, AskReferences):
            signals = _references(chosen, mark, views)
            inputs[name] = signals if rows is None else signals.take(rows)
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
            passes += passes_of(program, asked) if mark.of == "target" else 0
        elif isinstance(mark, AskReferences):
            signals = _references(chosen, mark, views)
            inputs[name] = signals if rows is None else signals.take(rows)
            details[name] = {"models": signals.models, "inside": int(signals.inside.sum(axis=0).max(initial=0))}
        elif isinstance(mark, Fact):
            fact = views.fact(mark.name, chosen.options)
            used |= getattr(fact, "used", frozenset())
            inputs[name] = fact if rows is None else take_fact(fact, rows)
    return inputs, used, details, passes


def _references(chosen: Chosen, mark: AskReferences, views: Views) -> ReferenceSignals | ReferenceGains:
    if mark.plan:
        return views.reference_gains(views.program(mark.plan, chosen.options))
    return views.references(chosen.reference)


def _check_told(chosen: Chosen, asked: tuple[Signals, ...]) -> None:
    """Not told is NaN or -1, which a comparison takes for a figure."""
    wanted = {TokenSignals: "distribution", ClassSignals: "probabilities"}
    found = {TokenSignals: "log-probabilities of the given tokens only", ClassSignals: "the predicted class only"}
    untold = [type(one) for one in asked if isinstance(one, TokenSignals | ClassSignals) and not one.told]
    if any(wanted[kind] in chosen.attack.access for kind in untold):
        raise AttackError(
            f"The attack {chosen.attack.name!r} needs more than the model tells.",
            expected=chosen.attack.access,
            found=found[untold[0]],
            hint="load the model itself, or leave the attack out",
        )


def _check(scores: np.ndarray, expected: tuple[int, ...]) -> None:
    if scores.shape != expected:
        raise AttackError(
            "The attack returned the wrong number of scores.",
            expected=f"{expected[0]} numbers, one a record" + (" and variant" if len(expected) > 1 else ""),
            found=f"shape {scores.shape}",
        )
    broken = int((~np.isfinite(scores)).sum())
    if broken:
        raise AttackError(
            "The attack returned scores that are not finite.",
            expected="a number a record",
            found=f"{broken} of {scores.size} are NaN or infinite",
        )
