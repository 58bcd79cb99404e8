"""The entropy of the answer, and the same as seen from the record's own class."""

from dataclasses import replace
from typing import Annotated

import numpy as np
from jaxtyping import Float

from repromia.attacks import Ask, attack
from repromia.signals import ClassSignals, Scores

CITATION = "Song & Mittal 2021 (arXiv 2003.10595)"
Logs = Float[np.ndarray, "record class"]


@attack(citation=CITATION, access="probabilities", modality="classifier")
def entropy(plain: Annotated[ClassSignals, Ask("identity")]) -> Scores:
    """Minus the entropy of the classes, nats."""
    logs, _ = _precise(plain)
    return (np.exp(logs) * logs).sum(axis=1)


@attack(citation=CITATION, access="probabilities", modality="classifier")
def modified_entropy(plain: Annotated[ClassSignals, Ask("identity")]) -> Scores:
    """(1 - p) log p of the own class plus p log(1 - p) of every other class: 0 where p of the own class is 1."""
    logs, rest = _precise(plain)
    own = (np.arange(len(plain)), plain.label)
    terms = np.exp(logs) * rest
    terms[own] = np.exp(rest[own]) * logs[own]
    return terms.sum(axis=1)


def _precise(plain: ClassSignals) -> tuple[Logs, Logs]:
    """log p and log(1 - p) of every class. Where p is close to 1, each is taken from the other classes."""
    logs = plain.logprobs.astype(np.float64)
    first = logs.argmax(axis=1)
    top = (np.arange(len(plain)), first)
    others = replace(plain, label=first).other
    logs[top] = np.where(logs[top] > np.log(0.5), np.log1p(-np.exp(np.minimum(others, np.log(0.5)))), logs[top])
    rest = np.log1p(-np.exp(np.minimum(logs, np.log(0.5))))
    rest[top] = others
    return logs, rest
