"""Train the classifiers of the benchmarks: targets and shadows alike, each on a random half of one pool of records.

    python -m benchmarks.classifier_targets --data ../shared/data/cifar10/cifar10_12k_4k.npz --out /tmp/cifar

Models 0, 1 and 2 are the targets of the three seeds, the others their shadows. Writes pool.npz (images, labels),
masks.npz (ids, inside) and one safetensors file a model; what is already there is kept.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from repromia.benchmarks.networks import SmallCnn, train

RECORDS = 9000  # half of them members: about 3,150 + 3,150 are left for eval
TARGETS = 3


def colour() -> SmallCnn:
    """For `--model benchmarks.classifier_targets:colour`."""
    return SmallCnn(3)


def grey() -> SmallCnn:
    """For `--model benchmarks.classifier_targets:grey`."""
    return SmallCnn(1)


def masks(models: int, records: int, generator: np.random.Generator) -> np.ndarray:
    """(model, record): halves drawn by lot. Shadows are balanced among themselves; targets and the null model (the
    last) are independent of them and of each other: balanced together, whom one saw would tell against the others."""
    alone = generator.random((TARGETS + 1, records)).argsort(axis=1) < records // 2
    shadows = models - TARGETS - 1
    balanced = generator.random((shadows, records)).argsort(axis=0) < shadows // 2 + (np.arange(records) % 2) * (
        shadows % 2
    )
    return np.concatenate([alone[:TARGETS], balanced, alone[TARGETS:]])


def main() -> None:
    """Train what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=int, default=19)
    parser.add_argument("--augment", action="store_true")
    parser.add_argument("--slot", type=int, default=0, help="0: the benchmark's records; 1: others, for development")
    parser.add_argument("--records", type=int, default=RECORDS)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    arrays = np.load(given.data)
    images = np.concatenate([arrays["x_train"], arrays["x_test"]])
    labels = np.concatenate([arrays["y_train"], arrays["y_test"]]).astype(np.int64)
    images = images if images.ndim == 4 else images[..., None]
    order = np.random.default_rng(20261).permutation(len(images))
    rows = order[: given.records] if given.slot == 0 else order[-given.records :]
    inside = masks(given.models, given.records, np.random.default_rng(given.slot))
    given.out.mkdir(parents=True, exist_ok=True)
    ids = np.array([f"p{row:05d}" for row in range(given.records)])
    np.savez(given.out / "pool.npz", images=images[rows], labels=labels[rows], ids=ids)
    np.savez(given.out / "masks.npz", ids=ids, inside=inside)
    for number in range(given.models):
        path = given.out / f"{number:02d}.safetensors"
        if path.is_file():
            continue
        began = time.perf_counter()
        chosen = rows[inside[number]]
        model = train(images[chosen], labels[chosen], seed=number, augment=given.augment)
        save_file(model.state_dict(), path)
        with torch.no_grad():
            pixels = torch.from_numpy(images[rows]).permute(0, 3, 1, 2).float() / 255
            right = np.concatenate([model(one).argmax(1).numpy() for one in pixels.split(500)]) == labels[rows]
        figures = {"model": number, "train": right[inside[number]].mean(), "test": right[~inside[number]].mean()}
        print(json.dumps({**figures, "seconds": round(time.perf_counter() - began, 1)}), flush=True)


if __name__ == "__main__":
    main()
