"""DC-PDD: token probabilities against how common the tokens are."""

from typing import Annotated

import numpy as np

from repromia.attacks import Fact, Plain, attack
from repromia.frequencies import TokenFrequencies
from repromia.signals import Scores


@attack(
    citation="Zhang et al. 2024 (DC-PDD), arXiv 2409.14781",
    access="log-probabilities, tokenizer",
    needs=("labelled non-members or a corpus",),
)
def dc_pdd(
    plain: Plain,
    frequencies: Annotated[TokenFrequencies, Fact("token_frequencies")],
    *,
    ceiling: float = 0.01,
    corpus: str = "",
) -> Scores:
    """Mean over each token's first occurrence of min(p log(1 / f), ceiling), f the token's frequency.

    f comes from `corpus` (a text file) or from the non-members of the fit role, with Laplace smoothing.
    """
    _, first = np.unique(np.stack([plain.record_of_token, plain.token]), axis=1, return_index=True)
    occurs_first = np.zeros(len(plain.token), dtype=bool)
    occurs_first[first] = True
    surprise = -np.log(frequencies.share[plain.token])
    value = np.minimum(np.exp(plain.logprob.astype(np.float64)) * surprise, ceiling)
    return plain.total(np.where(occurs_first, value, 0.0)) / plain.total(occurs_first.astype(np.float64))
