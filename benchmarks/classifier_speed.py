"""RMIA at scale, and what shadow models cost: workers side by side, and memory by their number.

    python -m benchmarks.classifier_speed

Wall seconds of a process each; memory is the peak of the process, of which training one model is a constant part.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from functools import partial

import numpy as np

RECORDS = 1500
SHADOWS = 16


def rmia() -> dict[str, float]:
    """50,000 records against a population of 10,000."""
    from repromia.attacks.classifier.rmia import rmia_share

    generator = np.random.default_rng(0)
    ours, population = np.exp(generator.normal(size=50_000)), np.exp(generator.normal(size=10_000))
    before = peak()
    began = time.perf_counter()
    rmia_share(ours, population)
    return {"seconds": round(time.perf_counter() - began, 4), "megabytes": round(peak() - before, 1)}


def shadows(count: int, workers: int) -> dict[str, float]:
    """Train and ask that many shadows of the demo's network. workers: 0 in this process, else on Ray."""
    from sklearn.datasets import load_digits

    from repromia.demo import classifier as demo
    from repromia.demo.diffusion import handwritten_digits
    from repromia.pictures import pictures_from_objects
    from repromia.progress import Silent
    from repromia.shadows import TrainedShadows
    from repromia.store import Store
    from repromia.targets.classifiers import ClassifierOptions, wrap_classifier

    images, label = handwritten_digits()[:RECORDS], load_digits().target[:RECORDS]
    half = RECORDS // 2
    sides = [
        [{"image": one, "class": str(name)} for one, name in zip(images[part], label[part], strict=True)]
        for part in (slice(0, half), slice(half, None))
    ]
    records = pictures_from_objects(*sides, image="image", caption="class").records
    classes = tuple(map(str, range(10)))
    wrap = partial(wrap_classifier, records=records.take([0]), options=ClassifierOptions(classes=classes))
    if workers:
        import ray

        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="error")
    made = TrainedShadows(demo.train, wrap, count, classes=classes, cluster="ray" if workers else "local")
    began = time.perf_counter()
    made.signals(records, Store(None), Silent())
    return {"seconds": round(time.perf_counter() - began, 1), "megabytes": round(peak(), 1)}


def peak() -> float:
    """Of this process, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print the tables; with arguments, one measurement."""
    if len(sys.argv) > 1:
        what, *numbers = sys.argv[1:]
        print(json.dumps(rmia() if what == "rmia" else shadows(*map(int, numbers))))
        return
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for title, arguments in (
        ("RMIA, 50,000 x 10,000", ["rmia"]),
        (f"{SHADOWS} shadows, Ray, 1 worker", ["shadows", str(SHADOWS), "1"]),
        (f"{SHADOWS} shadows, Ray, 2 workers", ["shadows", str(SHADOWS), "2"]),
        ("4 shadows, in process", ["shadows", "4", "0"]),
        (f"{SHADOWS} shadows, in process", ["shadows", str(SHADOWS), "0"]),
    ):
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.classifier_speed", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        print(f"{title:32} {done.stdout.splitlines()[-1]}", flush=True)


if __name__ == "__main__":
    main()
