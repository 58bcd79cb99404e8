"""Plans for diffusion models by name."""

from __future__ import annotations

from typing import Any

from repromia.programs.denoising import (
    Denoised,
    Inverted,
    Noised,
    NoisedWithHalfCaption,
    NoisedWithoutCaption,
    OwnNoise,
    OwnNoiseNormalised,
)
from repromia.programs.gradients import Gradients
from repromia.programs.perturbation import LearnedPerturbation, Unperturbed
from repromia.programs.secmi_network import SecmiNetwork
from repromia.programs.transforms import (
    Blur,
    Brighter,
    ChannelTurn,
    Contrast,
    Crops,
    Flip,
    NoisedCrops,
    Noisy,
    QuarterTurn,
    Shift,
    Shifts,
)

PLANS: dict[str, type[Any]] = {
    "identity": Denoised,
    "noised": Noised,
    "noised_without_caption": NoisedWithoutCaption,
    "noised_with_half_caption": NoisedWithHalfCaption,
    "noised_crops": NoisedCrops,
    "own_noise": OwnNoise,
    "own_noise_normalised": OwnNoiseNormalised,
    "inverted": Inverted,
    "gradients": Gradients,
    "secmi_network": SecmiNetwork,
    "unperturbed": Unperturbed,
    "learned_perturbation": LearnedPerturbation,
    "shift": Shift,
    "shifts": Shifts,
    "flip": Flip,
    "quarter_turn": QuarterTurn,
    "noisy": Noisy,
    "brighter": Brighter,
    "contrast": Contrast,
    "channel_turn": ChannelTurn,
    "blur": Blur,
    "crops": Crops,
}
