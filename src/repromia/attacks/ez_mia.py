"""EZ-MIA: gains against losses on the tokens that the target gets wrong."""

import numpy as np

from repromia.attacks import Plain, Reference, attack
from repromia.signals import Scores


@attack(
    citation="Ilić et al. 2026 (EZ-MIA), arXiv 2601.12104",
    access="full next-token distribution",
    kind="reference",
    needs=("reference",),
)
def ez_mia(plain: Plain, base: Reference, *, smoothing: float = 0.1) -> Scores:
    """log of summed gains over summed losses of log-probability against the reference, on mispredicted tokens.

    The published ratio is 0 (least member-like) for a record without any loss or without any error, which are the
    most memorised ones. Here both sums are smoothed, and a record without errors is scored on all its tokens.
    """
    change = plain.logprob.astype(np.float64) - base.logprob
    wrong = plain.rank > 0
    none_wrong = plain.total(wrong.astype(np.float64)) == 0
    counted = wrong | np.repeat(none_wrong, plain.lengths)
    gains = plain.total(np.where(counted, np.maximum(change, 0), 0.0))
    losses = plain.total(np.where(counted, np.maximum(-change, 0), 0.0))
    return np.log((gains + smoothing) / (losses + smoothing))
