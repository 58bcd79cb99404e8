"""What the labels buy without reprogramming: heads on passive scores, clean of the records these were made from."""

from __future__ import annotations

import numpy as np

from repromia.attacks import parse
from repromia.controls import permuted_head
from repromia.evaluate import Judge
from repromia.heads import fit_head
from repromia.metrics import auc
from repromia.records import LabelledRecords, Records
from repromia.roles import Roles
from repromia.scoring import Scored
from repromia.sealed import SealedLabels
from repromia.supervision import SAME_SUPERVISION, WITH_REFERENCE, supervised_rows

FIT, SELECT, EVAL = 60, 20, 200


def part(name: str, count: int) -> LabelledRecords:
    ids = tuple(f"{name}{row}" for row in range(count))
    return LabelledRecords(Records(ids, ids, ids), np.arange(count) % 2 == 0)


def roles() -> Roles:
    held = part("eval", EVAL)
    return Roles(part("fit", FIT), part("select", SELECT), held.records, SealedLabels(held.member))


MEMBER = np.arange(FIT + SELECT + EVAL) % 2 == 0
IN_EVAL = np.arange(len(MEMBER)) >= FIT + SELECT


def scored(spec: str, seed: int, shift: float, used: frozenset[str] = frozenset()) -> Scored:
    noise = np.random.default_rng(seed).normal(size=len(MEMBER))
    return Scored(parse(spec), noise + shift * MEMBER, used=used)


def test_the_head_adds_up_what_passive_scores_know() -> None:
    """Two independent shifts of 1: AUC .76 each, .84 together (standard error .03)."""
    parts = [scored("loss", 0, 1.0), scored("min_k", 1, 1.0)]
    (head,) = supervised_rows(parts, roles().fit, seed=0)
    assert head.name == SAME_SUPERVISION
    assert head.scored.scores is not None
    alone = [auc(one.scores[IN_EVAL], MEMBER[IN_EVAL]) for one in parts if one.scores is not None]
    assert auc(head.scored.scores[IN_EVAL], MEMBER[IN_EVAL]) > max(alone)


def test_reference_scores_make_a_second_head_and_others_none() -> None:
    passive, reference, learned = scored("loss", 0, 0.5), scored("wbc", 1, 1.0), scored("reprogram", 2, 9.0)
    failed = Scored(parse("min_k"), None, reason="broken")
    heads = supervised_rows([passive, reference, learned, failed], roles().fit, seed=0)
    assert {head.name: head.scored.details["head"]["features"] for head in heads} == {
        SAME_SUPERVISION: ["loss"],
        WITH_REFERENCE: ["loss", "wbc"],
    }
    assert supervised_rows([reference, learned, failed], roles().fit, seed=0) == []


def test_shots_never_enter_the_fit() -> None:
    """The used records get absurd scores, as if they were the strongest members: nothing may change."""
    shots = [row for row in range(FIT) if not MEMBER[row]][:5]
    used = frozenset(f"fit{row}" for row in shots)
    honest = scored("recall", 0, 1.0, used)
    assert honest.scores is not None
    absurd = Scored(honest.chosen, honest.scores.copy(), used=used)
    assert absurd.scores is not None
    absurd.scores[shots] = 1e6
    other = scored("loss", 1, 0.5)
    (clean,), (planted,) = (supervised_rows([one, other], roles().fit, seed=0) for one in (honest, absurd))
    assert clean.scored.scores is not None
    assert planted.scored.scores is not None
    assert planted.scored.scores[IN_EVAL].tolist() == clean.scored.scores[IN_EVAL].tolist()
    assert clean.scored.details["head"]["fit_records"] == FIT - 5
    assert np.flatnonzero(~clean.usable).tolist() == shots
    # without the list of what was used, the plant does damage: the test can fail
    (harmed,) = supervised_rows([Scored(absurd.chosen, absurd.scores), other], roles().fit, seed=0)
    assert harmed.scored.scores is not None
    assert harmed.scored.scores[IN_EVAL].tolist() != clean.scored.scores[IN_EVAL].tolist()


def test_a_feature_made_from_most_of_a_class_is_left_out() -> None:
    most = frozenset(f"fit{row}" for row in range(1, FIT, 2))
    (head,) = supervised_rows([scored("dc_pdd", 0, 1.0, most), scored("loss", 1, 1.0)], roles().fit, seed=0)
    assert head.scored.details["head"]["left_out"] == ["dc_pdd"]
    assert head.scored.details["head"]["features"] == ["loss"]
    assert head.usable.all()
    assert supervised_rows([scored("dc_pdd", 0, 1.0, most)], roles().fit, seed=0) == []


def test_permuted_labels_teach_the_head_nothing() -> None:
    """The control's own 99 % interval over permutations; three features of pure noise, and three that leak."""
    judge = Judge(roles(), (0.1,), 200, 0)
    for shift in (0.0, 1.5):
        parts = [scored(spec, seed, shift) for seed, spec in enumerate(("loss", "min_k", "surp"))]
        (head,) = supervised_rows(parts, judge.roles.fit, seed=0)
        control = permuted_head(head, judge, repeats=15, seed=0)
        assert control.passed
        assert control.low < 0.5 < control.high
        assert abs(control.mean - 0.5) < 0.15


def test_fit_labels_alone_decide_the_head() -> None:
    """The head's eval scores come from fit labels: flipping these turns the head round."""
    parts = [scored("loss", 0, 1.5)]
    fit = roles().fit
    (upright,) = supervised_rows(parts, fit, seed=0)
    (turned,) = supervised_rows(parts, LabelledRecords(fit.records, ~fit.member), seed=0)
    assert upright.scored.scores is not None
    assert turned.scored.scores is not None
    np.testing.assert_allclose(turned.scored.scores, -upright.scored.scores, atol=1e-3)
    assert parts[0].scores is not None
    features = parts[0].scores[:, None]
    again = fit_head(features[:FIT], fit.member, groups=fit.records.groups, seed=0)
    assert again(features).tolist() == upright.scored.scores.tolist()
    assert upright.learn(fit.member).tolist() == upright.scored.scores.tolist()


def grouped_fit(groups: int) -> LabelledRecords:
    """60 fit records in books, each book all members or all non-members."""
    ids = tuple(f"fit{row}" for row in range(FIT))
    books = tuple(f"b{row % groups}" for row in range(FIT))
    return LabelledRecords(Records(ids, ids, books), np.arange(FIT) % 2 == 0)


def test_shots_that_tie_up_most_books_are_left_out_and_not_a_crash() -> None:
    """Five shots from five of six non-member books: by records few, by groups nearly all."""
    shots = frozenset(f"fit{row}" for row in (1, 3, 5, 7, 9))
    (head,) = supervised_rows([scored("recall", 0, 1.0, shots), scored("loss", 1, 1.0)], grouped_fit(12), seed=0)
    assert head.scored.details["head"]["features"] == ["loss"]
    assert head.scored.details["head"]["left_out"] == ["recall"]
    assert head.usable.all()


def test_two_books_a_class_still_make_a_head() -> None:
    (head,) = supervised_rows([scored("loss", 1, 1.0)], grouped_fit(4), seed=0)
    assert head.scored.scores is not None
    (head,) = supervised_rows(
        [scored("loss", 1, 1.0)], grouped_fit(2), seed=0
    )  # one book a class: no folds, strongest C
    assert head.scored.scores is not None
    assert head.scored.details["head"]["C"] == 1e-3


def test_a_head_on_too_few_records_is_a_failed_row() -> None:
    fit = roles().fit.take(range(8))
    (head,) = supervised_rows([Scored(parse("loss"), np.arange(20.0))], fit, seed=0)
    assert head.scored.scores is None
    assert "only 4 fit records" in head.scored.reason
