"""PAC: the spread between easy and hard tokens, against word-swapped copies."""

from typing import Annotated

import numpy as np

from repromia.attacks import Ask, Plain, attack
from repromia.signals import Scores, TokenSignals


@attack(citation="Ye et al. 2024 (PAC), arXiv 2405.11930")
def pac(
    plain: Plain,
    swapped: Annotated[tuple[TokenSignals, ...], Ask("word_swaps")],
    *,
    copies: int = 10,
    share: float = 0.3,
    high: float = 0.05,
    low: float = 0.3,
) -> Scores:
    """Mean polarised distance of the copies minus that of the text.

    Polarised distance: mean of the highest share `high` of log-probabilities minus mean of the lowest share `low`.
    """

    def distance(signals: TokenSignals) -> Scores:
        return signals.average_highest(signals.logprob, high) - signals.average_lowest(signals.logprob, low)

    return np.mean([distance(one) for one in swapped], axis=0) - distance(plain)
