"""Paired differences between rows on the same eval records: which comparisons an audit makes."""

from __future__ import annotations

from collections.abc import Sequence

from repromia.attacks import Chosen
from repromia.controls import null_name
from repromia.evaluate import Judge, best_on_select
from repromia.result import AttackResult, BlindResult, Gain, ProbeFamily
from repromia.scoring import Scored, identity_scores
from repromia.signals import Scores
from repromia.supervision import SAME_SUPERVISION, Supervised, family_scores
from repromia.views import Views


def paired_gains(
    rows: Sequence[AttackResult],
    scores: dict[str, Scores],
    chosen: Sequence[Chosen],
    views: Views,
    judge: Judge,
    blind: Sequence[BlindResult],
    headline: AttackResult | None,
    rivals: dict[str, str],
) -> list[Gain]:
    """Paired differences: reprogrammed over its fair rivals, the headline over every blind baseline.

    rivals: the same-supervision row that a head must beat, where it is not `same_supervision`.
    """
    gains: list[Gain] = []
    plain, with_reference = (
        [row for row in rows if row.kind in kinds] for kinds in (("passive",), ("passive", "reference"))
    )
    specs = {one.name: one for one in chosen}
    for row in rows:
        if row.name not in scores:
            continue
        own = (row.name, scores[row.name])
        if row.kind == "reprogrammed":
            rival = rivals.get(row.name) or SAME_SUPERVISION
            gains += _over_passive(own, with_reference if "reference" in row.needs else plain, scores, judge)
            if rival in scores:
                gains.append(judge.gain("same_supervision", own, (rival, scores[rival])))
            one = specs.get(row.name)
            if one is not None and one.attack.bank is None and "labels" in one.attack.needs:
                same = identity_scores(one, views)
                gains.append(judge.gain("identity", own, (f"identity of {row.name}", same)))
        if headline is not None and row.name == headline.name:
            gains += [judge.gain("blind", own, (one.fitted.name, scores[one.fitted.name])) for one in blind]
        elif blind:
            best = max(blind, key=lambda one: one.cross_validated_auc.estimate).fitted.name
            gains.append(judge.gain("blind", own, (best, scores[best])))
    return gains


def _over_passive(
    own: tuple[str, Scores], passive: Sequence[AttackResult], scores: dict[str, Scores], judge: Judge
) -> list[Gain]:
    """Over the passive attack that is best on select: by AUC, and for the TPR at each FPR by that TPR."""
    best = best_on_select(passive)
    if best is None:
        return []
    over, at_fpr = (best.name, scores[best.name]), judge.sharpest(passive, scores)
    return [judge.gain("best_passive", own, over, at_fpr=at_fpr)]


def probe_families(
    heads: Sequence[Supervised], scored: Sequence[Scored], scores: dict[str, Scores], views: Views, judge: Judge
) -> tuple[ProbeFamily, ...]:
    """What each family of a bank adds to the passive scores by itself, and what it cost.

    Tokens are counted as they were fed. Evaluations of other models are all alike and shared between programs: there
    the cost is what a family takes by itself, and no time is its own.
    """
    shared = views.modality != "language"
    found: list[ProbeFamily] = []
    for head in (one for one in heads if one.bank is not None):
        assert head.bank is not None  # noqa: S101 — for mypy
        plain = head.bank.plain
        alone = family_scores(head, scored, judge.roles.fit, seed=judge.seed)
        for family in dict.fromkeys(probe.family for probe in head.bank.probes):
            own = [probe for probe in head.bank.probes if probe.family == family]
            gain = None
            if family in alone and SAME_SUPERVISION in scores:
                name = f"{head.name} with {family} alone"
                rival = (SAME_SUPERVISION, scores[SAME_SUPERVISION])
                gain = judge.gain("same_supervision", (name, alone[family]), rival)
            tokens, seconds = sum(probe.tokens for probe in own), sum(probe.seconds for probe in own)
            passes = sum(probe.passes for probe in own)
            asked = plain.tokens > 0 and tokens > 0
            fed = tokens / plain.tokens if asked else None
            found.append(
                ProbeFamily(
                    attack=head.name,
                    family=family,
                    programs=tuple(probe.spec for probe in own if not probe.reason),
                    gain=gain,
                    passes=passes,
                    seconds=round(seconds, 3),
                    relative_tokens=passes / plain.passes if shared and plain.passes else fed,
                    relative_seconds=seconds / plain.seconds if asked and not shared and plain.seconds else None,
                    could_not={probe.spec: probe.reason for probe in own if probe.reason},
                )
            )
    return tuple(found)


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
