"""PIA and PIAN: the model's own noise at the clean image as ground truth."""

from typing import Annotated

from repromia.attacks import Ask, Variants, attack
from repromia.attacks.diffusion._variants import by_timestep
from repromia.signals import DenoiseSignals

CITATION = "Kong et al. 2024 (arXiv 2305.18355)"


@attack(citation=CITATION, access="predicted noise", needs=("labels to choose t",), modality="diffusion")
def pia(own: Annotated[DenoiseSignals, Ask("own_noise")], *, t: str = "50+100+150+200+300") -> Variants:
    """Minus the mean fourth power of eps(x_0, 0) - eps(x_t, t), where x_t holds the noise eps(x_0, 0)."""
    return by_timestep(own, -own.fourth)


@attack(citation=CITATION, access="predicted noise", needs=("labels to choose t",), modality="diffusion")
def pian(own: Annotated[DenoiseSignals, Ask("own_noise_normalised")], *, t: str = "50+100+150+200+300") -> Variants:
    """PIA with eps(x_0, 0) scaled to the mean absolute value of a standard normal, sqrt(2 / pi)."""
    return by_timestep(own, -own.fourth)
