"""What a comparison of audits found, as data (compare.json) and in sentences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from repromia.result import Estimate, Figures
from repromia.verdict import interval, signed

Outcome = Literal["less", "more", "not_shown", "identical"]
Reading = Literal["highest_risk", "own_headline", "attack"]


class RunSummary(Figures):
    """One of the audits compared. finding: the first sentence of its own report."""

    name: str
    folder: str
    headline: str
    finding_code: str
    finding: str
    created: str
    records_digest: str


class TprDifference(Figures):
    """TPR at an FPR in both runs, and the paired difference run minus baseline."""

    fpr: float
    baseline: float
    run: float
    difference: Estimate


class Difference(Figures):
    """One attack in `run` against the baseline, on the shared records; intervals are 95 %.

    auc: run minus baseline. leak: the same for max(AUC, 1 - AUC). outcome: about the leak, corrected for
    `comparisons`. smallest_visible: the AUC difference that such a sample shows in four of five cases.
    """

    reading: Reading
    baseline: str
    run: str
    baseline_attack: str
    attack: str
    baseline_auc: Estimate
    run_auc: Estimate
    auc: Estimate
    leak: Estimate
    tpr_at_fpr: tuple[TprDifference, ...]
    outcome: Outcome
    comparisons: int
    smallest_visible: float
    sentence: str


class Missing(Figures):
    """What could not be compared, and why: this is no sign of safety."""

    attack: str
    run: str
    reason: str


class Comparison(Figures):
    """Everything a comparison found; written as compare.json. The first run is the baseline of all differences."""

    schema_version: int = 1
    runs: tuple[RunSummary, ...]
    n_members: int
    n_nonmembers: int
    grouped: bool
    fprs: tuple[float, ...]
    headlines: tuple[Difference, ...]
    attacks: tuple[Difference, ...]
    missing: tuple[Missing, ...]
    notes: tuple[str, ...]


def sentence(found: Difference) -> str:
    """What this difference allows to be said, over-unlearning and few false alarms included."""
    return " ".join([_first(found), *_turned(found), *_at_few_alarms(found)])


def _first(found: Difference) -> str:
    figures = f"AUC of {_attack(found)} {found.baseline_auc.estimate:.3f} → {found.run_auc.estimate:.3f}"
    figures += f", difference {signed(found.auc)}"
    if found.outcome == "identical":
        return f"{found.run} and {found.baseline} score every record alike ({_attack(found)})."
    if found.outcome in ("less", "more"):
        return f"{found.run} gives away {found.outcome} than {found.baseline}: {figures}."
    about = f"the smallest that such a sample shows in four of five cases is about {found.smallest_visible:.3f}"
    corrected = " when corrected for the number of comparisons" if _alone(found) else ""
    return f"No difference between {found.run} and {found.baseline} could be shown{corrected}: {figures}; {about}."


def _alone(found: Difference) -> bool:
    """Whether the uncorrected interval of what is given away leaves out 0."""
    return found.comparisons > 1 and not found.leak.low <= 0 <= found.leak.high


def _attack(found: Difference) -> str:
    return found.attack if found.attack == found.baseline_attack else f"{found.baseline_attack} → {found.attack}"


def _turned(found: Difference) -> Iterator[str]:
    for name, one in ((found.baseline, found.baseline_auc), (found.run, found.run_auc)):
        if one.high < 0.5:
            yield (
                f"In {name} members look stranger to the model than non-members (AUC {interval(one)}): that tells them "
                "apart as "
                "well. Look for unlearning that went too far, or for swapped files."
            )
    if found.leak.estimate != found.auc.estimate and (found.baseline_auc.high < 0.5 or found.run_auc.high < 0.5):
        yield f"The distance of AUC from .5 changes by {signed(found.leak)}."


def _at_few_alarms(found: Difference) -> Iterator[str]:
    """Where the strictest thresholds say otherwise than the AUC."""
    for one in found.tpr_at_fpr:
        change = one.difference
        if (change.low > 0 and found.outcome != "more") or (
            change.high < 0 and found.outcome not in ("less", "identical")
        ):
            more = "more" if change.low > 0 else "fewer"
            yield (
                f"At {100 * one.fpr:g} % false alarms it names {more} members ({100 * one.baseline:.1f} % → "
                f"{100 * one.run:.1f} %, difference {signed(change)}, not corrected for the number of comparisons)."
            )
