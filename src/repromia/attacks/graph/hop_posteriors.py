"""A shadow model's answers with and without neighbours teach a network what members look like."""

from typing import Annotated

import numpy as np

from repromia.attacks import Ask, AskReferences, attack
from repromia.attacks.classifier._references import check_option, inside, network_log_odds, outside, scaled_logits
from repromia.signals import ClassSignals, ReferenceSignals, Scores


@attack(
    citation="Olatunji et al. 2021 (arXiv 2101.06570); He et al. 2021 (arXiv 2102.05429), on the own class",
    access="probabilities",
    kind="reference",
    needs=("shadows",),
    modality="graph",
)
def hop_posteriors(
    variants: Annotated[tuple[ClassSignals, ...], Ask("augmented")],
    references: Annotated[ReferenceSignals, AskReferences()],
    *,
    queries: str = "both",
    seed: int = 0,
) -> Scores:
    """Log-odds of membership by a network of 32 hidden units, learned on what every shadow model says of the nodes
    that it saw and did not see: log p and scaled logit of the own class.

    queries: whole (the whole graph), alone (0 hops) or both. The originals read all classes' posteriors, of which no
    more than the own class's is kept of a shadow model under both queries.
    """
    check_option("queries", queries, ("both", "whole", "alone"))
    inside(references)
    outside(references)
    kept = {"both": [0, 1], "whole": [0], "alone": [1]}[queries]
    ours, theirs = scaled_logits(variants, references, "all")
    logs = references.logprob[:, :, kept].astype(np.float64)
    learned = np.concatenate([logs, theirs[:, :, kept]], axis=2).reshape(-1, 2 * len(kept))
    own = np.concatenate([np.stack([variants[at].logprob for at in kept], axis=1), ours[:, kept]], axis=1)
    return network_log_odds(learned, references.inside.ravel(), own, seed)
