"""Con-ReCall: non-member text in front against member text in front."""

from typing import Annotated

from repromia.attacks import Ask, Plain, attack
from repromia.signals import Scores, TokenSignals


@attack(citation="Wang et al. 2025, arXiv 2409.03363", needs=("labels",))
def con_recall(
    plain: Plain,
    after_nonmembers: Annotated[TokenSignals, Ask("nonmember_shots")],
    after_members: Annotated[TokenSignals, Ask("member_shots")],
    *,
    shots: int = 12,
    gamma: float = 0.5,
) -> Scores:
    """(LL(x | non-members) - gamma LL(x | members)) / LL(x)."""
    outside = after_nonmembers.average(after_nonmembers.logprob)
    inside = after_members.average(after_members.logprob)
    return (outside - gamma * inside) / plain.average(plain.logprob)
