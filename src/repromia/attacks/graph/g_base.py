"""G-BASE: BASE on graphs, over graphs that the model may have been trained on."""

from typing import Annotated

import numpy as np
from scipy.special import log_expit, logsumexp

from repromia.attacks import Ask, AskReferences, attack
from repromia.attacks.classifier._references import check_option, inside, outside
from repromia.signals import GainSignals, ReferenceGains, Scores


@attack(
    citation="Lassila et al. 2025 (G-BASE, arXiv 2505.24089)",
    access="probabilities",
    kind="reference",
    needs=("shadows",),
    default=False,
    modality="graph",
)
def g_base(
    gains: Annotated[GainSignals, Ask("sampled_graphs")],
    references: Annotated[ReferenceGains, AskReferences("sampled_graphs")],
    *,
    models: str = "all",
    scale: float = 1.0,
    draws: int = 4,
    share: float = 0.5,
    far: int = 4,
    sampled: str = "base",
) -> Scores:
    """Log-odds of the mean over drawn graphs of the logistic function of: gain - scale * log of the models' mean
    exp(gain); the gain is what the node's being there adds to the log-likelihood of the classes around it.

    models: all (online), or those that did not see the record (outside: the offline attack). draws, share, far,
    sampled: as of `SampledGraphs`. Shadow models are trained once more for it.
    """
    check_option("models", models, ("all", "outside"))
    saw = outside(references)
    if models == "all":
        saw = saw | inside(references)
    logs = np.where(saw[:, :, None], references.gain, -np.inf)
    mean = logsumexp(logs, axis=0) - np.log(saw.sum(axis=0))[:, None]
    odds = gains.gain - scale * mean
    found: Scores = logsumexp(log_expit(odds), axis=1) - logsumexp(log_expit(-odds), axis=1)
    return found
