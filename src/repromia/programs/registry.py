"""Plans by name, as attacks refer to them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from repromia.errors import AttackError
from repromia.options import typed
from repromia.programs import Identity, Plan
from repromia.programs.context import Band, Chunks
from repromia.programs.edits import LowerCase, MaskedNeighbours, WordSwaps
from repromia.programs.embedding_noise import EmbeddingNoise
from repromia.programs.layers import Dropout, SkippedLayers
from repromia.programs.learned_prompt import LearnedSoftPrompt
from repromia.programs.own_text import GeneratedPrefix
from repromia.programs.prefixes import MemberShots, NonmemberShots
from repromia.programs.weights import NoiseAndRepair, WeightNoise

PLANS: dict[str, type[Any]] = {
    "identity": Identity,
    "lower_case": LowerCase,
    "word_swaps": WordSwaps,
    "masked_neighbours": MaskedNeighbours,
    "nonmember_shots": NonmemberShots,
    "member_shots": MemberShots,
    "generated_prefix": GeneratedPrefix,
    "band": Band,
    "chunks": Chunks,
    "embedding_noise": EmbeddingNoise,
    "skipped_layers": SkippedLayers,
    "dropout": Dropout,
    "weight_noise": WeightNoise,
    "noise_and_repair": NoiseAndRepair,
    "learned_soft_prompt": LearnedSoftPrompt,
}


def plans(modality: str) -> dict[str, type[Any]]:
    """The plans for a kind of model, by name."""
    if modality == "diffusion":
        from repromia.programs.diffusion import PLANS as DIFFUSION

        return DIFFUSION
    if modality == "classifier":
        from repromia.programs.classifier import PLANS as CLASSIFIER

        return CLASSIFIER
    if modality == "graph":
        from repromia.programs.graph import PLANS as GRAPH

        return GRAPH
    return PLANS


def plan_for(spec: str, options: dict[str, Any], modality: str = "language") -> Plan:
    """The plan `name/option=value/…`, with those of an attack's options that it knows. Raises AttackError."""
    name, *given = spec.split("/")
    known = plans(modality)
    if name not in known:
        raise AttackError(f"There is no program {name!r}.", expected=", ".join(known))
    kind = known[name]
    defaults = {one.name: one.default for one in fields(kind)}
    chosen = {key: value for key, value in options.items() if key in defaults}
    for part in given:
        key, _, value = part.partition("=")
        if key not in defaults:
            raise AttackError(
                f"The program {name!r} has no option {key!r}.",
                expected=", ".join(f"{key}={value!r}" for key, value in defaults.items()) or "no option",
            )
        chosen[key] = typed(f"{name}/{key}", value, defaults[key])
    plan: Plan = kind(**chosen)
    return plan
