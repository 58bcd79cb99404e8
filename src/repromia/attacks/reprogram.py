"""ReproMIA: ask the frozen model behind a learned prompt."""

from typing import Annotated

from repromia.attacks import Ask, Plain, attack
from repromia.signals import Scores, TokenSignals


@attack(
    citation="ReproMIA, arXiv 2603.28942 (withdrawn); forgetting prompt: this project",
    access="weights (gradients to learn), log-probabilities (to score)",
    kind="reprogrammed",
    needs=("labels",),
)
def reprogram(
    plain: Plain,
    prompted: Annotated[TokenSignals, Ask("learned_soft_prompt")],
    *,
    recipe: str = "forgetting",
    length: int = 0,
    steps: int = 0,
    step_size: float = 0.0,
    initialisation: str = "",
    bound: float = 0.0,
    restarts: int = 1,
    per_class: int = 0,
    program: str = "",
) -> Scores:
    """forgetting: 2 LL(x) - LL(x | prompt); paper: mean of the lowest 20 % of log p(x | prompt).

    With the identity chosen on select, these are the loss and Min-K% scores themselves.
    """
    if recipe == "forgetting":
        return 2 * plain.average(plain.logprob) - prompted.average(prompted.logprob)
    return prompted.average_lowest(prompted.logprob, 0.2)
