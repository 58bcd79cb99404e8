"""A small graph network audited end to end, with shadow models trained on parts of the same graph."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
import torch

import repromia
from graph_models import INSIDE, LABELS, OUTSIDE, graph, model, network, trained
from repromia.records import LabelledRecords, Node, Records
from repromia.result import AuditResult

ATTACKS = ("loss", "augmented", "rmia", "lira", "hop_posteriors", "g_base:draws=2", "reprogram:steps=5", "probe_bank")
SETTINGS: dict[str, Any] = {"attacks": ATTACKS, "fprs": (0.05,), "bootstrap": 200, "program_permutations": 1}
SEEN: list[Records] = []


def train(records: Records, seed: int) -> Any:
    SEEN.append(records)
    torch.manual_seed(seed)
    return trained(network("gcn"), np.array([one.number for one in records.contents if isinstance(one, Node)]), 100)


def records_of(members: np.ndarray, nonmembers: np.ndarray) -> LabelledRecords:
    arrays = {"x": graph().features, "edge_index": graph().edges, "y": np.array(LABELS)}
    return repromia.load_nodes(arrays, members, nonmembers)


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> tuple[AuditResult, Path]:
    records = records_of(INSIDE, OUTSIDE)
    target = repromia.classifier(model("gcn"), records)
    shadows = repromia.shadow_models(train, target, records, count=4, train_key="graph")  # SEEN changes its own
    out = tmp_path_factory.mktemp("audit")
    SEEN.clear()
    result = repromia.audit(target, records, shadows=shadows, out=out, **SETTINGS)
    asked, learned = target.asked, len(SEEN)
    again = repromia.audit(target, records, shadows=shadows, out=out, **SETTINGS)
    assert again == result
    assert (target.asked, len(SEEN)) == (asked, learned)
    return result, out


def test_every_attack_is_measured_with_shadows_and_a_null_model(audited: tuple[AuditResult, Path]) -> None:
    result, out = audited
    assert {row.name: row.reason for row in result.attacks if row.status != "measured"} == {}
    names = {row.name for row in result.attacks}
    assert {*ATTACKS, "same_supervision", "same_supervision:references=true"} <= names
    assert result.null_target.status == "measured"
    assert {row.name for row in result.null_target.rows if row.status == "measured"} == names
    assert result.null_target.joint_p is not None
    for name in ("report.html", "scores.parquet", "result.json"):
        assert (out / name).is_file()
    page = (out / "report.html").read_text()
    assert all(name.split(":")[0] in page for name in names)
    assert list((out / "programs").glob("*.safetensors"))  # the learned prompt


def by_label_alone(records: Records, seed: int) -> Any:
    """Trained on the whole graph, with the labels of these nodes."""
    torch.manual_seed(seed)
    module, of = network("sage"), graph()
    rows = torch.tensor([one.number for one in records.contents if isinstance(one, Node)])
    features, edges, wanted = torch.from_numpy(of.features), torch.from_numpy(of.edges), torch.tensor(LABELS)[rows]
    optimiser = torch.optim.Adam(module.parameters(), lr=0.02)
    with torch.enable_grad():
        for _ in range(150):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(module(features, edges)[rows], wanted).backward()
            optimiser.step()
    return module


def test_a_transductive_training_is_audited_for_the_labels_that_it_used() -> None:
    """Every node was in the graph of the training; members are those whose label was. On 280 eval nodes the AUC without
    a leak has a deviation of .035."""
    records = records_of(INSIDE, OUTSIDE)
    target = repromia.classifier(by_label_alone(records.members(), 0), records)
    shadows = repromia.shadow_models(by_label_alone, target, records, count=4)
    result = repromia.audit(target, records, shadows=shadows, **(SETTINGS | {"attacks": ("loss", "rmia")}))
    areas = {row.name: row.auc.estimate for row in result.attacks if row.auc is not None}
    assert min(areas["loss"], areas["rmia"]) > 0.5 + 4 * 0.035
    for row in result.null_target.rows:
        assert row.auc is not None
        assert abs(row.auc.estimate - 0.5) < 4 * 0.035


def test_the_leak_is_found_and_not_in_the_null_model(audited: tuple[AuditResult, Path]) -> None:
    """On 280 eval nodes the AUC without a leak has a deviation of .035: beyond 4 of them once in 16,000 audits an
    attack. With this seed lira has .73 and hop_posteriors .70."""
    result, _ = audited
    areas = {row.name: row.auc.estimate for row in result.attacks if row.auc is not None}
    assert min(areas["lira"], areas["hop_posteriors"]) > 0.5 + 4 * 0.035
    for row in result.null_target.rows:
        assert row.auc is not None
        assert abs(row.auc.estimate - 0.5) < 4 * 0.035


def test_shadows_see_nodes_without_membership_in_balanced_halves(audited: tuple[AuditResult, Path]) -> None:
    """Four shadows and the null model; every node in two of the four. g_base has the four trained again, for the
    target and for the null model."""
    assert len(SEEN) == 4 + 4 + 1 + 4
    assert [one.ids for one in SEEN[:4]] == [one.ids for one in SEEN[4:8]]
    assert all(type(one) is Records for one in SEEN)
    names = [name for one in SEEN[:4] for name in one.ids]
    assert {names.count(name) for name in names} == {2}
    assert len(set(names)) == audited[0].records.n_members + audited[0].records.n_nonmembers


def test_the_result_tells_how_nodes_were_asked(audited: tuple[AuditResult, Path]) -> None:
    _, out = audited
    written = json.loads((out / "result.json").read_text())
    assert "nodes of 64 features, asked on the whole graph" in json.dumps(written["target"])


def test_neighbourhoods_of_the_target_are_those_of_its_shadows() -> None:
    records = records_of(INSIDE[:30], OUTSIDE[:30])
    target = repromia.classifier(model("gcn"), records, hops=1, neighbours=3)
    shadows: Any = repromia.shadow_models(train, target, records, count=2)
    assert shadows.wrap(network("gcn")).reader == target.reader


def test_an_odd_graph_is_audited(tmp_path: Path) -> None:
    """Members and others in parts that no edge joins, a member without edges, a loop, and nodes without a class."""
    apart = np.isin(graph().edges, INSIDE).sum(axis=0) != 1
    edges = graph().edges[:, apart & (graph().edges != INSIDE[0]).all(axis=0)]
    edges = np.concatenate([edges, [[OUTSIDE[0]], [OUTSIDE[0]]]], axis=1)
    classes = np.where(np.isin(np.arange(len(LABELS)), [*INSIDE, *OUTSIDE]), LABELS, -1)
    arrays = {"x": graph().features, "edge_index": edges, "y": classes}
    records = repromia.load_nodes(arrays, INSIDE, OUTSIDE)
    asked = repromia.classifier(model("sage"), records)
    settings = {**SETTINGS, "attacks": ("loss", "probe_bank"), "program_permutations": 0}
    result = repromia.audit(asked, records, out=tmp_path, **settings)
    assert {row.name: row.reason for row in result.attacks if row.status != "measured"} == {}
    scores = polars.read_parquet(tmp_path / "scores.parquet")
    module = model("sage").eval()
    with torch.no_grad():
        answers = module(torch.from_numpy(graph().features), torch.from_numpy(edges)).double().log_softmax(1).numpy()
    numbers = [int(one.removeprefix("node")) for one in scores["id"]]
    assert {INSIDE[0], OUTSIDE[0]} <= {*numbers}
    expected = [answers[number, LABELS[number]] for number in numbers]
    np.testing.assert_allclose(scores["loss"].to_numpy(), expected, rtol=0, atol=2e-5)
