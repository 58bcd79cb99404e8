"""Attacks: small functions from signals to one number a record, higher = member.

An attack is one file with one decorated function. Positional parameters are what it looks at: views (asked of
the target, or of the reference) and facts about the records; keyword-only parameters are options, which appear
in the configuration, on the command line (`min_k:k=0.1`) and in the report by themselves.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import walk_packages
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
from jaxtyping import Float

from repromia.errors import AttackError
from repromia.options import typed
from repromia.result import Kind
from repromia.signals import Scores, TokenSignals

Of = Literal["target", "reference"]
Modality = Literal["language", "diffusion", "classifier", "graph"]


@dataclass(frozen=True)
class Ask:
    """Marks a parameter: the signals of this model under this program.

    plan: a program or plan class; the attack's options of the same names are passed to it. `of`: which model.
    Annotated with a tuple of signals, the parameter gets all variants of the program, else the first.
    """

    plan: str
    of: Of = "target"


@dataclass(frozen=True)
class Fact:
    """Marks a parameter that is no view: a named fact about the records (see `repromia.views`)."""

    name: str


@dataclass(frozen=True)
class AskBank:
    """Marks a parameter: the features of a bank of programs, which the attack's options name."""


@dataclass(frozen=True)
class AskReferences:
    """Marks a parameter: what models of known training data say of the records (`ReferenceSignals`).

    plan: asked under this program instead, one that answers with `GainSignals`; then `ReferenceGains`.
    """

    plan: str = ""


@dataclass(frozen=True)
class Variants:
    """What an attack returns that papers tune on the records they measure: a score a variant.

    The one with the best AUC on the select role becomes the attack's score; a head may read all of them.
    """

    names: tuple[str, ...]
    scores: Float[np.ndarray, "record variant"]


@dataclass(frozen=True)
class BankRecipe:
    """How a bank of programs is asked and read.

    specs: the programs that the options name. statistics: features of (plain view, view under a program, whether the
    tokens changed). families: the family of a program where it is not its own name. plain: the program that the
    others are compared with. anchor: programs whose features' mean is a score by itself, which the head hardly
    shrinks. beside_passive: whether the head reads the passive scores too. reach: see `repromia.heads`.
    """

    specs: Callable[[dict[str, Any]], tuple[str, ...]]
    statistics: Callable[[dict[str, Any]], Callable[[Any, Any, bool], Float[np.ndarray, "record feature"]]]
    families: dict[str, str]
    plain: str = "identity"
    anchor: str = ""
    beside_passive: bool = True
    reach: float | None = None


Mark = Ask | Fact | AskBank | AskReferences
Plain = Annotated[TokenSignals, Ask("identity")]
Reference = Annotated[TokenSignals, Ask("identity", of="reference")]


@dataclass(frozen=True)
class Attack:
    """A registered attack.

    kind, access, needs: what the report says about it. default: part of the attack list `default`.
    bank: the function returns features (record, feature) of this bank, and a head fitted on the fit role makes the
    scores.
    """

    name: str
    function: Callable[..., Scores | Variants]
    kind: Kind
    access: str
    needs: tuple[str, ...]
    citation: str
    default: bool
    bank: BankRecipe | None = None
    modality: Modality = "language"

    @property
    def inputs(self) -> dict[str, tuple[Mark, bool]]:
        """What each positional parameter looks at, and whether it takes all variants."""
        hints = get_type_hints(self.function, include_extras=True)
        found: dict[str, tuple[Mark, bool]] = {}
        for name, parameter in inspect.signature(self.function).parameters.items():
            if parameter.kind is parameter.KEYWORD_ONLY:
                continue
            kind, *marks = get_args(hints[name]) if get_origin(hints[name]) is Annotated else (hints[name],)
            mark = next((mark for mark in marks if isinstance(mark, Mark)), None)
            if mark is None:
                raise TypeError(f"{self.name}: parameter {name!r} does not say what it looks at")
            found[name] = (mark, get_origin(kind) is tuple)
        return found

    @property
    def logprobs_suffice(self) -> bool:
        """Whether log-probabilities of the records' own tokens are all that must be known of the target."""
        return not any(word in self.access for word in ("weights", "distribution", "tokenizer"))

    @property
    def labels_suffice(self) -> bool:
        """Whether the predicted class is all that must be known of the target."""
        return "label" in self.access

    @property
    def free(self) -> bool:
        """Whether a learned attack brings it as a rival: it asks for nothing but the plain view, or is passive."""
        if self.modality != "language":  # no view is plain: every passive attack asks in a way of its own
            return self.kind == "passive" and self.default
        marks = {mark for mark, _ in self.inputs.values()}
        return self.kind == "passive" and marks <= {Ask("identity"), Fact("texts")}

    @property
    def options(self) -> dict[str, Any]:
        """Keyword-only parameters and their defaults."""
        parameters = inspect.signature(self.function).parameters.values()
        return {one.name: one.default for one in parameters if one.kind is one.KEYWORD_ONLY}


@dataclass(frozen=True)
class Chosen:
    """An attack with its options: one row of the report, named as the user asked for it.

    reference: a program that stands for the reference model (`ez_mia:reference=noise_and_repair`).
    """

    name: str
    attack: Attack
    options: dict[str, Any]
    reference: str = ""

    def programs(self) -> tuple[str, ...]:
        """The programs named: in place of the reference, or as a bank."""
        if self.reference:
            return (self.reference,)
        return self.attack.bank.specs(self.options) if self.attack.bank is not None else ()

    @property
    def inputs(self) -> dict[str, tuple[Mark, bool]]:
        """What the attack looks at, with the program that stands for the reference put in its place."""
        found = self.attack.inputs
        if not self.reference:
            return found
        own = Ask(self.reference)
        return {
            name: (own if isinstance(mark, Ask) and mark.of == "reference" else mark, variants)
            for name, (mark, variants) in found.items()
        }


Function = TypeVar("Function", bound=Callable[..., Any])
SELF_REFERENCE = "wbc:reference=noise_and_repair"  # needs no second model: part of the attack list `default`
COPIES = "rmia:reference=noise_and_repair"  # of classifiers; copies of graph models do not forget (docs/results)
TEXT_BANK = "probe_bank:preset=text_only"  # what an endpoint allows
_REGISTRY: dict[tuple[str, str], Attack] = {}


def attack(
    *,
    citation: str,
    access: str = "log-probabilities",
    kind: Kind = "passive",
    needs: tuple[str, ...] = (),
    default: bool = True,
    bank: BankRecipe | None = None,
    modality: Modality = "language",
) -> Callable[[Function], Function]:
    """Register a function as an attack on this kind of model, under its own name."""

    def register(function: Function) -> Function:
        name = function.__name__
        _REGISTRY[modality, name] = Attack(name, function, kind, access, needs, citation, default, bank, modality)
        return function

    return register


def registry(modality: Modality = "language") -> dict[str, Attack]:
    """Attacks on a kind of model by name: this package's, other packages' entry points', and what came since."""
    _import_all()
    shared = ("classifier", "graph") if modality == "graph" else (modality,)  # its own come last, and win
    found = {name: one for own in shared for (kind, name), one in _REGISTRY.items() if kind == own}
    return dict(sorted(found.items()))


@cache
def _import_all() -> None:
    for module in walk_packages(__path__, f"{__name__}."):
        import_module(module.name)
    for entry in entry_points(group="repromia.attacks"):
        entry.load()


def choose(
    specs: tuple[str, ...],
    *,
    reference: bool,
    weights: bool = True,
    modality: Modality = "language",
    captions: bool = False,
    shadows: bool = False,
    labels_only: bool = False,
    copies: bool = False,
    fits: Callable[[Attack], bool] = lambda one: True,
) -> list[Chosen]:
    """Attacks from specs such as `loss`, `min_k:k=0.1`, `default`, `passive` or `all`.

    `default` and `passive` leave out what needs a reference, shadow models or captions when there are none, what needs
    weights or whole distributions of a target that has none to show (an endpoint, a predicted class alone), and what
    asks in a way that does not fit it (`fits`); an attack that is named is kept, and fails visibly. copies: whether
    noised copies of a classifier can be made. With a learned attack come those that cost no forward pass of their own:
    its rivals. Raises AttackError with the nearest name, or with the options there are.
    """
    known = registry(modality)
    given = {"reference": reference or shadows, "captions": captions, "shadows": shadows}
    absent = {need for need, there in given.items() if not there}
    rows: dict[str, Chosen] = {}
    for spec in specs:
        names = [
            name
            for name, one in known.items()
            if spec == "all"
            or (spec == "default" and one.default)
            or (spec == "passive" and one.default and one.kind in ("passive", "reference"))
        ]
        usable = [name for name in names if not absent & {*known[name].needs}]
        usable += [SELF_REFERENCE] if spec in ("default", "all") and modality == "language" else []
        usable = [name for name in usable if fits(parse(name, modality).attack)]
        if labels_only:
            usable = [name for name in usable if known[name].labels_suffice]
        usable += [COPIES] if copies and spec in ("default", "all") and modality == "classifier" else []
        if not weights:
            usable = [name for name in usable if parse(name, modality).attack.logprobs_suffice]
            usable += [TEXT_BANK] if spec in ("default", "all") else []
        for one in usable if names else [spec]:
            rows.setdefault(one, parse(one, modality))
    if any(row.attack.kind == "reprogrammed" for row in rows.values()):
        for name in (name for name, one in known.items() if one.free and (weights or one.logprobs_suffice)):
            told = not labels_only or known[name].labels_suffice
            if not absent & {*known[name].needs} and told and fits(known[name]):
                rows.setdefault(name, parse(name, modality))
    return list(rows.values())


def parse(spec: str, modality: Modality = "language") -> Chosen:
    """`name:option=value:option=value` to an attack with options. Raises AttackError.

    Attacks that take a reference also know `reference=PROGRAM`, such as `reference=noise_and_repair/noise=0.4`.
    """
    name, *given = spec.split(":")
    known = registry(modality)
    if name not in known:
        near = get_close_matches(name, known, n=1)
        raise AttackError(
            f"There is no attack {name!r}.",
            expected=", ".join(known) + "; or default, passive, all",
            hint=f"did you mean {near[0]!r}?" if near else "run `repromia attacks`",
        )
    one, stands_for_reference = known[name], ""
    options = dict(one.options)
    for part in given:
        key, _, value = part.partition("=")
        if key == "reference" and "reference" in one.needs and value:
            stands_for_reference = value
            needs = tuple(need for need in one.needs if need != "reference")
            told = "full next-token distribution" if modality == "language" else "probabilities"
            one = replace(one, kind="reprogrammed", needs=needs, access=f"weights, {told}")
            continue
        if key not in options:
            raise AttackError(
                f"The attack {name!r} has no option {key!r}.",
                expected=", ".join(f"{key}={value!r}" for key, value in options.items()) or "no option",
            )
        options[key] = typed(f"{name}:{key}", value, options[key])
    return Chosen(spec, one, options, stands_for_reference)
