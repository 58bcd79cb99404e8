"""What a node's being there changes, against whole forward passes on every drawn graph."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from classifier_models import cnn, image_records
from graph_models import COUNT, LABELS, graph, labelled, model, network, nodes, target
from repromia.errors import AttackError, RepromiaError, TargetError
from repromia.graphs import Graph
from repromia.programs import Binding
from repromia.programs.graph_samples import SampledGraphs, WithAndWithout
from repromia.progress import Silent
from repromia.records import Node, Records
from repromia.shadow_files import SavedShadows
from repromia.signals import ClassSignals, ReferenceSignals
from repromia.store import Store
from repromia.targets import classifier as targets_classifier
from repromia.targets.classifier import Classifier
from repromia.targets.classifiers import wrap_classifier
from repromia.targets.drawn import told_apart, uniform
from repromia.targets.nodes import Nodes

SOME = range(0, COUNT, 25)
NEAR = {"rtol": 0, "atol": 2e-4}  # sums over up to hundreds of nodes of what is good to 2e-5


def known(of: Graph | None = None) -> Graph:
    """Every seventh node has no class, but for those that are asked about; edges have weights and some are one-way."""
    of = of or graph()
    named = tuple("" if at % 7 == 3 and at not in SOME else str(LABELS[at]) for at in range(COUNT))
    weights = np.random.default_rng(0).uniform(0.2, 3, of.edges.shape[1]).astype(np.float32)
    loops = np.array([[0, 25], [0, 25]])
    edges = np.concatenate([of.edges[:, 5:], loops], axis=1)
    return Graph(of.features, edges, weights[: edges.shape[1]], named)


def gains(kind: str, of: Graph, records: Records | None = None, **options: Any) -> np.ndarray:
    asked = options.pop("asked", None) or target(kind, of)
    (found,) = WithAndWithout(**options).ask(asked, records or nodes(SOME, of))
    return found.gain


def likelihood(kind: str, of: Graph, there: np.ndarray) -> float:
    """Of the known classes of these nodes, on the graph that they induce."""
    inner = of.induced(np.flatnonzero(there))
    more = () if inner.weights is None else (torch.from_numpy(inner.weights),)
    module = model(kind).eval()
    with torch.no_grad():
        answers = module(torch.from_numpy(inner.features), torch.from_numpy(inner.edges), *more).double()
    module.train()
    found = answers.log_softmax(1).numpy()
    return sum(found[at, int(of.labels[at])] for at in np.flatnonzero(there) if of.labels[at])


@pytest.mark.parametrize(("kind", "far"), [("gcn", 6), ("sage", 4), ("gat", 4)])
def test_gains_are_differences_of_whole_passes(kind: str, far: int) -> None:
    """As far as two layers carry a change: a GCN counts degrees beyond."""
    of = known() if kind == "gcn" else replace(known(), weights=None)
    found = gains(kind, of, draws=2, far=far)
    lots = told_apart(torch.from_numpy(of.features), torch.from_numpy(of.edges))
    for draw in range(2):
        kept = uniform(lots, draw) < 0.5
        for row, number in enumerate(SOME):
            alone = np.arange(COUNT) == number
            expected = likelihood(kind, of, kept | alone) - likelihood(kind, of, kept & ~alone)
            np.testing.assert_allclose(found[row, draw], expected, **NEAR)
    assert np.abs(found[:, 0] - found[:, 1]).max() > 0.1
    assert np.abs(found - gains(kind, of, draws=2, far=1)).max() > 0.01


def test_of_nobody_else_it_is_the_node_alone_and_of_all_the_whole_graph() -> None:
    of = replace(known(), weights=None)
    alone = gains("sage", of, draws=1, share=0.0)[:, 0]
    batch = target("sage", of).encode(nodes(SOME, of).contents, nodes(SOME, of).ids)
    assert isinstance(batch.inputs, Nodes)
    expected = target("sage", of).signals(replace(batch.inputs, hops=0), batch.label)
    np.testing.assert_allclose(alone, expected.logprob, **NEAR)
    one, two = gains("sage", of, draws=2, share=1.0).T
    np.testing.assert_allclose(one, two, **NEAR)


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_each_graph_holds_the_share(share: float) -> None:
    """Beyond 4 standard deviations of a count of 600 lots: once in 16,000 draws."""
    lots = told_apart(torch.from_numpy(graph().features), torch.from_numpy(graph().edges))
    for draw in range(8):
        assert abs((uniform(lots, draw) < share).mean() - share) < 4 * np.sqrt(share * (1 - share) / COUNT)


def test_known_chances_take_the_place_of_the_share() -> None:
    of = replace(known(), weights=None)
    sure = {of.digest: dict.fromkeys(range(COUNT), 0.0)}
    np.testing.assert_array_equal(gains("sage", of, chances=sure), gains("sage", of, share=0.0))
    programs = [WithAndWithout(chances=sure), WithAndWithout(), WithAndWithout(chances={of.digest: {0: 0.5}})]
    assert len({one.key for one in programs}) == 3


def test_neither_numbers_nor_order_nor_company_nor_batches_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    of, order = known(), np.random.default_rng(1).permutation(COUNT)
    called, edges = np.argsort(order), np.random.default_rng(2).permutation(of.edges.shape[1])
    assert of.weights is not None
    names = tuple(of.labels[at] for at in order)
    other = Graph(of.features[order], called[of.edges][:, edges], of.weights[edges], names)
    renamed = tuple(Node(int(called[one]), str(LABELS[one]), other.digest, other) for one in SOME)
    whole = gains("gcn", of, draws=2)
    found = gains("gcn", other, replace(nodes(SOME), contents=renamed), draws=2)
    np.testing.assert_allclose(found, whole, **NEAR)
    monkeypatch.setattr("repromia.programs.graph_samples.SIDE", 3)
    monkeypatch.setattr("repromia.programs.graph_samples.VALUES", 4000)
    few = target("gcn", of)
    few.batch = 7
    mixed = nodes(list(SOME)[::-1], of)
    np.testing.assert_allclose(gains("gcn", of, mixed, draws=2, asked=few)[::-1], whole, **NEAR)


def test_two_graphs_are_asked_about_each_by_itself() -> None:
    first = known()
    second = replace(first, features=first.features[::-1].copy())
    both = [nodes([25, 50], one) for one in (first, second)]
    mixed = Records(*(tuple(ones) + tuple(others) for ones, others in zip(*map(_parts, both), strict=True)))
    expected = np.concatenate([gains("gcn", of, one) for of, one in zip((first, second), both, strict=True)])
    np.testing.assert_allclose(gains("gcn", first, mixed), expected, **NEAR)


def _parts(records: Records) -> tuple[Any, Any, Any]:
    return records.ids, records.contents, records.groups


def bound(of: Graph, **options: Any) -> WithAndWithout:
    """By what three models say of four nodes: the second query is the node alone."""
    records = nodes([0, 25, 50, 75], of)
    own = np.log(np.array([0.9, 0.5, 0.2, 0.6]))
    theirs = np.log(np.array([[0.3, 0.5, 0.4, 0.6], [0.9, 0.5, 0.2, 0.8], [0.6, 0.2, 0.6, 0.1]]))
    inside = np.array([[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0]], dtype=bool)
    flat = np.full((4, 2), np.log(0.5))
    alone = np.stack([own, np.log1p(-np.exp(own))], axis=1)
    variants = tuple(ClassSignals(one, one.argmax(1), np.zeros(4, dtype=np.int64)) for one in (flat, alone))
    logs = np.stack([np.zeros_like(theirs) - 1, theirs], axis=2)
    top, classes = np.full((3, 4, 1), -0.1), np.zeros((3, 4, 1), dtype=np.int64)
    references = ReferenceSignals(inside, logs, np.log1p(-np.exp(logs)), top, classes)
    empty = labelled(20)
    binding = Binding(
        target(of=of), empty, empty, 0, Silent(), longest=0, about=lambda: (records, variants, references)
    )
    found = SampledGraphs(**options).bind(binding)
    assert isinstance(found, WithAndWithout)
    return found


@pytest.mark.parametrize(("models", "means"), [("all", (0.6, 0.4, 0.4, 0.5)), ("outside", (0.75, 0.35, 0.3, 0.45))])
def test_chances_are_those_of_base_without_neighbours(models: str, means: tuple[float, ...]) -> None:
    of = known()
    found = bound(of, models=models, draws=3, far=2)
    assert (found.draws, found.far) == (3, 2)
    odds = [own / mean for own, mean in zip((0.9, 0.5, 0.2, 0.6), means, strict=True)]
    expected = {number: one / (1 + one) for number, one in zip((0, 25, 50, 75), odds, strict=True)}
    assert found.chances[of.digest] == pytest.approx(expected)
    assert bound(of, sampled="lot").chances == {}


def test_shadow_models_of_a_folder_are_asked_too_and_read_back(tmp_path: Path) -> None:
    of, program = replace(known(), weights=None), WithAndWithout(draws=2)
    records = nodes(SOME, of)
    first = np.arange(len(SOME)) % 2 == 0
    inside = np.stack([first, ~first])
    np.savez(tmp_path / "masks.npz", inside=inside, ids=np.array(records.ids))
    both = [model("sage", private=private) for private in (False, True)]
    for number, module in enumerate(both):
        save_file(module.state_dict(), tmp_path / f"m{number}.safetensors")

    def load(path: Path) -> Classifier:
        module = network("sage")
        module.load_state_dict(load_file(path))
        return target(module, of)

    store = Store(tmp_path / "run")
    found = SavedShadows(tmp_path, load, load_key="sage").gains(records, store, Silent(), program)
    np.testing.assert_array_equal(found.inside, inside)
    for gain, module in zip(found.gain, both, strict=True):
        np.testing.assert_allclose(gain, program.ask(target(module, of), records)[0].gain, **NEAR)
    assert np.abs(found.gain[0] - found.gain[1]).max() > 0.1
    unasked = SavedShadows(tmp_path, lambda path: 1 / 0, load_key="sage")  # type: ignore[arg-type,return-value]
    np.testing.assert_array_equal(unasked.gains(records, store, Silent(), program).gain, found.gain)
    with pytest.raises(RepromiaError):
        unasked.gains(records, store, Silent(), replace(program, far=1))


def test_options_out_of_range_and_what_it_does_not_fit() -> None:
    for options, message in (
        ({"draws": 0}, "draws is at least 1"),
        ({"far": 0}, "far is at least 1"),
        ({"share": 1.5}, "share is from 0 to 1"),
        ({"sampled": "dice"}, "sampled cannot be 'dice'"),
    ):
        with pytest.raises(AttackError, match=message):
            bound(known(), **options)
    images = image_records().records
    other = wrap_classifier(cnn(), records=images)
    assert SampledGraphs().applies(target())
    assert not SampledGraphs().applies(other)
    with pytest.raises(AttackError, match=r"nodes of a graph(.|\n)*image"):
        WithAndWithout().ask(other, images)
    with pytest.raises(AttackError, match=r"classes of the nodes around are not known(.|\n)*load_nodes"):
        WithAndWithout().ask(target(), nodes(SOME))


def test_what_depends_on_company_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked side by side, a model that mixes nodes of different neighbourhoods would answer something else."""

    def mixing(self: Any, inputs: Nodes) -> torch.Tensor:
        found = plain(self, inputs)
        return found - found.mean(dim=0) if inputs.apart else found

    plain = targets_classifier.NodeForward.__call__
    monkeypatch.setattr(targets_classifier.NodeForward, "__call__", mixing)
    with pytest.raises(TargetError, match="in other company"):
        gains("sage", replace(known(), weights=None))
