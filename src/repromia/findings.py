"""Sentences that the figures support, each with its condition."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from repromia.result import (
    AttackResult,
    BlindResult,
    Estimate,
    Finding,
    Gain,
    NullTarget,
    Permuted,
    RecordsSummary,
    TprAtFpr,
)

JOINT_LEVEL = 0.01


def headline_finding(row: AttackResult | None, blind: Sequence[BlindResult], gains: Sequence[Gain]) -> Finding:
    """The first sentence. "As good as the attack": the paired interval attack - blind reaches 0 or below."""
    if row is None or row.auc is None:
        reason = row.reason if row else "no attack could be measured"
        return _headline(
            "could_not_measure",
            f"The audit could not be carried out: {reason} This says nothing about the risk.",
        )
    found = row.auc.low > 0.5 or any(_above_chance(one) for one in row.tpr_at_fpr)
    equals = [gain for gain in gains if gain.role == "blind" and gain.attack == row.name and gain.auc.low <= 0]
    separable = [one for one in blind if one.fitted.auc and one.fitted.auc.low > 0.5]
    if equals and separable:
        best = max(separable, key=lambda one: one.fitted.auc.estimate if one.fitted.auc else 0.0)
        assert best.fitted.auc is not None  # noqa: S101
        return _headline(
            "not_attributable",
            f"The data gives it away: the blind baseline {best.name!r}, which never sees the model, tells members "
            f"from non-members with AUC {_interval(best.fitted.auc)}; the attack {row.name!r} reaches "
            f"{_interval(row.auc)}. The figure is not attributable to the model, and says nothing about what it "
            "memorised.",
        )
    if row.auc.high < 0.5:
        return _headline(
            "reversed",
            f"Members look less familiar to the model than non-members: AUC {_interval(row.auc)} for {row.name!r}. "
            "Look for swapped files, or for unlearning that went too far: this tells members apart as well.",
        )
    if not found:
        return _headline(
            "nothing_found",
            f"No attack chosen beforehand told members from non-members: {row.name!r} has AUC {_interval(row.auc)} on "
            f"{row.n_members} members and {row.n_nonmembers} non-members.{_visible(row)}",
        )
    if equals:
        return _headline(
            "not_separable_from_blind",
            f"{row.name!r} has AUC {_interval(row.auc)}, but is not clearly better than the blind baseline "
            f"{equals[0].over!r} (difference {_signed(equals[0].auc)}): the figure is not attributable to the model.",
        )
    null = next((gain for gain in gains if gain.role == "null_target" and gain.attack == row.name), None)
    if null is not None and null.auc.low <= 0:
        return _headline(
            "not_separable_from_null",
            f"{row.name!r} has AUC {_interval(row.auc)}, but does about as well on a model that cannot have seen the "
            f"records (difference {_signed(null.auc)}): the figure is not attributable to the model.",
        )
    return _headline(
        "found",
        f"The model gives away who was in its training data: {row.name!r} tells members from non-members with AUC "
        f"{_interval(row.auc)}.{_named(row)}",
    )


def other_findings(
    rows: Sequence[AttackResult],
    gains: Sequence[Gain],
    blind: Sequence[BlindResult],
    null: NullTarget,
    permuted: Sequence[Permuted],
    records: RecordsSummary,
) -> Iterator[Finding]:
    """Warnings and notes, the most important first."""
    yield from (_failed(row) for row in rows if row.status == "failed")
    for one in blind:
        if one.cross_validated_auc.low > 0.5:
            yield _warning(
                "blind_above_chance",
                f"The blind baseline {one.name!r} separates the two sides without any model (cross-validated AUC "
                f"{_interval(one.cross_validated_auc)}): members and non-members do not come from one pool.",
            )
    yield from _null_findings(null)
    for control in permuted:
        if not control.passed:
            yield _warning(
                "permuted_labels",
                f"{control.name!r} finds something where labels were permuted (mean {control.mean:.3f} "
                f"[{control.low:.3f}, {control.high:.3f}], expected {control.compared_with}): do not trust its figure.",
            )
    yield from (_reprogramming(row, gains) for row in rows if row.kind == "reprogrammed" and row.auc)
    yield from _record_findings(rows, records)


def _null_findings(null: NullTarget) -> Iterator[Finding]:
    if null.status != "measured":
        yield _warning("no_null", f"No null target: {null.reason}")
    elif null.joint_p is not None and null.joint_p < JOINT_LEVEL:
        yield _warning(
            "null_above_chance",
            "The same attacks tell the sides apart on a model that cannot have seen the records (joint p = "
            f"{null.joint_p:.2g}): that part of the figures is a property of the data.",
        )


def _reprogramming(row: AttackResult, gains: Sequence[Gain]) -> Finding:
    """Whether reprogramming helped: only where both paired AUC gains are above 0."""
    own = {gain.role: gain for gain in gains if gain.attack == row.name}
    parts = [
        f"{_signed(own[role].auc)} AUC over {own[role].over!r}"
        for role in ("best_passive", "same_supervision", "identity")
        if role in own
    ]
    rivals = [own[role].auc for role in ("best_passive", "same_supervision") if role in own]
    kept = next((one.get("kept") for one in row.details.values() if isinstance(one, dict)), None)
    dropped = " The select role chose the identity: no learned prompt is used." if kept == "identity" else ""
    if rivals and all(one.low > 0 for one in rivals):
        verdict = "helped"
    elif any(one.high < 0 for one in rivals):
        verdict = "did not help: a fair baseline is better"
    else:
        verdict = "did not clearly help"
    return Finding(
        code="reprogramming_helped" if verdict == "helped" else "reprogramming_did_not_help",
        level="note",
        sentence=f"Reprogramming ({row.name}) {verdict}: {', '.join(parts)}.{dropped}",
    )


def _record_findings(rows: Sequence[AttackResult], records: RecordsSummary) -> Iterator[Finding]:
    across = records.duplicates.exact_across + records.duplicates.near_across
    if across:
        yield _warning(
            "duplicates_across",
            f"{across} records occur on both sides (exactly or nearly) and were left out of the audit.",
        )
    within = records.duplicates.exact_within + records.duplicates.near_within
    if within:
        yield Finding(
            code="duplicates_within",
            level="note",
            sentence=f"{within} records repeat others of their side: exact repeats were left out, near ones share a "
            "role and are resampled together.",
        )
    measured = next((row for row in rows if row.auc), None)
    for one in measured.tpr_at_fpr if measured else ():
        if one.status != "measured":
            yield Finding(
                code=f"fpr_{one.status}",
                level="note",
                sentence=f"TPR at {one.fpr:.1%} FPR is {one.status}: {one.reason}",
            )


def _failed(row: AttackResult) -> Finding:
    first = row.reason.splitlines()[0]
    return _warning("attack_failed", f"{row.name!r} could not be measured: {first}")


def _above_chance(one: TprAtFpr) -> bool:
    return one.status == "measured" and one.low is not None and one.low > one.fpr


def _named(row: AttackResult) -> str:
    at = next((one for one in row.tpr_at_fpr if one.fpr == 0.01 and one.tpr is not None), None)
    if at is None or at.tpr is None or at.low is None or at.high is None:
        return ""
    return (
        f" At 1 false alarm in 100 it names {1000 * at.tpr:.0f} of 1,000 members "
        f"[{1000 * at.low:.0f}, {1000 * at.high:.0f}]."
    )


def _visible(row: AttackResult) -> str:
    at = next((one for one in row.tpr_at_fpr if one.smallest_visible is not None), None)
    if at is None or at.smallest_visible is None:
        return ""
    return (
        f" With these numbers a TPR of {at.smallest_visible:.1%} at {at.fpr:.1%} FPR could have been seen; anything "
        "smaller could not."
    )


def _interval(one: Estimate) -> str:
    return f"{one.estimate:.3f} [{one.low:.3f}, {one.high:.3f}]"


def _signed(one: Estimate) -> str:
    return f"{one.estimate:+.3f} [{one.low:+.3f}, {one.high:+.3f}]"


def _headline(code: str, sentence: str) -> Finding:
    return Finding(code=code, level="headline", sentence=sentence)


def _warning(code: str, sentence: str) -> Finding:
    return Finding(code=code, level="warning", sentence=sentence)
