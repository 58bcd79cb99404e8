"""Min-K%: the least likely tokens of a member are not so unlikely."""

from repromia.attacks import Plain, attack
from repromia.signals import Scores


@attack(citation="Shi et al. 2024, arXiv 2310.16789")
def min_k(plain: Plain, *, k: float = 0.2) -> Scores:
    """Mean of the lowest max(1, floor(k n)) token log-probabilities, nats."""
    return plain.average_lowest(plain.logprob, k)
