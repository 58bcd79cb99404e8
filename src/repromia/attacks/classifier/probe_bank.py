"""A bank of fixed queries read by one small head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from jaxtyping import Float

from repromia.attacks import AskBank, BankRecipe, attack
from repromia.errors import AttackError
from repromia.signals import ClassSignals

Features = Float[np.ndarray, "record feature"]

PRESETS: dict[str, tuple[str, ...]] = {
    "small": ("flip", "shifts", "noisy", "blur", "lower_case", "dropped_words"),
    "full": (
        *("flip", "shifts", "shifts/far=2", "shifts/far=4", "turn", "turn/degrees=20", "crops", "blur", "blur/times=3"),
        *("contrast", "contrast/by=1.4", "noisy/level=0.02/draws=4", "noisy/level=0.1/draws=4"),
        *("lower_case", "dropped_words/share=0.1", "dropped_words/share=0.3/draws=4"),
    ),
}
FAMILIES: dict[str, str] = {}


def specs(options: dict[str, Any]) -> tuple[str, ...]:
    """The programs that the options name; those for other kinds of inputs are passed over. Raises AttackError."""
    if options["programs"]:
        return tuple(dict.fromkeys(options["programs"].split("+")))
    if options["preset"] not in PRESETS:
        raise AttackError(f"There is no preset {options['preset']!r}.", expected=", ".join(PRESETS))
    return PRESETS[options["preset"]]


def statistics(options: dict[str, Any]) -> Callable[[Any, Any, bool], Features]:
    """The scaled logit under a program; where only labels are told, whether the class is still the record's."""

    def features(plain: ClassSignals, probed: ClassSignals, edited: bool) -> Features:
        if not probed.told:
            return (probed.predicted == probed.label).astype(np.float64)[:, None]
        return probed.scaled_logit[:, None]

    return features


@attack(
    citation="this project (docs/results/classifiers.md)",
    access="probabilities; or labels alone",
    kind="reprogrammed",
    needs=("labels",),
    modality="classifier",
    bank=BankRecipe(specs, statistics, FAMILIES),
)
def probe_bank(bank: Annotated[Features, AskBank()], *, preset: str = "small", programs: str = "") -> Features:
    """Scaled logits under each program beside the passive scores, for a logistic head.

    preset: small (9 answers a record for images) or full (31). programs: another bank, such as
    `flip+shifts/far=2+noisy/draws=8`.
    """
    return bank
