"""Peak memory and time of asking a graph network on the whole graph or on limited neighbourhoods.

    python -m benchmarks.graph_memory

A random graph of 200,000 nodes, 100 features and 4 million edges whose ends are drawn unevenly, a SAGE network of two
layers with 64 hidden units, 2,000 nodes asked. Each way runs in a process of its own; `graph` only makes the graph and
the edges' order. Peak resident size.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

NODES, FEATURES, EDGES, ASKED = 200_000, 100, 4_000_000, 2_000
WAYS = {"graph": None, "whole graph": (-1, 0), "2 hops": (2, 0), "2 hops, 10 edges a node": (2, 10)}


def measured(way: str) -> tuple[float, float]:
    """Peak resident megabytes and seconds of asking, in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.graph_memory", way], capture_output=True, text=True, check=True
    )
    peak, seconds = done.stdout.split()[-2:]
    return float(peak), float(seconds)


def run(way: str) -> None:
    """Ask one way; prints this process's peak in MB and the seconds of asking."""
    import numpy as np
    import torch

    from repromia.benchmarks.graph_networks import network
    from repromia.graphs import Graph
    from repromia.records import Node, Records
    from repromia.targets.classifier_options import ClassifierOptions
    from repromia.targets.classifiers import wrap_classifier

    torch.set_num_threads(1)
    drawn = np.random.default_rng(0)
    ends = (NODES * drawn.random((2, EDGES)) ** 2).astype(np.int64)  # low numbers have many edges
    graph = Graph(drawn.standard_normal((NODES, FEATURES), dtype=np.float32), ends)
    number = drawn.permutation(NODES)[:ASKED]
    ids = tuple(map(str, number))
    records = Records(ids, tuple(Node(int(one), "0", graph.digest, graph) for one in number), ids)
    torch.manual_seed(0)
    model = network("sage", FEATURES, 10)
    begun = time.perf_counter()
    asked = WAYS[way]
    if asked is not None:
        hops, neighbours = asked
        options = ClassifierOptions(classes=tuple(map(str, range(10))), hops=hops, neighbours=neighbours)
        target = wrap_classifier(model, records=records, options=options, name=way)
        batch = target.encode(records.contents, records.ids)
        target.signals(batch.inputs, batch.label)
    seconds = time.perf_counter() - begun
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, seconds)


def main() -> None:
    """Print peaks and times."""
    if len(sys.argv) > 1:
        run(sys.argv[1])
        return
    for way in WAYS:
        peak, seconds = measured(way)
        print(f"{way}: peak {peak:.0f} MB, asking {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
