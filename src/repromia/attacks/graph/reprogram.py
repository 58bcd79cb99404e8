"""ReproMIA on graph models: the contrast to a learned prompt on the nodes' features."""

from typing import Annotated

from repromia.attacks import Ask, attack
from repromia.signals import ClassSignals, Scores


@attack(
    citation="ReproMIA (arXiv 2603.28942); prompts of Fang et al. 2023 (GPF, arXiv 2209.15240)",
    access="gradients",
    kind="reprogrammed",
    needs=("labels",),
    modality="graph",
)
def reprogram(
    plain: Annotated[ClassSignals, Ask("identity")],
    probed: Annotated[ClassSignals, Ask("learned_feature_prompt")],
    *,
    prompts: int = 1,
    bound: float = 0.5,
    recipe: str = "contrast",
    steps: int = 40,
    rate: float = 0.1,
    per_class: int = 500,
    program: str = "",
    restarts: int = 1,
) -> Scores:
    """2 s(x) - s(prompted x) (recipe=contrast) or s(prompted x) (recipe=paper), s the scaled logit; options as of
    `LearnedFeaturePrompt`. prompts=1 is GPF, more are GPF-plus."""
    return 2 * plain.scaled_logit - probed.scaled_logit if recipe == "contrast" else probed.scaled_logit
