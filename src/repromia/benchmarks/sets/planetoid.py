"""Citation graphs: Cora, CiteSeer and PubMed, random halves of the nodes."""

from __future__ import annotations

from functools import partial

from repromia.benchmarks import graph_networks
from repromia.benchmarks.benchmark import NOT_HERE, Benchmark, DataFile, Published, Scale

OLATUNJI = "Olatunji, Nejdl, Khosla 2021, rebMIGraph (hard labels averaged over batches, called AUROC there)"
NAMES = {"cora": "Cora", "citeseer": "CiteSeer", "pubmed": "PubMed"}
HASHES = {
    "cora": "811afd583cddb6155ef237d0e26b3f369398d2db7a7b1eddb514e5ba0f351db1",
    "citeseer": "c27a820ec1dcb577cdc28afbcd33b381ccb0e8afe21176a5070b524ccd159faa",
    "pubmed": "",
}
HARD = {"cora": 0.811, "citeseer": 0.879, "pubmed": 0.678}
BLIND = {
    "cora": "With the usual protocol (members asked on the subgraph they trained, others on the whole graph) the "
    "degree alone, with no model, reaches AUC .855 and the label alone .744.",
    "citeseer": "With the usual protocol the degree alone, with no model, reaches AUC .877 and the label alone .600.",
}
ASYMMETRIC = "rebMIGraph's figure is balanced accuracy on queries of two different graphs: not comparable with an AUC."


def _graph(name: str) -> Benchmark:
    path = f"planetoid/{name}.npz"
    arrays = "x_data, x_indices, x_indptr, x_shape, edge_index, y"
    raw = DataFile(
        f"planetoid/{NAMES[name]}/raw",
        f"ind.{name}.x and its seven siblings",
        unhashed="eight files; the npz is compared",
    )
    return Benchmark(
        name=f"{name}-gcn",
        title=f"GCN on {NAMES[name]}",
        modality="graph",
        iid=True,
        source="https://github.com/kimiyoung/planetoid, data (Yang et al. 2016)",
        licence="MIT",
        layouts=((DataFile(path, arrays, HASHES[name], unhashed="" if HASHES[name] else NOT_HERE),), (raw,)),
        protocol="A random half of the nodes is trained on, on the subgraph of that half; both sides are asked on the "
        "whole graph. Every seed a new lot and a new target. Seeds share nodes.",
        target="trained here: a GCN of two layers",
        against=tuple(filter(None, (BLIND.get(name), ASYMMETRIC))),
        published=(Published("rebMIGraph (TSTF)", f"GCN, {NAMES[name]}", HARD[name], None, OLATUNJI, note=ASYMMETRIC),),
        smoke=graph_networks.SMOKE,
        laptop=Scale(attacks=graph_networks.EVERYTHING, takes="5 to 15 minutes", training=100, shadows=8),
        paper=Scale(attacks=graph_networks.EVERYTHING, takes="an hour", training=100, shadows=64),
        read=graph_networks.read_one,
        run=graph_networks.run_graph,
        stand_in=partial(graph_networks.write_graph, path=path),
        steps=graph_networks.graph_steps,
    )


BENCHMARKS = tuple(map(_graph, NAMES))
