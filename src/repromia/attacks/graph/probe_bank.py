"""A bank of fixed queries of a graph read by one small head."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from jaxtyping import Float

from repromia.attacks import AskBank, BankRecipe, attack
from repromia.attacks.classifier.probe_bank import statistics
from repromia.errors import AttackError

Features = Float[np.ndarray, "record feature"]

PRESETS: dict[str, tuple[str, ...]] = {
    "small": ("hops/far=0", "hops/far=1", "masked_features", "dropped_edges", "noisy_neighbours", "hidden_self"),
    "full": (
        *("hops/far=0", "hops/far=1", "hops/far=2", "hidden_self", "hidden_self/far=1"),
        *("masked_features/share=0.2/draws=4", "masked_features/share=0.5/draws=4"),
        *("dropped_edges/share=0.3/draws=4", "dropped_edges/share=0.7/draws=4"),
        *("noisy_neighbours/draws=4", "noisy/draws=4"),
    ),
}


def specs(options: dict[str, Any]) -> tuple[str, ...]:
    """The programs that the options name. Raises AttackError."""
    if options["programs"]:
        return tuple(dict.fromkeys(options["programs"].split("+")))
    if options["preset"] not in PRESETS:
        raise AttackError(f"There is no preset {options['preset']!r}.", expected=", ".join(PRESETS))
    return PRESETS[options["preset"]]


@attack(
    citation="this project (docs/results/graphs.md)",
    access="probabilities; or labels alone",
    kind="reprogrammed",
    needs=("labels",),
    modality="graph",
    bank=BankRecipe(specs, statistics, {}),
)
def probe_bank(bank: Annotated[Features, AskBank()], *, preset: str = "small", programs: str = "") -> Features:
    """Scaled logits under each program beside the passive scores, for a logistic head.

    preset: small (9 answers a node) or full (29). programs: another bank, such as
    `hops/far=0+dropped_edges/share=0.5`.
    """
    return bank
