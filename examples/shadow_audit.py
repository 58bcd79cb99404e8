"""An audit with shadow models, on a laptop or on a Ray cluster: the same file, the same figures.

On this machine, one model after the other:   python examples/shadow_audit.py
On all of its processors:                     python examples/shadow_audit.py --cluster ray
On several nodes (pip install 'repromia[cluster]', equal versions, on each of them):
    on the first:          ray start --head --port=6379 --ray-client-server-port=10001
    on every other:        ray start --address=FIRST:6379
    from your own machine:   python examples/shadow_audit.py --cluster ray://FIRST:10001
    or on the first itself:  python examples/shadow_audit.py --cluster ray
Ray 2.60 asks for the first node's token (~/.ray/auth_token, where `ray get-auth-token --generate` made one): copy it to
the other machines, and set RAY_AUTH_MODE=token for their `ray start`. A run that was killed goes on with what it had
not finished (--out), and a worker that dies is replaced. This file need not be on the nodes; other files of yours that
`train` imports must be.
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

import repromia
from repromia.records import Records, TableRow


def fit(values: np.ndarray, classes: np.ndarray, seed: int) -> MLPClassifier:
    """The recipe of the target and of its shadows: small, and trained until it remembers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of rounds is part of the recipe
        return MLPClassifier((64,), learning_rate_init=0.005, max_iter=60, random_state=seed).fit(values, classes)


def train(records: Records, seed: int) -> MLPClassifier:
    """A shadow model: the target's recipe on other records."""
    rows = [one for one in records.contents if isinstance(one, TableRow)]
    return fit(np.array([one.values for one in rows]), np.array([one.label for one in rows]), seed)


def main() -> None:
    """Trains a target on half of the digits, its shadows on random halves of all of them, and audits it."""
    parser = argparse.ArgumentParser(description="An audit with shadow models")
    parser.add_argument("--cluster", default="local", help="local, ray or ray://host:port")
    parser.add_argument("--shadows", type=int, default=16)
    parser.add_argument("--out", default="shadow-audit")
    chosen = parser.parse_args()

    values, classes = load_digits(return_X_y=True)
    values, classes = values / 16, classes.astype(str)
    member = np.random.default_rng(0).permutation(len(values)) < len(values) // 2
    model = fit(values[member], classes[member], 0)

    records = repromia.load_records((values[member], classes[member]), (values[~member], classes[~member]))
    target = repromia.classifier(model, records=records)
    shadows = repromia.shadow_models(train, target, records, count=chosen.shadows, cluster=chosen.cluster)
    result = repromia.audit(target, records, shadows=shadows, out=chosen.out, cluster=chosen.cluster)
    print(result.findings[0].sentence)


if __name__ == "__main__":
    main()
