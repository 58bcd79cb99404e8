"""A bank of fixed transforms read by one small head, anchored at the shift contrast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from jaxtyping import Float

from repromia.attacks import AskBank, BankRecipe, attack
from repromia.attacks.diffusion.shift_contrast import strength
from repromia.errors import AttackError
from repromia.signals import DenoiseSignals

Features = Float[np.ndarray, "record feature"]

SMALL = ("identity", "shifts", "flip", "blur", "noised/t=50+100+150+200")
PRESETS: dict[str, tuple[str, ...]] = {
    "small": SMALL,
    "full": (
        "identity",
        "shifts",
        "shifts/far=2",
        "flip",
        "flip/axis=vertical",
        "quarter_turn",
        "quarter_turn/times=2",
        "quarter_turn/times=3",
        "shift/x=1/y=1",
        "shift/x=-1/y=1",
        "shift/x=1/y=-1",
        "shift/x=-1/y=-1",
        "blur",
        "contrast/by=1.2",
        "contrast/by=0.8",
        "channel_turn",
        "noisy/level=0.05",
        "noisy/level=0.1",
        "noisy/level=0.2",
        "noised/t=10+50+100+150+200+300/draws=3",
    ),
}
FAMILIES = {"shift": "shifts", "contrast": "colour", "channel_turn": "colour", "brighter": "colour"}


def specs(options: dict[str, Any]) -> tuple[str, ...]:
    """The programs that the options name. Raises AttackError."""
    if options["programs"]:
        return tuple(dict.fromkeys(("identity", *options["programs"].split("+"))))
    if options["preset"] not in PRESETS:
        raise AttackError(f"There is no preset {options['preset']!r}.", expected=", ".join(PRESETS))
    return PRESETS[options["preset"]]


def statistics(options: dict[str, Any]) -> Callable[[Any, Any, bool], Features]:
    """How much s falls under a transform, by timestep; s itself of the plain view and of another way of asking."""

    def features(plain: DenoiseSignals, probed: DenoiseSignals, edited: bool) -> Features:
        same = np.array_equal(plain.t, probed.t) and np.array_equal(plain.draw, probed.draw)
        return strength(plain) - strength(probed) if same and probed is not plain else strength(probed)

    return features


@attack(
    citation="this project (docs/results/diffusion.md)",
    access="predicted noise",
    kind="reprogrammed",
    needs=("labels",),
    modality="diffusion",
    bank=BankRecipe(specs, statistics, FAMILIES, anchor="shifts", beside_passive=False),
)
def probe_bank(
    bank: Annotated[Features, AskBank()], *, preset: str = "small", programs: str = "", t: str = "30+160"
) -> Features:
    """Falls of s = -log mean eps(x, t)^2 under each transform, s itself and losses, for an anchored logistic head.

    preset: small (18 evaluations) or full (68; 66 for grey images). programs: another
    bank, such as `shifts+flip+noised/t=50-100`; with `shifts` among them the head is anchored at the shift contrast.
    t: timesteps of every program that names none.
    """
    return bank
