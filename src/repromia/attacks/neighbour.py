"""The text against slightly different texts."""

from typing import Annotated

import numpy as np

from repromia.attacks import Ask, Plain, attack
from repromia.signals import Scores, TokenSignals


@attack(citation="Mattern et al. 2023, arXiv 2305.18462", needs=("masked_model",), default=False)
def neighbour(
    plain: Plain,
    neighbours: Annotated[tuple[TokenSignals, ...], Ask("masked_neighbours")],
    *,
    masked_model: str = "",
    copies: int = 10,
    share: float = 0.1,
    top: int = 10,
) -> Scores:
    """LL(x) minus the mean LL of `copies` neighbours made by a masked language model."""
    others = np.mean([one.average(one.logprob) for one in neighbours], axis=0)
    return plain.average(plain.logprob) - others
