"""Asking a model of nodes: each on the neighbourhood that it should be, and no answer depends on anything else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch_geometric.nn import GraphNorm

from classifier_models import row_records
from graph_models import COUNT, KINDS, LABELS, LAYERS, Network, graph, model, network, nodes, target
from repromia.errors import RecordsError, TargetError
from repromia.graphs import Graph
from repromia.programs.graph_queries import DroppedEdges
from repromia.records import Node, Records
from repromia.signals import ClassSignals
from repromia.targets import nodes as targets_nodes
from repromia.targets.classifier import Classifier
from repromia.targets.classifier_options import ClassifierOptions
from repromia.targets.classifiers import wrap_classifier
from repromia.targets.nodes import WHOLE, NodeReader, Nodes, neighbourhoods, seen

SOME = range(0, COUNT, 15)  # 40 nodes
NEAR = {"rtol": 0, "atol": 2e-5}  # logits of size 10 in single precision, summed in another order


def ask(asked: Classifier, records: Records, **changes: Any) -> ClassSignals:
    batch = asked.encode(records.contents, records.ids)
    assert isinstance(batch.inputs, Nodes)
    return asked.signals(replace(batch.inputs, **changes), batch.label)


def refused(asked: Classifier, records: Records | None = None, **changes: Any) -> str:
    with pytest.raises(TargetError) as caught:
        ask(asked, records or nodes(SOME), **changes)
    return str(caught.value)


def answers(module: nn.Module, *given: np.ndarray | None) -> np.ndarray:
    """Log-probabilities by the module's own forward pass."""
    module.eval()
    with torch.no_grad():
        found = module(*[torch.from_numpy(one) for one in given if one is not None]).double().log_softmax(1).numpy()
    module.train()
    return found


def turned(given: Graph, order: np.ndarray) -> Graph:
    """The same graph with node order[i] called i, and its edges in another order."""
    called = np.argsort(order)
    edges = np.random.default_rng(3).permutation(given.edges.shape[1])
    weights = None if given.weights is None else given.weights[edges]
    return Graph(given.features[order], called[given.edges][:, edges], weights)


def weighted() -> Graph:
    drawn = np.random.default_rng(0).uniform(0.2, 3, graph().edges.shape[1]).astype(np.float32)
    return replace(graph(), weights=drawn)


def around(edges: list[tuple[int, int]], node: int, hops: int) -> list[int]:
    """All nodes from which `node` is reached in at most so many edges."""
    found = {node}
    for _ in range(hops):
        found |= {source for source, destination in edges if destination in found}
    return sorted(found)


@st.composite
def questions(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]], list[int], int]:
    """A directed graph with loops, repeated edges and nodes of no edge; some of its nodes, repeated too; and hops."""
    count = draw(st.integers(1, 9))
    node = st.integers(0, count - 1)
    edges = draw(st.lists(st.tuples(node, node), max_size=20))
    return count, edges, draw(st.lists(node, min_size=1, max_size=5)), draw(st.integers(0, 4))


@given(questions())
def test_neighbourhoods_are_those_of_a_search(question: tuple[int, list[tuple[int, int]], list[int], int]) -> None:
    count, edges, asked, hops = question
    given_edges = torch.tensor(edges, dtype=torch.long).reshape(-1, 2).T
    found, stands, joined, used, place = neighbourhoods(given_edges, count, torch.tensor(asked), hops)
    expected: list[int] = []
    places, triples, whose = [], [], []
    for at_asked, node in enumerate(asked):
        here = around(edges, node, hops)
        at = {one: len(expected) + place for place, one in enumerate(here)}
        places.append(at[node])
        triples += [(at[s], at[d], which) for which, (s, d) in enumerate(edges) if s in at and d in at]
        expected += here
        whose += [at_asked] * len(here)
    assert found.tolist() == expected
    assert place.tolist() == whose
    assert stands.tolist() == places
    assert sorted(zip(*joined.tolist(), used.tolist(), strict=True)) == sorted(triples)


@pytest.mark.parametrize("kind", KINDS)
def test_enough_hops_are_the_whole_graph(kind: str) -> None:
    """A GCN looks one hop further than its layers: at the degrees of the nodes that it reads."""
    whole = answers(model(kind), graph().features, graph().edges)[SOME]
    np.testing.assert_allclose(ask(target(kind), nodes(SOME)).logprobs, whole, **NEAR)
    enough = LAYERS + (kind == "gcn")
    for hops in (enough, enough + 1):
        np.testing.assert_allclose(ask(target(kind, hops=hops), nodes(SOME)).logprobs, whole, **NEAR)
    assert np.abs(ask(target(kind, hops=enough - 1), nodes(SOME)).logprobs - whole).max() > 1e-2


def test_a_changed_graph_is_never_answered_for_from_an_older_one() -> None:
    """What is kept of a graph is kept for the last eight; more are asked here, and the first again."""
    graphs = [replace(graph(), edges=graph().edges[:, at::2]) for at in range(10)]
    for of in [*graphs, graphs[0], *graphs[::-3]]:
        found = ask(target("sage", of, hops=LAYERS), nodes(SOME, of)).logprobs
        np.testing.assert_allclose(found, answers(model("sage"), of.features, of.edges)[SOME], **NEAR)


@pytest.mark.parametrize("kind", KINDS)
def test_no_hop_is_the_node_alone_with_its_loops(kind: str) -> None:
    loops = np.array([SOME[0], SOME[1], SOME[1], SOME[3]])
    of = replace(graph(), edges=np.concatenate([graph().edges, np.stack([loops, loops])], axis=1))
    found = ask(target(kind, of, hops=0), nodes(SOME, of))
    for row, number in enumerate(SOME):
        own = np.zeros((2, int((loops == number).sum())), dtype=np.int64)
        expected = answers(model(kind), of.features[[number]], own)
        np.testing.assert_allclose(found.logprobs[[row]], expected, **NEAR)
    without = ask(target(kind, hops=0), nodes(SOME))
    differ = np.abs(found.logprobs - without.logprobs).max(axis=1) > 1e-3
    assert differ.tolist() == [kind == "sage" and number in loops for number in SOME]  # the others add a loop if none


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hops", [WHOLE, 0, 2])
def test_batches_company_and_order_do_not_matter(kind: str, hops: int) -> None:
    whole = ask(target(kind, hops=hops), nodes(SOME))
    order = np.random.default_rng(0).permutation(len(SOME))
    for batch in (1, 7):
        asked = target(kind, hops=hops)
        asked.batch = batch
        again = ask(asked, nodes(SOME).take(order))
        np.testing.assert_allclose(again.logprobs, whole.logprobs[order], **NEAR)
        assert asked.asked == len(SOME)
    twice = ask(target(kind, hops=hops), nodes([SOME[7], *range(COUNT), SOME[7]]))  # more than are asked side by side
    np.testing.assert_allclose(twice.logprobs[[0, -1]], whole.logprobs[[7, 7]], **NEAR)
    np.testing.assert_allclose(twice.logprobs[1:-1][SOME], whole.logprobs, **NEAR)


@pytest.mark.parametrize("kind", ["gcn", "sage"])
@pytest.mark.parametrize("hops", [WHOLE, 0, 1, 2])
def test_numbers_of_nodes_do_not_matter(kind: str, hops: int) -> None:
    of = weighted() if kind == "gcn" else graph()
    order = np.random.default_rng(1).permutation(COUNT)
    other, called = turned(of, order), np.argsort(order)
    named = tuple(Node(int(called[number]), str(LABELS[number]), other.digest, other) for number in SOME)
    whole = ask(target(kind, of, hops=hops), nodes(SOME, of))
    found = ask(target(kind, other, hops=hops), replace(nodes(SOME, of), contents=named))
    np.testing.assert_allclose(found.logprobs, whole.logprobs, **NEAR)


@pytest.mark.parametrize("hops", [WHOLE, 3])
def test_weights_of_edges_are_passed(hops: int) -> None:
    of = weighted()
    found = ask(target("gcn", of, hops=hops), nodes(SOME, of)).logprobs
    np.testing.assert_allclose(found, answers(model("gcn"), of.features, of.edges, of.weights)[SOME], **NEAR)
    assert np.abs(found - answers(model("gcn"), of.features, of.edges)[SOME]).max() > 0.1
    assert "raised an error" in refused(target("sage", of), nodes(SOME, of))  # it takes none


@pytest.mark.parametrize("hops", [WHOLE, 1])
def test_two_graphs_in_one_batch(hops: int) -> None:
    other = weighted()
    both = (nodes(SOME), nodes(SOME, other))
    mixed = Records(*(sum(zip(*pair, strict=True), ()) for pair in zip(*map(columns, both), strict=True)))
    found = ask(target("gcn", hops=hops), mixed).logprobs
    for at, records in enumerate(both):
        alone = ask(target("gcn", hops=hops), records).logprobs
        np.testing.assert_allclose(found[at::2], alone, **NEAR)
    assert np.abs(found[::2] - found[1::2]).max() > 0.1


def columns(records: Records) -> tuple[tuple[Any, ...], ...]:
    return records.ids, records.contents, records.groups


@pytest.mark.parametrize("most", [1, 3])
def test_a_limit_of_neighbours_keeps_some_of_the_edges(most: int) -> None:
    of = weighted()
    limited, whole = seen(of, most), seen(of)
    assert limited.weights is not None
    places = {
        (*pair, weight): at for at, (*pair, weight) in enumerate(zip(*of.edges.tolist(), of.weights, strict=True))
    }
    kept = [
        places[*pair, weight] for *pair, weight in zip(*limited.edges.tolist(), limited.weights.numpy(), strict=True)
    ]
    assert kept == sorted(kept)
    degrees, all_degrees = (np.bincount(one.edges[1], minlength=COUNT) for one in (limited, whole))
    assert (degrees == np.minimum(all_degrees, most)).all()
    assert all_degrees.max() > 3
    assert torch.equal(seen(of, int(all_degrees.max())).edges, whole.edges)
    first, again = (ask(target("gcn", neighbours=most), nodes(SOME)).logprobs for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - ask(target("gcn"), nodes(SOME)).logprobs).max() > 1e-2
    assert target("gcn", neighbours=most).fingerprint != target("gcn").fingerprint != target("gcn", hops=2).fingerprint


@pytest.mark.parametrize("most", [1, 3])
@pytest.mark.parametrize("hops", [WHOLE, 2])
def test_the_edges_kept_do_not_depend_on_numbers_of_nodes(most: int, hops: int) -> None:
    of = weighted()
    order = np.random.default_rng(1).permutation(COUNT)
    other, called = turned(of, order), np.argsort(order)
    named = tuple(Node(int(called[number]), str(LABELS[number]), other.digest, other) for number in SOME)
    whole = ask(target("gcn", of, hops=hops, neighbours=most), nodes(SOME, of))
    found = ask(target("gcn", other, hops=hops, neighbours=most), replace(nodes(SOME, of), contents=named))
    np.testing.assert_allclose(found.logprobs, whole.logprobs, **NEAR)


def test_edges_are_kept_and_dropped_whatever_their_order_where_all_features_are_equal() -> None:
    """What lies around the nodes decides then: with features alone, the first edges would stay, or all would go."""
    of = Graph(np.ones_like(graph().features), graph().edges)
    order = np.random.default_rng(1).permutation(COUNT)
    other, called = turned(of, order), np.argsort(order)
    named = tuple(Node(int(called[number]), str(LABELS[number]), other.digest, other) for number in SOME)
    there, turned_round = nodes(SOME, of), replace(nodes(SOME, of), contents=named)
    for most in (0, 2):
        asked = [target("gcn", one, neighbours=most) for one in (of, other)]
        whole, found = (ask(one, records).logprobs for one, records in zip(asked, (there, turned_round), strict=True))
        np.testing.assert_allclose(found, whole, **NEAR)
    without = [
        DroppedEdges(0.5, 1).ask(target("gcn", one), records)[0]
        for one, records in ((of, there), (other, turned_round))
    ]
    np.testing.assert_allclose(without[0].logprobs, without[1].logprobs, **NEAR)
    (dropped,) = DroppedEdges(0.5, 1).changed(target("gcn", of).encode(there.contents, there.ids).inputs)
    assert isinstance(dropped, Nodes)
    assert 0.4 < dropped.graphs[0].edges.shape[1] / of.edges.shape[1] < 0.6


@pytest.mark.parametrize("options", [{"hops": -2}, {"neighbours": -1}])
def test_neighbourhoods_that_there_are_none_of(options: dict[str, int]) -> None:
    with pytest.raises(TargetError, match="out of range"):
        target("gcn", **options)


@pytest.mark.parametrize("hops", [0, 2])
def test_neighbourhoods_that_are_too_large_are_asked_in_parts(hops: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ask(target(hops=hops), nodes(range(0, COUNT, 6))).logprobs
    sizes: list[int] = []
    monkeypatch.setattr(
        targets_nodes, "neighbourhoods", lambda *given: sizes.append(len(given[2])) or neighbourhoods(*given)
    )
    monkeypatch.setattr(targets_nodes, "VALUES", 1)
    np.testing.assert_allclose(ask(target(hops=hops), nodes(range(0, COUNT, 6))).logprobs, whole, **NEAR)
    assert {1, 64} <= set(sizes)


class Scarce(nn.Module):
    """Memory for so many nodes at a time."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.inner, self.sizes = most, model("sage"), list[int]()

    def forward(self, features: Tensor, edges: Tensor) -> Tensor:
        self.sizes.append(len(features))
        if len(features) > self.most:
            raise MemoryError
        found: Tensor = self.inner(features, edges)
        return found


def test_less_is_asked_where_memory_runs_out() -> None:
    scarce = Scarce(10)
    found = ask(target(scarce, hops=0), nodes(SOME)).logprobs
    np.testing.assert_allclose(found, ask(target(hops=0), nodes(SOME)).logprobs, **NEAR)
    assert max(scarce.sizes[-3:]) <= 10
    assert "single record" in refused(target(Scarce(10)))  # of the whole graph there is no less


def test_a_graph_of_another_width_is_refused() -> None:
    message = refused(target(network("sage", features=63)))
    assert "raised an error" in message
    assert "nodes of 64 features" in message
    narrow = Graph(graph().features[:, :63], graph().edges)
    message = refused(target(), nodes(SOME, narrow))
    assert "another number of features" in message
    assert "63" in message


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_features_that_are_not_finite_never_become_a_graph(wrong: float) -> None:
    features = graph().features.copy()
    features[[3, 7], 2] = wrong
    with pytest.raises(RecordsError, match="NaN or infinity in 2 rows"):
        replace(graph(), features=features)


class Other(nn.Module):
    """Answers in another form."""

    def __init__(self, form: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.form, self.inner = form, model("sage")

    def forward(self, features: Tensor, edges: Tensor) -> Any:
        return self.form(self.inner(features, edges))


@pytest.mark.parametrize(
    "form", [lambda found: found[:-1], lambda found: found.mean(0), lambda found: (found,), lambda found: found[None]]
)
@pytest.mark.parametrize("hops", [WHOLE, 1])
def test_other_answers_than_a_row_a_node_are_refused(form: Callable[[Tensor], Any], hops: int) -> None:
    message = refused(target(Other(form), hops=hops))
    assert "one row a node" in message
    assert "raised an error" not in message


def test_logits_in_an_object_and_numbers_that_are_not_finite() -> None:
    held = target(Other(lambda found: type("Held", (), {"logits": found})()))
    np.testing.assert_array_equal(ask(held, nodes(SOME)).logprobs, ask(target(), nodes(SOME)).logprobs)
    assert "not finite" in refused(target(Other(lambda found: found * np.inf)))
    assert "answers with probabilities" in refused(target(Other(lambda found: found.softmax(1))))


def test_other_models_than_modules_are_refused() -> None:
    from sklearn.dummy import DummyClassifier

    for other in (lambda features: features, DummyClassifier().fit([[0.0], [1.0]], [0, 1])):
        with pytest.raises(TargetError, match="torch modules only"):
            wrap_classifier(other, records=nodes(SOME), options=ClassifierOptions(answer="probabilities"))


def test_other_records_and_nodes_without_a_class_are_refused() -> None:
    assert "classifies nodes of a graph" in refused(target(), row_records().records)
    without = tuple(replace(one, label="") for one in nodes(SOME).contents if isinstance(one, Node))
    assert "40 of 40 records name no class" in refused(target(), replace(nodes(SOME), contents=without))
    eleventh = tuple(replace(one, label="10") for one in without)
    assert "classes that the model does not have" in refused(target(), replace(nodes(SOME), contents=eleventh))


def test_no_node_gets_no_answer() -> None:
    assert len(ask(target(), nodes([]))) == 0


def test_only_layers_that_were_training_go_back_to_training() -> None:
    module = model("gat")
    module.train().dropout.eval()
    ask(target("gat"), nodes(SOME))
    assert (module.training, module.first.training, module.dropout.training) == (True, True, False)
    module.train()


class Drops(Network):
    """Dropout left on whatever the mode."""

    def forward(self, features: Tensor, edges: Tensor, weights: Tensor | None = None) -> Tensor:
        return super().forward(nn.functional.dropout(features, 0.5, training=True), edges)


class Mates(Network):
    """Means over all nodes that it is shown, as of PyG's GraphNorm without a batch."""

    def forward(self, features: Tensor, edges: Tensor, weights: Tensor | None = None) -> Tensor:
        found: Tensor = GraphNorm(10)(super().forward(features, edges))
        return found


@pytest.mark.parametrize("hops", [WHOLE, 0, 2])
@pytest.mark.parametrize("batch", [2, 64])
def test_dropout_left_on_is_found(hops: int, batch: int) -> None:
    module = Drops(model().first, model().second)
    asked = target(module, hops=hops)
    asked.batch = batch
    assert "in other company" in refused(asked)
    assert len(ask(target(module, hops=hops, random=True), nodes(SOME))) == len(SOME)


def test_means_over_all_nodes_are_found_where_nodes_are_asked_side_by_side() -> None:
    asked = target(Mates(model().first, model().second))
    assert len(ask(asked, nodes(SOME))) == len(SOME)  # of the whole graph they are the same for all
    for _ in range(2):
        assert "in other company" in refused(asked, hops=1)
    asked.refresh()
    assert "in other company" in refused(asked, hops=0)


class InPlace(Network):
    """Scales what it is given."""

    def forward(self, features: Tensor, edges: Tensor, weights: Tensor | None = None) -> Tensor:
        return super().forward(features.mul_(0.5), edges)


@pytest.mark.parametrize("hops", [WHOLE, 2])
def test_a_model_that_changes_what_it_is_given_changes_no_graph(hops: int) -> None:
    of = replace(graph(), features=graph().features.copy())
    first, again = (ask(target(InPlace(model().first, model().second), of, hops=hops), nodes(SOME, of)) for _ in "ab")
    np.testing.assert_array_equal(first.logprobs, again.logprobs)
    np.testing.assert_array_equal(of.features, graph().features)


def test_a_model_of_another_precision_is_given_its_own() -> None:
    double = network("sage").double()
    double.load_state_dict(model().state_dict())
    found = ask(target(double), nodes(SOME)).logprobs
    np.testing.assert_allclose(found, ask(target(), nodes(SOME)).logprobs, **NEAR)


def test_what_a_target_of_nodes_says_of_itself() -> None:
    said = target(hops=2, neighbours=5).describe()
    assert said["inputs"] == "nodes of 64 features, asked on neighbourhoods of 2 hops, at most 5 edges to a node"
    assert NodeReader(64).describe() == "nodes of 64 features, asked on the whole graph"
    assert target().modality == "graph"
    assert target().differentiable
