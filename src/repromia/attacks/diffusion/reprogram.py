"""ReproMIA: ask the frozen denoiser with something learned added."""

from typing import Annotated

from repromia.attacks import Ask, attack
from repromia.attacks.diffusion.shift_contrast import strength
from repromia.signals import DenoiseSignals, Scores


@attack(
    citation="ReproMIA, arXiv 2603.28942 (withdrawn); contrast: this project",
    access="weights (gradients to learn), predicted noise (to score)",
    kind="reprogrammed",
    needs=("labels",),
    modality="diffusion",
)
def reprogram(
    plain: Annotated[DenoiseSignals, Ask("unperturbed")],
    probed: Annotated[DenoiseSignals, Ask("learned_perturbation")],
    *,
    where: str = "input",
    recipe: str = "contrast",
    bound: float = 16.0,
    t: str = "50+160",
    steps: int = 20,
    per_class: int = 100,
    program: str = "",
    restarts: int = 1,
) -> Scores:
    """contrast: 2 s(x) - s(x under delta); paper: s(x under delta); s = -log of the mean squared deviation.

    where: delta is added to the image (input), to the state on the deterministic DDIM path (state: trajectory
    deviation, as in the paper), or replaces the drawn noise (noise). With the identity chosen on select, the score
    is s(x) itself.
    """
    own, changed = strength(plain).mean(axis=1), strength(probed).mean(axis=1)
    return 2 * own - changed if recipe == "contrast" else changed
