"""The log-odds of the own class, of the record and of small changes of it."""

from typing import Annotated

import numpy as np

from repromia.attacks import Ask, attack
from repromia.signals import ClassSignals, Scores

CITATION = "Carlini et al. 2022 (LiRA, arXiv 2112.03570), its statistic without shadow models"


@attack(citation=CITATION, access="probabilities", modality="classifier")
def scaled_logit(plain: Annotated[ClassSignals, Ask("identity")]) -> Scores:
    """log p - log(1 - p): the order of the loss, with no ties where p is close to 1."""
    return plain.scaled_logit


@attack(citation=CITATION, access="probabilities", modality="classifier")
def augmented(variants: Annotated[tuple[ClassSignals, ...], Ask("augmented")]) -> Scores:
    """Mean scaled logit of the record and its augmentations (of what is no image: the record alone)."""
    return np.mean([one.scaled_logit for one in variants], axis=0)
