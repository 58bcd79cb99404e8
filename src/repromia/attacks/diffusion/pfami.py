"""PFAMI: how the loss changes from the image to its crops."""

from typing import Annotated

import numpy as np

from repromia.attacks import Ask, Variants, attack
from repromia.attacks.diffusion._variants import by_timestep
from repromia.signals import DenoiseSignals


@attack(
    citation="Fu et al. 2024 (arXiv 2308.12143), statistical score without reference model",
    access="predicted noise",
    needs=("labels to choose t",),
    modality="diffusion",
)
def pfami(
    noised: Annotated[DenoiseSignals, Ask("noised")],
    crops: Annotated[tuple[DenoiseSignals, ...], Ask("noised_crops")],
    *,
    t: str = "50+100+200",
    draws: int = 1,
    count: int = 5,
) -> Variants:
    """Mean relative rise of the loss under centre crops of 95 to 70 %, with the same noises as the image itself."""
    rise = np.mean([(one.square - noised.square) / noised.square for one in crops], axis=0)
    return by_timestep(noised, rise)
