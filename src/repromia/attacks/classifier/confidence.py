"""How sure the classifier is, of whichever class."""

from typing import Annotated

import numpy as np

from repromia.attacks import Ask, attack
from repromia.signals import ClassSignals, Scores


@attack(citation="Salem et al. 2019 (ML-Leaks, arXiv 1806.01246)", access="probabilities", modality="classifier")
def confidence(plain: Annotated[ClassSignals, Ask("identity")]) -> Scores:
    """log p of the most probable class; the record's own class plays no part."""
    return plain.logprobs.max(axis=1).astype(np.float64)
