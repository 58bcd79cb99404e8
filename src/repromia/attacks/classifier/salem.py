"""Shadow models teach a network how members look in the largest probabilities, whatever their classes."""

from typing import Annotated

import numpy as np

from repromia.attacks import Ask, AskReferences, attack
from repromia.attacks.classifier._references import inside, network_log_odds, outside
from repromia.errors import AttackError
from repromia.signals import ClassSignals, ReferenceSignals, Scores


@attack(
    citation="Salem et al. 2019 (ML-Leaks, arXiv 1806.01246), adversary 1",
    access="probabilities",
    kind="reference",
    needs=("shadows",),
    modality="classifier",
)
def salem(
    plain: Annotated[ClassSignals, Ask("identity")],
    references: Annotated[ReferenceSignals, AskReferences()],
    *,
    models: int = 0,
    seed: int = 0,
) -> Scores:
    """Log-odds of membership by a network of 32 hidden units, learned on the logarithms of the three largest
    probabilities that shadow models give to records that they saw and did not see. The record's class plays no part.

    models: how many shadow models teach it, from the first; 0: all. The original has one.
    """
    if models < 0:
        raise AttackError("The option models is at least 0.", found=str(models))
    inside(references)
    outside(references)
    kept = slice(models or None)
    learned = references.top[kept].astype(np.float64).reshape(-1, references.top.shape[2])
    return network_log_odds(learned, references.inside[kept].ravel(), plain.top.astype(np.float64), seed)
