"""WBC: in how many windows of text the target beats the reference."""

import numpy as np

from repromia.attacks import Plain, Reference, attack
from repromia.signals import Scores

WINDOWS = (2, 3, 4, 6, 9, 13, 18, 25, 32, 40)


@attack(citation="Chen et al. 2026 (WBC), arXiv 2601.02751", kind="reference", needs=("reference",))
def wbc(plain: Plain, base: Reference) -> Scores:
    """Mean over window lengths of the share of windows whose summed loss is lower under the target.

    Windows longer than the record are clamped to it.
    """
    change = plain.logprob.astype(np.float64) - base.logprob
    scores = np.empty(len(plain))
    for record in range(len(plain)):
        sums = np.concatenate([[0.0], np.cumsum(change[plain.offsets[record] : plain.offsets[record + 1]])])
        widths = [min(width, len(sums) - 1) for width in WINDOWS]
        scores[record] = np.mean([(sums[width:] - sums[:-width] > 0).mean() for width in widths])
    return scores
