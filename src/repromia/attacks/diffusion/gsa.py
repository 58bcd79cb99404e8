"""GSA: how strongly a record would still move each weight tensor."""

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from jaxtyping import Float

from repromia.attacks import AskBank, BankRecipe, attack
from repromia.programs.gradients import TEN
from repromia.signals import GradientSignals

Features = Float[np.ndarray, "record feature"]


def statistics(options: dict[str, Any]) -> Callable[[Any, Any, bool], Features]:
    """Logarithms of the norms, of the tensors that move for some record."""

    def features(plain: GradientSignals, probed: GradientSignals, edited: bool) -> Features:
        moved = (plain.norms > 0).any(axis=0)
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

    An upper bound on what attacks on answers can reach: it reads how each of the model's weights would change, which
    nobody sees who is merely answered, and a gradient holds more of a record than the answer it is made from. The
    original learns XGBoost on shadow models and standardises by the records measured; here records of the target
    with known membership take the shadow models' place (see --transfer-from for a shadow model), and no measured
    record decides how another is read.
    """
    return bank
