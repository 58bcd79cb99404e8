"""The own class against the best other one."""

from typing import Annotated

from repromia.attacks import Ask, attack
from repromia.signals import ClassSignals, Scores


@attack(
    citation="Bertran et al. 2023 (arXiv 2307.03694), their score without the quantile model",
    access="probabilities",
    modality="classifier",
)
def margin(plain: Annotated[ClassSignals, Ask("identity")]) -> Scores:
    """log p of the own class minus the largest log p of another class."""
    return plain.margin
