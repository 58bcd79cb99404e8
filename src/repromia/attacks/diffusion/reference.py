"""The denoising loss, calibrated by a model that did not see the records."""

from typing import Annotated

import numpy as np

from repromia.attacks import Ask, Variants, attack
from repromia.attacks.diffusion._variants import by_timestep
from repromia.signals import DenoiseSignals


@attack(
    citation="Watson et al. 2022 (arXiv 2111.08440), on the denoising loss",
    access="predicted noise",
    kind="reference",
    needs=("reference", "labels to choose t"),
    modality="diffusion",
)
def reference(
    noised: Annotated[DenoiseSignals, Ask("noised")],
    theirs: Annotated[DenoiseSignals, Ask("noised", of="reference")],
    *,
    t: str = "10+50+100+150+200+300",
    draws: int = 3,
) -> Variants:
    """log loss of the reference minus log loss of the target under the same noises, by timestep."""
    return by_timestep(noised, np.log(np.maximum(theirs.square, 1e-30)) - np.log(np.maximum(noised.square, 1e-30)))
