"""RMIA at scale, and what shadow models cost: workers side by side, and memory by their number.

    python -m benchmarks.classifier_speed             all of it
    python -m benchmarks.classifier_speed workers 3   16 shadows on Ray by 1 and 2 workers in turn, 3 times
    python -m benchmarks.classifier_speed workers 3 4    the same with 4 shadows
    python -m benchmarks.classifier_speed memory      4, 16 and 32 shadows without Ray

A process each. Wall seconds without the start of Ray; processor: seconds that the workers computed, which other work
on the machine does not change; memory is the peak of the process, of which training one model is a constant part;
load is the machine's average of the minute before. Wall seconds mean little where it is not near 0.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from functools import partial
from statistics import median

import numpy as np

RECORDS = 1500
SHADOWS = 16
UNITS = ("ray::_on_node", "ray::IDLE")  # names of processes that run units
COUNTS = (4, 16, 32)


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
    from repromia.targets.classifier_options import ClassifierOptions
    from repromia.targets.classifiers import wrap_classifier

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
    seconds = round(time.perf_counter() - began, 1)
    return {"seconds": seconds, "processor": round(computed(), 1), "megabytes": round(peak(), 1)}


def computed() -> float:
    """Processor seconds of this process's Ray workers; of the process itself where there are none."""
    import psutil

    here = psutil.Process()
    ours = [one for one in here.children(recursive=True) if one.name().startswith(UNITS)] or [here]
    return float(sum(sum(one.cpu_times()[:2]) for one in ours))


def peak() -> float:
    """Of this process, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(*arguments: object) -> dict[str, float]:
    """One measurement in a process of its own."""
    load = os.getloadavg()[0]
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.classifier_speed", "one", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}  # 15 by itself
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return {**json.loads(done.stdout.splitlines()[-1]), "load": round(load, 2)}


def workers(repeats: int, models: int = SHADOWS) -> None:
    """One worker and two in turn, so that both meet the same load of the machine."""
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(repeats):
        for count, known in seconds.items():
            found = measured("shadows", models, count)
            known.append(found["seconds"])
            print(f"{models} shadows, Ray, {count} worker(s): {found}", flush=True)
    each = [one / two for one, two in zip(seconds[1], seconds[2], strict=True)]
    middle = {count: round(median(known), 1) for count, known in seconds.items()}
    print(f"median seconds {middle}; 1 worker / 2 workers: {round(median(each), 2)} of {[round(x, 2) for x in each]}")


def memory() -> None:
    """By the number of shadows."""
    for count in COUNTS:
        print(f"{count} shadows, in process: {measured('shadows', count, 0)}", flush=True)


def main() -> None:
    """Print the tables; with arguments, one of them."""
    match sys.argv[1:]:
        case ["one", "rmia"]:
            print(json.dumps(rmia()))
        case ["one", "shadows", count, number]:
            print(json.dumps(shadows(int(count), int(number))))
        case ["rmia"]:
            print(f"RMIA, 50,000 x 10,000: {measured('rmia')}")
        case ["workers", *numbers]:
            workers(*map(int, numbers or ["3"]))
        case ["memory"]:
            memory()
        case _:
            print(f"RMIA, 50,000 x 10,000: {measured('rmia')}", flush=True)
            workers(3)
            memory()


if __name__ == "__main__":
    main()
