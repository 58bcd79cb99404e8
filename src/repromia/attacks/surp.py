"""SURP: surprising tokens where the model was sure of itself."""

import numpy as np

from repromia.attacks import Plain, attack
from repromia.signals import Scores


@attack(citation="Zhang and Wu 2024 (SURP), arXiv 2407.21248", access="full next-token distribution")
def surp(plain: Plain, *, k: float = 0.4, entropy: float = 2.0) -> Scores:
    """Mean log-probability of tokens among the record's lowest share `k` where the entropy is below `entropy` nats.

    A record without such a token gets the mean of its lowest share: neither evidence for nor against.
    """
    lowest = plain.average_lowest(plain.logprob, k)
    kept = np.maximum(1, np.floor(k * plain.lengths + 1e-9)).astype(np.int64)
    cut = plain.ordered(plain.logprob)[plain.offsets[:-1] + kept - 1]
    surprising = (plain.logprob <= np.repeat(cut, plain.lengths)) & (-plain.mean < entropy)
    count = plain.total(surprising.astype(np.float64))
    total = plain.total(np.where(surprising, plain.logprob, 0.0))
    return np.where(count > 0, total / np.maximum(count, 1), lowest)
