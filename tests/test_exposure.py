"""Records among non-members, slices, rotated audits, tables."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import polars
import pytest
from scipy.stats import binom, norm

from repromia.errors import ConfigError, RecordsError
from repromia.exposure import RotatedScores, exposure, exposure_table, rotate
from repromia.intervals import delong
from repromia.metrics import auc
from repromia.slices import bands, slices

SIZE = 300
MEMBER = np.arange(2 * SIZE) < SIZE


def naive(scores: np.ndarray, member: np.ndarray, group: np.ndarray) -> np.ndarray:
    """The definition, record by record and group by group."""
    found = []
    for row in range(scores.size):
        others = [one for one in np.unique(group[~member]) if one != group[row]]
        votes = sum(np.mean(scores[(group == one) & ~member] >= scores[row]) for one in others)
        found.append((1 + votes) / (1 + len(others)))
    return np.array(found)


def test_p_values_are_those_of_the_definition() -> None:
    generator = np.random.default_rng(0)
    scores, member = np.round(generator.normal(size=80), 1), generator.random(80) < 0.5
    groups = generator.integers(25, size=80)  # some hold both classes
    for names in (np.arange(80), groups):
        found = exposure(scores, member, [str(one) for one in names])
        np.testing.assert_allclose(found.p_value, naive(scores, member, names))
    plain = exposure(scores, member)
    outside = scores[~member]
    expected = (1 + (outside[None] >= scores[member][:, None]).sum(axis=1)) / (1 + outside.size)
    np.testing.assert_allclose(plain.p_value[member], expected)
    assert np.isnan(plain.expected_false_alarms[~member]).all()
    assert (plain.q_value[~member] == 1).all()


def test_p_values_are_valid_where_nothing_is_left_in_the_model() -> None:
    """100 draws of 300 + 300, also in groups of 5: at most .05 below .05, standard error .002 (.004 in groups)."""
    generator = np.random.default_rng(1)
    groups = [str(row // 5) for row in range(2 * SIZE)]
    shares = np.zeros(2)
    for _ in range(100):
        alone = generator.normal(size=2 * SIZE)
        tied = alone + 2 * np.repeat(generator.normal(size=2 * SIZE // 5), 5)
        for at, found in enumerate((exposure(alone, MEMBER), exposure(tied, MEMBER, groups))):
            shares[at] += (found.p_value[MEMBER] <= 0.05).mean() / 100
    assert shares[0] < 0.057
    assert shares[1] < 0.064


def test_named_members_are_those_that_stand_out() -> None:
    """60 draws with 30 of 300 members far above: false names at most 9 % on average, and all 30 are named."""
    generator = np.random.default_rng(2)
    wrong = []
    for _ in range(60):
        scores = generator.normal(size=2 * SIZE)
        scores[:30] += 8
        rows = exposure(scores, MEMBER).named(0.1)
        assert set(range(30)) <= set(rows.tolist())
        wrong.append(np.mean(rows >= 30))
    assert np.mean(wrong) < 0.12  # .09 expected (300 - 30 of 300 are not left), standard error .007
    found = exposure(scores, MEMBER)
    assert list(found.named(0.1)) == sorted(found.named(0.1), key=lambda row: -scores[row])
    assert "stand out" in found.sentence()


def test_nobody_is_named_by_chance_and_the_least_is_said() -> None:
    """300 null members against 300 non-members: 10 above all are needed; anybody is named once in ten draws."""
    generator = np.random.default_rng(3)
    counts = [len(exposure(generator.normal(size=2 * SIZE), MEMBER).named(0.1)) for _ in range(50)]
    assert np.count_nonzero(counts) <= 13  # once in 1,000 runs
    flat = exposure(np.zeros(2 * SIZE), MEMBER)
    assert (flat.p_value == 1).all()
    assert "takes 10 of 300 members" in flat.sentence()
    few = exposure(np.zeros(2 * SIZE), np.arange(2 * SIZE) >= 5)
    assert "5 non-members are too few for 595 members" in few.sentence()


@pytest.mark.parametrize("groups", [None, [f"g{row // 2}" for row in range(2 * SIZE)]])
def test_as_many_as_the_sentence_says_are_named_and_one_less_is_not(groups: list[str] | None) -> None:
    said = exposure(np.zeros(2 * SIZE), MEMBER, groups).sentence()
    least = int(re.findall(r"takes (\d+) of 300", said)[0])
    for count in (least, least - 1):
        scores = np.zeros(2 * SIZE)
        scores[:count] = 1.0
        assert len(exposure(scores, MEMBER, groups).named(0.1)) == (count if count == least else 0)


def test_a_slice_that_leaks_more_is_flagged_and_an_easy_one_is_not() -> None:
    generator = np.random.default_rng(4)
    kind = generator.integers(4, size=2000)
    member = np.arange(2000) < 1000
    scores = generator.normal(size=2000) + 1.2 * (member & (kind == 2)) + 3.0 * (kind == 1)  # 1: easy on both sides
    found = {one.value: one for one in slices(scores, member, {"kind": kind})}
    assert [value for value, one in found.items() if one.more_exposed] == ["2"]
    assert next(iter(found)) == "2"
    own = kind == 2
    assert found["2"].auc is not None
    assert found["2"].auc.estimate == pytest.approx(auc(scores[own], member[own]))
    assert found["2"].difference is not None
    assert found["2"].difference.estimate == pytest.approx(
        auc(scores[own], member[own]) - auc(scores[~own], member[~own])
    )
    assert "more exposed than the rest" in found["2"].sentence


def test_limits_are_those_of_the_level_asked_for_near_1_too() -> None:
    """Square-and-add of DeLong limits at each level. Stretched from another level they are too short there: flags in
    .2 of such draws where .05 are stated. 100 draws, false-alarm rate of the bound 1e-3."""
    generator = np.random.default_rng(6)
    member, kind = np.arange(720) < 360, np.arange(720) % 12
    flagged = 0
    for _ in range(100):
        scores = generator.normal(size=720) + np.sqrt(2) * norm.ppf(0.9) * member
        found = slices(scores, member, {"kind": kind})
        flagged += any(one.more_exposed or one.less_exposed for one in found)
    own = {one.value: one for one in found}["7"]
    inside, rest = (delong(scores[rows], member[rows]) for rows in (kind == 7, kind != 7))
    down = np.hypot(inside.estimate - inside.low, rest.high - rest.estimate)
    assert own.difference.low == pytest.approx(inside.estimate - rest.estimate - down)
    inside, rest = (delong(scores[rows], member[rows], 1 - 0.05 / 12) for rows in (kind == 7, kind != 7))
    down = np.hypot(inside.estimate - inside.low, rest.high - rest.estimate)
    assert own.more_exposed == (inside.estimate - rest.estimate - down > 0)
    assert flagged <= binom.isf(1e-3, 100, 0.05)


def test_flags_are_corrected_for_the_number_of_slices() -> None:
    """60 draws in which 8 slices are alike: 3 with a flag expected; above 9 once in 1,500 runs."""
    generator = np.random.default_rng(5)
    member = np.arange(1200) < 600
    flagged = 0
    for _ in range(60):
        scores = generator.normal(size=1200) + 0.5 * member
        found = slices(scores, member, {"kind": generator.integers(8, size=1200)})
        flagged += any(one.more_exposed or one.less_exposed for one in found)
    assert flagged <= 9


def test_small_slices_are_not_tested_and_groups_count_once() -> None:
    generator = np.random.default_rng(6)
    member = np.arange(800) < 400
    kind = np.where(np.arange(800) % 400 < 8, "rare", "common")
    found = {one.value: one for one in slices(generator.normal(size=800), member, {"kind": kind})}
    assert found["rare"].auc is None
    assert "not tested" in found["rare"].sentence
    assert not found["common"].more_exposed
    repeated = np.repeat(generator.normal(size=160), 5) + 0.5 * member
    halves = {"half": np.arange(800) // 5 % 2}
    groups = [str(row // 5) for row in range(800)]
    tied, plain = (slices(repeated, member, halves, names)[0] for names in (groups, None))
    assert tied.difference is not None
    assert plain.difference is not None
    assert tied.difference.high - tied.difference.low > 1.5 * (plain.difference.high - plain.difference.low)


def test_bands_hold_about_as_many_records_each() -> None:
    values = np.random.default_rng(7).random(1000)
    names, counts = np.unique(bands(values), return_counts=True)
    assert len(names) == 4
    assert counts.min() > 240
    assert set(bands(np.ones(10))) == {"1 to 1"}
    days = bands(np.arange(20240101.0, 20240131.0), 2)  # six digits would not tell them apart
    assert list(dict.fromkeys(days)) == ["20240101 to 20240116", "20240117 to 20240130"]
    assert len(set(bands(1.7e9 + np.arange(100) / 100))) == 4
    with pytest.raises(RecordsError):
        bands(np.array([1.0, np.nan]))


def rotated(seed: int, shift: float, scale: float) -> RotatedScores:
    generator = np.random.default_rng(seed)
    scores = scale * (
        np.random.default_rng(99).normal(size=2 * SIZE) + shift * MEMBER + 0.3 * generator.normal(size=600)
    )
    in_eval = generator.random(2 * SIZE) < 0.7
    order = generator.permutation(2 * SIZE)
    ids = tuple(f"r{row:03d}" for row in order)
    scores[~in_eval] = np.nan
    return RotatedScores(ids, scores[order], MEMBER[order], in_eval[order])


def test_rotated_audits_score_every_record_where_it_was_measured() -> None:
    audits = [rotated(seed, 1.0, 10.0**seed) for seed in range(6)]
    found = rotate(audits)
    assert list(found.ids) == sorted(found.ids)
    assert len(found.ids) + len(found.never) == 2 * SIZE
    where = {name: row for row, name in enumerate(found.ids)}
    first = found.ids[0]
    expected = []
    for one in audits:
        row = one.ids.index(first)
        if one.in_eval[row]:
            others = one.scores[one.in_eval]
            expected.append(((others < one.scores[row]).sum() + 0.5) / others.size)
    assert found.scores[where[first]] == pytest.approx(np.mean(expected))
    assert found.times[where[first]] == len(expected)
    assert auc(found.scores, found.member) > 0.7
    assert exposure(found.scores, found.member).p_value.shape == found.scores.shape


def test_audits_that_disagree_are_refused() -> None:
    one = rotated(0, 1, 1)
    with pytest.raises(RecordsError, match="audit 1 cannot be combined"):
        rotate([one, RotatedScores(one.ids, one.scores, ~one.member, one.in_eval)])
    with pytest.raises(RecordsError, match="NaN"):
        rotate([RotatedScores(one.ids, one.scores, one.member, ~one.in_eval)])
    with pytest.raises(RecordsError, match="nothing to rotate"):
        rotate([])


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_the_table_holds_every_record(tmp_path: Path, name: str) -> None:
    scores = np.random.default_rng(8).normal(size=2 * SIZE)
    found = exposure(scores, MEMBER)
    ids = [f'r"{row},\n' for row in range(2 * SIZE)]
    exposure_table(found, ids, tmp_path / name, {"kind": np.arange(2 * SIZE) % 3})
    read = polars.read_csv(tmp_path / name) if name.endswith("csv") else polars.read_parquet(tmp_path / name)
    assert sorted(read["id"].to_list()) == sorted(ids)
    assert read["p_value"].is_sorted()
    assert read.filter(~polars.col("member"))["expected_false_alarms"].null_count() == SIZE
    with pytest.raises(ConfigError):
        exposure_table(found, ids, tmp_path / "table.pickle")
    with pytest.raises(ConfigError, match="score"):
        exposure_table(found, ids, tmp_path / name, {"score": scores})
    with pytest.raises(RecordsError):
        exposure_table(found, ids[1:], tmp_path / name)
