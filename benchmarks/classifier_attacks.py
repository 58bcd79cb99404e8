"""A few attacks on the targets of `benchmarks.classifier_targets`, without controls, intervals and augmentations.

    python -m benchmarks.classifier_attacks --models /tmp/cifar --build colour --attacks shokri salem ldc_mia qmia

Roles are drawn as by an audit, but no near-duplicate is taken out; figures are of the eval role. Every model is asked
about the plain records once. Prints AUC, TPR at 1 % and at 0.1 % FPR, and the AUC on the null model.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import classifier_targets
from repromia.attacks import parse
from repromia.class_records import class_records_from_objects
from repromia.evaluate import Judge, all_records
from repromia.metrics import auc, tpr_at_fpr
from repromia.programs import Binding
from repromia.programs.queries import Query
from repromia.progress import Progress, Silent
from repromia.records import LabelledRecords, Records
from repromia.roles import assign_roles
from repromia.scoring import run_attack
from repromia.signals import ReferenceSignals, stack, told_by
from repromia.store import Store
from repromia.targets.classifier import Classifier
from repromia.targets.classifier_files import fill
from repromia.targets.classifiers import wrap_classifier
from repromia.views import Views


@dataclass
class Pool:
    """The models' records by number, and who saw which."""

    models: Path
    build: str

    def __post_init__(self) -> None:
        arrays, masks = np.load(self.models / "pool.npz"), np.load(self.models / "masks.npz")
        self.images, self.labels, self.inside = arrays["images"], arrays["labels"], masks["inside"]

    def model(self, number: int, records: Records) -> Classifier:
        """One of them."""
        module = getattr(classifier_targets, self.build)()
        fill(module, self.models / f"{number:02d}.safetensors")
        return wrap_classifier(module.eval().requires_grad_(False), records=records.take([0]), name=f"model {number}")

    def labelled(self, target: int) -> tuple[LabelledRecords, np.ndarray]:
        """Members and non-members of a target, and their numbers in the pool."""
        sides = [np.flatnonzero(self.inside[target] == side) for side in (True, False)]
        records = class_records_from_objects(*((self.images[one], self.labels[one]) for one in sides))
        return records, np.concatenate(sides)


@dataclass
class PlainShadows:
    """Shadow models that are asked about the plain records and nothing else."""

    pool: Pool
    numbers: range
    place: dict[str, int]

    def signals(self, records: Records, store: Store, progress: Progress) -> ReferenceSignals:
        """What they say."""
        rows = [self.place[name] for name in records.ids]
        asked = [
            (Query().ask(self.pool.model(one, records), records), self.pool.inside[one, rows]) for one in self.numbers
        ]
        return stack([told_by(answers, inside) for answers, inside in asked])


def figures(pool: Pool, target: int, shadows: int, names: list[str]) -> dict[str, list[float]]:
    """Of every attack: AUC, TPR at 1 %, TPR at 0.1 % and the AUC on the null model."""
    labelled, numbers = pool.labelled(target)
    roles = assign_roles(labelled, seed=0)
    judge, records = Judge(roles, (0.01,), 200, 0), all_records(roles)
    place = dict(zip(labelled.records.ids, numbers.tolist(), strict=True))
    first = classifier_targets.TARGETS
    references = PlainShadows(pool, range(first, first + shadows), place)
    found: dict[str, list[float]] = {}
    facts: dict[str, Any] = {}
    for number in (target, len(pool.inside) - 1):
        model = pool.model(number, records)
        binding = Binding(model, roles.fit, roles.select, 0, Silent(), longest=0)
        views = Views({"target": model}, records, binding, Store(None), shadows=references, _facts=facts)
        for name in names:
            scored = run_attack(parse(name, "classifier"), views)
            assert scored.scores is not None, scored.reason
            own = scored.scores[judge.eval_rows]
            area = auc(own, judge.member)
            tprs = [tpr_at_fpr(own, judge.member, fpr) for fpr in (0.01, 0.001)] if number == target else []
            found.setdefault(name, []).extend([area, *tprs])
            print(f"target {target}, model {number}, {name}: {area:.3f}", *(f"{one:.3f}" for one in tprs), flush=True)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--build", choices=("colour", "grey"), required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--shadows", type=int, default=15)
    parser.add_argument("--attacks", nargs="+", default=["shokri", "salem", "ldc_mia", "qmia"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    pool = Pool(given.models, given.build)
    every = [figures(pool, seed, given.shadows, given.attacks) for seed in given.seeds]
    print("| | AUC | TPR at 1 % | TPR at 0.1 % | null AUC |\n|---|---|---|---|---|")
    for name in given.attacks:
        columns = [" ".join(f"{one[name][at]:.3f}" for one in every) for at in range(4)]
        print(f"| {name} | " + " | ".join(columns) + " |")


if __name__ == "__main__":
    main()
