"""Heads on features of all records: what the labels buy without reprogramming, and with a bank of programs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import numpy as np
from jaxtyping import Bool, Float

from repromia.attacks import Attack, Chosen
from repromia.bank import Bank
from repromia.heads import SHAPE, Head, Shape, fit_head, fit_stack, fit_with, out_of_fold
from repromia.records import LabelledRecords
from repromia.scoring import Scored
from repromia.signals import Scores

SAME_SUPERVISION = "same_supervision"
WITH_REFERENCE = "same_supervision:references=true"
LEAST = 5  # fit records a class, below which a head is no head
Features = Float[np.ndarray, "record feature"]
# Labels of the usable fit records -> scores of all records, with the C chosen on the true ones.
Learn = Callable[[Bool[np.ndarray, " usable"]], Scores]


@dataclass(frozen=True)
class Supervised:
    """A head's row, and how to learn it again from other labels.

    rival: the row that had the same labels and no program. usable says which fit records no feature was made from.
    bank: the probes behind it, where there are any. head, columns, attacks: what carries over to another audit: the
    head, what its features are, and the rows whose scores are the first of them.
    """

    name: str
    scored: Scored
    learn: Learn = field(repr=False)
    usable: Bool[np.ndarray, " fit"]
    rival: str = ""
    bank: Bank | None = None
    head: Head | None = None
    columns: tuple[str, ...] = ()
    attacks: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Table:
    """Features of all records and what they were made from."""

    matrix: Features
    used: frozenset[str]
    names: tuple[str, ...]
    left_out: tuple[str, ...]
    passes: float
    columns: tuple[str, ...]
    attacks: tuple[str, ...] = ()
    shape: Shape = SHAPE


def supervised_rows(scored: Sequence[Scored], fit: LabelledRecords, *, seed: int) -> list[Supervised]:
    """Every head of an audit: `same_supervision` and each bank, without and with references.

    The first len(fit) scores of each attack belong to the fit role. Fit records that a feature was made from
    (prefix shots), and all records of their groups, are left out of the fit; a feature that would take most of a
    class with it is left out itself, a head without any feature is no row, and one that cannot be fitted a failed row.
    """
    passive = [one for one in scored if one.scores is not None and one.chosen.attack.kind == "passive"]
    referred = [one for one in scored if one.scores is not None and one.chosen.attack.kind == "reference"]
    banks = [one for one in scored if one.bank is not None]
    plain = _table(passive, fit)
    with_reference = _table([*passive, *referred], fit) if passive and referred else None
    rows: list[Supervised] = []
    if plain is not None:
        rows.append(_head(SAME_SUPERVISION, replace(HEAD, access=_access(passive)), plain, fit, seed))
    if with_reference is not None:  # not carried over: another target has another reference
        row = replace(HEAD, access=_access([*passive, *referred]), needs=(*HEAD.needs, "reference"))
        rows.append(replace(_head(WITH_REFERENCE, row, with_reference, fit, seed), head=None))
    for one in banks:
        rows += _bank_rows(one, plain, with_reference, fit, seed)
    return rows


def family_scores(head: Supervised, scored: Sequence[Scored], fit: LabelledRecords, *, seed: int) -> dict[str, Scores]:
    """For each family of a bank, the scores of a head on the passive scores and that family alone."""
    if head.bank is None:
        return {}
    plain = _table([one for one in scored if one.scores is not None and one.chosen.attack.kind == "passive"], fit)
    found: dict[str, Scores] = {}
    for family in dict.fromkeys(probe.family for probe in head.bank.probes if not probe.reason):
        probes = [probe for probe in head.bank.probes if probe.family == family and not probe.reason]
        own = head.bank.only(probes)
        one = _head(f"{head.name} with {family} alone", HEAD, _with_bank(plain, own), fit, seed)
        if one.scored.scores is not None:
            found[family] = one.scored.scores
    return found


def _access(scored: Sequence[Scored]) -> str:
    """What all of these attacks need of the model together."""
    return ", ".join(dict.fromkeys(part for one in scored for part in one.chosen.attack.access.split(", ")))


def _bank_rows(
    one: Scored, plain: _Table | None, with_reference: _Table | None, fit: LabelledRecords, seed: int
) -> list[Supervised]:
    """A bank's head, and the same stacked on the reference head: concatenating the features is worse."""
    assert one.bank is not None  # noqa: S101
    attack = one.chosen.attack
    bank = _fitting(one.bank, fit)
    table = _with_bank(plain, bank)
    head = _head(one.chosen.name, attack, table, fit, seed)
    details = {**one.details, **head.scored.details}
    seconds = head.scored.seconds + one.seconds
    scored = replace(head.scored, chosen=one.chosen, details=details, seconds=seconds)
    rival = SAME_SUPERVISION if plain is not None else ""
    rows = [replace(head, scored=scored, rival=rival, bank=bank)]
    if with_reference is not None:
        name = f"{one.chosen.name}:references=true"
        stacked = replace(attack, needs=(*attack.needs, "reference"))
        rows.append(_stacked(name, stacked, (table, with_reference), fit, seed))
    return rows


def _table(scored: Sequence[Scored], fit: LabelledRecords) -> _Table | None:
    """Scores as features; a score that most of a class was used for is left out."""
    kept = [one for one in scored if _leaves_enough(one.used, fit)]
    if not kept:
        return None
    names = tuple(one.chosen.name for one in kept)
    return _Table(
        passive_scores(kept),
        frozenset(name for one in kept for name in one.used),
        names,
        tuple(one.chosen.name for one in scored if one not in kept),
        passes_together(kept),
        tuple(column for one in kept for column in one.columns),
        names,
    )


def passive_scores(scored: Sequence[Scored]) -> Features:
    """Scores as features, side by side; of an attack with variants all of them."""
    return np.concatenate([one.features for one in scored if one.scores is not None], axis=1)


def passes_together(scored: Sequence[Scored]) -> float:
    """Forward passes a record of several attacks, which share the plain view where there is one."""
    if any(one.chosen.attack.modality == "diffusion" for one in scored):
        return sum(one.passes for one in scored)
    return 1 + sum(one.passes - 1 for one in scored if one.passes > 1)


def _with_bank(plain: _Table | None, bank: Bank) -> _Table:
    names = tuple(probe.spec for probe in bank.probes if not probe.reason)
    own = _Table(bank.table, bank.used, names, (), 1 + bank.passes, bank.names, shape=bank.shape)
    if not bank.beside_passive:
        return replace(own, passes=bank.passes)
    if plain is None:
        return own
    return _Table(
        np.concatenate([plain.matrix, own.matrix], axis=1),
        plain.used | own.used,
        plain.names + own.names,
        plain.left_out,
        plain.passes + bank.passes,
        plain.columns + own.columns,
        plain.attacks,
        own.shape,
    )


def _fitting(bank: Bank, fit: LabelledRecords) -> Bank:
    """The bank without the columns of probes that most of a class was used for."""
    dropped = [probe for probe in bank.probes if not _leaves_enough(probe.used, fit)]
    if not dropped:
        return bank
    reason = "made from records whose groups hold most of a class of the fit role"
    kept = bank.only([probe for probe in bank.probes if probe not in dropped])
    return replace(
        kept,
        probes=(*kept.probes, *(replace(one, columns=(), used=frozenset(), reason=reason) for one in dropped)),
    )


def _leaves_enough(used: frozenset[str], fit: LabelledRecords) -> bool:
    usable = _untied(used, fit)
    return all(usable[side].sum() * 2 >= side.sum() for side in (fit.member, ~fit.member))


def _usable(tables: Sequence[_Table], fit: LabelledRecords) -> Bool[np.ndarray, " fit"]:
    """Fit records that no feature was made from, nor any other record of their group."""
    return _untied(frozenset(name for table in tables for name in table.used), fit)


def _untied(used: frozenset[str], fit: LabelledRecords) -> Bool[np.ndarray, " fit"]:
    tied = {group for name, group in zip(fit.records.ids, fit.records.groups, strict=True) if name in used}
    return np.array([group not in tied for group in fit.records.groups])


def _head(name: str, attack: Attack, table: _Table, fit: LabelledRecords, seed: int) -> Supervised:
    began = time.perf_counter()
    usable = _usable([table], fit)
    rows = np.flatnonzero(usable)
    refusal = _too_little(table.matrix, fit.member[rows])
    if refusal:
        return _refused(name, attack, usable, refusal)
    groups = fit.take(rows).records.groups
    head = fit_head(table.matrix[rows], fit.member[rows], groups=groups, seed=seed, shape=table.shape)
    scores: Scores = head(table.matrix)

    def learn(member: Bool[np.ndarray, " usable"]) -> Scores:
        return fit_with(table.matrix[rows], member, head.strength, table.shape)(table.matrix)

    details: dict[str, Any] = {
        "features": list(table.names),
        "left_out": list(table.left_out),
        "fit_records": len(rows),
        "C": head.strength,
        "weights": {name: round(float(one), 4) for name, one in zip(table.columns, head.weights, strict=True)},
    }
    seconds = time.perf_counter() - began
    chosen = Chosen(name, attack, {})
    scored = Scored(chosen, scores, details={"head": details}, passes=table.passes, seconds=seconds)
    return Supervised(name, scored, learn, usable, head=head, columns=table.columns, attacks=table.attacks)


def _stacked(name: str, attack: Attack, tables: tuple[_Table, _Table], fit: LabelledRecords, seed: int) -> Supervised:
    """A head on two heads' log-odds, which for the fit records are out of fold."""
    began = time.perf_counter()
    usable = _usable(tables, fit)
    rows = np.flatnonzero(usable)
    refusal = _too_little(tables[0].matrix, fit.member[rows])
    if refusal:
        return _refused(name, attack, usable, refusal)
    groups = fit.take(rows).records.groups
    strengths = [
        fit_head(one.matrix[rows], fit.member[rows], groups=groups, seed=seed, shape=one.shape).strength
        for one in tables
    ]

    def learn(member: Bool[np.ndarray, " usable"]) -> Scores:
        held_out, full = [], []
        for table, strength in zip(tables, strengths, strict=True):
            features = table.matrix[rows]
            held_out.append(out_of_fold(features, member, strength, groups=groups, seed=seed, shape=table.shape))
            full.append(fit_with(features, member, strength, table.shape)(table.matrix))
        return fit_stack(np.stack(held_out, axis=1), member)(np.stack(full, axis=1))

    scores = learn(fit.member[rows])
    details = {"stacked": [list(table.names) for table in tables], "fit_records": len(rows), "C": strengths}
    passes = sum(table.passes for table in tables) - 1
    seconds = time.perf_counter() - began
    scored = Scored(Chosen(name, attack, {}), scores, details={"head": details}, passes=passes, seconds=seconds)
    return Supervised(name, scored, learn, usable, rival=WITH_REFERENCE)


def _too_little(matrix: Features, member: Bool[np.ndarray, " usable"]) -> str:
    """Why no head can be fitted; empty where one can."""
    fewest = min(int(member.sum()), int((~member).sum()))
    if not matrix.shape[1]:
        return "no feature is left that leaves enough records to fit a head on"
    if fewest < LEAST:
        return (
            f"only {fewest} fit records of a class are left beside those that features were made from ({LEAST} needed)"
        )
    return ""


def _refused(name: str, attack: Attack, usable: Bool[np.ndarray, " fit"], reason: str) -> Supervised:
    return Supervised(name, Scored(Chosen(name, attack, {}), None, reason=reason), _never, usable)


def _never(*_: object) -> NoReturn:
    raise AssertionError("a head is fitted here, not called on views")


HEAD = Attack(
    SAME_SUPERVISION,
    _never,
    "head",
    "log-probabilities",
    ("labels",),
    "this project: logistic regression on the passive scores",
    default=False,
)
