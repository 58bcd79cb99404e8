"""Fixed changes of what a graph model is shown, against a few lines node by node and edge by edge."""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2b
from typing import Any

import numpy as np
import pytest
import torch
from test_queries import same, snapshot
from torch import Tensor

from classifier_models import cnn, image_records
from graph_models import COUNT, LABELS, graph, labelled, model, nodes, target
from repromia.attacks import parse
from repromia.attacks.graph.probe_bank import PRESETS
from repromia.errors import AttackError
from repromia.graphs import Graph
from repromia.programs import Binding
from repromia.programs.graph import PLANS
from repromia.programs.graph_queries import (
    NOISES,
    DroppedEdges,
    HiddenSelf,
    Hops,
    MaskedFeatures,
    NodeQuery,
    NoisyFeatures,
    NoisyNeighbours,
)
from repromia.programs.overlay import Votes
from repromia.programs.queries import Augmented, DroppedWords, Flip, LowerCase, Noisy, Query
from repromia.programs.registry import plan_for
from repromia.progress import Silent
from repromia.records import LabelledRecords, Node, Records
from repromia.scoring import Scored, run_attack
from repromia.store import Store
from repromia.targets.classifier import Classifier
from repromia.targets.classifiers import wrap_classifier
from repromia.targets.nodes import Nodes, Seen, seen
from repromia.views import Views

SOME = range(0, COUNT, 15)
NEAR = {"rtol": 0, "atol": 2e-5}  # logits of size 10 in single precision, summed in another order
BANKS = [plan_for(one, {}, "graph") for one in dict.fromkeys((*PRESETS["small"], *PRESETS["full"]))]
PROGRAMS: list[Query] = [Query(), Augmented(), *(one for one in BANKS if isinstance(one, Query))]


def weighted() -> Graph:
    """Weights that tell both ends of each edge."""
    source, destination = graph().edges
    return replace(graph(), weights=(1 + np.minimum(source, destination) / COUNT).astype(np.float32))


@pytest.fixture
def shown() -> Nodes:
    """Every fifteenth node of the graph with weights."""
    return of_graph(weighted())


def of_graph(given: Graph) -> Nodes:
    number = torch.tensor(SOME)
    return Nodes((seen(given),), torch.zeros_like(number), number)


def graph_of(changed: Any) -> Seen:
    assert isinstance(changed, Nodes)
    (found,) = changed.graphs
    return found


def test_hops(shown: Nodes) -> None:
    for far in (0, 3):
        (found,) = Hops(far).changed(shown)
        assert vars(found) == {**vars(shown), "hops": far}
    with pytest.raises(AttackError, match="far is at least 0"):
        Hops(-1).changed(shown)


def test_augmented_is_the_node_and_the_node_alone(shown: Nodes) -> None:
    whole, alone = Augmented().changed(shown)
    assert whole is shown
    assert vars(alone) == {**vars(shown), "hops": 0}


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_same_features_of_all_nodes_are_masked(share: float, shown: Nodes) -> None:
    ones = replace(graph_of(shown), features=torch.ones(COUNT, 500))
    found = MaskedFeatures(share, 3).changed(replace(shown, graphs=(ones,)))
    assert len(found) == 3
    for draw, one in enumerate(found):
        kept = np.random.default_rng([draw, 500]).random(500) >= share
        np.testing.assert_array_equal(graph_of(one).features, np.tile(kept, (COUNT, 1)).astype(np.float32))
        assert abs(kept.mean() - (1 - share)) < 0.1  # of 500 features: 4.9 standard deviations
        assert graph_of(one).edges is ones.edges
    assert share in (0, 1) or not torch.equal(graph_of(found[0]).features, graph_of(found[1]).features)


def uniform(code: int, draw: int) -> float:
    """SplitMix64's number after `code`, draw + 1 steps on, in whole numbers of Python."""
    mixed = (code + 0x9E3779B97F4A7C15 * (draw + 1)) % 2**64
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB % 2**64
    return ((mixed ^ (mixed >> 31)) >> 11) / 2**53


def code(features: Tensor) -> int:
    return int.from_bytes(blake2b(features.numpy().tobytes(), digest_size=8).digest())


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_edges_go_by_the_features_of_both_ends_and_their_weights_with_them(share: float, shown: Nodes) -> None:
    given = graph_of(shown)
    assert given.weights is not None
    codes = [code(one) for one in given.features]
    found = DroppedEdges(share, 2).changed(shown)
    for draw, one in enumerate(found):
        edges = given.edges.T.tolist()
        kept = [at for at, (s, d) in enumerate(edges) if uniform((codes[s] + codes[d]) % 2**64, draw) >= share]
        left = graph_of(one)
        assert left.weights is not None
        assert torch.equal(left.edges, given.edges[:, kept])
        assert torch.equal(left.weights, given.weights[kept])
        pairs = {tuple(sorted(edge)) for edge in left.edges.T.tolist()}
        assert 2 * len(pairs) == left.edges.shape[1]  # both directions of every pair, or none
        pairs_before = given.edges.shape[1] / 2
        assert abs(len(pairs) / pairs_before - (1 - share)) < 4 * 0.5 / pairs_before**0.5  # once in 16,000 draws
        assert left.features is given.features
    assert share in (0, 1) or graph_of(found[0]).edges.shape != graph_of(found[1]).edges.shape


def test_edges_without_weights_repeated_edges_and_loops_can_be_dropped() -> None:
    edges = torch.tensor([[0, 0, 1, 0, 2, 2], [1, 1, 0, 0, 2, 0]])
    given = Nodes((Seen(torch.eye(3), edges),), torch.tensor([0]), torch.tensor([0]))
    lost = 0
    for one in DroppedEdges(0.5, 60).changed(given):
        left = graph_of(one)
        assert left.weights is None
        assert (left.edges.T[:, None] == edges.T[None]).all(2).any(1).all()
        joined = int(((left.edges == torch.tensor([[0], [1]])).all(0)).sum())
        assert joined in (0, 2)  # equal edges go together
        lost += joined == 0
    assert 9 < lost < 51  # of 60 with chance one half: 5 standard deviations


@pytest.mark.parametrize("level", [0.0, 0.3])
def test_noise_is_drawn_by_a_nodes_features(level: float, shown: Nodes) -> None:
    given = graph_of(shown)
    double = torch.cat([given.features, given.features[:2]])
    found = NoisyFeatures(level, 2).changed(replace(shown, graphs=(replace(given, features=double),)))
    for draw, one in enumerate(found):
        drawn = torch.randn(NOISES, 64, generator=torch.Generator().manual_seed(draw))
        size = level * double.square().mean().sqrt()
        for row in (*range(0, COUNT, 37), COUNT, COUNT + 1):
            expected = double[row] + size * drawn[code(double[row]) % NOISES]
            torch.testing.assert_close(graph_of(one).features[row], expected)
        assert torch.equal(graph_of(one).features[:2], graph_of(one).features[-2:])  # equal nodes, equal noise
        assert graph_of(one).edges is given.edges
        noise = graph_of(one).features - double
        assert abs(float(noise.std() / double.square().mean().sqrt()) - level) < 0.02  # 38,000 numbers, few repeats
    assert torch.equal(graph_of(found[0]).features, graph_of(found[1]).features) == (level == 0)


def test_neighbours_are_noised_and_the_node_itself_is_not(shown: Nodes) -> None:
    for one, noisy in zip(NoisyNeighbours(0.5, 2, 1).changed(shown), NoisyFeatures(0.5, 2).changed(shown), strict=True):
        assert isinstance(one, Nodes)
        assert one.hops == 1
        assert one.own[0] is graph_of(shown).features
        assert torch.equal(graph_of(one).features, graph_of(noisy).features)
    found = asked(NoisyNeighbours(0.5, 1, 1), nodes(SOME))[0]
    (noisy,) = NoisyFeatures(0.5, 1).changed(of_graph(graph()))
    for row, number in enumerate(SOME):
        features = graph_of(noisy).features.clone()
        features[number] = graph_of(shown).features[number]
        np.testing.assert_allclose(found[row], by_hand(features, number), **NEAR)


def test_the_hidden_node_sees_its_neighbours_alone(shown: Nodes) -> None:
    (hidden,) = HiddenSelf(1).changed(shown)
    assert isinstance(hidden, Nodes)
    assert hidden.hops == 1
    assert graph_of(hidden) is graph_of(shown)
    found = asked(HiddenSelf(1), nodes(SOME))[0]
    for row, number in enumerate(SOME):
        features = graph_of(shown).features.clone()
        features[number] = 0
        np.testing.assert_allclose(found[row], by_hand(features, number), **NEAR)


def by_hand(features: Tensor, number: int) -> np.ndarray:
    """Log-probabilities of a node on the graph of itself, its neighbours and the edges among them."""
    edges = torch.from_numpy(graph().edges)
    here = sorted({number, *edges[0, edges[1] == number].tolist()})
    kept = torch.isin(edges, torch.tensor(here)).all(0)
    own = torch.searchsorted(torch.tensor(here), edges[:, kept])
    module = model().eval()
    with torch.no_grad():
        found = module(features[here], own)[here.index(number)].double().log_softmax(0)
    module.train()
    return np.asarray(found)


def asked(program: Query, records: Records, of: Classifier | None = None) -> list[np.ndarray]:
    return [one.logprobs for one in program.ask(of or target(), records)]


@pytest.mark.parametrize("kind", ["gcn", "gat"])
@pytest.mark.parametrize("far", [1, 2])
def test_what_a_hidden_node_is_like_changes_nothing(kind: str, far: int) -> None:
    """Loops and the way back from a neighbour included."""
    number = 30
    loop = np.array([[number], [number]])
    features = graph().features.copy()
    features[number] = 5
    plain, changed = (Graph(one, np.concatenate([graph().edges, loop], axis=1)) for one in (graph().features, features))
    first, second = (asked(HiddenSelf(far), nodes([number, 31], one), target(kind, one))[0] for one in (plain, changed))
    np.testing.assert_array_equal(first[0], second[0])
    first, second = (asked(Hops(far), nodes([number], one), target(kind, one))[0] for one in (plain, changed))
    assert np.abs(first - second).max() > 0.1  # not hidden, it would show


def test_no_gradient_reaches_a_hidden_nodes_own_features(shown: Nodes) -> None:
    features = graph_of(shown).features.clone().requires_grad_()
    held = replace(of_graph(graph()), graphs=(replace(seen(graph()), features=features),))[[2]]
    for program, reached in ((HiddenSelf(2), False), (Hops(2), True)):
        (hidden,) = program.changed(held)
        assert isinstance(hidden, Nodes)
        (gradient,) = torch.autograd.grad(target().logits(hidden).square().sum(), features)
        assert bool(gradient[SOME[2]].any()) == reached
        assert gradient.any()


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda one: repr(one)[:60])
def test_numbers_of_nodes_and_order_of_edges_do_not_matter(program: Query) -> None:
    of, order = weighted(), np.random.default_rng(1).permutation(COUNT)
    called, edges = np.argsort(order), np.random.default_rng(2).permutation(of.edges.shape[1])
    assert of.weights is not None
    other = Graph(of.features[order], called[of.edges][:, edges], of.weights[edges])
    renamed = tuple(Node(int(called[one]), str(LABELS[one]), other.digest, other) for one in SOME)
    whole = asked(program, nodes(SOME, of), target("gcn", of))
    found = asked(program, replace(nodes(SOME), contents=renamed), target("gcn", other))
    for one, expected in zip(found, whole, strict=True):
        np.testing.assert_allclose(one, expected, **NEAR)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda one: repr(one)[:60])
def test_answers_depend_neither_on_batches_nor_on_company_nor_on_order_nor_on_the_run(program: Query) -> None:
    records = nodes(SOME)
    module = target().module
    assert module is not None
    before = snapshot(module)
    whole = asked(program, records)
    assert same(snapshot(module), before)
    order = np.random.default_rng(0).permutation(len(records))
    few = target()
    few.batch = 5
    parts = [asked(program, records.take(order[at : at + 13]), few) for at in range(0, len(records), 13)]
    for at, one in enumerate(whole):
        found = np.concatenate([part[at] for part in parts])
        np.testing.assert_allclose(found, one[order], **NEAR)
    assert few.asked == len(records) * len(whole)
    shown = of_graph(graph())
    held = graph_of(shown)
    kept = (held.features.clone(), held.edges.clone())
    for first, second in zip(program.changed(shown), program.changed(shown), strict=True):
        assert torch.equal(graph_of(first).features, graph_of(second).features)
        assert torch.equal(graph_of(first).edges, graph_of(second).edges)
    assert torch.equal(held.features, kept[0])
    assert torch.equal(held.edges, kept[1])


@pytest.mark.parametrize("program", PROGRAMS[1:], ids=lambda one: repr(one)[:60])
def test_every_program_asks_something_else(program: Query) -> None:
    plain = asked(Query(), nodes(SOME))[0]
    *_, last = asked(program, nodes(SOME))
    changes = np.abs(last - plain).max()
    assert changes < 1e-4 if repr(program) == "Hops(far=2)" else changes > 1e-2  # two layers see two hops


def test_two_graphs_are_changed_each_by_itself() -> None:
    other = Graph(graph().features[::-1].copy(), graph().edges)
    both = nodes([3, 5]), nodes([3, 5], other)
    mixed = Records(*(first + second for first, second in zip(*map(parts, both), strict=True)))
    for program in PROGRAMS:
        whole = asked(program, mixed)
        for at, records in enumerate(both):
            for one, expected in zip(whole, asked(program, records), strict=True):
                np.testing.assert_allclose(one[2 * at : 2 * at + 2], expected, **NEAR)


def parts(records: Records) -> tuple[tuple[Any, ...], ...]:
    return records.ids, records.contents, records.groups


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (MaskedFeatures(1.1), "share is from 0 to 1"),
        (MaskedFeatures(draws=0), "draws is at least 1"),
        (DroppedEdges(-0.1), "share is from 0 to 1"),
        (DroppedEdges(float("nan")), "share is from 0 to 1"),
        (DroppedEdges(draws=0), "draws is at least 1"),
        (NoisyFeatures(-1), "level is at least 0"),
        (NoisyFeatures(draws=0), "draws is at least 1"),
        (NoisyNeighbours(far=0), "far is at least 1"),
        (NoisyNeighbours(level=-1), "level is at least 0"),
        (HiddenSelf(0), "far is at least 1"),
    ],
)
def test_options_out_of_range_are_refused(program: Query, message: str, shown: Nodes) -> None:
    with pytest.raises(AttackError, match=message):
        program.changed(shown)


@pytest.mark.parametrize("program", [Hops(), MaskedFeatures(), DroppedEdges(), NoisyFeatures(), HiddenSelf()])
def test_models_of_something_else_are_refused(program: Query) -> None:
    images = image_records().records
    other = wrap_classifier(cnn(), records=images)
    assert program.applies(target())
    assert not program.applies(other)
    with pytest.raises(AttackError, match=r"does not change inputs of this kind(.|\n)*node(.|\n)*image"):
        program.ask(other, images)
    with pytest.raises(AttackError, match="asks classifiers"):
        program.ask(object(), images)  # type: ignore[arg-type]


@pytest.mark.parametrize("program", [Flip(), Noisy(), LowerCase(), DroppedWords(), Votes()])
def test_changes_of_other_inputs_leave_nodes_alone(program: Query) -> None:
    assert not program.applies(target())
    with pytest.raises(AttackError, match="does not change inputs of this kind"):
        program.ask(target(), nodes(SOME))


def test_every_plan_is_named_once_and_has_a_key_of_its_own() -> None:
    fixed = {name: kind() for name, kind in PLANS.items() if issubclass(kind, Query)}
    assert len({one.key for one in fixed.values()}) == len(fixed)
    assert all(isinstance(one.identity, Query) and not isinstance(one.identity, NodeQuery) for one in fixed.values())
    assert Hops(1).key != Hops(2).key
    assert issubclass(PLANS["noisy"], NoisyFeatures)  # that of images would be refused
    with pytest.raises(NotImplementedError):
        NodeQuery().changed(of_graph(graph()))


def views_of(asked_: Classifier, given: LabelledRecords) -> Views:
    rows = np.arange(len(given)).reshape(2, -1)  # a half of each side to fit and the same to select
    fit, select = (given.take(np.sort(rows[:, at::2].ravel())) for at in (0, 1))
    binding = Binding(asked_, fit, select, 0, Silent(), longest=0)
    return Views({"target": asked_}, given.records, binding, Store(None))


@pytest.mark.parametrize(("preset", "answers"), [("small", 9), ("full", 29)])
def test_a_bank_asks_all_of_its_programs(preset: str, answers: int) -> None:
    """As many answers a node as its documentation says, beside the plain one."""
    views = views_of(target(), labelled(40))
    scored = run_attack(parse(f"probe_bank:preset={preset}", "graph"), views)
    assert scored.reason == ""
    assert scored.bank is not None
    assert len([one for one in scored.bank.probes if one.spec != "identity"]) == len(PRESETS[preset])
    assert views.targets["target"].asked == 40 * (answers + 1)


def test_a_bank_of_programs_named_and_of_programs_that_there_are_none_of() -> None:
    def bank(options: str) -> Scored:
        return run_attack(parse(f"probe_bank:{options}", "graph"), views_of(target(), labelled(20)))

    named = bank("programs=hops/far=1+hops/far=1+dropped_edges/share=0.5")
    assert named.bank is not None
    assert [one.spec for one in named.bank.probes if one.spec != "identity"] == [
        "hops/far=1",
        "dropped_edges/share=0.5",
    ]
    assert "no preset 'large'" in bank("preset=large").reason
    assert "no program 'flip'" in bank("programs=flip").reason
    assert "share is from 0 to 1" in bank("programs=masked_features/share=2").reason
