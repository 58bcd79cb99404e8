"""What attacks read off reference models: who saw a record, what they say of it on average, what a network learns."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import logit, logsumexp

from repromia.attacks import Variants
from repromia.errors import AttackError
from repromia.signals import ClassSignals, ReferenceGains, ReferenceSignals, Scores

Saw = Bool[np.ndarray, "model record"]
Answers = Float[np.ndarray, "record query"]
CHOOSES = "labels to choose queries"
ROWS = 20_000  # answers of shadow models that a network learns on
FLOOR = 1e-6  # of a standard deviation: what single precision leaves of a scaled logit


def outside(references: ReferenceSignals | ReferenceGains) -> Saw:
    """The models that did not see a record. Raises AttackError where a record has none."""
    return _some(~references.inside, "did not see it", "in the training data of every reference model")


def inside(references: ReferenceSignals | ReferenceGains) -> Saw:
    """The models that saw a record. Raises AttackError where a record has none."""
    return _some(references.inside, "saw it", "in the training data of no reference model")


def _some(saw: Saw, wanted: str, found: str) -> Saw:
    missing = int((~saw.any(axis=0)).sum())
    if missing:
        raise AttackError(
            f"Some records have no reference model that {wanted}.",
            expected=f"for every record at least one model that {wanted}",
            found=f"{missing} of {saw.shape[1]} records {found}",
            hint="train more shadow models, or leave these records out",
        )
    return saw


def scaled_logits(
    variants: Sequence[ClassSignals], references: ReferenceSignals, queries: str
) -> tuple[Answers, Float[np.ndarray, "model record query"]]:
    """The target's and the references', of all queries or of the plain record. Raises AttackError where the references
    were asked other queries."""
    check_option("queries", queries, ("all", "plain"))
    theirs = references.logprob.shape[2]
    if len(variants) != theirs:
        raise AttackError(
            "The reference models were asked other queries than the target.",
            expected=f"{len(variants)} augmentations a record",
            found=f"{theirs}",
            hint="ask both under the program augmented",
        )
    kept = theirs if queries == "all" else 1
    return np.stack([one.scaled_logit for one in variants[:kept]], axis=1), references.scaled_logit[:, :, :kept]


def by_queries(queries: str, score: Callable[[str], Scores]) -> Scores | Variants:
    """The score by the queries named, joined by +: variants where there are several."""
    names = tuple(dict.fromkeys(queries.split("+")))
    if len(names) == 1:
        return score(names[0])
    return Variants(names, np.stack([score(one) for one in names], axis=1))


def log_mean(references: ReferenceSignals, saw: Saw, queries: str = "plain") -> Scores:
    """log of the mean p over these models, of the plain record or over all queries."""
    check_option("queries", queries, ("all", "plain"))
    kept = references.logprob.shape[2] if queries == "all" else 1
    logs = np.where(saw[:, :, None], references.logprob[:, :, :kept].astype(np.float64), -np.inf)
    found: Scores = logsumexp(logs, axis=(0, 2)) - np.log(saw.sum(axis=0) * kept)
    return found


@dataclass(frozen=True)
class Moments:
    """Over some models of each record. count: models; square: sum of squared distances to the mean."""

    count: Float[np.ndarray, "record 1"]
    mean: Answers
    square: Answers

    @property
    def pooled(self) -> Float[np.ndarray, " query"]:
        """Variance within a record, the same for all; between the records where none has two models."""
        free = (self.count - 1).sum()
        found = self.square.sum(axis=0) / free if free else self.mean.var(axis=0)
        return np.maximum(found, FLOOR**2)


def moments(values: Float[np.ndarray, "model record query"], saw: Saw) -> Moments:
    """Of the values of the models that each record has."""
    count = saw.sum(axis=0)[:, None].astype(np.float64)
    kept = saw[:, :, None]
    mean = np.where(kept, values, 0.0).sum(axis=0) / count
    return Moments(count, mean, (np.where(kept, values - mean, 0.0) ** 2).sum(axis=0))


def check_option(name: str, value: str, known: Sequence[str]) -> None:
    """Raises AttackError for a value that an option does not have."""
    if value not in known:
        raise AttackError(f"The option {name} cannot be {value!r}.", expected=" or ".join(known))


def network_log_odds(
    learned: Float[np.ndarray, "row feature"],
    member: Bool[np.ndarray, " row"],
    asked: Float[np.ndarray, "record feature"],
    seed: int,
) -> Scores:
    """Log-odds of membership by a network of 32 hidden units, learned on rows of known membership; the order of the
    rows plays no part."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    order = np.lexsort((member, *learned.T))
    learned, member = learned[order], member[order]
    centre, spread = learned.mean(axis=0), learned.std(axis=0)
    learned, asked = ((one - centre) / np.where(spread > FLOOR, spread, 1.0) for one in (learned, asked))
    rows = np.random.default_rng(seed).permutation(len(learned))[:ROWS]
    network = MLPClassifier((32,), alpha=1e-3, learning_rate_init=1e-2, max_iter=30, random_state=seed)
    with warnings.catch_warnings():  # a fixed number of rounds is meant
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit(learned[rows], member[rows])
    found: Scores = logit(network.predict_proba(asked)[:, 1].clip(1e-12, 1 - 1e-12))
    return found
