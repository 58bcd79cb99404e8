"""GSA: how strongly a record would still move each weight tensor."""

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from jaxtyping import Float

from repromia.attacks import AskBank, BankRecipe, attack
from repromia.programs import TEN
from repromia.signals import GradientSignals

Features = Float[np.ndarray, "record feature"]


def statistics(options: dict[str, Any]) -> Callable[[Any, Any, bool], Features]:
    """Logarithms of the norms, of the tensors that move at all.

    Others see no gradient, or one that is 0 but for rounding (biases that a softmax or a normalisation takes out).
    """

    def features(plain: GradientSignals, probed: GradientSignals, edited: bool) -> Features:
        largest = plain.norms.max(axis=0)
        moved = largest > 1e-6 * largest.max()
        return np.log(np.maximum(probed.norms[:, moved], 1e-30))

    return features


@attack(
    citation="Pang et al. 2023 (GSA, arXiv 2308.06405), GSA1",
    access="weights (gradients): an upper bound",
    kind="head",
    needs=("labels",),
    default=False,
    modality="diffusion",
    bank=BankRecipe(lambda options: ("gradients",), statistics, {}, plain="gradients", beside_passive=False),
)
def gsa(bank: Annotated[Features, AskBank()], *, t: str = TEN) -> Features:
    """Log norms of the denoising loss's gradient, one a weight tensor, for a logistic head fitted on the fit role.

    An upper bound of access: it reads how each weight would change, which nobody sees who is merely answered, so it
    says what a leaked checkpoint gives away and is no rival of the other rows. The figure itself is bounded by the
    labels: with a few dozen fit records a head on a hundred tensors can stay below the plain loss. The
    original learns XGBoost on shadow models and standardises by the records measured; here records of the target
    with known membership take the shadow models' place (one can be carried over: --transfer-from), and the features
    are standardised by the fit role.
    """
    return bank
