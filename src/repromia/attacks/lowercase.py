"""How much lower case hurts."""

from typing import Annotated

from repromia.attacks import Ask, Plain, attack
from repromia.signals import Scores, TokenSignals


@attack(citation="Carlini et al. 2021, arXiv 2012.07805")
def lowercase(plain: Plain, lowered: Annotated[TokenSignals, Ask("lower_case")]) -> Scores:
    """Loss of the lower-cased text over loss of the text (record statistics: the tokens differ)."""
    return lowered.average(lowered.logprob) / plain.average(plain.logprob)
