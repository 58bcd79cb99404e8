"""Defences that can stand between a model and whoever asks it: what exists, its options, which models can carry it.

Each changes answers, never weights. An audit of a defended model asks it and nothing else, so heads, programs and
thresholds are learned against the defence. Where answers are made: `repromia.targets.defended`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import ClassVar

from repromia.errors import AttackError, ConfigError
from repromia.options import typed

CLASSES, EVERY = ("classifier", "graph"), ("classifier", "graph", "language", "diffusion")


@dataclass(frozen=True)
class Defence:
    """Base. name: on the command line; modalities: of the models that can carry it."""

    name: ClassVar[str] = ""
    modalities: ClassVar[tuple[str, ...]] = ()

    @property
    def spec(self) -> str:
        """As it is written, with every option."""
        return ":".join([self.name, *(f"{one.name}={getattr(self, one.name)}" for one in fields(self))])

    def _require(self, fine: bool, expected: str) -> None:
        if not fine:
            raise ConfigError(f"The defence {self.spec} is out of range.", expected=expected)


@dataclass(frozen=True)
class Noise(Defence):
    """Gaussian noise of this standard deviation: on the log-probability of every class (then normalised), of every
    token, or on a denoiser's prediction.

    The same question gets the same noise, whatever else is asked with it; random=true draws anew each time
    (classifiers). Models of other weights get other noise.
    """

    name: ClassVar[str] = "noise"
    modalities: ClassVar[tuple[str, ...]] = EVERY
    scale: float = 0.5
    seed: int = 0
    random: bool = False

    def __post_init__(self) -> None:
        self._require(self.scale >= 0, "scale at least 0")


@dataclass(frozen=True)
class Rounding(Defence):
    """Rounding to so many decimal digits: probabilities of classes (then normalised), log-probabilities of tokens, a
    denoiser's prediction."""

    name: ClassVar[str] = "rounding"
    modalities: ClassVar[tuple[str, ...]] = EVERY
    digits: int = 2

    def __post_init__(self) -> None:
        self._require(0 <= self.digits <= 15, "digits from 0 to 15")


@dataclass(frozen=True)
class TopK(Defence):
    """The k most probable classes or tokens are told; the others share what is left equally."""

    name: ClassVar[str] = "top_k"
    modalities: ClassVar[tuple[str, ...]] = (*CLASSES, "language")
    k: int = 3

    def __post_init__(self) -> None:
        self._require(self.k >= 1, "k at least 1")


@dataclass(frozen=True)
class LabelOnly(Defence):
    """The predicted class and nothing else."""

    name: ClassVar[str] = "label_only"
    modalities: ClassVar[tuple[str, ...]] = CLASSES


@dataclass(frozen=True)
class Temperature(Defence):
    """Log-probabilities of classes or tokens are divided by t, and normalised."""

    name: ClassVar[str] = "temperature"
    modalities: ClassVar[tuple[str, ...]] = (*CLASSES, "language")
    t: float = 2.0

    def __post_init__(self) -> None:
        self._require(self.t > 0, "t above 0")


@dataclass(frozen=True)
class Smoothing(Defence):
    """The mean answer over copies of the input with Gaussian noise: probabilities, or a denoiser's prediction.

    spread: its standard deviation, in pixels of [0, 1], in the features' own units, or in units of the denoiser's
    input. Copy i has the same noise for every input and model (Cohen et al. 2019, arXiv 1902.02918, without votes).
    """

    name: ClassVar[str] = "smoothing"
    modalities: ClassVar[tuple[str, ...]] = (*CLASSES, "diffusion")
    spread: float = 0.1
    copies: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        self._require(self.spread >= 0 and self.copies >= 1, "spread at least 0, copies at least 1")


DEFENCES: dict[str, type[Defence]] = {
    one.name: one for one in (Noise, Rounding, TopK, LabelOnly, Temperature, Smoothing)
}


def parse_defence(spec: str) -> Defence:
    """`name:option=value:option=value` to a defence. Raises ConfigError."""
    name, *given = spec.strip().split(":")
    if name not in DEFENCES:
        near = get_close_matches(name, DEFENCES, n=1)
        raise ConfigError(
            f"There is no defence {name!r}.",
            expected=", ".join(DEFENCES),
            hint=f"did you mean {near[0]!r}?" if near else "",
        )
    known = {one.name: one.default for one in fields(DEFENCES[name])}
    options = {}
    for part in given:
        key, _, value = part.partition("=")
        if key not in known:
            raise ConfigError(
                f"The defence {name!r} has no option {key!r}.",
                expected=", ".join(f"{one}={value}" for one, value in known.items()) or "no option",
            )
        try:
            options[key] = typed(f"{name}:{key}", value, known[key])
        except AttackError as error:
            raise ConfigError(str(error)) from error
    return DEFENCES[name](**options)


def parse_defences(specs: Sequence[str], modality: str) -> tuple[Defence, ...]:
    """Defences in order, the first nearest to the model. Raises ConfigError for one that this kind of model cannot
    carry, and for one that comes behind label_only, which leaves nothing to change."""
    found = tuple(parse_defence(one) for one in specs)
    for place, one in enumerate(found):
        if modality not in one.modalities:
            able = [name for name, kind in DEFENCES.items() if modality in kind.modalities]
            raise ConfigError(
                f"A {modality} model cannot carry the defence {one.name!r}.",
                expected=", ".join(able),
                found=one.spec,
            )
        if any(isinstance(before, LabelOnly) for before in found[:place]):
            raise ConfigError(
                f"Behind label_only nothing is left that {one.name} could change.", hint="put label_only last"
            )
    return found
