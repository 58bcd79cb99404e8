"""The loss, calibrated by how hard the record is for models that did not see it."""

from typing import Annotated

import numpy as np

from repromia.attacks import Ask, AskReferences, attack
from repromia.attacks.classifier._references import outside
from repromia.signals import ClassSignals, ReferenceSignals, Scores


@attack(
    citation="Watson et al. 2022 (arXiv 2111.08440)",
    access="probabilities",
    kind="reference",
    needs=("reference",),
    modality="classifier",
)
def watson(
    plain: Annotated[ClassSignals, Ask("identity")], references: Annotated[ReferenceSignals, AskReferences()]
) -> Scores:
    """log p of the own class minus its mean over the models that did not see the record."""
    saw_not = outside(references)
    logs = np.where(saw_not, references.logprob[:, :, 0], 0.0).astype(np.float64)
    return plain.logprob - logs.sum(axis=0) / saw_not.sum(axis=0)
