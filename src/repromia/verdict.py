"""The first sentence of a result: what the headline figure allows to be concluded.

False alarms on records that no model saw: "found" needs an AUC interval above .5 (one-sided 2.5 %) or a TPR that chance
reaches in 1 of 400 audits, at any of the FPRs asked; where a null target was measured and membership is not known to
have been drawn by lot, also more than the same attack finds there. Blind baselines veto only when they find something themselves
(one-sided 2.5 % for all of them together).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import norm

from repromia.areas import TPR_LEVEL, beyond_chance
from repromia.errors import one_line
from repromia.intervals import for_tests
from repromia.metrics import allowed_false_positives, detectable_tpr
from repromia.result import AttackResult, BlindResult, Estimate, Finding, Gain, NullTarget, TprAtFpr

JOINT_LEVEL = 0.01
UNAMBIGUOUS = ("loss", "naive", "reference")  # attacks whose sign cannot turn on an ordinary model

# Headline findings after which no figure may be put down to the model.
DOUBTFUL = (
    "could_not_measure",
    "not_matched",
    "not_attributable",
    "not_separable_from_null",
    "not_beyond_null",
    "shifted_data_no_null",
)

UNSEEN = ("file_properties",)  # blind baselines of what no model is given: names, formats and sizes of files


@dataclass(frozen=True)
class Evidence:
    """All that the first sentence rests on."""

    headline: AttackResult | None
    rows: Sequence[AttackResult]
    blind: Sequence[BlindResult]
    gains: Sequence[Gain]
    null: NullTarget
    matched: bool = True  # both sides were asked in the same way
    by_lot: bool = False  # membership is known to have been drawn by lot: nothing but the training differs

    def own(self, role: str) -> list[Gain]:
        """Paired gains of the headline."""
        name = self.headline.name if self.headline else ""
        return [gain for gain in self.gains if gain.role == role and gain.attack == name]

    def separable(self) -> list[BlindResult]:
        """Blind baselines that find something, corrected for their number and for two ways of measuring each."""
        tests = 2 * len(self.blind)
        return [
            one
            for one in self.blind
            if above(one.cross_validated_auc, tests) or (one.fitted.auc is not None and above(one.fitted.auc, tests))
        ]


def verdict(evidence: Evidence) -> Finding:
    """The headline finding. The order matters: what makes a figure meaningless comes before what it says."""
    row = evidence.headline
    if row is None or row.auc is None:
        failed = [one for one in (row, *evidence.rows) if one is not None and one.reason]
        reason = one_line(failed[0].reason) if failed else "no attack could be measured"
        return _say(
            "could_not_measure",
            f"The audit could not be carried out: {reason.rstrip('.')}. This says nothing about the risk.",
        )
    if not evidence.matched:
        return _say(
            "not_matched",
            f"{row.name!r} has AUC {interval(row.auc)}, but members and non-members were asked about on different "
            "graphs: what tells them apart may be the question and not the model. Ask both on the same graph.",
        )
    blinding = _as_good_as(evidence)
    if blinding is not None:
        return _given_away(row, blinding)
    if row.auc.high < 0.5 or (_uses_labels(row) and _reversed(evidence)):
        return _turned(row, evidence)
    if not (row.auc.low > 0.5 or any(above_chance(row, one) for one in row.tpr_at_fpr)):
        return _nothing(row, evidence)
    null = next(iter(evidence.own("null_target")), None)
    if null is not None and not _beats(null) and (_null_finds(evidence) or not evidence.by_lot):
        return _no_more_than_null(row, null, evidence)
    shift = evidence.separable()
    if shift and (null is None or (evidence.null.repaired and "reference" in row.needs)):
        return _say(
            "shifted_data_no_null",
            f"{row.name!r} has AUC {interval(row.auc)}, more than any blind baseline; but the records differ without any "
            f"model (blind baseline {shift[0].name!r}: AUC {interval(shift[0].cross_validated_auc)}), and no null target "
            "shows how much of the figure is that difference: it cannot be attributed to the model.",
        )
    return _found(row, _beyond(null) if shift and null else "")


def above_chance(row: AttackResult, one: TprAtFpr) -> bool:
    """Whether a TPR is beyond what chance reaches in 1 of 400 audits."""
    return beyond_chance(one, row.n_members, row.n_nonmembers)


def interval(one: Estimate) -> str:
    """An estimate with its interval."""
    return f"{one.estimate:.3f} [{one.low:.3f}, {one.high:.3f}]"


def signed(one: Estimate) -> str:
    """A difference with its interval."""
    return f"{one.estimate:+.3f} [{one.low:+.3f}, {one.high:+.3f}]"


def above(one: Estimate, tests: int) -> bool:
    """The lower limit, widened for the number of tests, is above .5."""
    return for_tests(one, tests).low > 0.5


def _below(one: Estimate, tests: int) -> bool:
    return for_tests(one, tests).high < 0.5


def _beats(gain: Gain) -> bool:
    """By AUC, or by TPR at one of the FPRs (corrected for their number)."""
    stretch = float(norm.isf(0.025 / max(1, len(gain.tpr_at_fpr))) / norm.isf(0.025))
    return gain.auc.low > 0 or any(one.estimate - (one.estimate - one.low) * stretch > 0 for _, one in gain.tpr_at_fpr)


def _as_good_as(evidence: Evidence) -> BlindResult | None:
    """The best blind baseline that finds something and that the headline does not beat."""
    unbeaten = {gain.over for gain in evidence.own("blind") if not _beats(gain)}
    rivals = [one for one in evidence.separable() if one.fitted.name in unbeaten]
    null = next(iter(evidence.own("null_target")), None)
    if null is not None and not _null_finds(evidence) and _beats(null):
        rivals = [one for one in rivals if one.name not in UNSEEN]  # the model cannot have read it
    return max(rivals, key=lambda one: one.cross_validated_auc.estimate, default=None)


def _uses_labels(row: AttackResult) -> bool:
    """Whether labels decided its sign, or which of its variants is shown."""
    return any(need.startswith("labels") for need in row.needs)


def _null_finds(evidence: Evidence) -> bool:
    null = evidence.null
    name = evidence.headline.name if evidence.headline else ""
    own = next((row.auc for row in null.rows if row.name == name), None)
    return (own is not None and own.low > 0.5) or (null.joint_p is not None and null.joint_p < JOINT_LEVEL)


def _reversed(evidence: Evidence) -> AttackResult | None:
    """An attack whose sign cannot turn, below .5: and below itself on the null target, where that was measured."""
    plain = [row for row in evidence.rows if row.attack in UNAMBIGUOUS and "reference=" not in row.name and row.auc]
    nulls = {row.name: row.auc for row in evidence.null.rows if row.auc is not None}
    for row in plain:
        null = nulls.get(row.name)
        if row.auc and _below(row.auc, len(plain)) and (null is None or row.auc.high < null.low):
            return row
    return None


def _given_away(row: AttackResult, blind: BlindResult) -> Finding:
    assert row.auc is not None  # noqa: S101 — measured rows only
    assert blind.fitted.auc is not None  # noqa: S101
    return _say(
        "not_attributable",
        f"The data gives it away: the blind baseline {blind.name!r}, which never sees the model, tells members from "
        f"non-members with AUC {interval(blind.fitted.auc)}; the attack {row.name!r} reaches {interval(row.auc)}. The "
        "figure is not attributable to the model, and says nothing about what it memorised.",
    )


def _turned(row: AttackResult, evidence: Evidence) -> Finding:
    turned = row if row.auc and row.auc.high < 0.5 else _reversed(evidence)
    assert turned is not None  # noqa: S101
    assert turned.auc is not None  # noqa: S101
    return _say(
        "reversed",
        f"Members look less familiar to the model than non-members: AUC {interval(turned.auc)} for {turned.name!r}. Look "
        "for swapped files, or for unlearning that went too far: this tells members apart as well.",
    )


def _nothing(row: AttackResult, evidence: Evidence) -> Finding:
    assert row.auc is not None  # noqa: S101
    measured = [one for one in evidence.rows if one.auc is not None]
    others = [one for one in measured if one.auc is not None and above(one.auc, len(measured))]
    if others:
        best = max(others, key=lambda one: one.auc.estimate if one.auc else 0.0)
        assert best.auc is not None  # noqa: S101
        return _say(
            "found_by_another_attack",
            f"The headline attack {row.name!r} found nothing (AUC {interval(row.auc)}), but {best.name!r} did: AUC "
            f"{interval(best.auc)}, above chance also when corrected for {len(measured)} attacks. Name it as the headline "
            "and audit records that were not used here.",
        )
    return _say(
        "nothing_found",
        f"{row.name!r}, chosen without looking at the records measured, did not tell members from non-members: AUC {interval(row.auc)} on "
        f"{row.n_members} members and {row.n_nonmembers} non-members.{_visible(row)}",
    )


def _no_more_than_null(row: AttackResult, null: Gain, evidence: Evidence) -> Finding:
    assert row.auc is not None  # noqa: S101
    figure = f"{row.name!r} has AUC {interval(row.auc)}"
    if _null_finds(evidence):
        return _say(
            "not_separable_from_null",
            f"{figure}, but cannot be told from itself on a model that cannot have seen the records (difference "
            f"{signed(null.auc)}): the figure is not attributable to the model.",
        )
    return _say(
        "not_beyond_null",
        f"{figure}, but is not shown to find more than on a model that cannot have seen the records (difference "
        f"{signed(null.auc)}): it may be the records. More of them would tell; where members are drawn by lot before "
        "training (`repromia split`) they cannot differ.",
    )


def _beyond(null: Gain) -> str:
    what = f"{signed(null.auc)} of it is" if null.auc.low > 0 else "At a low FPR it is"
    return (
        f" {what} beyond a model that cannot have seen the records; but the records differ without any model, and that "
        "one may not know their kind of record, which then counts as memory."
    )


def _found(row: AttackResult, beyond: str) -> Finding:
    assert row.auc is not None  # noqa: S101
    gives = "The model gives away who was in its training data:"
    if row.auc.low > 0.5:
        tells = f"{gives} {row.name!r} tells members from non-members with AUC {interval(row.auc)}."
        at = next((one for one in row.tpr_at_fpr if one.fpr == 0.01 and one.tpr is not None), None)
        named = f" At {_names(row, at, 'it')}." if at else ""
        return _say("found", f"{tells}{beyond}{named}")
    at = next(one for one in row.tpr_at_fpr if above_chance(row, one))
    tells = f"{gives} at {_names(row, at, repr(row.name))}. On average members and others look alike (AUC {interval(row.auc)})."
    return _say("found", f"{tells}{beyond}")


def _names(row: AttackResult, at: TprAtFpr, attack: str) -> str:
    """How many members are named; the mean that chance reaches is above the FPR, as in `null_tpr_quantile`."""
    chance = 1000 * (allowed_false_positives(row.n_nonmembers, at.fpr) + 1) / (row.n_nonmembers + 1)
    beside = "chance names" if above_chance(row, at) else "not told apart from chance, which names"
    tpr, low, high = (1000 * (one or 0.0) for one in (at.tpr, at.low, at.high))
    alarms = f"{100 * at.fpr:g} false alarm{'s' if at.fpr != 0.01 else ''} in 100"
    return f"{alarms} {attack} names {tpr:.0f} of 1,000 members [{low:.0f}, {high:.0f}]; {beside} {chance:.0f}"


def _visible(row: AttackResult) -> str:
    at = next((one for one in row.tpr_at_fpr if one.smallest_visible is not None), None)
    if at is None:
        return ""
    least = detectable_tpr(row.n_members, row.n_nonmembers, at.fpr, level=TPR_LEVEL)
    return (
        f" A true TPR of {100 * least:.1f} % at {100 * at.fpr:g} % FPR would have been found in eight of ten such audits; "
        "a smaller leak may have been missed."
    )


def _say(code: str, sentence: str) -> Finding:
    return Finding(code=code, level="headline", sentence=sentence)
