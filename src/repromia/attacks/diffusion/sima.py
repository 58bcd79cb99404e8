"""SimA: the clean image, asked as if it were noisy."""

from typing import Annotated

from repromia.attacks import Ask, Variants, attack
from repromia.attacks.diffusion._variants import by_timestep
from repromia.signals import DenoiseSignals


@attack(
    citation="Rao et al. 2025 (SimA, arXiv 2509.25003)",
    access="predicted noise",
    needs=("labels to choose t",),
    modality="diffusion",
)
def sima(clean: Annotated[DenoiseSignals, Ask("identity")], *, t: str = "0+10+30+50+80+120+160+200") -> Variants:
    """Minus the mean fourth power of eps(x_0, t)."""
    return by_timestep(clean, -clean.fourth)
