"""RMIA: how the record's likelihood ratio compares with those of a population."""

from typing import Annotated

import numpy as np
from jaxtyping import Float

from repromia.attacks import Ask, AskReferences, Variants, attack
from repromia.attacks.classifier._references import inside, log_mean, outside
from repromia.errors import AttackError
from repromia.signals import ClassSignals, ReferenceSignals, Scores

CITATION = "Zarifzadeh et al. 2024 (RMIA, arXiv 2312.03262)"
Ratios = Float[np.ndarray, " record"]


@attack(
    citation=CITATION,
    access="probabilities",
    kind="reference",
    needs=("reference", "labels to choose a"),
    modality="classifier",
)
def rmia(
    plain: Annotated[ClassSignals, Ask("identity")],
    references: Annotated[ReferenceSignals, AskReferences()],
    *,
    a: str = "0+0.25+0.5+0.75+1",
    gamma: float = 1.0,
    queries: str = "all",
) -> Variants:
    """Share of a population whose ratio p / P is at most 1 / gamma of the record's, by a.

    P = (1 + a) / 2 * mean p of models that did not see the record + (1 - a) / 2, which stands for what models that
    saw it would add. The population is all records that are scored, without their labels. Of records with equal
    shares the one with the larger ratio comes first, by less than the smallest step of a share. queries: the mean p is
    over augmentations too (all), or of the plain record.
    """
    rest = log_mean(references, outside(references), queries)
    values = _parsed(a)
    with np.errstate(divide="ignore"):  # a=1: nothing is added
        ratios = [
            plain.logprob - np.logaddexp(np.log((1 + one) / 2) + rest, np.log((1 - one) / 2)) for one in values.values()
        ]
    return Variants(tuple(f"a={name}" for name in values), np.stack([_scores(one, gamma) for one in ratios], axis=1))


@attack(citation=CITATION, access="probabilities", kind="reference", needs=("shadows",), modality="classifier")
def rmia_online(
    plain: Annotated[ClassSignals, Ask("identity")],
    references: Annotated[ReferenceSignals, AskReferences()],
    *,
    gamma: float = 1.0,
    queries: str = "plain",
) -> Scores:
    """RMIA where P is half the mean p of models that saw the record and half that of those that did not."""
    sides = [log_mean(references, saw, queries) for saw in (inside(references), outside(references))]
    return _scores(plain.logprob - (np.logaddexp(*sides) - np.log(2)), gamma)


def rmia_share(
    ratios_x: Float[np.ndarray, " record"], ratios_z: Float[np.ndarray, " population"], gamma: float = 1.0
) -> Scores:
    """Share of the population z with ratio_x >= gamma * ratio_z, by search among the sorted: no matrix is built."""
    below = np.searchsorted(np.sort(ratios_z), ratios_x / gamma, side="right")
    return below / len(ratios_z)


def _scores(logs: Ratios, gamma: float) -> Scores:
    if not gamma > 0:
        raise AttackError("The option gamma must be positive.", found=f"{gamma}")
    ratios = np.exp(np.clip(logs, -700, 700))
    order = 0.5 + 0.25 * logs / (1 + np.abs(logs))  # rises with the ratio, within (0, 1)
    return rmia_share(ratios, ratios, gamma) + order / len(logs)


def _parsed(a: str) -> dict[str, float]:
    try:
        values = {name: float(name) for name in a.split("+")}
    except ValueError:
        values = {}
    if not values or not all(0 <= one <= 1 for one in values.values()):
        raise AttackError("The option a cannot be read.", expected="numbers from 0 to 1, such as 0+0.5+1", found=a)
    return values
