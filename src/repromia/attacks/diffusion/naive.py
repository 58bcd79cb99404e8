"""The denoising loss."""

from typing import Annotated

from repromia.attacks import Ask, Variants, attack
from repromia.attacks.diffusion._variants import by_timestep
from repromia.signals import DenoiseSignals


@attack(
    citation="Matsumoto et al. 2023 (arXiv 2302.03262); as NaiveAttacker in SecMI",
    access="predicted noise",
    needs=("labels to choose t",),
    modality="diffusion",
)
def naive(
    noised: Annotated[DenoiseSignals, Ask("noised")], *, t: str = "10+50+100+150+200+300", draws: int = 3
) -> Variants:
    """Minus the squared error of the predicted noise, mean over `draws` fixed noises, by timestep."""
    return by_timestep(noised, -noised.square)
