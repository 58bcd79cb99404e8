"""Warnings and notes below the first sentence, each with its condition."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from repromia.errors import one_line
from repromia.randomised import NOT_DRAWN
from repromia.result import (
    AttackResult,
    BlindResult,
    EpsilonFigures,
    Finding,
    Gain,
    NullTarget,
    Permuted,
    ProbeFamily,
    RecordsSummary,
    SliceFigures,
)
from repromia.verdict import DOUBTFUL, JOINT_LEVEL, above, interval, signed

SLICES_SHOWN = 5


def other_findings(
    rows: Sequence[AttackResult],
    gains: Sequence[Gain],
    blind: Sequence[BlindResult],
    null: NullTarget,
    permuted: Sequence[Permuted],
    records: RecordsSummary,
    headline: str = "",
    families: Sequence[ProbeFamily] = (),
    epsilon: EpsilonFigures | None = None,
) -> Iterator[Finding]:
    """Warnings and notes, the most important first."""
    if epsilon is not None:
        yield _epsilon(epsilon)
    yield from (_failed(row) for row in rows if row.status == "failed")
    for one in blind:
        if above(one.cross_validated_auc, len(blind)):
            yield _warning(
                "blind_above_chance",
                f"The blind baseline {one.name!r} separates the two sides without any model (cross-validated AUC "
                f"{interval(one.cross_validated_auc)}): members and non-members do not come from one pool.",
            )
    yield from _null_findings(null, headline)
    yield from (_permuted(control) for control in permuted if not control.passed)
    yield from (_reprogramming(row, gains) for row in rows if row.kind == "reprogrammed" and row.auc)
    yield from _families(families)
    yield from _record_findings(rows, records)


def slice_findings(slices: Sequence[SliceFigures], headline: str) -> Iterator[Finding]:
    """Kinds of records that are more exposed than the rest. headline: code of the first finding."""
    tested = sum(one.auc is not None for one in slices)
    flagged = [one for one in slices if one.more_exposed and one.auc is not None and one.auc.low > 0.5]
    if not flagged:
        return
    shown = "; ".join(
        f"{one.name} = {one.value} (AUC {interval(one.auc)}, {signed(one.difference)} against the rest)"
        for one in flagged[:SLICES_SHOWN]
        if one.auc is not None and one.difference is not None
    )
    more = f"; and {len(flagged) - SLICES_SHOWN} more" if len(flagged) > SLICES_SHOWN else ""
    caution = (
        " As the first sentence says, it may not be the model that tells them apart." if headline in DOUBTFUL else ""
    )
    yield Finding(
        code="slice_more_exposed",
        level="note",
        sentence=f"More exposed than the other records, also when corrected for the {tested} slices tested: "
        f"{shown}{more}.{caution}",
    )


def _epsilon(found: EpsilonFigures) -> Finding:
    if found.status == "not_available":
        level: Literal["warning", "note"] = "note" if found.reason == NOT_DRAWN else "warning"
        return Finding(code="no_epsilon", level=level, sentence=f"No bound on epsilon: {found.reason}.")
    one = found.bounds[0]
    part = "" if found.complete else " Not all that was drawn was audited: whoever chose must not have known the draw."
    at = f"at {100 * one.confidence:g} % confidence"
    bound = (
        f"{at} the training was not (epsilon, {found.delta:g})-differentially private for any epsilon below "
        f"{one.epsilon:.2f}"
        if one.epsilon > 0
        else f"no bound on epsilon above 0 was found {at}, which does not show that the training was private"
    )
    sentence = f"Membership was drawn by lot: {bound} ({found.attack!r}, bound {one.name!r}).{part}"
    return Finding(code="epsilon", level="note", sentence=sentence)


def _families(families: Sequence[ProbeFamily]) -> Iterator[Finding]:
    for bank in dict.fromkeys(one.attack for one in families):
        own = [one for one in families if one.attack == bank]
        missing = sorted(program for one in own for program in one.could_not)
        if missing:
            yield Finding(
                code="programs_left_out",
                level="note",
                sentence=f"{bank!r} went without {len(missing)} programs that this model cannot do: {', '.join(missing)}.",
            )


def _null_findings(null: NullTarget, headline: str) -> Iterator[Finding]:
    if null.status != "measured":
        yield _warning("no_null", f"No null target: {null.reason.rstrip('.')}.")
        return
    if null.joint_p is not None and null.joint_p < JOINT_LEVEL:
        yield _warning(
            "null_above_chance",
            "The same attacks tell the sides apart on a model that cannot have seen the records (joint p = "
            f"{null.joint_p:.2g}): that part of the figures is a property of the data.",
        )
    for row in null.rows:
        if row.status == "failed":
            yield _warning("null_failed", f"{row.name!r} failed on the null target: {one_line(row.reason)}")
    if headline and not any(row.name == headline and row.auc for row in null.rows):
        yield _warning(
            "no_null_for_headline",
            f"The headline attack {headline!r} has no null target, because it needs a reference other than the null "
            "target itself. A second checkpoint that did not see the records (--null-reference) gives it one.",
        )


def _permuted(control: Permuted) -> Finding:
    figures = f"{control.mean:.3f} [{control.low:.3f}, {control.high:.3f}]"
    if control.compared_with == 0.5:
        return _warning(
            "permuted_labels",
            f"{control.name!r}, refitted on permuted labels, does not average .5 (AUC {figures}): do not trust its figure.",
        )
    return _warning(
        "permuted_labels",
        f"{control.name!r} gains over the identity with permuted labels too ({figures}): that part of its gain does not "
        "come from the labels.",
    )


def _reprogramming(row: AttackResult, gains: Sequence[Gain]) -> Finding:
    """Helped: the paired AUC gains over every rival are above 0, blind baseline and null target included."""
    mine = [gain for gain in gains if gain.attack == row.name]
    own = {gain.role: gain for gain in mine}
    fair = [own[role] for role in ("best_passive", "same_supervision") if role in own]
    parts = [f"{signed(gain.auc)} AUC over {gain.over!r}" for gain in fair]
    parts += [f"{signed(own['identity'].auc)} over the identity"] if "identity" in own else []
    rivals = fair + [gain for gain in mine if gain.role in ("blind", "null_target")]  # the headline has every blind one
    if rivals and all(gain.auc.low > 0 for gain in rivals):
        code, verdict = "reprogramming_helped", "helped"
    elif any(gain.auc.high < 0 for gain in fair):
        code, verdict = "reprogramming_did_not_help", "did not help, a fair baseline is better"
    else:
        code, verdict = "reprogramming_did_not_help", "did not clearly help"
    kept = next((one.get("kept") for one in row.details.values() if isinstance(one, dict)), None)
    dropped = " The select role chose the identity: nothing that was learned is used." if kept == "identity" else ""
    lost = sorted({fpr for gain in fair for fpr, tpr in gain.tpr_at_fpr if tpr.high < 0})
    worse = (
        f" It names fewer members than a fair baseline at {', '.join(f'{100 * fpr:g} %' for fpr in lost)} FPR."
        if lost
        else ""
    )
    return Finding(
        code=code, level="note", sentence=f"Reprogramming ({row.name}) {verdict}: {', '.join(parts)}.{dropped}{worse}"
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
    if records.duplicates.unchecked:
        yield _warning(
            "duplicates_unchecked",
            f"{records.duplicates.unchecked} records consist of word sequences common to more than 1,000 texts and were "
            "not compared with others: near-duplicates among them would go unseen.",
        )
    measured = next((row for row in rows if row.auc), None)
    for one in measured.tpr_at_fpr if measured else ():
        if one.status != "measured":
            yield Finding(
                code=f"fpr_{one.status}",
                level="note",
                sentence=f"TPR at {100 * one.fpr:g} % FPR is {one.status}: {one.reason}.",
            )


def _failed(row: AttackResult) -> Finding:
    return _warning("attack_failed", f"{row.name!r} could not be measured: {one_line(row.reason)}")


def _warning(code: str, sentence: str) -> Finding:
    return Finding(code=code, level="warning", sentence=sentence)
