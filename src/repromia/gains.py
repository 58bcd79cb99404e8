"""Paired differences between rows on the same eval records: which comparisons an audit makes."""

from __future__ import annotations

from collections.abc import Sequence

from repromia.attacks import Chosen
from repromia.controls import null_name
from repromia.evaluate import Judge, best_on_select
from repromia.result import AttackResult, BlindResult, Gain
from repromia.scoring import identity_scores
from repromia.signals import Scores
from repromia.supervision import SAME_SUPERVISION
from repromia.views import Views


def paired_gains(
    rows: Sequence[AttackResult],
    scores: dict[str, Scores],
    chosen: Sequence[Chosen],
    views: Views,
    judge: Judge,
    blind: Sequence[BlindResult],
    headline: AttackResult | None,
) -> list[Gain]:
    """Paired differences: reprogrammed over its fair rivals, the headline over every blind baseline."""
    gains: list[Gain] = []
    passive = best_on_select([row for row in rows if row.kind == "passive"])
    specs = {one.name: one for one in chosen}
    for row in rows:
        if row.name not in scores:
            continue
        own = (row.name, scores[row.name])
        if row.kind == "reprogrammed":
            if passive is not None:
                gains.append(judge.gain("best_passive", own, (passive.name, scores[passive.name])))
            if SAME_SUPERVISION in scores:
                gains.append(judge.gain("same_supervision", own, (SAME_SUPERVISION, scores[SAME_SUPERVISION])))
            same = identity_scores(specs[row.name], views)
            gains.append(judge.gain("identity", own, (f"identity of {row.name}", same)))
        if headline is not None and row.name == headline.name:
            gains += [judge.gain("blind", own, (one.fitted.name, scores[one.fitted.name])) for one in blind]
        elif blind:
            best = max(blind, key=lambda one: one.cross_validated_auc.estimate).fitted.name
            gains.append(judge.gain("blind", own, (best, scores[best])))
    return gains


def null_gains(
    rows: Sequence[AttackResult],
    scores: dict[str, Scores],
    null_scores: dict[str, Scores],
    judge: Judge,
    headline: AttackResult | None,
) -> tuple[Gain, ...]:
    """The headline and every reprogrammed attack over themselves on the null target."""
    return tuple(
        judge.gain("null_target", (row.name, scores[row.name]), (null_name(row.name), null_scores[row.name]))
        for row in rows
        if row.name in scores and row.name in null_scores and (row is headline or row.kind == "reprogrammed")
    )
