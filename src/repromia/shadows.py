"""Shadow models: trained like the target on known random halves of the records, then asked about all of them."""

from __future__ import annotations

import gc
import importlib
import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float

from repromia.cluster import Unit, named, one_thread, run_units
from repromia.errors import ConfigError, RecordsError, RepromiaError, TargetError, said
from repromia.function_key import described
from repromia.programs import Program
from repromia.programs.queries import Augmented, Query
from repromia.progress import Progress
from repromia.records import Records
from repromia.signals import GainSignals, ReferenceGains, ReferenceSignals, join, stack, told_by
from repromia.store import Store, code_digest, digest
from repromia.targets.classifier import PROBED, Classifier

Train = Callable[[Records, int], Any]  # records to train on, and a seed: a fitted model
Wrap = Callable[[Any], Classifier]
Answers = TypeVar("Answers", ReferenceSignals, ReferenceGains)
PART = 1024  # records whose answers are held in full at a time


def masks(count: int, records: Records, seed: int) -> Bool[np.ndarray, "model record"]:
    """Which records each model is trained on: every record by exactly half of the models, which half by lot.

    Of an odd number of models the smaller or the larger half, also by lot. Records of one group are in or out
    together. Raises ConfigError for fewer than two models.
    """
    if count < 2:
        raise ConfigError("Shadow models come in pairs.", expected="two or more", found=str(count))
    generator = np.random.default_rng(seed)
    place = {name: at for at, name in enumerate(dict.fromkeys(records.groups))}
    order = generator.random((count, len(place))).argsort(axis=0)
    half = count // 2 + generator.integers(0, count % 2 + 1, len(place))
    inside: Bool[np.ndarray, "model record"] = (order < half)[:, [place[name] for name in records.groups]]
    return inside


@dataclass(frozen=True)
class TrainedShadows:
    """Models that are trained here or on a cluster, one at a time, and forgotten once they have answered.

    train: records and a seed to a fitted model, or its `module:name` (looked for in the working directory too);
    global random generators are seeded before it is called. wrap: such a model to a classifier as the target is one.
    classes: of the target, in its order; empty: not compared. cluster: see `repromia.cluster.run_units`. train_key,
    wrap_key: what tells these functions apart in the store; empty: their source and what they refer to. gpus: of one
    training, on a cluster.
    """

    train: Train | str
    wrap: Wrap
    count: int = 16
    seed: int = 0
    classes: tuple[str, ...] = ()
    cluster: str = "local"
    gpus: float = 0.0
    train_key: str = ""
    wrap_key: str = ""

    def check(self, records: Records) -> None:
        """Raises RecordsError for too few records, and ConfigError for a training function that cannot be found."""
        training_function(self.train)
        self.saw(records)

    def signals(self, records: Records, store: Store, progress: Progress) -> ReferenceSignals:
        """What they say of the records, in the order of their numbers; read back for those that are in the store.

        Raises RecordsError for too few records, ConfigError for a training function that cannot be found, and
        TargetError that names the model.
        """
        return stack(self._asked(records, store, progress, asked))

    def gains(self, records: Records, store: Store, progress: Progress, program: Program) -> ReferenceGains:
        """What they say under a program that answers with `GainSignals`; trained again for it. Raises as `signals`."""
        return stack(self._asked(records, store, progress, partial(gained, program), program.key))

    def _asked(
        self, records: Records, store: Store, progress: Progress, ask: Callable[..., Answers], key: str = ""
    ) -> list[Answers]:
        train, inside, seeds = training_function(self.train), self.saw(records), self._seeds()
        common = (
            code_digest(),
            self.train_key or described(train),
            self.wrap_key or described(self.wrap),
            records.digest(),
            self.classes,
        )
        units = [
            Unit(
                digest("shadow", *common, inside[number].tolist(), seeds[number], key),
                _trained_and_asked,
                (train, self.wrap, records, inside[number], seeds[number], self.classes, ask),
                name=f"Shadow model {number + 1} of {self.count}",
                gpus=self.gpus,
            )
            for number in range(self.count)
        ]
        return run_units(units, cluster=self.cluster, store=store, progress=progress, what="shadow models")

    def null_model(self, records: Records) -> Classifier:
        """One more, trained here in the same way on a half of its own: which half is independent of what the target
        was trained on, so that nothing can be found out from it about that. Raises as `signals`."""
        train, seed = training_function(self.train), self._seeds()[-1]
        inside = masks(2, records, seed)[0]
        try:
            _check_halves(inside[None])
            with one_thread(), seeded(seed):
                found = _trained(train, self.wrap, records.take(np.flatnonzero(inside)), seed, self.classes)
            Query().ask(found, records.take(range(min(PROBED, len(records)))))  # whether it can be asked at all
            return found
        except Exception as error:
            raise named("The null model", error) from error

    @property
    def key(self) -> str:
        """Hash of the functions, the number and the seed."""
        train = self.train_key or described(training_function(self.train))
        return digest("shadows", train, self.wrap_key or described(self.wrap), self.count, self.seed, self.classes)

    def describe(self) -> dict[str, Any]:
        """What a reader of the report needs to know about them."""
        return {"name": f"{self.count} shadow models", "trained": self.cluster}

    def saw(self, records: Records) -> Bool[np.ndarray, "model record"]:
        """Which of the records each is trained on: drawn here, whatever the target was trained on."""
        inside = masks(self.count, records, self.seed)
        _check_halves(inside)
        return inside

    def _seeds(self) -> list[int]:
        """All different: one a model, and the null model's."""
        found = np.random.default_rng([self.seed, 1]).choice(2**31, self.count + 1, replace=False)
        return [int(one) for one in found]


def classes_of(target: Classifier, records: Records) -> tuple[str, ...]:
    """The target's classes. Of a module that does not name them they are counted when it answers: it is asked."""
    if not target.classes:
        Query().ask(target, records.take(range(min(PROBED, len(records)))))
    return target.classes


def _check_halves(inside: Bool[np.ndarray, "model record"]) -> None:
    one_sided = inside.all(axis=1) | ~inside.any(axis=1)
    if one_sided.any():
        raise RecordsError(
            "There are too few records, or groups of them, for random halves.",
            expected="records in and out of every shadow model",
            found=f"{int(one_sided.sum())} of {len(inside)} models with all of the {inside.shape[1]} records or none",
        )


def training_function(train: Train | str) -> Train:
    """The function itself, or the one of this `module:name`. Raises ConfigError."""
    if callable(train):
        return train
    module, _, name = train.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:
        raise ConfigError(
            "The training function cannot be imported.",
            expected="package.module:function, installed or in the working directory",
            found=f"{train!r} ({said(error)})",
        ) from error
    if not callable(found):
        raise ConfigError(f"{train!r} is no function.", expected="records and a seed to a fitted model")
    function: Train = found
    return function


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Global random generators seeded, for functions that draw from them; as they were afterwards."""
    python, legacy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)


def _trained_and_asked(
    train: Train,
    wrap: Wrap,
    records: Records,
    inside: Bool[np.ndarray, " record"],
    seed: int,
    classes: tuple[str, ...],
    ask: Callable[..., Answers],
) -> Answers:
    with seeded(seed):
        model = _trained(train, wrap, records.take(np.flatnonzero(inside)), seed, classes)
        found = ask(model, records, inside)
    del model
    gc.collect()  # modules hold themselves in cycles
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return found


def _trained(train: Train, wrap: Wrap, records: Records, seed: int, classes: tuple[str, ...]) -> Classifier:
    with complaining("The training function failed."):
        model = train(records, seed)
    if model is None:
        raise TargetError(
            "The training function returned nothing.", expected="a fitted model", hint="return it at the end"
        )
    with complaining("What the training function returned cannot be taken for a classifier."):
        found = wrap(model)
    return checked(found, classes)


def checked(model: Any, classes: tuple[str, ...]) -> Classifier:
    """The model, if it is a classifier with these classes that tells probabilities. Raises TargetError."""
    if not isinstance(model, Classifier):
        raise TargetError("It is no classifier.", expected="a Classifier", found=type(model).__name__)
    if model.answer == "label":
        raise TargetError("It answers with labels only.", expected="logits or probabilities of every class")
    if classes and not model.classes:
        model.classes = classes  # a count that differs shows when it is asked
    if classes and model.classes != classes:
        same = len(model.classes) == len(classes)
        raise TargetError(
            "Its classes are not those of the target.",
            expected=", ".join(classes[:8]) if same else f"{len(classes)} classes",
            found=", ".join(model.classes[:8]) if same else str(len(model.classes)),
            hint="let every half of the records hold all classes: more records, or a model told of all of them",
        )
    return model


def asked(model: Classifier, records: Records, inside: Bool[np.ndarray, " record"]) -> ReferenceSignals:
    """What is kept of one model's answers under the program `augmented`. Raises TargetError."""
    parts: list[ReferenceSignals] = []
    known: list[np.ndarray] = []
    first, constant = None, len(records) > 1
    for at in range(0, len(records), PART):
        rows = range(at, min(at + PART, len(records)))
        with complaining("It cannot be asked."):
            answers = Augmented().ask(model, records.take(rows))
        plain = answers[0]
        first = plain.logprobs[0] if first is None else first
        constant = constant and bool((plain.logprobs == first).all())
        known.append(np.stack([plain.logprob, plain.predicted == plain.label, plain.label]))
        parts.append(told_by(answers, inside[at : rows.stop]))
    if constant:
        raise TargetError(
            "It answers the same to everything.",
            expected="a fitted model",
            found=f"equal probabilities for all of {len(records)} records",
        )
    _check_fitted(np.concatenate(known, axis=1)[:, inside], len(model.classes))
    found: ReferenceSignals = join(parts)
    return found


def gained(
    program: Program, model: Classifier, records: Records, inside: Bool[np.ndarray, " record"]
) -> ReferenceGains:
    """One model's answers under a program that answers with `GainSignals`. Raises TargetError."""
    with complaining("It cannot be asked."):
        (found,) = program.ask(model, records)
    assert isinstance(found, GainSignals)  # noqa: S101 — of such a program
    return ReferenceGains(inside[None], found.gain[None])


def _check_fitted(known: Float[np.ndarray, "fact record"], classes: int) -> None:
    """Raises TargetError where a model knows no more of the records that it was trained on than a guess: equal
    probabilities tell more than its own, and the commonest class is right as often as it.

    known: log-probability of the own class, whether it was predicted, and its number.
    """
    logprob, right, label = known
    commonest = np.bincount(label.astype(int)).max(initial=0)
    if len(label) and logprob.mean() <= -np.log(classes) and right.sum() <= commonest:
        raise TargetError(
            "It knows nothing of the records that it was trained on.",
            expected="a fitted model, asked about inputs that are scaled as in its training",
            found=f"right on {int(right.sum())} of {len(label)} of them; the commonest class alone is on {commonest}",
            hint="fit it before it is returned; with saved models, check that masks.npz is theirs",
        )


@contextmanager
def complaining(problem: str) -> Iterator[None]:
    """Whatever is raised, a TargetError; errors raised on purpose as they are."""
    try:
        yield
    except RepromiaError:
        raise
    except Exception as error:
        raise TargetError(problem, found=said(error)) from error
