"""A shadow model's answers with and without neighbours teach a network what members look like."""

import warnings
from typing import Annotated

import numpy as np
from jaxtyping import Bool, Float

from repromia.attacks import Ask, AskReferences, attack
from repromia.attacks.classifier._references import FLOOR, check_option, inside, outside, scaled_logits
from repromia.signals import ClassSignals, ReferenceSignals, Scores

ROWS = 20_000  # answers of shadow models to learn on


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
    more than the own class's is kept of a shadow model.
    """
    check_option("queries", queries, ("both", "whole", "alone"))
    inside(references)
    outside(references)
    kept = {"both": [0, 1], "whole": [0], "alone": [1]}[queries]
    ours, theirs = scaled_logits(variants, references, "all")
    logs = references.logprob[:, :, kept].astype(np.float64)
    learned = np.concatenate([logs, theirs[:, :, kept]], axis=2).reshape(-1, 2 * len(kept))
    own = np.concatenate([np.stack([variants[at].logprob for at in kept], axis=1), ours[:, kept]], axis=1)
    member = references.inside.ravel()
    order = np.lexsort((member, *learned.T))  # whatever the order of records and models
    learned, member = learned[order], member[order]
    centre, spread = learned.mean(axis=0), learned.std(axis=0)
    learned, own = ((one - centre) / np.where(spread > FLOOR, spread, 1.0) for one in (learned, own))
    return _log_odds(learned, member, own, seed)


def _log_odds(
    features: Float[np.ndarray, "row feature"],
    member: Bool[np.ndarray, " row"],
    asked: Float[np.ndarray, "record feature"],
    seed: int,
) -> Scores:
    from scipy.special import logit
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    rows = np.random.default_rng(seed).permutation(len(features))[:ROWS]
    network = MLPClassifier((32,), alpha=1e-3, learning_rate_init=1e-2, max_iter=30, random_state=seed)
    with warnings.catch_warnings():  # a fixed number of rounds is meant
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit(features[rows], member[rows])
    found: Scores = logit(network.predict_proba(asked)[:, 1].clip(1e-12, 1 - 1e-12))
    return found
