"""Which records teach (fit), choose (select) and are only measured (eval)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import ceil

import numpy as np
from jaxtyping import Float, Int

from repromia.errors import ConfigError, RecordsError
from repromia.records import LabelledRecords, Records
from repromia.result import RoleSizes
from repromia.sealed import SealedLabels

LEAST = 10  # members and non-members of a role: fewer cannot be learned from, chosen on or measured
NAMES = ("fit", "select", "eval")


@dataclass(frozen=True)
class RoleFractions:
    """Shares of fit and select; eval is the rest. Raises ConfigError unless all three are above 0."""

    fit: float = 0.2
    select: float = 0.1

    def __post_init__(self) -> None:
        if not (0 < self.fit < 1 and 0 < self.select < 1 and self.fit + self.select < 1):
            raise ConfigError(
                "the role fractions leave a role empty",
                expected="fit > 0, select > 0 and fit + select < 1",
                found=f"fit {self.fit}, select {self.select}",
                hint="the defaults are fit 0.2, select 0.1, eval the rest",
            )

    @property
    def eval(self) -> float:
        """Share of eval."""
        return 1 - self.fit - self.select

    def edges(self) -> Float[np.ndarray, " 3"]:
        """Shares in the order fit, select, eval."""
        return np.array([self.fit, self.select, self.eval])


@dataclass(frozen=True)
class Roles:
    """The three roles. Labels of eval are sealed: only measures open them.

    by_lot: membership was drawn by lot and decided nothing about roles: coins of eval are independent of all else.
    """

    fit: LabelledRecords
    select: LabelledRecords
    eval: Records
    eval_labels: SealedLabels
    by_lot: bool = False


def assign_roles(
    labelled: LabelledRecords,
    *,
    fit: float = 0.2,
    select: float = 0.1,
    seed: int = 0,
    units: Sequence[str] | None = None,
) -> Roles:
    """A random division into roles, stratified by membership, whole groups together.

    Decided by a hash of seed and group name, so the order of the records does not matter; each role lists
    its records in hash order. Without groups a role's members (and non-members) are within one of the asked
    share; with groups, within the largest group, as long as groups of both classes leave room for it.

    units: of each record, where membership was drawn by lot (`repromia.manifest`). Then names of units are hashed, and
    membership decides nothing: of stratified roles, fit and select tell how many members eval has. Where a role would
    be too small in this way, roles are stratified all the same, and not `by_lot`.

    Raises ConfigError for impossible fractions; RecordsError when a role gets fewer than `LEAST` members or
    non-members.
    """
    fractions = RoleFractions(fit, select)
    if units is not None:
        ordered = _in_hash_order(labelled, units, seed)
        role = _divide_blindly(ordered.records, fractions.edges())
        if _counts(ordered, role).min() >= LEAST:
            return _parts(ordered, role, by_lot=True)
    ordered = _in_hash_order(labelled, labelled.records.groups, seed)
    role = _divide(ordered, fractions.edges())
    _check_sizes(ordered, fractions, _counts(ordered, role))
    return _parts(ordered, role, by_lot=False)


def _parts(ordered: LabelledRecords, role: Int[np.ndarray, " record"], *, by_lot: bool) -> Roles:
    fit, select, measured = (ordered.take(np.flatnonzero(role == number)) for number in range(3))
    _check_groups(measured)
    return Roles(fit, select, measured.records, SealedLabels(measured.member), by_lot)


def _counts(ordered: LabelledRecords, role: Int[np.ndarray, " record"]) -> Int[np.ndarray, "3 2"]:
    """Members and non-members of each role."""
    counts = np.zeros((3, 2), dtype=np.int64)
    np.add.at(counts, (role, (~ordered.member).astype(np.int64)), 1)
    return counts


def _in_hash_order(labelled: LabelledRecords, names: Sequence[str], seed: int) -> LabelledRecords:
    """By the hash of the least name in each group; records of one group stand side by side."""
    groups = labelled.records.groups
    least: dict[str, str] = {}
    for group, name in zip(groups, names, strict=True):
        least[group] = min(name, least.get(group, name))
    hashes = {group: _hash(seed, name) for group, name in least.items()}
    ids = labelled.records.ids
    return labelled.take(sorted(range(len(ids)), key=lambda row: (hashes[groups[row]], ids[row])))


def role_sizes(roles: Roles) -> RoleSizes:
    """Members and non-members of each role."""

    def count(member: np.ndarray) -> tuple[int, int]:
        return int(member.sum()), int((~member).sum())

    sealed = roles.eval_labels.open_to_measure()
    return RoleSizes(fit=count(roles.fit.member), select=count(roles.select.member), eval=count(sealed))


def _hash(seed: int, group: str) -> bytes:
    return blake2b(f"{seed}\0{group}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _divide_blindly(ordered: Records, shares: Float[np.ndarray, " 3"]) -> Int[np.ndarray, " record"]:
    """Role number of each record, whatever their membership."""
    _, first, group = np.unique(np.array(ordered.groups), return_index=True, return_inverse=True)
    group = np.argsort(np.argsort(first))[group]
    return _cut(np.bincount(group), shares)[group]


def _divide(ordered: LabelledRecords, shares: Float[np.ndarray, " 3"]) -> Int[np.ndarray, " record"]:
    """Role number (0 fit, 1 select, 2 eval) of each record; records of one group stand side by side."""
    groups = np.array(ordered.records.groups)
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    group = np.argsort(np.argsort(first))[group]  # numbered in hash order
    sides = np.stack([ordered.member, ~ordered.member]).astype(np.int64)
    sizes = np.stack([np.bincount(group, weights=side, minlength=len(first)) for side in sides])
    mixed = (sizes > 0).all(axis=0)
    role = np.zeros(len(first), dtype=np.int64)
    role[mixed] = _cut(sizes.sum(axis=0)[mixed], shares)
    for size in sizes:
        # Groups that hold both classes came first; what they left open of each class is filled from its own.
        placed = np.bincount(role[mixed], weights=size[mixed], minlength=3)
        still = np.maximum(size.sum() * shares - placed, 0)
        own = ~mixed & (size > 0)
        role[own] = _cut(size[own], still / max(still.sum(), 1e-12))
    return role[group]


def _cut(sizes: np.ndarray, shares: np.ndarray) -> Int[np.ndarray, " group"]:
    """Groups in order, cut at the cumulative shares; a group goes where its middle lies."""
    middles = np.cumsum(sizes) - sizes / 2
    # Rounded: .2 + .1 must not move a middle that lies on an edge to the other side.
    edges = np.round(np.cumsum(shares)[:2] * sizes.sum(), 6)
    return np.searchsorted(edges, middles, side="left")


def _check_sizes(labelled: LabelledRecords, fractions: RoleFractions, counts: Int[np.ndarray, "3 2"]) -> None:
    for name, share, row in zip(NAMES, fractions.edges(), counts, strict=True):
        if row.min() >= LEAST:
            continue
        needed = ceil(LEAST / float(fractions.edges().min()) - 1e-9)
        members = int(labelled.member.sum())
        grouped = " in more or smaller groups" if labelled.records.grouped else ""
        raise RecordsError(
            f"the role {name!r} would hold {row[0]} members and {row[1]} non-members",
            expected=f"at least {LEAST} of each in every role ({name} takes {100 * share:.0f} %)",
            found=f"{members} members and {len(labelled) - members} non-members in all",
            hint=f"give at least {needed} members and {needed} non-members{grouped}, or other fractions",
        )


def _check_groups(measured: LabelledRecords) -> None:
    """Records of one group are one observation: as many groups as records are asked for."""
    groups = np.asarray(measured.records.groups)
    members, nonmembers = (len(set(groups[side])) for side in (measured.member, ~measured.member))
    if min(members, nonmembers) < LEAST:
        raise RecordsError(
            "the role 'eval' would hold too few independent groups",
            expected=f"at least {LEAST} groups of each side",
            found=f"{members} groups with members and {nonmembers} with non-members",
            hint="give records of more documents, or group them more finely",
        )
