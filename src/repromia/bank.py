"""A bank of programs: each asks the model about the same records in another way, and leaves a few statistics.

A probe's features are statistics of the per-token difference to the plain view. Probes that learn are cross-fitted:
a fit record's features come from a program that was not learned on it, those of other records are the mean over the
programs. A probe that a model cannot do is a row with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from repromia.attacks import BankRecipe
from repromia.errors import AttackError, StoreError
from repromia.heads import REACH, Shape
from repromia.programs import Plan, Program
from repromia.programs.registry import plan_for
from repromia.records import LabelledRecords, without_records
from repromia.signals import Signals
from repromia.views import Views, passes_of

CROSS_FITS = 3
# (plain view, view under a program, whether the program changed the tokens) -> features
Statistics = Callable[[Any, Any, bool], Float[np.ndarray, "record feature"]]


@dataclass(frozen=True)
class Probe:
    """One program of a bank: which columns of the features are its own, and what it cost.

    passes: forward passes a record; tokens: fed to the model for all records (0: read back from the store).
    """

    spec: str
    family: str
    columns: tuple[int, ...] = ()
    passes: float = 0.0
    tokens: int = 0
    seconds: float = 0.0
    reason: str = ""
    used: frozenset[str] = frozenset()  # ids of the records that the program was made from


@dataclass(frozen=True)
class Bank:
    """Features of all records, and the probes they come from.

    anchor: columns whose mean is a score by itself; reach: as of the recipe. plain: what the view that the others are
    compared with cost, in a probe without columns.
    """

    features: Float[np.ndarray, "record feature"]
    probes: tuple[Probe, ...]
    anchor: tuple[int, ...] = ()
    beside_passive: bool = True
    reach: float | None = None
    plain: Probe = Probe("identity", "identity")

    @property
    def used(self) -> frozenset[str]:
        """Ids of the records that probes were made from."""
        return frozenset(name for probe in self.probes for name in probe.used)

    @property
    def names(self) -> tuple[str, ...]:
        """What every column of `table` is: the program, and which of its features."""
        found = tuple(f"{probe.spec} {at}" for probe in self.probes for at in range(len(probe.columns)))
        return (*found, "anchor") if self.anchor else found

    @property
    def table(self) -> Float[np.ndarray, "record feature"]:
        """The features as a head reads them: the anchor, where there is one, is the last."""
        if not self.anchor:
            return self.features
        return np.column_stack([self.features, self.features[:, list(self.anchor)].mean(axis=1)])

    @property
    def shape(self) -> Shape:
        """How a head treats the table."""
        return Shape(REACH if self.reach is None else self.reach, int(bool(self.anchor)))

    @property
    def passes(self) -> float:
        """Forward passes a record, the plain view apart."""
        return sum(probe.passes for probe in self.probes)

    def only(self, probes: Sequence[Probe]) -> Bank:
        """The bank of these of its probes."""
        columns = [at for probe in probes for at in probe.columns]
        place = {at: row for row, at in enumerate(columns)}
        kept = tuple(replace(one, columns=tuple(place[at] for at in one.columns)) for one in probes)
        anchor = tuple(place[at] for at in self.anchor if at in place)
        return replace(self, features=self.features[:, columns], probes=kept, anchor=anchor)

    def take(self, rows: Int[np.ndarray, " row"]) -> Bank:
        """The features of these records."""
        return replace(self, features=self.features[rows])


def ask_bank(views: Views, specs: Sequence[str], recipe: BankRecipe, options: dict[str, Any]) -> Bank:
    """Ask every program of the bank. Raises AttackError where no program could be asked at all."""
    statistics = recipe.statistics(options)
    program = views.program(recipe.plain, options)
    plain = views.ask("target", program)[0]
    columns: list[Float[np.ndarray, "record feature"]] = []
    probes: list[Probe] = []
    for spec in specs:
        name = spec.split("/")[0]
        family = recipe.families.get(name, name)
        plan = plan_for(spec, options, views.modality)
        applies = getattr(plan, "applies", None)
        if applies is not None and not applies(views.targets["target"]):
            continue  # a bank may hold programs for several kinds of inputs
        began, at = views.store.clock(), sum(one.shape[1] for one in columns)
        before = len(views.costs)
        try:
            features, variants, made_from = _probe(views, (spec, options), plan, plain, statistics)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 — a probe that a model cannot do is a row with its reason
            reason = str(error) if isinstance(error, AttackError) else f"{type(error).__name__}: {error}"
            reason = without_records(reason or type(error).__name__, views.records)
            probes.append(Probe(spec, family, reason=reason))
            continue
        columns.append(features)
        own = tuple(range(at, at + features.shape[1]))
        tokens = sum(cost.tokens for cost in views.costs[before:])
        seconds = round(views.store.clock() - began, 3)
        probes.append(Probe(spec, family, own, variants, tokens, seconds, used=made_from))
    if not columns:
        reasons = "; ".join(f"{probe.spec}: {probe.reason.splitlines()[0]}" for probe in probes)
        raise AttackError("No program of the bank could be asked.", found=reasons or "an empty bank")
    anchor = tuple(at for probe in probes if probe.spec.split("/")[0] == recipe.anchor for at in probe.columns)
    own_cost = _cost_of_plain(views, recipe.plain, program, float(passes_of(program, [plain])))
    features = np.concatenate(columns, axis=1)
    return Bank(features, tuple(probes), anchor, recipe.beside_passive, recipe.reach, own_cost)


def _cost_of_plain(views: Views, spec: str, program: Program, passes: float) -> Probe:
    """What asking the plain view cost when it was asked first, whoever asked."""
    name = getattr(program, "label", type(program).__name__)
    costs = [one for one in views.costs if one.of == "target" and one.program == name and one.passes == passes]
    tokens, seconds = (costs[0].tokens, costs[0].seconds) if costs else (0, 0.0)
    return Probe(spec, spec, passes=passes, tokens=tokens, seconds=seconds)


def _probe(
    views: Views, asked: tuple[str, dict[str, Any]], plan: Plan, plain: Signals, statistics: Statistics
) -> tuple[Float[np.ndarray, "record feature"], float, frozenset[str]]:
    """Features, forward passes a record, and the ids of the records that the program was made from."""
    if getattr(plan, "learns", False):
        return _cross_fitted(views, asked, plain, statistics)
    program = views.program(*asked)
    answers = views.ask("target", program)
    edited = bool(getattr(plan, "changes_tokens", False))
    passes = float(passes_of(program, answers))
    return _features(plain, answers, statistics, edited), passes, program.used


def _cross_fitted(
    views: Views, asked: tuple[str, dict[str, Any]], plain: Signals, statistics: Statistics
) -> tuple[Float[np.ndarray, "record feature"], float, frozenset[str]]:
    """A learned program is learned once a fold of the fit role, each time without that fold."""
    fit = views.binding.fit
    total: Float[np.ndarray, "record feature"] | None = None
    own: dict[int, Float[np.ndarray, " feature"]] = {}
    folds = _folds(fit, views.binding.seed)
    place = {name: row for row, name in enumerate(views.records.ids)}
    for fold in folds:
        rest = fit.take(np.setdiff1d(np.arange(len(fit)), fold))
        binding = replace(views.binding, fit=rest)
        held_out = Views(
            views.targets, views.records, binding, views.store, views.costs, views.memory, workers=views.workers
        )
        program = held_out.program(*asked)
        features = _features(plain, views.ask("target", program), statistics, edited=False)
        total = features if total is None else total + features
        rows = [place[fit.records.ids[row]] for row in fold if fit.records.ids[row] in place]
        own |= {row: features[row] for row in rows}
    assert total is not None  # noqa: S101 — there is a fold
    mean = total / len(folds)
    for row, values in own.items():
        mean[row] = values
    return mean, float(len(folds)), frozenset()


def _folds(fit: LabelledRecords, seed: int) -> list[Int[np.ndarray, " row"]]:
    from sklearn.model_selection import StratifiedGroupKFold

    groups = np.unique(fit.records.groups, return_inverse=True)[1]
    count = min(CROSS_FITS, *(len(np.unique(groups[side])) for side in (fit.member, ~fit.member)))
    if count < 2:
        raise AttackError(
            "A learned program cannot be cross-fitted.",
            expected="members and non-members from at least two groups each in the fit role",
            found=f"{count} group",
        )
    splits = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    return [out for _, out in splits.split(np.zeros((len(fit), 1)), fit.member, groups)]


def _features(
    plain: Signals, answers: Sequence[Signals], statistics: Statistics, edited: bool
) -> Float[np.ndarray, "record feature"]:
    """Statistics of every variant, side by side. Draws of one noise stay apart: the head may average them."""
    return np.concatenate([statistics(plain, one, edited) for one in answers], axis=1)


def describe(bank: Bank) -> dict[str, Any]:
    """What a reader of the report should know of the bank."""
    return {
        "programs": [probe.spec for probe in bank.probes if not probe.reason],
        "could_not": {probe.spec: probe.reason for probe in bank.probes if probe.reason},
        "features": int(bank.features.shape[1]),
    }
