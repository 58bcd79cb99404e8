"""The margin against what a regressor expects of a record that the model was not trained on."""

from typing import Annotated

from repromia.attacks import Ask, attack
from repromia.signals import ClassSignals, ForecastSignals, Scores


@attack(
    citation="Bertran et al. 2023 (QMIA, arXiv 2307.03694), its normal model",
    access="probabilities",
    kind="head",
    needs=("labelled non-members",),
    modality="classifier",
)
def qmia(
    plain: Annotated[ClassSignals, Ask("identity")],
    forecast: Annotated[ForecastSignals, Ask("learned_forecast")],
    *,
    epochs: int = 20,
) -> Scores:
    """(margin - mean) / standard deviation, both forecast from the record itself by a small network that learned on
    the non-members of the fit role. No shadow model and no known member is needed."""
    return (plain.margin - forecast.mean) / forecast.spread
