"""Blind baselines: they catch planted shifts, and stay at .5 where there is none."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from repromia import blind
from repromia.blind import (
    BASELINES,
    _auc_influence,
    cross_validate,
    cross_validated_auc,
    date_features,
    fit_blind,
    length_features,
)
from repromia.errors import ConfigError, RecordsError
from repromia.readers import from_objects, read_labelled
from repromia.records import LabelledRecords, Records
from repromia.roles import assign_roles

DATA = Path(__file__).resolve().parents[2] / "shared/data"
WORDS = np.array([f"{start}{end}" for start in "bdfgklmnprst" for end in ("ale", "ine", "or", "um", "est")])


def sentences(count: int, seed: int, length: int = 20) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, length + rng.integers(-5, 6))) for _ in range(count)]


def wiki(name: str, group: str | None = None) -> LabelledRecords:
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return read_labelled(path, label="label", text="input", group=group)


def news(count: int, seed: int) -> LabelledRecords:
    path = DATA / "ag_news/ag_news.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    with gzip.open(path, "rt") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    rows = np.random.default_rng(seed).permutation(len(texts))[:count]
    return from_objects([texts[row] for row in rows[::2]], [texts[row] for row in rows[1::2]])


def fitted_auc(labelled: LabelledRecords, name: str, fit: float = 0.4) -> float:
    roles = assign_roles(labelled, fit=fit)
    return float(roc_auc_score(roles.eval_labels.open_to_measure(), fit_blind(roles.fit, name)(roles.eval)))


@pytest.mark.parametrize("name", ["tfidf", "char_ngrams", "dates"])
def test_a_planted_year_is_caught(name: str) -> None:
    members = [f"{text} in 2016" for text in sentences(150, 0)]
    shifted = from_objects(members, [f"{text} in 2024" for text in sentences(150, 1)])
    assert cross_validated_auc(shifted, name).low > 0.95
    assert fitted_auc(shifted, name) > 0.95


def test_a_planted_length_is_caught_by_length_alone() -> None:
    shifted = from_objects(sentences(150, 0, length=20), sentences(150, 1, length=32))
    assert cross_validated_auc(shifted, "length").low > 0.95
    assert cross_validated_auc(shifted, "dates").estimate == 0.5
    tfidf = cross_validated_auc(shifted, "tfidf")
    assert tfidf.estimate < 0.75  # TF-IDF rows have length 1: what is left is the number of pairs of words


@pytest.mark.parametrize("name", ["length", "tfidf"])
def test_no_shift_gives_a_half_and_the_interval_covers(name: str) -> None:
    # 25 random divisions; if 95 % cover, fewer than 20 do so with probability below .001;
    # measured coverage of length at 200 records: .96 of 150.
    estimates = [cross_validated_auc(news(120, seed), name, seed=seed) for seed in range(25)]
    assert np.mean([one.estimate for one in estimates]) == pytest.approx(0.5, abs=0.04)
    assert sum(one.low <= 0.5 <= one.high for one in estimates) >= 20


def test_pooled_raw_scores_would_not_be_fair() -> None:
    """Why folds are kept apart: pooled over folds that differ in balance, null data fall below .5."""
    pooled, within = [], []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        # Groups of four make the balance of the folds differ.
        member = np.repeat(rng.permutation(np.arange(12) < 6), 4)
        records = Records(
            tuple(map(str, range(48))), tuple(sentences(48, seed)), tuple(str(row // 4) for row in range(48))
        )
        labelled = LabelledRecords(records, member)
        scores = np.empty(48)
        for rows, values in cross_validate(labelled, "tfidf", folds=3, seed=seed):
            scores[rows] = values
        pooled.append(roc_auc_score(member, scores))
        within.append(cross_validated_auc(labelled, "tfidf", folds=3, seed=seed).estimate)
    assert abs(np.mean(within) - 0.5) < 0.05
    assert np.mean(pooled) <= np.mean(within) + 0.02


def test_fold_auc_and_its_error_match_delong() -> None:
    rng = np.random.default_rng(0)
    member = rng.random(80) < 0.4
    scores = np.round(rng.normal(size=80) + member, 1)  # with ties
    auc, influence = _auc_influence(scores, member)
    assert auc == pytest.approx(roc_auc_score(member, scores))
    wins = scores[member][:, None] - scores[~member][None]
    kernel = (wins > 0) + 0.5 * (wins == 0)
    delong = kernel.mean(1).var() / member.sum() + kernel.mean(0).var() / (~member).sum()
    assert (influence**2).sum() == pytest.approx(delong)


def test_groups_stay_in_one_fold_and_widen_the_interval() -> None:
    texts = sentences(60, 0)
    repeated = from_objects(
        [{"text": texts[row // 4], "page": f"m{row // 4}"} for row in range(120)],
        [{"text": texts[30 + row // 4], "page": f"n{row // 4}"} for row in range(120)],
        group="page",
    )
    groups = np.array(repeated.records.groups)
    parts = cross_validate(repeated, "tfidf", seed=1)
    assert sorted(np.concatenate([part.rows for part in parts])) == list(range(240))
    assert sum(len(set(groups[part.rows])) for part in parts) == 60
    alone = LabelledRecords(
        Records(repeated.records.ids, repeated.records.contents, repeated.records.ids), repeated.member
    )
    assert cross_validated_auc(alone, "tfidf").estimate > 0.95  # the leak that groups prevent
    assert abs(cross_validated_auc(repeated, "tfidf").estimate - 0.5) < 0.25


@pytest.mark.parametrize("name", BASELINES)
def test_deterministic_and_higher_is_member(name: str) -> None:
    labelled = from_objects([f"{text}, MAY 2003." for text in sentences(40, 0, 12)], sentences(40, 1, 30))
    scorer = fit_blind(labelled, name, seed=3)
    scores = scorer(labelled.records)
    assert scores.shape == (80,)
    assert scores[labelled.member].mean() > scores[~labelled.member].mean()
    np.testing.assert_array_equal(scores, fit_blind(labelled, name, seed=3)(labelled.records))
    assert cross_validated_auc(labelled, name, seed=3) == cross_validated_auc(labelled, name, seed=3)


@pytest.mark.parametrize("name", ["tfidf", "char_ngrams"])
def test_of_many_texts_some_are_fitted_on_and_all_are_scored(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted year in half of the members, whatever part of them is read."""
    texts = [f"{text} 1999" if row % 2 else text for row, text in enumerate(sentences(400, 0))] + sentences(400, 1)
    labelled = from_objects(texts[:400], texts[400:])
    whole = cross_validate(labelled, name)
    monkeypatch.setattr(blind, "_AT_ONCE", 7)
    again = cross_validate(labelled, name)
    assert all(np.allclose(one.scores, two.scores) for one, two in zip(whole, again, strict=True))

    read, fit = [], blind._fit

    def counted(build: Any, inputs: list[str], *rest: Any) -> Any:
        read.append(len("".join(inputs)))
        return fit(build, inputs, *rest)

    monkeypatch.setattr(blind, "_fit", counted)
    monkeypatch.setattr(blind, "FITTED_LEAST", 10)
    monkeypatch.setattr(blind, "FITTED_CHARACTERS", 20_000)
    parts = cross_validate(labelled, name)
    assert sorted(np.concatenate([one.rows for one in parts])) == list(range(800))
    assert all(18_000 < characters <= 20_000 for characters in read)
    assert cross_validated_auc(labelled, name).low > 0.6
    scorer = fit_blind(labelled, name)
    assert 18_000 < read[-1] <= 20_000
    assert len(scorer(labelled.records)) == 800


def test_perfect_separation_still_has_a_width() -> None:
    labelled = from_objects(["in 2010"] * 20 + ["in 2011"], ["in 2020"] * 20 + ["in 2021"])
    estimate = cross_validated_auc(labelled, "dates")
    assert estimate.estimate == estimate.high == 1
    assert 0.8 < estimate.low < 0.9


def test_texts_without_a_common_term() -> None:
    labelled = from_objects([f"aaa{row}" for row in range(10)], [f"{row}zzz" for row in range(10)])
    assert cross_validated_auc(labelled, "tfidf").estimate == 0.5
    signs = from_objects([f"!{'?' * row}" for row in range(10)], [f"#{'?' * row}" for row in range(10)])
    assert np.isfinite(fit_blind(signs, "char_ngrams")(signs.records)).all()


def test_features() -> None:
    length = length_features(["Ab, 12", ""])
    assert length[0].tolist() == pytest.approx([6, 2, np.log(7), np.log(3), 2.5, 1 / 6, 2 / 6, 1 / 6, 1 / 6])
    assert not length[1].any()
    date = date_features(["May 2016, may 2016 and 12016", "none"])
    assert date[0, 116] == pytest.approx(np.log(3))
    assert date[0, 200 + 11] == pytest.approx(np.log(3))
    assert date[0, 220 + 4] == pytest.approx(np.log(2))
    assert date[0, -2:].tolist() == pytest.approx([1.6, 1])
    assert not date[1].any()


def test_refusals() -> None:
    labelled = from_objects(["a", "b", "c"], ["d", "e", "f"])
    with pytest.raises(ConfigError, match="tfidf, char_ngrams, length, dates"):
        cross_validate(labelled, "topic")
    with pytest.raises(RecordsError, match="3 groups of the smaller class"):
        cross_validate(labelled, "length")
    with pytest.raises(RecordsError, match="3 members of 3"):
        fit_blind(labelled.take([0, 1, 2]), "length")


def test_wikimia_is_told_apart_without_a_model() -> None:
    labelled = wiki("wikimia/wikimia_64.jsonl.gz")
    assert cross_validated_auc(labelled, "tfidf").estimate > 0.95
    assert fitted_auc(labelled, "tfidf", fit=200 / 542) > 0.95


def test_recent_wikimia_needs_groups() -> None:
    """Several chunks of one page stand in these files: without groups the baseline recognises pages."""
    grouped = cross_validated_auc(wiki("wikimia_recent/recent_wikimia_2024.jsonl.gz", "title"), "tfidf")
    alone = cross_validated_auc(wiki("wikimia_recent/recent_wikimia_2024.jsonl.gz"), "tfidf")
    assert 0.75 < grouped.estimate < 0.9 < alone.estimate


@pytest.mark.parametrize("name", ["tfidf", "length", "dates"])
def test_random_halves_of_news_are_not_told_apart(name: str) -> None:
    labelled = news(2000, 0)
    assert cross_validated_auc(labelled, name).estimate == pytest.approx(0.5, abs=0.05)
    assert fitted_auc(labelled, name) == pytest.approx(0.5, abs=0.05)
