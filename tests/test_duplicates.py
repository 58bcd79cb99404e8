"""Duplicates against a naive O(n²) oracle."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repromia import duplicates
from repromia.duplicates import find_duplicates, remove_duplicates
from repromia.errors import RecordsError
from repromia.readers import from_objects
from repromia.records import LabelledRecords, Records

WORDS = st.lists(st.sampled_from(["ab", "cd", "ef", "gh"]), min_size=1, max_size=9).map(" ".join)
SIDES = st.tuples(st.lists(WORDS, min_size=1, max_size=12), st.lists(WORDS, min_size=1, max_size=12))
LONG = "the quick brown fox jumps over the lazy dog near the river bank"


def labelled_of(members: list[str], nonmembers: list[str], groups: list[str] | None = None) -> LabelledRecords:
    texts = members + nonmembers
    ids = tuple(f"i{row:03d}" for row in range(len(texts)))
    records = Records(ids, tuple(texts), tuple(groups) if groups else ids)
    return LabelledRecords(records, np.arange(len(texts)) < len(members))


def naive_jaccard(first: str, second: str) -> float:
    def shingles(text: str) -> set[tuple[str, ...]]:
        words = re.findall(r"\w+", text.casefold())
        width = min(5, len(words))
        return {tuple(words[at : at + width]) for at in range(len(words) - width + 1)} if words else set()

    union = shingles(first) | shingles(second)
    return len(shingles(first) & shingles(second)) / len(union) if union else 0.0


@settings(max_examples=80, deadline=None)
@given(SIDES, st.sampled_from([0.2, 0.5, 0.8, 1.0]), st.sampled_from([1, 3, 1000]))
def test_pairs_equal_the_naive_oracle(sides: tuple[list[str], list[str]], threshold: float, blocks: int) -> None:
    labelled = labelled_of(*sides)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "_BLOCK_PRODUCTS", blocks)
        report = find_duplicates(labelled, threshold=threshold)
    texts = labelled.records.texts()
    distinct = [texts[int(np.flatnonzero(report.text == number)[0])] for number in range(report.text.max() + 1)]
    assert [distinct[number] for number in report.text] == texts
    expected = {
        (first, second): naive_jaccard(distinct[first], distinct[second])
        for second in range(len(distinct))
        for first in range(second)
    }
    expected = {pair: value for pair, value in expected.items() if value >= threshold}
    found = {(int(a), int(b)): float(s) for (a, b), s in zip(report.near, report.similarity, strict=True)}
    assert found == pytest.approx(expected)
    assert report.unchecked == 0


@settings(max_examples=60, deadline=None)
@given(SIDES)
def test_what_is_left_obeys_the_rules(sides: tuple[list[str], list[str]]) -> None:
    labelled = labelled_of(*sides)
    texts, member = labelled.records.texts(), labelled.member
    pairs = [(a, b) for a in range(len(texts)) for b in range(len(texts)) if a != b]
    near = {(a, b) for a, b in pairs if naive_jaccard(texts[a], texts[b]) >= 0.5}
    across = {a for a, b in near if member[a] != member[b]}
    again = {b for a, b in pairs if a < b and texts[a] == texts[b] and member[a] == member[b]} - across
    stay = [row for row in range(len(texts)) if row not in across | again]
    if len({bool(member[row]) for row in stay}) < 2:
        with pytest.raises(RecordsError, match="are left after removing"):
            remove_duplicates(labelled)
        return
    kept, summary = remove_duplicates(labelled)
    assert kept.records.ids == tuple(labelled.records.ids[row] for row in stay)
    assert set(kept.records.ids) | set(summary.excluded) == set(labelled.records.ids)
    assert summary.exact_across + summary.near_across == len(across)
    assert summary.exact_within == len(again)
    group = dict(zip(stay, kept.records.groups, strict=True))
    assert all(group[a] == group[b] for a, b in near if a in group and b in group)
    assert summary.near_within == sum(any((a, b) in near for b in stay) for a in stay)
    like = {a for pair in [*near, *((a, b) for a, b in pairs if texts[a] == texts[b])] for a in pair}
    assert summary.repeated == tuple(labelled.records.ids[row] for row in stay if row in like)
    again_kept, nothing = remove_duplicates(kept)
    assert again_kept.records == kept.records
    assert not nothing.excluded


def test_each_kind_is_counted() -> None:
    other = [f"completely different words number {row} follow here" for row in range(2)]
    members = [LONG, "Same  TEXT here", "repeat me once", "repeat me once", other[0]]
    nonmembers = [LONG.replace("river", "road"), "same text\nhere", "something else entirely"]
    kept, summary = remove_duplicates(labelled_of(members, nonmembers))
    assert kept.records.texts() == ["repeat me once", other[0], "something else entirely"]
    assert summary.model_dump(exclude={"excluded", "repeated"}) == {
        "exact_across": 2,
        "near_across": 2,
        "exact_within": 1,
        "near_within": 0,
        "unchecked": 0,
    }
    assert summary.excluded == ("i000", "i001", "i003", "i005", "i006")


def test_near_duplicates_tie_whole_groups_together() -> None:
    members = [LONG, LONG + " again", "an unrelated text about nothing at all really"]
    nonmembers = ["yet another text that is not like the others"]
    kept, summary = remove_duplicates(labelled_of(members, nonmembers, ["z", "b", "z", "n"]))
    assert kept.records.groups == ("b", "b", "b", "n")
    assert summary.near_within == 2


def test_common_shingles_count_but_propose_no_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "COMMON", 4)
    opening = "below is an instruction that describes a task in some words"
    members = [f"{opening} {row} {row}x" for row in range(6)]
    pair = [f"{opening} w v u t", f"{opening} w v u t s"]
    report = find_duplicates(labelled_of([*members, *pair], ["nothing in common with any other of them"]))
    assert report.near.tolist() == [[6, 7]]
    assert report.similarity[0] == pytest.approx(naive_jaccard(*pair))
    assert report.unchecked == 6  # what they share is over half of each


def test_texts_without_words_are_only_exact_duplicates() -> None:
    kept, _ = remove_duplicates(labelled_of(["!!!", "???", "!!!"], ["…"]))
    assert kept.records.texts() == ["!!!", "???", "…"]


def test_the_same_data_on_both_sides_is_refused() -> None:
    with pytest.raises(RecordsError, match="2 exact"):
        remove_duplicates(from_objects(["a b", "c"], ["a  B", "d"]).take([0, 2, 3]))


@pytest.mark.parametrize("threshold", [0.0, 1.5, float("nan")])
def test_a_threshold_out_of_range_is_refused(threshold: float) -> None:
    with pytest.raises(RecordsError, match="threshold"):
        find_duplicates(labelled_of(["a"], ["b"]), threshold=threshold)
