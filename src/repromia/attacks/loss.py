"""Loss: members are predicted better."""

from repromia.attacks import Plain, attack
from repromia.signals import Scores


@attack(citation="Yeom et al. 2018, arXiv 1709.01604")
def loss(plain: Plain) -> Scores:
    """Mean log-probability per token, nats."""
    return plain.average(plain.logprob)
