"""Was this dataset used, asked again and again while suspect records come in.

A p-value that is looked at after every batch alarms far more often than its level. An e-value does not: a game starts
with a stake of 1, bets on each new rank, and is fair if suspects and held-out records are exchangeable; reaching 1 /
alpha at any time, at whatever moment one chooses to stop, has a chance of at most alpha (Ville 1939). The bets are on
conformal p-values, which are then independent and uniform (Vovk 2021, "Testing randomness online", Statistical Science
36, arXiv 1906.09256).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp

from repromia.dataset_inference import units_of
from repromia.result import Estimate

# Fixed bets, a share of the stake on each, so that their mean wealth is a fair game too. Straight lines win on small
# shifts of all records; powers (Vovk, Nouretdinov & Gammerman 2003) on a few records that stand out far.
LINES = (0.1, 0.2, 0.4, 0.8)
POWERS = (0.9, 0.8, 0.6, 0.4)


@dataclass(frozen=True)
class SequentialEvidence:
    """Evidence after each suspect group, in order of arrival; valid whenever one stops.

    e_values: the stake's worth after each, 1 at the start; near or below 1 is no evidence. crossed_at: number of
    suspect groups at which it first reached 1 / alpha, None if never. p_value: 1 over the highest worth so far, at most
    1. All None or empty where refused.
    """

    e_values: Float[np.ndarray, " step"]
    crossed_at: int | None
    p_value: float | None
    alpha: float
    sentence: str


def sequential_evidence(
    suspect: Float[np.ndarray, " suspect"],
    heldout: Float[np.ndarray, " record"],
    *,
    groups: tuple[Sequence[str], Sequence[str]] | None = None,
    blind: Estimate | None = None,
    alpha: float = 0.05,
    seed: int = 0,
) -> SequentialEvidence:
    """Betting against "suspect records score like held-out ones" (one-sided), record after record.

    suspect: scores in order of arrival, which must not depend on the scores. heldout: scores of held-out records, fixed
    before the first look. groups: of both; a group is one observation, its mean, and arrives whole. With the same seed,
    held-out records and first suspects, the first e-values are the same, however many more have come in since. blind:
    as in `dataset_inference`.

    Each suspect's p-value is its smoothed rank among the held-out records and all earlier suspects. Raises as
    `units_of` does.
    """
    scores = np.concatenate([suspect, heldout])
    names = None if groups is None else [*groups[0], *groups[1]]
    units = units_of(scores, np.arange(scores.size) < suspect.size, names)
    if blind is not None and blind.low > 0.5:
        sentence = (
            "Cannot be told from data shift: a baseline that never sees the model tells suspect from held-out records "
            "(AUC "
            f"{blind.estimate:.3f} [{blind.low:.3f}, {blind.high:.3f}])."
        )
        return SequentialEvidence(np.zeros(0), None, None, alpha, sentence)
    ranks = _smoothed_ranks(units.values[units.suspect], units.values[~units.suspect], seed)
    bets = [np.log1p(line * (1 - 2 * ranks)) for line in LINES]
    bets += [np.log(power) + (power - 1) * np.log(ranks) for power in POWERS]
    worth = np.exp(np.minimum(logsumexp(np.cumsum(bets, axis=1), axis=0) - np.log(len(bets)), 700.0))
    reached = np.flatnonzero(worth >= 1 / alpha)
    crossed = int(reached[0]) + 1 if reached.size else None
    highest = float(worth.max())
    return SequentialEvidence(worth, crossed, min(1.0, 1 / highest), alpha, _sentence(worth, crossed, alpha, blind))


def _smoothed_ranks(
    suspect: Float[np.ndarray, " suspect"], heldout: Float[np.ndarray, " record"], seed: int
) -> Float[np.ndarray, " suspect"]:
    """Conformal p-values in (0, 1], small for high scores; ties are broken by lot."""
    seen = sorted(heldout.tolist())
    lots = 1 - np.random.default_rng(seed).random(suspect.size)  # never 0: its logarithm is taken
    ranks = np.empty(suspect.size)
    for at, score in enumerate(suspect.tolist()):
        above = len(seen) - bisect_right(seen, score)
        equal = len(seen) - above - bisect_left(seen, score)
        ranks[at] = (above + lots[at] * (equal + 1)) / (len(seen) + 1)
        insort(seen, score)
    return ranks


def _sentence(worth: Float[np.ndarray, " step"], crossed: int | None, alpha: float, blind: Estimate | None) -> str:
    caution = "" if blind is not None else " No blind baseline was given: a difference of the data is not excluded."
    if crossed is None:
        return (
            f"After {worth.size} suspect records it could not be shown that the set was used: the e-value is "
            f"{worth[-1]:.3g}, highest {worth.max():.3g}; {1 / alpha:.4g} is needed. More records may be added."
        )
    return (
        f"The model was trained on this set, or on records like it more than on the held-out ones: the e-value reached "
        f"{1 / alpha:.4g} at suspect record {crossed} (now {worth[-1]:.3g}), which happens in at most {alpha:.4g} of "
        "sets that "
        f"were not used, whenever one stops.{caution}"
    )
