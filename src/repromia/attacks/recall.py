"""ReCaLL: non-member text in front hurts members more."""

from typing import Annotated

from repromia.attacks import Ask, Plain, attack
from repromia.signals import Scores, TokenSignals


@attack(citation="Xie et al. 2024, arXiv 2406.15968", needs=("labelled non-members",))
def recall(plain: Plain, prefixed: Annotated[TokenSignals, Ask("nonmember_shots")], *, shots: int = 12) -> Scores:
    """LL(x | non-member shots) / LL(x), the same tokens in both."""
    return prefixed.average(prefixed.logprob) / plain.average(plain.logprob)
