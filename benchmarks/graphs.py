"""Audit graph networks on citation graphs: members a random half of the nodes, trained on the subgraph of members.

    python -m benchmarks.graphs --data ../shared/data/planetoid --graphs cora citeseer --out /tmp/graphs

Both sides are asked on the whole graph. With --asymmetric the protocol of older papers instead: members on the graph of
the members alone; passive attacks and blind baselines only; with --per-class 90 --others 630 also the sampling of
Olatunji et al. on Cora (100 and 600 on CiteSeer): as many members of each class, non-members from all the rest.
With --transductive targets and shadow models are trained on the whole graph, with the labels of their halves alone.
Audits that were finished are read back.
"""

from __future__ import annotations

import argparse
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch

import repromia
from benchmarks.diffusion import table
from repromia.benchmarks.graph_networks import train
from repromia.graph_files import read_graph
from repromia.graph_records import node_records
from repromia.result import AuditResult

KINDS = ("gcn", "gat", "sage")
ATTACKS = ("default", "probe_bank:preset=full", "reprogram:prompts=5", "reprogram:recipe=paper")
PASSIVE = ("loss", "confidence", "entropy", "modified_entropy")


def drawn(labels: tuple[str, ...], seed: int, per_class: int, others: int) -> tuple[np.ndarray, np.ndarray]:
    """Members and non-members: halves by lot, or as many members of each class and some of the rest."""
    order = np.random.default_rng(seed).permutation(len(labels))
    if not per_class:
        return order[: len(order) // 2], order[len(order) // 2 :]
    own = np.array(labels)[order]
    members = np.concatenate([order[own == one][:per_class] for one in sorted(set(labels))])
    rest = order[~np.isin(order, members)]
    return members, rest[:others]


def audit(
    path: Path,
    kind: str,
    seed: int,
    shadows: int,
    out: Path,
    *,
    asymmetric: bool,
    sampling: tuple[int, int] = (0, 0),
    attacks: tuple[str, ...] = ATTACKS,
    controls: bool = True,
    transductive: bool = False,
) -> AuditResult:
    """One target, trained here."""
    graph = read_graph(path)
    sides = drawn(graph.labels, seed, *sampling)
    labelled = node_records(graph, *sides)
    taught = partial(train, kind=kind, classes=len(set(graph.labels)), transductive=transductive)
    target = repromia.classifier(taught(labelled.members(), seed), labelled)
    folder = out / f"{path.stem}-{kind}-{seed}"
    if asymmetric:
        asked = node_records(graph, *sides, asymmetric=True)
        return repromia.audit(target, asked, seed=seed, attacks=PASSIVE, out=folder)
    references = repromia.shadow_models(taught, target, labelled, count=shadows, seed=1000 + seed)
    return repromia.audit(
        target,
        labelled,
        shadows=references,
        seed=seed,
        attacks=attacks,
        fprs=(0.01,),
        controls=controls,
        program_permutations=1,
        out=folder,
    )


def main() -> None:
    """Audit and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--graphs", nargs="+", default=["cora", "citeseer"])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--shadows", type=int, default=8)
    parser.add_argument("--asymmetric", action="store_true")
    parser.add_argument("--transductive", action="store_true")
    parser.add_argument("--per-class", type=int, default=0)
    parser.add_argument("--others", type=int, default=630)
    parser.add_argument("--attacks", nargs="+", default=list(ATTACKS))
    parser.add_argument("--no-controls", action="store_true", help="no null target, no permuted labels")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name, kind in product(given.graphs, given.kinds):
        results = {
            f"seed {seed}": audit(
                given.data / f"{name}.npz",
                kind,
                seed,
                given.shadows,
                given.out,
                asymmetric=given.asymmetric,
                sampling=(given.per_class, given.others),
                attacks=tuple(given.attacks),
                controls=not given.no_controls,
                transductive=given.transductive,
            )
            for seed in given.seeds
        }
        print(f"\n{name} {kind}\n\n{table(results)}", flush=True)
        for seed, one in results.items():
            print(f"\n{seed}: joint null p {one.null_target.joint_p}")
            for finding in one.findings:
                print(f"  {finding.sentence}")


if __name__ == "__main__":
    main()
