"""The loss on the record's own class."""

from typing import Annotated

from repromia.attacks import Ask, attack
from repromia.signals import ClassSignals, Scores


@attack(citation="Yeom et al. 2018 (arXiv 1709.01604)", access="probabilities", modality="classifier")
def loss(plain: Annotated[ClassSignals, Ask("identity")]) -> Scores:
    """log p of the record's own class: minus the cross-entropy."""
    return plain.logprob
