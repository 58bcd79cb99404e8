"""What a target answers about records under one program: typed, per-record arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from repromia.signals.classes import TOP, ClassSignals, sureness
from repromia.signals.images import DenoiseSignals, GradientSignals
from repromia.signals.references import (
    ForecastSignals,
    GainSignals,
    ReferenceGains,
    References,
    ReferenceSignals,
    stack,
    told_by,
)
from repromia.signals.tokens import TOKEN_FIELDS, Scores, TokenSignals, from_token_arrays

__all__ = [
    "TOKEN_FIELDS",
    "TOP",
    "ClassSignals",
    "DenoiseSignals",
    "ForecastSignals",
    "GainSignals",
    "GradientSignals",
    "ReferenceGains",
    "ReferenceSignals",
    "References",
    "Scores",
    "Signals",
    "TokenSignals",
    "from_token_arrays",
    "join",
    "size_of",
    "stack",
    "sureness",
    "told_by",
]

Signals = (
    TokenSignals
    | DenoiseSignals
    | GradientSignals
    | ClassSignals
    | ReferenceSignals
    | GainSignals
    | ReferenceGains
    | ForecastSignals
)


def size_of(signals: Any) -> int:
    """Bytes of its arrays."""
    values = (getattr(signals, one.name) for one in fields(signals))
    return sum(one.nbytes for one in values if isinstance(one, np.ndarray))


def join(parts: Sequence[Any]) -> Any:
    """The records of several signals of one kind, one after the other."""
    if isinstance(parts[0], DenoiseSignals):
        arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ("square", "fourth")}
        return replace(parts[0], **arrays)
    if isinstance(parts[0], ReferenceSignals | ReferenceGains):
        named = [one.name for one in fields(parts[0])]
        return type(parts[0])(**{name: np.concatenate([getattr(one, name) for one in parts], 1) for name in named})
    if isinstance(parts[0], ClassSignals | GainSignals | ForecastSignals):
        kept = {one.name: np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(parts[0])}
        return type(parts[0])(**kept)
    if isinstance(parts[0], GradientSignals):
        return replace(parts[0], norms=np.concatenate([part.norms for part in parts]))
    lengths = np.concatenate([part.lengths for part in parts])
    return from_token_arrays(
        [int(n) for n in lengths],
        {name: np.concatenate([getattr(part, name) for part in parts]) for name in TOKEN_FIELDS},
    )
