"""The shift contrast: what the model knows of this image and not of the same image one pixel further."""

from typing import Annotated

import numpy as np
from jaxtyping import Float

from repromia.attacks import Ask, attack
from repromia.signals import DenoiseSignals, Scores


@attack(
    citation="this project (docs/results/diffusion.md)",
    access="predicted noise",
    kind="reprogrammed",
    modality="diffusion",
)
def shift_contrast(
    plain: Annotated[DenoiseSignals, Ask("identity")],
    shifted: Annotated[tuple[DenoiseSignals, ...], Ask("shifts")],
    *,
    t: str = "50+160",
    far: float = 1.0,
) -> Scores:
    """s(x) minus its mean over x moved by `far` pixels in four directions, mean over t; s = -log mean eps(x, t)^2."""
    return (strength(plain) - np.mean([strength(one) for one in shifted], axis=0)).mean(axis=1)


def strength(signals: DenoiseSignals) -> Float[np.ndarray, "record evaluation"]:
    """-log of the mean squared predicted noise of a clean image: how clean the model takes it to be."""
    return -np.log(np.maximum(signals.square, 1e-30))
