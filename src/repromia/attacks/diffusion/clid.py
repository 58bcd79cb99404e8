"""CLiD: how much better the caption makes the prediction."""

from typing import Annotated

import numpy as np
from jaxtyping import Float

from repromia.attacks import Ask, Variants, attack
from repromia.signals import DenoiseSignals, Scores

ALPHAS = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)


@attack(
    citation="Zhai et al. 2024 (CLiD, arXiv 2405.14800)",
    access="predicted noise",
    needs=("captions", "labels to choose alpha"),
    modality="diffusion",
)
def clid(
    own: Annotated[DenoiseSignals, Ask("noised")],
    empty: Annotated[DenoiseSignals, Ask("noised_without_caption")],
    half: Annotated[DenoiseSignals, Ask("noised_with_half_caption")],
    *,
    t: str = "100+200+300+440",
    draws: int = 3,
    prompts: str = "own",
) -> Variants:
    """alpha * (loss under reduced captions - loss under the own) - (1 - alpha) * loss; both scaled by their spread.

    prompts=same gives every image the same caption and prompts=shuffled those of others: what is left then is not
    about the pairing of image and caption. The spread is the interquartile range over all records, without labels.
    """
    loss = own.square.mean(axis=1)
    reduced = np.mean([one.square.mean(axis=1) for one in (empty, half)], axis=0)
    parts = _scaled(reduced - loss), _scaled(-loss)
    scores = np.stack([alpha * parts[0] + (1 - alpha) * parts[1] for alpha in ALPHAS], axis=1)
    return Variants(tuple(f"alpha={alpha}" for alpha in ALPHAS), scores)


def _scaled(values: Scores) -> Float[np.ndarray, " record"]:
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    return (values - middle) / max(high - low, 1e-12)
