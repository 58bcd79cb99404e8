"""Scores by timestep, from which select chooses."""

import numpy as np
from jaxtyping import Float

from repromia.attacks import Variants
from repromia.signals import DenoiseSignals


def by_timestep(signals: DenoiseSignals, values: Float[np.ndarray, "record evaluation"]) -> Variants:
    """A variant a timestep, draws averaged."""
    return Variants(tuple(f"t={t}" for t in signals.timesteps), signals.by_timestep(values))
