"""Gap-K%: distance to the model's own first choice, smoothed over neighbouring tokens."""

import numpy as np

from repromia.attacks import Plain, attack
from repromia.signals import Scores


@attack(citation="Kwak and Kim 2026 (Gap-K%), arXiv 2601.19936", access="full next-token distribution")
def gap_k(plain: Plain, *, k: float = 0.2, window: int = 3) -> Scores:
    """Mean of the lowest share `k` of the moving averages (over `window` tokens) of (log p - max log p) / std."""
    gap = (plain.logprob - plain.top_logprob).astype(np.float64) / np.maximum(plain.std, 1e-4)
    scores = np.empty(len(plain))
    for record in range(len(plain)):
        own = gap[plain.offsets[record] : plain.offsets[record + 1]]
        width = min(window, len(own))
        smooth = np.convolve(own, np.full(width, 1 / width), mode="valid")
        kept = max(1, int(k * len(smooth) + 1e-9))
        scores[record] = np.partition(smooth, kept - 1)[:kept].mean()
    return scores
