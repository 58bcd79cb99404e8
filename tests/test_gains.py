"""What an attack is compared with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from repromia.attacks import parse
from repromia.evaluate import Judge
from repromia.gains import _over_passive
from repromia.metrics import tpr_at_fpr
from repromia.records import LabelledRecords, Records
from repromia.result import AttackResult
from repromia.roles import assign_roles
from repromia.scoring import Scored

FPRS = (0.1, 0.05)


@pytest.fixture(scope="module")
def judge() -> Judge:
    count = 1200
    names = tuple(f"r{row}" for row in range(count))
    records = Records(names, tuple(f"text {name}" for name in names), names)
    labelled = LabelledRecords(records, np.arange(count) % 2 == 0)
    return Judge(assign_roles(labelled, fit=0.3, select=0.3), FPRS, 300, 0)


def row(judge: Judge, name: str, scores: Any) -> AttackResult:
    return judge.row(name, Scored(parse("loss"), scores)).model_copy(update={"name": name})


def test_a_vote_is_the_rival_in_auc_and_not_at_a_false_positive_rate_that_it_cannot_reach(judge: Judge) -> None:
    """The vote calls 8 of 10 members and 3 of 10 others "in": the best AUC here, and a TPR of 0 at 10 % FPR."""
    roles, generator = judge.roles, np.random.default_rng(0)
    member = np.concatenate([roles.fit.member, roles.select.member, judge.member])
    vote = (generator.random(len(member)) < np.where(member, 0.8, 0.3)).astype(float)
    graded = generator.normal(size=len(member)) + 0.6 * member
    ours = generator.normal(size=len(member)) + 0.5 * member
    scores = {"vote": vote, "graded": graded}
    rows = [row(judge, name, one) for name, one in scores.items()]
    (gain,) = _over_passive(("ours", ours), rows, scores, judge)
    assert gain.over == "vote"
    assert gain.over_at_fpr == tuple((fpr, "graded") for fpr in FPRS)
    own, other = ours[judge.eval_rows], graded[judge.eval_rows]
    for fpr, found in gain.tpr_at_fpr:
        expected = tpr_at_fpr(own, judge.member, fpr) - tpr_at_fpr(other, judge.member, fpr)
        assert found.estimate == pytest.approx(expected, abs=1e-12)
        assert found.low <= found.estimate <= found.high
    assert found.low < 0  # over the vote, which finds nobody there, no gain is negative


def test_one_rival_where_the_best_is_best_everywhere(judge: Judge) -> None:
    generator = np.random.default_rng(1)
    member = np.concatenate([judge.roles.fit.member, judge.roles.select.member, judge.member])
    scores = {name: generator.normal(size=len(member)) + far * member for name, far in (("far", 3.0), ("near", 0.2))}
    rows = [row(judge, name, one) for name, one in scores.items()]
    (gain,) = _over_passive(("ours", scores["near"]), rows, scores, judge)
    assert (gain.over, gain.over_at_fpr) == ("far", ())
    assert _over_passive(("ours", scores["near"]), [], {}, judge) == []
