"""How robust a label is: the share of changed records that keep their class."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np

from repromia.attacks import Ask, attack
from repromia.signals import ClassSignals, Scores

CITATION = "Choquette-Choo et al. 2021 (label-only, arXiv 2007.14321)"


@attack(citation=CITATION, access="label", modality="classifier")
def noise_votes(
    plain: Annotated[ClassSignals, Ask("identity")],
    noisy: Annotated[tuple[ClassSignals, ...], Ask("noisy")],
    *,
    level: float = 0.05,
    draws: int = 10,
) -> Scores:
    """Share of noisy copies that are given the record's own class; of equal shares, the record that is itself
    classified rightly comes first."""
    return _share(noisy) + 0.5 / len(noisy) * _share([plain])


@attack(citation=CITATION, access="label", modality="classifier")
def augmentation_votes(variants: Annotated[tuple[ClassSignals, ...], Ask("augmented")]) -> Scores:
    """Share of the record and its augmentations that are given the record's own class."""
    return _share(variants)


def _share(answers: Sequence[ClassSignals]) -> Scores:
    return np.stack([one.predicted == one.label for one in answers]).mean(axis=0)
