"""Whether the classifier is right: all that its label alone tells of the plain record."""

from typing import Annotated

import numpy as np

from repromia.attacks import Ask, attack
from repromia.signals import ClassSignals, Scores


@attack(citation="Yeom et al. 2018 (arXiv 1709.01604), the gap attack", access="label", modality="classifier")
def correctness(plain: Annotated[ClassSignals, Ask("identity")]) -> Scores:
    """1 where the predicted class is the record's own, else 0."""
    return (plain.predicted == plain.label).astype(np.float64)
