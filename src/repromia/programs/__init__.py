"""Programs: changes to how the frozen target is asked.

A `Plan` is what an attack names and a user configures; bound to a target and to the fit and select roles it
becomes a `Program`, ready to be asked about any record. Fixed programs are their own plan. Eval labels cannot
get here: a `Binding` has no place for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from repromia.errors import AttackError
from repromia.records import Content, LabelledRecords, Records
from repromia.signals import ClassSignals, ReferenceSignals, Signals, TokenSignals

if TYPE_CHECKING:
    from repromia.progress import Progress
    from repromia.targets.language import LanguageModel

TEN = "99+199+299+399+499+599+699+799+899+999"  # timesteps of GSA: equidistant, as published


@runtime_checkable
class Target(Protocol):
    """What every target can do, whatever kind of model it is."""

    name: str

    @property
    def modality(self) -> Any:
        """What kind of model it is (see `repromia.attacks.Modality`)."""
        ...

    @property
    def asked(self) -> int:
        """Tokens fed to it, denoiser evaluations, or records classified, so far."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of what decides its answers."""
        ...

    def describe(self) -> dict[str, Any]:
        """What a reader of the report needs to know about it."""
        ...


@runtime_checkable
class TextTarget(Target, Protocol):
    """What reads text: a model with weights, or one that only answers.

    `encode` gives what `signals` takes, one entry a content.
    """

    @property
    def context(self) -> int:
        """Longest input in tokens, prefix included."""
        ...

    def encode(self, contents: Sequence[Content], ids: Sequence[str] | None = None) -> list[Any]:
        """Contents as it is asked about them."""
        ...

    def signals(self, sequences: Sequence[Any]) -> TokenSignals:
        """Its answers."""
        ...


def text_target(target: Target) -> TextTarget:
    """The target as one that reads text. Raises AttackError."""
    if not isinstance(target, TextTarget):
        raise AttackError("This program asks models that read text.", found=type(target).__name__)
    return target


def has_weights(target: Target) -> bool:
    """Whether the target is a model in memory that tells all it knows: no endpoint, nor a language model behind a
    defence that tells the log-probabilities of tokens alone."""
    from repromia.targets.endpoint import EndpointModel

    return not isinstance(target, EndpointModel) and getattr(target, "tells_distributions", True)


def only_labels(target: Target) -> bool:
    """Whether the target tells its predicted class and nothing else."""
    return getattr(target, "answer", "") == "label"


def takes_captions(target: Target) -> bool:
    """Whether the model is asked with a caption (or class) beside each image, or scored on it."""
    return target.modality in ("classifier", "graph") or bool(
        getattr(getattr(target, "denoiser", None), "conditional", False)
    )


def weights_of(target: Target, program: str) -> LanguageModel:
    """The target as a model with weights. Raises AttackError where there are none, as behind an endpoint."""
    from repromia.targets.language import LanguageModel

    if not isinstance(target, LanguageModel):
        raise AttackError(
            f"{program} needs the weights of the model; the endpoint only returns log-probabilities.",
            hint="ask programs that change the text, as probe_bank:preset=text_only does",
        )
    return target


About = tuple[Records, tuple[ClassSignals, ...], ReferenceSignals]


@dataclass(frozen=True)
class Binding:
    """What a plan may use to become a program: the target and labelled records that are not eval.

    memory: what programs of one audit share (samples of the target), by a key that names the target. about: all records
    of the audit, and what the target and the reference models answer about them under the program `augmented`. spread:
    binds a plan to several bindings of one target, by workers where the audit has some.
    """

    target: Target
    fit: LabelledRecords
    select: LabelledRecords
    seed: int
    progress: Progress
    longest: int  # tokens of the longest record of any role: what a prefix must leave room for
    memory: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    about: Callable[[], About] | None = field(default=None, repr=False, compare=False)
    spread: Callable[[Plan, Sequence[Binding]], list[Program]] | None = field(default=None, repr=False, compare=False)


@runtime_checkable
class Program(Protocol):
    """A way to ask a model about records."""

    @property
    def key(self) -> str:
        """Everything that decides the answers, besides target and records."""
        ...

    @property
    def used(self) -> frozenset[str]:
        """Ids of records that the program was made from: no head may be fitted on them."""
        ...

    @property
    def details(self) -> dict[str, Any]:
        """What a reader should know: shots used, step chosen, …"""
        ...

    def ask(self, target: Target, records: Records) -> tuple[Signals, ...]:
        """The target's signals: one entry, or one a variant for programs that ask several times."""
        ...

    def close(self) -> None:
        """Free what asking needed; the program may be asked again."""
        ...


class Plan(Protocol):
    """A program that still has to be made from the fit and select roles."""

    def bind(self, binding: Binding) -> Program:
        """The program for this target and these labelled records."""
        ...


@dataclass(frozen=True)
class Fixed:
    """Base of programs that need no records: they are their own plan."""

    @property
    def key(self) -> str:
        """Class and options."""
        return repr(self)

    @property
    def used(self) -> frozenset[str]:
        """No record."""
        return frozenset()

    @property
    def details(self) -> dict[str, Any]:
        """Nothing beyond the options."""
        return {}

    def close(self) -> None:
        """Nothing to free."""

    def bind(self, binding: Binding) -> Program:
        """Itself."""
        assert isinstance(self, Program)  # noqa: S101 — for mypy: subclasses add `ask`
        return self


def at_least(least: float, **options: float) -> None:
    """Raises AttackError where an option of a program is smaller."""
    for name, value in options.items():
        if value < least:
            raise AttackError(f"The option {name} is at least {least:g}.", found=f"{name}={value:g}")


def identity_of(program: Program) -> Program:
    """The same question about unchanged records, asked of the unchanged model."""
    found: Program = getattr(program, "identity", None) or Identity()
    return found


@dataclass(frozen=True)
class Identity(Fixed):
    """The record as it is."""

    def ask(self, target: Target, records: Records) -> tuple[TokenSignals, ...]:
        """Signals of the unchanged records."""
        model = text_target(target)
        return (model.signals(model.encode(records.contents, records.ids)),)
