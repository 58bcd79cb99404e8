"""Shadow models teach a network to read the loss beside how hard the record is for other models."""

from typing import Annotated

import numpy as np
from jaxtyping import Bool, Float, Int

from repromia.attacks import Ask, AskReferences, attack
from repromia.attacks.classifier._references import Saw, inside, network_log_odds, outside
from repromia.errors import AttackError
from repromia.signals import ClassSignals, ReferenceSignals, Scores

NEIGHBOURS = 1000  # records that a record's density is counted among


@attack(
    citation="Shi, Ouyang & Wang 2024 (LDC-MIA, arXiv 2401.04929)",
    access="probabilities",
    kind="reference",
    needs=("shadows",),
    modality="classifier",
)
def ldc_mia(
    plain: Annotated[ClassSignals, Ask("identity")],
    references: Annotated[ReferenceSignals, AskReferences()],
    *,
    similar: float = 0.9,
    enough: int = 50,
    seed: int = 0,
) -> Scores:
    """Log-odds of membership by a network of 32 hidden units on log p of the own class, the same less its mean over
    models that did not see the record, the density of those models' answers about it, and its class. Every shadow
    model in the target's place, beside the others, teaches it.

    The density of an answer is the share of a model's answers about at most 1,000 other records that it did not see
    either whose three largest probabilities have a cosine of at least `similar` to it: who was in the target's
    training data is not known to any of it. A class is told apart where there are at least `enough` answers about it
    of both kinds. In place of the original's quotient of calibrated loss and density the network is given both.
    """
    if not 0 < similar < 1:
        raise AttackError("The option similar lies between 0 and 1.", found=f"{similar}")
    inside(references)
    saw_not = outside(references)
    logs = references.logprob[:, :, 0].astype(np.float64)
    dense = np.stack([_density(references, model, similar) for model in range(references.models)])
    taught = np.stack([logs, logs - _mean_of_others(logs, saw_not), _mean_of_others(dense, saw_not)], axis=2)
    asked = np.stack([plain.logprob, plain.logprob - _mean(logs, saw_not), _mean(dense, saw_not)], axis=1)
    usable = np.isfinite(taught).all(axis=2)
    rows, member = taught[usable], references.inside[usable]
    if member.all():
        raise AttackError(
            "There are too few shadow models to compare one that did not see a record with another.",
            expected="at least three shadow models",
            found=str(references.models),
        )
    label = np.broadcast_to(plain.label, usable.shape)[usable]
    kept = _common(label, member, enough)
    rows, asked = (
        np.concatenate([one, classes[:, None] == kept], axis=1)
        for one, classes in ((rows, label), (asked, plain.label))
    )
    return network_log_odds(rows, member, asked, seed)


def _density(references: ReferenceSignals, model: int, similar: float) -> Scores:
    """Share of a model's answers about other records, that it did not see, which are similar to that about each."""
    answers = _directions(references.top[model], references.top_classes[model])
    unseen = np.flatnonzero(~references.inside[model])
    order = unseen[np.lexsort(answers[unseen].T)]  # whatever the order of records
    near = order[np.linspace(0, len(order) - 1, min(NEIGHBOURS, len(order))).astype(np.int64)]
    count = (answers @ answers[near].T >= similar).sum(axis=1).astype(np.float64)
    own = np.isin(np.arange(len(answers)), near)
    density: Scores = (count - own) / np.maximum(len(near) - own, 1)
    return density


def _directions(
    top: Float[np.ndarray, "record rank"], classes: Int[np.ndarray, "record rank"]
) -> Float[np.ndarray, "record class"]:
    """Probabilities of the classes that were kept, of length 1; of the others 0."""
    values = np.exp(top.astype(np.float64))
    values /= np.maximum(np.sqrt((values**2).sum(axis=1, keepdims=True)), 1e-300)
    found = np.zeros((len(top), int(classes.max()) + 1), dtype=np.float32)
    np.put_along_axis(found, classes.astype(np.int64), values.astype(np.float32), axis=1)
    return found


def _mean(values: Float[np.ndarray, "model record"], saw_not: Saw) -> Scores:
    found: Scores = np.where(saw_not, values, 0.0).sum(axis=0) / saw_not.sum(axis=0)
    return found


def _mean_of_others(values: Float[np.ndarray, "model record"], saw_not: Saw) -> Float[np.ndarray, "model record"]:
    """Over the models but one that did not see a record; NaN where there is none."""
    kept = np.where(saw_not, values, 0.0)
    count = saw_not.sum(axis=0) - saw_not
    return np.where(count > 0, (kept.sum(axis=0) - kept) / np.maximum(count, 1), np.nan)


def _common(label: Int[np.ndarray, " row"], member: Bool[np.ndarray, " row"], enough: int) -> Int[np.ndarray, " class"]:
    """Classes with enough rows of both kinds."""
    counts = np.stack([np.bincount(label[member == side], minlength=int(label.max()) + 1) for side in (True, False)])
    return np.flatnonzero((counts >= enough).all(axis=0))
