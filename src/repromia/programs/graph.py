"""Plans for graph models by name."""

from __future__ import annotations

from typing import Any

from repromia.programs.classifier_copies import NoiseAndRepair
from repromia.programs.feature_prompt import LearnedFeaturePrompt
from repromia.programs.graph_queries import (
    DroppedEdges,
    HiddenSelf,
    Hops,
    MaskedFeatures,
    NoisyFeatures,
    NoisyNeighbours,
)
from repromia.programs.graph_samples import SampledGraphs
from repromia.programs.queries import Augmented, Query

PLANS: dict[str, type[Any]] = {
    "identity": Query,
    "augmented": Augmented,
    "learned_feature_prompt": LearnedFeaturePrompt,
    "noise_and_repair": NoiseAndRepair,
    "hops": Hops,
    "masked_features": MaskedFeatures,
    "dropped_edges": DroppedEdges,
    "noisy": NoisyFeatures,
    "noisy_neighbours": NoisyNeighbours,
    "hidden_self": HiddenSelf,
    "sampled_graphs": SampledGraphs,
}
