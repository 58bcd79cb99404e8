"""Was this dataset used? A test on the scores of a whole set, against records that were certainly not used.

One record says little; the mean of hundreds says much (Maini, Jia, Papernot and Dziedzic 2024, "LLM Dataset
Inference: Did you train on my dataset?", arXiv 2406.06443; for images Dubiński et al. 2024, "CDI", arXiv 2411.12858).
What makes the answer sound is the same in both: suspect and held-out records come from one pool, and neither was used
to fit the head or to choose the attack that made the scores.

The held-out records stand for what scores would be had the suspects not been used. If the two differ by themselves
(dates, topics, formats), any p-value is about that difference; so a blind baseline that tells them apart ends the test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import rankdata

from repromia.areas import area
from repromia.bootstrap import CELLS
from repromia.errors import RecordsError
from repromia.intervals import clopper_pearson, for_tests
from repromia.metrics import check_scores
from repromia.result import Estimate

if TYPE_CHECKING:
    from repromia.records import LabelledRecords

Statistic = Literal["mean", "ranks"]
Outcome = Literal["used", "not_shown", "shifted", "unsound"]

LEAST = 10  # independent groups a side: with fewer the least p-value and its meaning are a matter of single records
SPLITS = 200
SPLIT_PERMUTATIONS = 199
UNSOUND_LEVEL = 0.998  # a sound test is refused in 1 of 1,000 uses
ORDER_LEVEL = 0.01


@dataclass(frozen=True)
class SetEvidence:
    """What the scores of a suspect set say against held-out records.

    outcome: "used" (p_value <= alpha), "not_shown", "shifted" (refused: the sets differ without the model) or "unsound"
    (refused: the test alarms on held-out halves). p_value: one-sided, valid for one look at a sample size fixed
    beforehand; None where refused. effect: AUC of suspect against held-out records. false_positive_rate: share of
    random halvings of the held-out records on which the test alarms at alpha; halves drawn by lot are alike by
    construction, so this checks the test, not the data. order_p_value: the first against the second half of the
    held-out records, in the order given. Sizes count independent groups.
    """

    outcome: Outcome
    p_value: float | None
    effect: Estimate
    false_positive_rate: Estimate
    order_p_value: float
    blind: Estimate | None
    alpha: float
    statistic: Statistic
    permutations: int
    n_suspect: int
    n_heldout: int
    sentence: str

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the effect."""
        return self.effect.low, self.effect.high


class Units(NamedTuple):
    """One value for each independent group, in order of first appearance; `suspect` says which set it belongs to."""

    values: Float[np.ndarray, " group"]
    suspect: Bool[np.ndarray, " group"]


def units_of(
    scores: Float[np.ndarray, " record"], suspect: Bool[np.ndarray, " record"], groups: Sequence[str] | None
) -> Units:
    """Mean score of each group (of each record, without groups).

    Raises RepromiaError as `check_scores` does; RecordsError when a group lies in both sets, groups do not fit the
    records, or a set has fewer than `LEAST` groups.
    """
    check_scores(scores, suspect)
    if groups is None:
        units = Units(scores.astype(np.float64), suspect)
    else:
        if len(groups) != scores.size:
            raise _groups(f"{len(groups)} groups for {scores.size} records", "pass the groups of the same records")
        _, first, group = np.unique(np.asarray(groups, dtype=np.str_), return_index=True, return_inverse=True)
        group = np.argsort(np.argsort(first))[group.reshape(-1)]
        size = np.bincount(group)
        inside = np.bincount(group, weights=suspect)
        mixed = int(np.count_nonzero((inside > 0) & (inside < size)))
        if mixed:
            raise _groups(f"{mixed} groups lie in both sets", "leave out one side of each, or group more finely")
        units = Units(np.bincount(group, weights=scores) / size, inside > 0)
    n_suspect = int(units.suspect.sum())
    if min(n_suspect, units.suspect.size - n_suspect) < LEAST:
        found = f"{n_suspect} suspect and {units.suspect.size - n_suspect} held-out groups"
        raise RecordsError(
            "too few independent records to test a set",
            expected=f"at least {LEAST} groups of each set",
            found=found,
            hint="give more records; records of one document count once",
        )
    return units


def _groups(found: str, hint: str) -> RecordsError:
    return RecordsError("the groups cannot be permuted", expected="groups within one set", found=found, hint=hint)


def permutation_p_value(units: Units, *, permutations: int, generator: np.random.Generator) -> float:
    """One-sided p-value of "the sets are exchangeable" against higher values of the suspects.

    Welch's t of the drawn divisions, with the observed one among them: (1 + as large) / (1 + permutations), which is
    valid at any size and for any distribution (Phipson & Smyth 2010). Studentised, so that it also holds in large
    samples where only the means are equal (Janssen 1997; Chung & Romano 2013).
    """
    values = units.values - units.values.mean()
    scale = float(np.abs(values).max())
    values = values / scale if scale > 0 else values
    size, chosen = values.size, int(units.suspect.sum())
    observed = float(_welch(values[units.suspect][None], values, chosen)[0])
    as_large, chunk = 1, max(1, CELLS // size)
    for start in range(0, permutations, chunk):
        rows = min(chunk, permutations - start)
        drawn = np.argpartition(generator.random((rows, size)), chosen, axis=1)[:, :chosen]
        as_large += int(
            np.count_nonzero(_welch(values[drawn], values, chosen) >= observed - 1e-9 * (1 + abs(observed)))
        )
    return as_large / (permutations + 1)


def _welch(
    inside: Float[np.ndarray, "row chosen"], values: Float[np.ndarray, " group"], chosen: int
) -> Float[np.ndarray, " row"]:
    """Welch's t of each row against the rest of `values`; plus or minus infinity where both sides have no spread."""
    others = values.size - chosen
    total, squares = inside.sum(axis=1), (inside**2).sum(axis=1)
    rest, rest_squares = values.sum() - total, (values**2).sum() - squares
    first = np.maximum(squares - total**2 / chosen, 0) / (chosen - 1) / chosen
    second = np.maximum(rest_squares - rest**2 / others, 0) / (others - 1) / others
    difference, error = total / chosen - rest / others, np.sqrt(first + second)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(
            error > 1e-12, difference / error, np.where(np.abs(difference) > 1e-12, difference * np.inf, 0.0)
        )


def dataset_inference(
    scores: Float[np.ndarray, " record"],
    suspect: Bool[np.ndarray, " record"],
    groups: Sequence[str] | None = None,
    *,
    blind: Estimate | None = None,
    statistic: Statistic = "mean",
    alpha: float = 0.05,
    seed: int = 0,
    permutations: int = 9999,
) -> SetEvidence:
    """Whether suspect records score higher than held-out records of the same pool.

    scores: higher = member, of records that fitted no head and chose no attack. suspect: True for the set in question,
    False for held-out records. groups: records of one group are one observation (their mean) and are permuted together.
    blind: AUC of a baseline without the model on the same records (`blind_check`); an interval above .5 ends the test.
    statistic: "mean" (Welch's t) is stronger where few records stand out far, "ranks" where scores have heavy tails;
    name it beforehand. The p-value is not valid when looked at repeatedly while records come in: for that,
    `repromia.dataset_inference.sequential_evidence`.

    Raises as `units_of` does.
    """
    units = units_of(scores, suspect, groups)
    if statistic == "ranks":
        units = Units(rankdata(units.values), units.suspect)
    generator = np.random.default_rng(seed)
    effect = area(scores, suspect, groups, seed=seed)
    check, order = _heldout_checks(units.values[~units.suspect], alpha, generator)
    p_value: float | None = None
    if blind is not None and blind.low > 0.5:
        outcome: Outcome = "shifted"
    elif clopper_pearson(round(check.estimate * SPLITS), SPLITS, UNSOUND_LEVEL).low > alpha:
        outcome = "unsound"
    else:
        p_value = permutation_p_value(units, permutations=permutations, generator=generator)
        outcome = "used" if p_value <= alpha else "not_shown"
    n_suspect = int(units.suspect.sum())
    return SetEvidence(
        outcome=outcome,
        p_value=p_value,
        effect=effect,
        false_positive_rate=check,
        order_p_value=order,
        blind=blind,
        alpha=alpha,
        statistic=statistic,
        permutations=permutations,
        n_suspect=n_suspect,
        n_heldout=units.suspect.size - n_suspect,
        sentence=_sentence(outcome, p_value, effect, check, blind) + _order_words(outcome, order),
    )


def _heldout_checks(
    values: Float[np.ndarray, " group"], alpha: float, generator: np.random.Generator
) -> tuple[Estimate, float]:
    """False alarms on random halves of the held-out records, and the p-value (two-sided) of their order."""
    half = np.arange(values.size) < values.size // 2
    alarms = 0
    for _ in range(SPLITS):
        split = Units(values, generator.permutation(half))
        alarms += permutation_p_value(split, permutations=SPLIT_PERMUTATIONS, generator=generator) <= alpha
    sides = (Units(values, half), Units(values, ~half))
    each = [permutation_p_value(side, permutations=999, generator=generator) for side in sides]
    return clopper_pearson(alarms, SPLITS), min(1.0, 2 * min(each))


def _sentence(
    outcome: Outcome, p_value: float | None, effect: Estimate, check: Estimate, blind: Estimate | None
) -> str:
    figures = f"AUC of suspect against held-out records {effect.estimate:.3f} [{effect.low:.3f}, {effect.high:.3f}]"
    if outcome == "shifted" and blind is not None:
        return (
            "Cannot be told from data shift: a baseline that never sees the model tells suspect from held-out records "
            "(AUC "
            f"{blind.estimate:.3f} [{blind.low:.3f}, {blind.high:.3f}]), so no p-value is given. {figures}."
        )
    if outcome == "unsound":
        return (
            f"The test alarms on held-out against held-out records ({100 * check.estimate:.1f} % of random halves): no "
            "p-value is given."
        )
    said = f"p = {p_value:.2g}, one-sided permutation test for one look at a sample size fixed beforehand"
    if outcome == "not_shown":
        return f"It could not be shown that the set was used ({said}). {figures}. This is no proof that it was not."
    caution = (
        " No blind baseline was given: that the two sets differ by themselves is not excluded."
        if blind is None
        else _hidden_shift(effect, blind)
    )
    return (
        f"The model was trained on this set, or on records like it more than on the held-out ones ({said}). "
        f"{figures}.{caution}"
    )


def _hidden_shift(effect: Estimate, blind: Estimate) -> str:
    """What the blind baseline leaves open."""
    if blind.high < effect.low:
        return ""
    return (
        f" The blind baseline (AUC {blind.estimate:.3f} [{blind.low:.3f}, {blind.high:.3f}]) found nothing, but a "
        "shift as large "
        "as the effect lies within its interval: more records would settle it."
    )


def _order_words(outcome: Outcome, order: float) -> str:
    if outcome != "used" or order > ORDER_LEVEL:
        return ""
    return (
        " Caution: the first and the second half of the held-out records, in the order given, differ too (p = "
        f"{order:.2g}); "
        "where that order is time or source, suspect records may differ from held-out ones in the same way."
    )


def blind_check(labelled: LabelledRecords, *, seed: int = 0) -> Estimate:
    """The blind baseline that comes nearest to telling the sets apart, for `dataset_inference(blind=…)`.

    labelled: member = suspect. Cross-validated AUC of every baseline of `repromia.blind` that these records can be
    asked, the interval widened for their number (Bonferroni); the one with the highest lower limit. Raises as
    `repromia.blind.cross_validated_auc` does.
    """
    from repromia.blind import baselines_for, cross_validated_auc

    names = baselines_for(labelled.records)
    return strongest_blind({name: cross_validated_auc(labelled, name, seed=seed) for name in names})


def strongest_blind(areas: Mapping[str, Estimate]) -> Estimate:
    """Of the cross-validated AUCs of blind baselines, with intervals widened for their number, the surest above .5."""
    found = [
        for_tests(one, len(areas)).model_copy(
            update={"method": f"blind baseline {name!r}, one of {len(areas)}: {one.method}"}
        )
        for name, one in areas.items()
    ]
    return max(found, key=lambda one: one.low)
