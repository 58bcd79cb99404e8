"""ReproMIA on classifiers: the contrast to a learned change of the input, of texts to a soft prompt."""

from typing import Annotated

from repromia.attacks import Ask, attack
from repromia.signals import ClassSignals, Scores, sureness


@attack(
    citation="ReproMIA (arXiv 2603.28942)",
    access="gradients; or scores; or labels alone",
    kind="reprogrammed",
    needs=("labels",),
    modality="classifier",
)
def reprogram(
    plain: Annotated[tuple[ClassSignals, ...], Ask("votes")],
    probed: Annotated[tuple[ClassSignals, ...], Ask("learned_overlay")],
    *,
    where: str = "additive",
    bound: float = 16.0,
    recipe: str = "contrast",
    answers: str = "scores",
    optimiser: str = "auto",
    steps: int = 20,
    rate: float = 0.3,
    per_class: int = 200,
    budget: int = 0,
    program: str = "",
    length: int = 8,
    per_label: bool = False,
    restarts: int = 1,
) -> Scores:
    """2 s(x) - s(changed x) (recipe=contrast) or s(changed x) (recipe=paper); options as of `LearnedOverlay`."""
    return 2 * sureness(plain) - sureness(probed) if recipe == "contrast" else sureness(probed)
