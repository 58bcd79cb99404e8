"""SecMI_nns: the deviation of one deterministic step ahead and back, read pixel by pixel by a learned network."""

from typing import Annotated

import numpy as np

from repromia.attacks import Ask, attack
from repromia.signals import DenoiseSignals, Scores


@attack(
    citation="Duan et al. 2023 (arXiv 2302.01316), SecMI_nns",
    access="predicted noise",
    kind="head",
    needs=("labels",),
    modality="diffusion",
)
def secmi_nns(
    read: Annotated[DenoiseSignals, Ask("secmi_network")], *, t: str = "100", interval: int = 10, epochs: int = 15
) -> Scores:
    """Log-odds of membership, by a network that learned the maps of the fit role and stopped where select said.

    Its identity is SecMI_stat at the same timestep.
    """
    return -np.log(read.square).mean(axis=1)
