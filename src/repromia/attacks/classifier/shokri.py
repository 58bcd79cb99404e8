"""Shadow models teach a classifier what members look like, class by class."""

import warnings
from typing import Annotated

import numpy as np

from repromia.attacks import Ask, AskReferences, attack
from repromia.attacks.classifier._references import FLOOR, inside, outside
from repromia.signals import ClassSignals, ReferenceSignals, Scores


@attack(
    citation="Shokri et al. 2017 (arXiv 1610.05820), on the own class's and the largest probabilities",
    access="probabilities",
    kind="reference",
    needs=("shadows",),
    modality="classifier",
)
def shokri(
    plain: Annotated[ClassSignals, Ask("identity")],
    references: Annotated[ReferenceSignals, AskReferences()],
    *,
    enough: int = 50,
) -> Scores:
    """Log-odds of membership by logistic regression on log p and the scaled logit of the own class and the logarithms
    of the three largest probabilities, learned on what every shadow model says of the records that it saw and did not
    see.

    One regression a class with at least `enough` answers of both kinds, one on all for the others. The original
    learns networks on all classes' probabilities, of which no more than these are kept of a shadow model.
    """
    inside(references)
    outside(references)
    theirs = np.stack([references.logprob[:, :, 0], references.scaled_logit[:, :, 0]], axis=2)
    learned = np.concatenate([theirs, references.top], axis=2).astype(np.float64)
    own = np.concatenate([np.stack([plain.logprob, plain.scaled_logit], axis=1), plain.top], axis=1)
    centre, spread = learned.mean(axis=(0, 1)), learned.std(axis=(0, 1))
    learned, own = ((one - centre) / np.where(spread > FLOOR, spread, 1.0) for one in (learned, own))
    width = learned.shape[2]
    scores = _log_odds(learned.reshape(-1, width), references.inside.ravel(), own)
    for label in np.unique(plain.label):
        rows = plain.label == label
        saw = references.inside[:, rows].ravel()
        if min(saw.sum(), (~saw).sum()) >= enough:
            scores[rows] = _log_odds(learned[:, rows].reshape(-1, width), saw, own[rows])
    return scores


def _log_odds(features: np.ndarray, member: np.ndarray, asked: np.ndarray) -> np.ndarray:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    regression = LogisticRegression(solver="newton-cholesky", tol=1e-10, max_iter=200)
    with warnings.catch_warnings():  # where all answers are alike it goes on with another solver, and says so
        warnings.simplefilter("ignore", ConvergenceWarning)
        regression.fit(features, member)
    found: np.ndarray = regression.decision_function(asked)
    return found
