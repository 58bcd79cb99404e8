"""Roles: disjoint, complete, stratified, independent of order, whole groups."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repromia.errors import ConfigError, RecordsError
from repromia.records import LabelledRecords, Records
from repromia.roles import RoleFractions, Roles, assign_roles, role_sizes


def labelled_of(member: list[bool], groups: list[str] | None = None) -> LabelledRecords:
    ids = tuple(f"i{row}" for row in range(len(member)))
    records = Records(ids, tuple(f"text {row}" for row in ids), tuple(groups) if groups else ids)
    return LabelledRecords(records, np.array(member))


def parts(roles: Roles) -> list[tuple[tuple[str, ...], list[bool]]]:
    return [
        (roles.fit.records.ids, roles.fit.member.tolist()),
        (roles.select.records.ids, roles.select.member.tolist()),
        (roles.eval.ids, roles.eval_labels.open_to_measure().tolist()),
    ]


@st.composite
def grouped(draw: st.DrawFn) -> LabelledRecords:
    """Groups of 1 to 6 records: of members, of non-members, or of both."""
    member: list[bool] = []
    groups: list[str] = []
    kinds = st.tuples(st.integers(1, 6), st.sampled_from(["in", "out", "both"]))
    for number, (size, kind) in enumerate(draw(st.lists(kinds, min_size=20, max_size=60))):
        member += [kind == "in" or (kind == "both" and row % 2 == 0) for row in range(size)]
        groups += [f"g{number}"] * size
    # Enough single records that no role falls short.
    member += [row % 2 == 0 for row in range(400)]
    groups += [f"single{row}" for row in range(400)]
    return labelled_of(member, groups)


@settings(max_examples=30, deadline=None)
@given(grouped(), st.integers(0, 5), st.randoms(use_true_random=False))
def test_roles_divide_the_records(labelled: LabelledRecords, seed: int, random: object) -> None:
    roles = assign_roles(labelled, seed=seed)
    found = parts(roles)
    everyone = [name for ids, _ in found for name in ids]
    assert sorted(everyone) == sorted(labelled.records.ids)
    truth = dict(zip(labelled.records.ids, labelled.member.tolist(), strict=True))
    assert all([truth[name] for name in ids] == member for ids, member in found)

    role_groups = [set(part.groups) for part in (roles.fit.records, roles.select.records, roles.eval)]
    assert sum(map(len, role_groups)) == len(set(labelled.records.groups))

    for share, (_, member) in zip(RoleFractions().edges(), found, strict=True):
        for side in (True, False):
            assert abs(member.count(side) - share * (labelled.member == side).sum()) <= 6

    order = list(range(len(labelled)))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert parts(assign_roles(labelled.take(order), seed=seed)) == found


@settings(max_examples=30, deadline=None)
@given(st.integers(100, 400), st.integers(100, 400), st.sampled_from([(0.2, 0.1), (0.3, 0.3), (0.1, 0.5)]))
def test_without_groups_sizes_are_within_one(members: int, nonmembers: int, shares: tuple[float, float]) -> None:
    fit, select = shares
    sizes = role_sizes(assign_roles(labelled_of([True] * members + [False] * nonmembers), fit=fit, select=select))
    for side, total in enumerate((members, nonmembers)):
        assert abs(sizes.fit[side] - fit * total) <= 1
        assert abs(sizes.select[side] - select * total) <= 1
        assert sizes.fit[side] + sizes.select[side] + sizes.eval[side] == total


def test_the_least_number_that_the_error_names_is_enough() -> None:
    assert role_sizes(assign_roles(labelled_of([True, False] * 100))).select == (10, 10)
    with pytest.raises(RecordsError, match=r"'select' would hold 9 members(?s:.*)at least 100 members"):
        assign_roles(labelled_of([True] * 85 + [False] * 200))


def test_seeds_differ_and_a_seed_repeats() -> None:
    labelled = labelled_of([True, False] * 200)
    assert parts(assign_roles(labelled, seed=1)) == parts(assign_roles(labelled, seed=1))
    assert parts(assign_roles(labelled, seed=1)) != parts(assign_roles(labelled, seed=2))


def test_no_role_draws_a_kind_of_record_more_often() -> None:
    labelled = labelled_of([True, False] * 200)
    counts = np.zeros(400)
    for seed in range(200):
        fit = assign_roles(labelled, seed=seed).fit.records.ids
        counts[[int(name[1:]) for name in fit]] += 1
    # 400 binomials of 200 draws at .2: mean 40, sd 5.7; 5 sd is beyond chance.
    assert np.abs(counts - 40).max() < 5 * 5.7


def test_membership_drawn_by_lot_decides_no_role() -> None:
    """The same units under two draws, with ids that count each side as files do: every unit keeps its role."""
    units = [f"unit {row}" for row in range(600)]
    found = []
    for seed in (0, 1):
        member = np.random.default_rng(seed).random(600) < 0.5
        rows = np.argsort(~member, kind="stable")
        ids = tuple(f"m{row}" if row < member.sum() else f"n{row}" for row in range(600))
        labelled = LabelledRecords(Records(ids, ids, ids), member[rows])
        own = [units[row] for row in rows]
        roles = assign_roles(labelled, units=own)
        assert roles.by_lot
        name = dict(zip(ids, own, strict=True))
        found.append(
            [{name[one] for one in part.ids} for part in (roles.fit.records, roles.select.records, roles.eval)]
        )
        stratified = assign_roles(labelled)
        assert not stratified.by_lot
        assert {name[one] for one in stratified.fit.records.ids} != found[-1][0]
    assert found[0] == found[1]


def test_few_records_drawn_by_lot_are_stratified_all_the_same() -> None:
    labelled = labelled_of([True, False] * 100)
    found = [assign_roles(labelled, seed=seed, units=labelled.records.ids) for seed in range(20)]
    assert {one.by_lot for one in found} == {True, False}
    assert all(role_sizes(one).select == (10, 10) for one in found if not one.by_lot)


def test_eval_labels_are_sealed() -> None:
    roles = assign_roles(labelled_of([True, False] * 100))
    assert "True" not in repr(roles.eval_labels)
    with pytest.raises(ValueError, match="read-only"):
        roles.eval_labels.open_to_measure()[0] = True


def test_large_groups_that_leave_a_role_short_are_refused() -> None:
    member = [True] * 300 + [False] * 300
    with pytest.raises(RecordsError, match="smaller groups"):
        assign_roles(labelled_of(member, [f"g{row // 100 if row < 300 else row}" for row in range(600)]))


@pytest.mark.parametrize(("fit", "select"), [(0.0, 0.1), (0.5, 0.5), (-0.1, 0.2), (0.2, float("nan"))])
def test_impossible_fractions(fit: float, select: float) -> None:
    with pytest.raises(ConfigError, match="fractions"):
        RoleFractions(fit, select)
