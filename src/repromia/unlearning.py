"""Has the model forgotten what it was made to forget?

Three sets under one attack: forget (trained on, then unlearned), never seen, and retained (trained on and kept). A
model that forgot cannot tell forget from never-seen records: AUC .5. That figure alone proves little. An attack without
power gives .5 as well, so the same attack must tell retained from never-seen records; and a model pushed too far makes
forgotten records look stranger than strangers, which gives them away too (the "Streisand effect" of Golatkar, Achille &
Soatto 2020, arXiv 1911.04933). "Forgotten" is an equivalence claim (two one-sided tests, Schuirmann 1987): the whole
interval has to lie within a margin of .5, and the attack has to see more than that margin where something is to be
seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from repromia.areas import area_and_tpr, beyond_chance
from repromia.errors import ConfigError
from repromia.result import Estimate, TprAtFpr

Outcome = Literal["forgotten", "still_remembered", "over_unlearned", "could_not_be_measured", "not_shown"]

FPR = 0.01


@dataclass(frozen=True)
class SetScores:
    """Scores of one set under the attack (higher = member), and its groups where records belong together."""

    scores: Float[np.ndarray, " record"]
    groups: tuple[str, ...] | None = None


@dataclass(frozen=True)
class UnlearningEvidence:
    """What one attack says about forgetting. AUCs with 95 % intervals.

    forget: forget against never-seen records, .5 when forgotten, below when over-unlearned. retained: retained against
    never-seen records, what the attack can see. forget_tpr: share of forget records named at 1 % false alarms among
    never-seen ones.
    """

    outcome: Outcome
    forget: Estimate
    retained: Estimate
    forget_tpr: TprAtFpr
    margin: float
    blind: Estimate | None
    sentence: str


def unlearning_check(
    forget: SetScores,
    never_seen: SetScores,
    retained: SetScores,
    *,
    margin: float = 0.05,
    blind: Estimate | None = None,
    blind_retained: Estimate | None = None,
    seed: int = 0,
) -> UnlearningEvidence:
    """Whether forget records look like never-seen ones to an attack that recognises retained ones.

    margin: half-width in AUC of what still counts as forgotten. blind, blind_retained: AUC against never-seen records
    of a baseline without the model (`repromia.dataset_inference.blind_check`) for forget and for retained records; an
    interval above .5 means that the sets differ by themselves and nothing can be measured with them.

    In this order: "could_not_be_measured" where the sets differ without the model; "still_remembered" where the
    interval is above .5, or more records stand out at 1 % false alarms than chance allows in 1 of 400; "over_unlearned"
    where it is below .5; "could_not_be_measured" where the attack does not surely see more than the margin in retained
    records; "forgotten" where the interval is within the margin; else "not_shown".

    Raises ConfigError for a margin outside (0, .5), RepromiaError where a set is empty, lies in one group or holds what
    is not a number.
    """
    if not 0 < margin < 0.5:
        raise ConfigError(
            "the equivalence margin is not a difference in AUC", expected="above 0 and below .5", found=repr(margin)
        )
    area, tpr = _against(forget, never_seen, seed)
    power, _ = _against(retained, never_seen, seed)
    named = beyond_chance(tpr, len(forget.scores), len(never_seen.scores))
    if any(one is not None and one.low > 0.5 for one in (blind, blind_retained)):
        outcome: Outcome = "could_not_be_measured"
    elif area.low > 0.5 or named:
        outcome = "still_remembered"
    elif area.high < 0.5:
        outcome = "over_unlearned"
    elif power.low <= 0.5 + margin:
        outcome = "could_not_be_measured"
    else:
        inside = area.low > 0.5 - margin and area.high < 0.5 + margin
        outcome = "forgotten" if inside else "not_shown"
    evidence = UnlearningEvidence(outcome, area, power, tpr, margin, blind, "")
    sentence = _sentence(evidence, blind_retained) + ("" if blind is not None else _NO_BLIND)
    return UnlearningEvidence(outcome, area, power, tpr, margin, blind, sentence)


_NO_BLIND = " No blind baseline was given: that the sets differ by themselves is not excluded."


def _against(inside: SetScores, outside: SetScores, seed: int) -> tuple[Estimate, TprAtFpr]:
    """AUC and TPR at 1 % FPR of one set against another; by groups where either has some."""
    scores = np.concatenate([inside.scores, outside.scores])
    member = np.arange(scores.size) < len(inside.scores)
    groups = None if inside.groups is None and outside.groups is None else [*_names(inside, "a"), *_names(outside, "b")]
    return area_and_tpr(scores, member, groups, fpr=FPR, seed=seed)


def _names(one: SetScores, prefix: str) -> Sequence[str]:
    """Groups, or each record by itself. Groups of the same name in both sets are one."""
    return one.groups if one.groups is not None else [f"{prefix}\0{row}" for row in range(len(one.scores))]


def _sentence(found: UnlearningEvidence, blind_retained: Estimate | None) -> str:
    forget, retained = f"AUC {_words(found.forget)}", f"AUC {_words(found.retained)}"
    sees = f"the attack tells retained from never-seen records with {retained}"
    match found.outcome:
        case "forgotten":
            return (
                f"Forgotten as far as this attack can tell: forget records look like never-seen ones ({forget}, within "
                f"{found.margin:g} of .5), while {sees}. A stronger attack may find more."
            )
        case "still_remembered":
            return f"Still remembered: forget records can be told from never-seen ones ({forget}){_some(found)}."
        case "over_unlearned":
            return (
                f"Over-unlearned: forget records look stranger to the model than never-seen ones ({forget}). Who was "
                "made to be "
                "forgotten can be told from this: it is a leak as well."
            )
        case "not_shown":
            return (
                f"Not shown either way: {forget} for forget against never-seen records, and the interval does not lie "
                f"within {found.margin:g} of .5 ({sees}). More records would settle it."
            )
    shifted = next((one for one in (found.blind, blind_retained) if one is not None and one.low > 0.5), None)
    if shifted is not None:
        return (
            "Could not be measured: a baseline that never sees the model tells the sets apart (AUC "
            f"{_words(shifted)}), so they do not "
            f"come from one pool. ({forget} for forget, {retained} for retained records.)"
        )
    return (
        "Could not be measured: the attack does not surely recognise even retained records by more than the margin "
        f"({retained}); {forget} for forget "
        "records says nothing. Use a stronger attack or more records."
    )


def _some(found: UnlearningEvidence) -> str:
    """How many, where the mean does not show it; and whether the trace is small."""
    tpr = found.forget_tpr
    if found.forget.low > 0.5:
        return ", though by less than the margin" if found.forget.high < 0.5 + found.margin else ""
    return f": not on average, but {100 * (tpr.tpr or 0):.1f} % of them stand out at {100 * tpr.fpr:g} % false alarms"


def _words(one: Estimate) -> str:
    return f"{one.estimate:.3f} [{one.low:.3f}, {one.high:.3f}]"
