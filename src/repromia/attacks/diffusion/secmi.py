"""SecMI: the error of one deterministic step ahead and back."""

from typing import Annotated

from repromia.attacks import Ask, Variants, attack
from repromia.attacks.diffusion._variants import by_timestep
from repromia.signals import DenoiseSignals


@attack(
    citation="Duan et al. 2023 (arXiv 2302.01316), SecMI_stat",
    access="predicted noise",
    needs=("labels to choose t",),
    modality="diffusion",
)
def secmi_stat(
    path: Annotated[DenoiseSignals, Ask("inverted")], *, t: str = "50+100+150+200", interval: int = 10
) -> Variants:
    """Minus the squared distance between the DDIM path at t - interval and the same point after a step to t and back.

    The published t_SEC = 100 at interval 10 compares at t = 90 <-> 100, which is t=100 here.
    """
    return by_timestep(path, -path.square)
