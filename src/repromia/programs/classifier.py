"""Plans for classifiers by name."""

from __future__ import annotations

from typing import Any

from repromia.programs.classifier_copies import NoiseAndRepair
from repromia.programs.forecast import LearnedForecast
from repromia.programs.learned_overlay import LearnedOverlay
from repromia.programs.overlay import Votes
from repromia.programs.queries import (
    Augmented,
    Blur,
    Contrast,
    Crops,
    DroppedWords,
    Flip,
    LowerCase,
    Noisy,
    Query,
    Shifts,
    Turn,
)

PLANS: dict[str, type[Any]] = {
    "identity": Query,
    "votes": Votes,
    "learned_overlay": LearnedOverlay,
    "learned_forecast": LearnedForecast,
    "noise_and_repair": NoiseAndRepair,
    "augmented": Augmented,
    "flip": Flip,
    "shifts": Shifts,
    "blur": Blur,
    "turn": Turn,
    "crops": Crops,
    "contrast": Contrast,
    "noisy": Noisy,
    "lower_case": LowerCase,
    "dropped_words": DroppedWords,
}
