"""Noised and repaired copies of a graph network: what they are made of, and that the target stays as it was."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_queries import same, snapshot

from graph_models import COUNT, KINDS, graph, labelled, model, nodes, target
from repromia.attacks import parse
from repromia.errors import AttackError
from repromia.graphs import Graph
from repromia.metrics import auc
from repromia.programs import Binding
from repromia.programs.classifier_copies import NoiseAndRepair, RepairedCopies, mixed_graph
from repromia.programs.queries import Augmented
from repromia.progress import Silent
from repromia.records import LabelledRecords
from repromia.scoring import run_attack
from repromia.signals import ReferenceSignals
from repromia.store import Store
from repromia.targets.classifier import Classifier
from repromia.targets.nodes import Nodes, seen
from repromia.views import Views

FIT, EVAL = labelled(160), labelled(240, start=80)


def bound(asked: Classifier, seed: int = 0, fit: LabelledRecords = FIT, **options: float) -> RepairedCopies:
    plan = NoiseAndRepair(**{"copies": 2, "steps": 20, **options})  # type: ignore[arg-type]
    return plan.bind(Binding(asked, fit, FIT, seed, Silent(), longest=0))


def told(asked: Classifier, program: RepairedCopies) -> ReferenceSignals:
    (found,) = program.ask(asked, EVAL.records)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_without_noise_and_repair_a_copy_is_the_target(kind: str) -> None:
    asked = target(kind)
    found = told(asked, bound(asked, noise=0, steps=0))
    own = Augmented().ask(target(kind), EVAL.records)
    assert found.logprob.shape == (2, 240, 2)
    assert not found.inside.any()
    for at, one in enumerate(own):
        for each in range(2):
            np.testing.assert_allclose(found.logprob[each, :, at], one.logprob, rtol=0, atol=2e-5)
            np.testing.assert_allclose(found.other[each, :, at], one.other, rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_repair_brings_a_copy_nearer_to_the_target_which_stays_as_it_was(kind: str) -> None:
    asked = target(kind)
    module = asked.module
    assert module is not None
    module.second.requires_grad_(False)  # type: ignore[operator,union-attr]
    before = snapshot(module)
    program = bound(asked, steps=60)
    own = Augmented().ask(target(kind), EVAL.records)[0].logprob
    repaired, noised = told(asked, program), told(asked, bound(asked, steps=0))
    assert same(snapshot(module), before)
    module.requires_grad_(True)
    for number in range(2):
        first, last = (program.details[f"divergence_{when}_{number}"] for when in ("before", "after"))
        assert 0 < last < 0.5 * first
        near, far = (np.abs(one.logprob[number, :, 0] - own).mean() for one in (repaired, noised))
        assert 0 < near < far  # on nodes that it was not repaired on
    assert (repaired.logprob[0] != repaired.logprob[1]).any()


def test_copies_are_the_same_in_every_run_whatever_the_members() -> None:
    asked = target("gat")  # with dropout, which draws too
    first = told(asked, bound(asked))
    torch.rand(5)
    turned = LabelledRecords(FIT.records, ~FIT.member)
    program = bound(asked, fit=turned)
    np.testing.assert_array_equal(told(asked, program).logprob, first.logprob)
    made = program._made[0]
    program.close()
    np.testing.assert_array_equal(told(asked, program).logprob, first.logprob)  # made anew
    assert program._made[0] is not made
    assert (told(asked, bound(asked, seed=1)).logprob != first.logprob).any()
    assert program.used == frozenset()
    assert program.key == bound(asked).key != bound(asked, seed=1).key != bound(target()).key


def test_what_copies_answered_is_counted_to_the_target() -> None:
    asked = target()
    told(asked, bound(asked, steps=3, copies=2))
    repaired, answered = 2 * 3 * len(FIT), 2 * 2 * len(EVAL)
    assert asked.asked == 2 * repaired + answered  # each step asks the target and the copy


def test_no_node_is_shown_as_it_is() -> None:
    number = torch.arange(COUNT)
    given = Nodes((seen(graph()),), torch.zeros_like(number), number, hops=2)
    whole = given.graphs[0].features.clone()
    mixed = mixed_graph(given, torch.Generator().manual_seed(0))
    features = mixed.graphs[0].features
    assert vars(replace(mixed, graphs=given.graphs)) == vars(given)
    assert mixed.graphs[0].edges is given.graphs[0].edges
    assert torch.equal(given.graphs[0].features, whole)
    generator = torch.Generator().manual_seed(0)
    other = torch.randperm(COUNT, generator=generator)
    share = 0.3 + 0.4 * torch.rand(COUNT, 1, generator=generator)
    torch.testing.assert_close(features, share * whole + (1 - share) * whole[other])
    apart = other != number
    assert apart.sum() > COUNT - 10  # a permutation has about one fixed point: more than nine once in a million
    assert ((features - whole)[apart].norm(dim=1) > 0).all()


@pytest.mark.parametrize("hops", [0, 2])
def test_copies_are_asked_and_repaired_on_neighbourhoods_too(hops: int) -> None:
    """With edge weights, and with two graphs in the fit role."""
    drawn = np.random.default_rng(0).uniform(0.2, 3, graph().edges.shape[1]).astype(np.float32)
    of = Graph(graph().features, graph().edges, drawn)
    asked = target("gcn", of, hops=hops)
    parts = (nodes(range(40), of), nodes(range(40), Graph(of.features[::-1].copy(), of.edges, drawn)))
    names = tuple(f"node {at}" for at in range(80))
    records = replace(parts[0], ids=names, groups=names, contents=parts[0].contents + parts[1].contents)
    program = bound(asked, fit=LabelledRecords(records, np.arange(80) < 40), steps=30)
    (found,) = program.ask(asked, nodes(range(9), of))
    assert np.isfinite(found.logprob).all()
    assert program.details["divergence_after_0"] < program.details["divergence_before_0"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": -1}, "noise is at least 0"),
        ({"steps": -1}, "steps is at least 0"),
        ({"rate": -1}, "rate is at least 0"),
        ({"copies": 0}, "copies is at least 1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(AttackError, match=message):
        bound(target(), **options)


def test_models_that_show_no_logits_are_refused() -> None:
    asked = target(answer="probabilities")
    with pytest.raises(AttackError, match="weights that can be noised"):
        told(asked, bound(asked))


@pytest.mark.parametrize("private", [False, True])
def test_copies_stand_for_references(private: bool) -> None:
    """120 + 120 nodes: of a model that saw none of them 4 standard deviations, 1 false alarm in 16,000 draws."""
    asked = target(private=private)
    binding = Binding(asked, FIT, FIT, 0, Silent(), longest=0)
    views = Views({"target": asked}, EVAL.records, binding, Store(None))
    scored = run_attack(parse("rmia:reference=noise_and_repair/steps=40/copies=3", "graph"), views)
    assert scored.reason == ""
    assert scored.scores is not None
    found = abs(auc(scored.scores, EVAL.member) - 0.5)
    chance = 4 * np.sqrt((120 + 120 + 1) / (12 * 120 * 120))
    assert found < chance if private else found > chance
    assert copy.deepcopy(model()).training
