"""Min-K%++: token log-probabilities in units of what the model itself expected."""

import numpy as np

from repromia.attacks import Plain, attack
from repromia.signals import Scores


@attack(citation="Zhang et al. 2024, arXiv 2404.02936, eq. 3", access="full next-token distribution")
def min_k_plus_plus(plain: Plain, *, k: float = 0.2) -> Scores:
    """Mean of the lowest max(1, floor(k n)) of (log p - mean) / std, moments under the model's distribution."""
    z = (plain.logprob - plain.mean) / np.maximum(plain.std, 1e-4)
    return plain.average_lowest(z, k)
