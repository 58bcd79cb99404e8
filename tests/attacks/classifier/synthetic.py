"""Answers drawn from known distributions: what a target and models of known training data say of some records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from repromia.attacks import Ask, AskReferences, Variants, registry
from repromia.signals import ClassSignals, ReferenceSignals

CLASSES = 4
SEEN = ("passive", "reference")  # kinds whose scores are their function's, on nothing but signals


@dataclass(frozen=True)
class Case:
    """views: the target's answers by plan. logits: the target's scaled logits; theirs: of every model."""

    views: dict[str, tuple[ClassSignals, ...]]
    references: ReferenceSignals
    member: np.ndarray

    @property
    def logits(self) -> np.ndarray:
        return np.stack([one.scaled_logit for one in self.views["augmented"]], axis=1)

    @property
    def theirs(self) -> np.ndarray:
        return self.references.scaled_logit

    @property
    def plain(self) -> ClassSignals:
        return self.views["identity"][0]

    def take(self, rows: Any) -> Case:
        views = {name: tuple(one.take(rows) for one in each) for name, each in self.views.items()}
        return Case(views, self.references.take(rows), self.member[np.asarray(rows)])

    def seen_by(self, inside: np.ndarray) -> Case:
        return Case(self.views, replace(self.references, inside=inside), self.member)


def answers(logits: np.ndarray, seed: int = 0) -> ClassSignals:
    """A classifier's, from the scaled logit of each record's own class; the rest is shared out at random."""
    generator = np.random.default_rng(seed)
    count = len(logits)
    label = np.arange(count) % CLASSES
    shares = generator.dirichlet(np.ones(CLASSES - 1), count)
    logprobs = np.empty((count, CLASSES))
    rows = np.arange(count)
    logprobs[rows, label] = -np.logaddexp(0, -logits)
    for at in range(CLASSES - 1):
        logprobs[rows, (label + 1 + at) % CLASSES] = -np.logaddexp(0, logits) + np.log(shares[:, at])
    return ClassSignals(logprobs, logprobs.argmax(axis=1), label)


def models(logits: np.ndarray, inside: np.ndarray) -> ReferenceSignals:
    """From scaled logits (model, record, query); what else a model says of the plain record is drawn as `answers`."""
    plain = [answers(one, 1000 + at) for at, one in enumerate(logits[:, :, 0])]
    return sure_of(-np.logaddexp(0, -logits), -np.logaddexp(0, logits), inside, plain)


def sure_of(
    logprob: np.ndarray, other: np.ndarray, inside: np.ndarray, plain: Sequence[ClassSignals]
) -> ReferenceSignals:
    """log p and log(1 - p) of the own classes (model, record, query), and answers about the plain record."""
    top, classes = (np.stack([getattr(one, name) for one in plain]) for name in ("top", "top_classes"))
    return ReferenceSignals(inside, logprob, other, top, classes)


def reordered(references: ReferenceSignals, order: Sequence[int]) -> ReferenceSignals:
    """The models in another order."""
    return ReferenceSignals(**{one.name: getattr(references, one.name)[order] for one in fields(references)})


def halves(count: int, records: int, generator: np.random.Generator) -> np.ndarray:
    """Training data of so many models: every record is in half of them."""
    return generator.permuted(np.arange(count)[:, None].repeat(records, axis=1) < count // 2, axis=0)


def case(
    records: int = 40, count: int = 8, queries: int = 3, gain: float = 2.0, seed: int = 0, *, unequal: float = 0.5
) -> Case:
    """Scaled logits, normal with each record's own mean and spread; what was learned lies `gain` higher."""
    generator = np.random.default_rng(seed)
    mean, spread = generator.normal(0, 1.5, records), np.exp(generator.normal(0, unequal, records))
    inside = halves(count, records, generator)
    member = generator.permutation(records) < records // 2

    def draw(saw: np.ndarray) -> np.ndarray:
        centre = mean + gain * saw
        return centre[..., None] + spread[:, None] * generator.normal(size=(*saw.shape, queries))

    own = draw(member)
    variants = tuple(answers(one, at) for at, one in enumerate(own.T))
    noisy = tuple(answers(own[:, 0] + generator.normal(0, 1, records), 90 + at) for at in range(5))
    views = {"identity": variants[:1], "augmented": variants, "noisy": noisy}
    return Case(views, models(draw(inside), inside), member)


def names(*, reference: bool | None = None) -> list[str]:
    """Attacks that score signals; those that look at reference models, or those that do not."""
    known = registry("classifier")
    return [
        name
        for name, one in known.items()
        if one.kind in SEEN
        and (reference is None or reference == any(isinstance(mark, AskReferences) for mark, _ in one.inputs.values()))
    ]


def figures(name: str, found: Case, **options: Any) -> np.ndarray:
    """What the attack returns, all variants, a row a record."""
    one = registry("classifier")[name]
    inputs: dict[str, Any] = {}
    for parameter, (mark, several) in one.inputs.items():
        if isinstance(mark, AskReferences):
            inputs[parameter] = found.references
        else:
            assert isinstance(mark, Ask)
            asked = found.views[mark.plan]
            inputs[parameter] = asked if several else asked[0]
    scores = one.function(**inputs, **{**one.options, **options})
    result = scores.scores if isinstance(scores, Variants) else scores
    return np.asarray(result).reshape(len(found.member), -1)
