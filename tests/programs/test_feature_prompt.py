"""A learned prompt on the features of all nodes: its gradient, its bound, what it is learned from, and its files."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from test_queries import same, snapshot
from torch import Tensor
from torch.nn.functional import softplus

from classifier_models import cnn, image_records
from graph_models import COUNT, KINDS, graph, labelled, model, nodes, target
from repromia.attacks import parse
from repromia.errors import AttackError, TargetError
from repromia.graphs import Graph
from repromia.metrics import auc
from repromia.programs import Binding, feature_prompt
from repromia.programs.feature_prompt import (
    FeaturePrompt,
    LearnedFeaturePrompt,
    _Side,
    prompted,
)
from repromia.programs.queries import Query
from repromia.programs.saved import Learned, dump_program, load_program, parse_program, save_program
from repromia.progress import Silent
from repromia.records import LabelledRecords, content_digest
from repromia.scoring import run_attack
from repromia.store import Store
from repromia.targets.classifier import Classifier
from repromia.targets.classifiers import wrap_classifier
from repromia.targets.nodes import Nodes, seen
from repromia.views import Views

BRIEF = LearnedFeaturePrompt(steps=8)


def named(given: LabelledRecords, name: str) -> LabelledRecords:
    """Under names that no other role has."""
    ids = tuple(f"{name} {at}" for at in range(len(given)))
    return LabelledRecords(replace(given.records, ids=ids, groups=ids), given.member)


FIT, SELECT, EVAL = named(labelled(100), "fit"), named(labelled(60, 50), "select"), named(labelled(240, 80), "eval")


def binding(asked: Classifier, seed: int = 0) -> Binding:
    return Binding(asked, FIT, SELECT, seed, Silent(), longest=0)


def shown(count: int = COUNT) -> Nodes:
    number = torch.arange(count)
    return Nodes((seen(graph()),), torch.zeros_like(number), number)


def drawn(prompts: int, size: float, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(1 if prompts == 1 else 2, prompts, 64, generator=generator)


@pytest.fixture
def prompt() -> FeaturePrompt:
    weights = drawn(3, 0.1).numpy()
    weights[0, 0, :3] = np.float32(1) / 3, np.finfo(np.float32).tiny, -0.0  # hard to print
    return FeaturePrompt(weights, 0.5, {"kept": "prompt", "trace": [{"step": 0}]}, frozenset("ab"), frozenset("c"))


@pytest.mark.parametrize("prompts", [1, 3])
@pytest.mark.parametrize("size", [0.02, 0.3])  # vectors shorter than the bound (the sphere plays no part), and longer
@pytest.mark.parametrize("recipe", ["contrast", "paper"])
def test_the_gradient_is_that_of_finite_differences(prompts: int, size: float, recipe: str) -> None:
    """In double precision, along ten directions."""
    double = copy.deepcopy(model("gat")).double().eval()
    side = _Side(LearnedFeaturePrompt(prompts=prompts, recipe=recipe), target(double), FIT)
    features = side.nodes.graphs[0].features.double()
    side.nodes = replace(side.nodes, graphs=(replace(side.nodes.graphs[0], features=features),))
    rows, label = side.nodes.number, torch.from_numpy(side.label)

    def loss(weights: Tensor) -> float:
        vectors = weights[0] / weights[0].norm(dim=1, keepdim=True).clamp(min=1)
        length = features.norm(dim=1).mean()
        share = torch.ones(COUNT, 1) if prompts == 1 else (features @ weights[1].T / length).softmax(1)
        logits = double(features + 0.5 * length * (share.double() @ vectors), seen(graph()).edges)[rows]
        probed = [float(one[at] - torch.cat([one[:at], one[at + 1 :]]).logsumexp(0)) for one, at in zip(logits, label)]  # noqa: B905
        scores = 2 * side.plain - np.array(probed) if recipe == "contrast" else np.array(probed)
        pairs = scores[~FIT.member][None] - scores[FIT.member][:, None]
        return float(softplus(torch.from_numpy(pairs / side.plain.std())).mean())

    weights = drawn(prompts, size).double().requires_grad_()
    side.pull(weights)
    assert weights.grad is not None
    assert all(one.grad is None for one in double.parameters())
    with torch.no_grad():
        for seed in range(10):
            step = 1e-7 * drawn(prompts, 1, seed + 1).double()  # 1e-5 crosses kinks of ReLU
            slope = (loss(weights + step) - loss(weights - step)) / 2
            assert slope == pytest.approx(float((weights.grad * step).sum()), rel=1e-3, abs=1e-13)


@pytest.mark.parametrize("prompts", [1, 3])
@pytest.mark.parametrize("size", [0.01, 10.0])
def test_no_node_is_moved_further_than_the_bound(prompts: int, size: float) -> None:
    weights = drawn(prompts, size)
    plain, changed = shown().graphs[0], prompted(shown(), weights, 0.25).graphs[0]
    moved = changed.features - plain.features
    longest, most = moved.norm(dim=1).max(), 0.25 * plain.features.norm(dim=1).mean()
    assert longest <= most * (1 + 1e-5)
    assert longest > most * (0.99 if prompts == 1 else 0.5) or size == 0.01
    assert changed.edges is plain.edges
    together = bool(torch.allclose(moved, moved[:1].expand_as(moved), atol=1e-6))
    assert together == (prompts == 1)  # one prompt is the same for all nodes, several are mixed node by node
    if prompts == 3:
        vectors = weights[0] / weights[0].norm(dim=1, keepdim=True).clamp(min=1)
        for row in (0, 57):
            share = (weights[1] @ plain.features[row] / plain.features.norm(dim=1).mean()).softmax(0)
            torch.testing.assert_close(moved[row], most * (share @ vectors), rtol=1e-4, atol=1e-5)


def test_numbers_of_nodes_do_not_matter(prompt: FeaturePrompt) -> None:
    order = np.random.default_rng(1).permutation(COUNT)
    turned = Graph(graph().features[order], np.argsort(order)[graph().edges])
    whole, found = (
        target().signals(
            prompted(Nodes((seen(one),), torch.zeros(COUNT).long(), torch.arange(COUNT)), weights, 0.5), zero
        )
        for one in (graph(), turned)
        for weights, zero in [(torch.from_numpy(prompt.weights), np.zeros(COUNT, dtype=np.int64))]
    )
    np.testing.assert_allclose(found.logprobs, whole.logprobs[order], rtol=0, atol=5e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prompts", [1, 3])
def test_a_prompt_is_learned_on_fit_and_chosen_on_select(kind: str, prompts: int) -> None:
    asked = target(kind)
    module = asked.module
    assert module is not None
    before, fingerprint = snapshot(module), asked.fingerprint
    plan = replace(BRIEF, prompts=prompts)
    found = plan.bind(binding(asked))
    assert same(snapshot(module), before)
    asked.refresh()
    assert asked.fingerprint == fingerprint
    trace = [one["select_auc"] for one in found.details["trace"]]
    assert len(trace) == 9
    assert trace[0] == found.details["identity_select_auc"] == auc(plain(asked, SELECT), SELECT.member)
    assert max(trace) == found.details["select_auc"] == auc(scores(asked, found, SELECT), SELECT.member)
    assert found.used == {*FIT.records.ids, *SELECT.records.ids}
    assert found.seen == {content_digest(one) for role in (FIT, SELECT) for one in role.records.contents}
    assert (found.details["kept"] == "identity") == found.is_identity == (max(trace) == trace[0])
    assert found.is_identity or found.weights.shape == (1 if prompts == 1 else 2, prompts, 64)
    again, other = plan.bind(binding(asked)), plan.bind(binding(asked, seed=1))
    assert again.key == found.key
    assert [one["select_auc"] for one in other.details["trace"]][1:] != trace[1:]


def plain(asked: Classifier, of: LabelledRecords) -> np.ndarray:
    return Query().ask(asked, of.records)[0].scaled_logit


def scores(asked: Classifier, program: FeaturePrompt, of: LabelledRecords) -> np.ndarray:
    return 2 * plain(asked, of) - program.ask(asked, of.records)[0].scaled_logit


def test_learning_lowers_the_loss_on_fit() -> None:
    """The loss of the score on fit, after one step and after forty."""
    asked, losses = target(), []
    side = _Side(BRIEF, asked, FIT)
    for steps in (1, 40):
        weights = learned_weights(replace(BRIEF, steps=steps), asked)
        gaps = side.scores(weights)[FIT.member][:, None] - side.scores(weights)[~FIT.member][None]
        losses.append(float(softplus(torch.from_numpy(-gaps / side.plain.std())).mean()))
    assert losses[1] < losses[0] - 0.01


def learned_weights(plan: LearnedFeaturePrompt, asked: Classifier) -> Tensor:
    """After the last step, whatever select says."""
    last: list[Tensor] = []
    patch = pytest.MonkeyPatch()
    real = feature_prompt.prompted
    patch.setattr(feature_prompt, "prompted", lambda *given: last.append(given[1].detach().clone()) or real(*given))
    plan.bind(binding(asked))
    patch.undo()
    return last[-1]


def test_the_identity_is_kept_where_nothing_can_help() -> None:
    found = replace(BRIEF, bound=0.0).bind(binding(target()))
    assert found.is_identity
    assert found.details["kept"] == "identity"
    np.testing.assert_array_equal(scores(target(), found, EVAL), plain(target(), EVAL))
    assert isinstance(found, Learned)
    assert isinstance(found.identity, Query)


@pytest.mark.parametrize("prompts", [1, 3])
def test_nothing_is_found_of_a_model_that_saw_none_of_them(prompts: int) -> None:
    """120 + 120 nodes drawn by lot: 4 standard deviations, 1 false alarm in 16,000 draws (the draw is fixed)."""
    asked = target(private=True)
    found = LearnedFeaturePrompt(prompts=prompts, steps=40).bind(binding(asked))
    assert abs(auc(scores(asked, found, EVAL), EVAL.member) - 0.5) < 4 * np.sqrt((120 + 120 + 1) / (12 * 120 * 120))


def test_the_draw_of_fit_records_has_its_limit() -> None:
    found = replace(BRIEF, per_class=5, steps=1).bind(binding(target()))
    assert found.details["fit_records"] == 10


def test_asking_is_asking_on_the_changed_graph(prompt: FeaturePrompt) -> None:
    of = nodes(range(0, COUNT, 20))
    (found,) = prompt.ask(target(), of)
    features = prompted(shown(), torch.from_numpy(prompt.weights), prompt.bound).graphs[0].features
    (expected,) = Query().ask(target(of=graph()), of)
    assert np.abs(found.logprobs - expected.logprobs).max() > 1e-2
    module = model().eval()
    with torch.no_grad():
        by_hand = module(features, seen(graph()).edges)[::20].double().log_softmax(1)
    module.train()
    np.testing.assert_allclose(found.logprobs, by_hand, rtol=0, atol=1e-5)


def assert_same(one: FeaturePrompt, other: FeaturePrompt) -> None:
    assert one.weights.dtype == np.float32
    assert one.weights.tobytes() == other.weights.tobytes()
    assert one.weights.shape == other.weights.shape
    assert (one.bound, one.learned, one.used, one.seen, one.key) == (
        *(other.bound, other.learned, other.used, other.seen, other.key),
    )


def identity() -> FeaturePrompt:
    return FeaturePrompt(np.zeros(0, dtype=np.float32), 0.5, {"kept": "identity"})


def test_saved_and_loaded_bit_for_bit(prompt: FeaturePrompt, tmp_path: Path) -> None:
    path = tmp_path / "programs" / "prompt.safetensors"
    for one in (prompt, identity()):
        save_program(one, path)
        assert_same(load_program(path, FeaturePrompt), one)
        assert_same(parse_program(json.loads(json.dumps(dump_program(one)))), one)
    assert load_program(path, FeaturePrompt).is_identity


def test_the_key_follows_every_bit(prompt: FeaturePrompt) -> None:
    changed = prompt.weights.copy()
    changed.view(np.int32)[1, 2, 63] ^= 1
    assert replace(prompt, weights=changed).key != prompt.key
    assert replace(prompt, bound=0.25).key != prompt.key
    assert replace(prompt, used=frozenset()).key == prompt.key


@pytest.mark.parametrize(
    "damage", ["absent", "truncated", "no about", "about is a list", "no bound", "other tensor", "flat", "parts", "nan"]
)
def test_a_damaged_program_is_refused(damage: str, prompt: FeaturePrompt, tmp_path: Path) -> None:
    path = tmp_path / "prompt.safetensors"
    save_program(prompt, path)
    match damage:
        case "absent":
            path.unlink()
        case "truncated":
            path.write_bytes(path.read_bytes()[:-8])
        case "no about":
            path.with_suffix(".json").unlink()
        case "about is a list":
            path.with_suffix(".json").write_text("[]")
        case "no bound":
            path.with_suffix(".json").write_text('{"learned": {}, "used": [], "seen": []}')
        case "other tensor":
            save_file({"embeddings": prompt.weights}, path)
        case "flat":
            save_file({"weights": prompt.weights.ravel()}, path)
        case "parts":
            save_file({"weights": prompt.weights[:1]}, path)  # prompts without the directions by which they are mixed
        case "nan":
            save_file({"weights": np.full((1, 1, 64), np.nan, np.float32)}, path)
    with pytest.raises(AttackError, match=r"prompt\.safetensors.* cannot be read"):
        load_program(path, FeaturePrompt)


def test_a_prompt_of_another_width_is_refused() -> None:
    with pytest.raises(AttackError, match=r"another width[\s\S]*64[\s\S]*32"):
        FeaturePrompt(np.zeros((1, 1, 32), np.float32), 0.5).ask(target(), nodes([0]))


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (LearnedFeaturePrompt(recipe="mine"), "no recipe 'mine'"),
        (LearnedFeaturePrompt(prompts=0), "prompts is at least 1"),
        (LearnedFeaturePrompt(steps=0), "steps is at least 1"),
        (LearnedFeaturePrompt(per_class=0), "per_class is at least 1"),
        (LearnedFeaturePrompt(bound=-1), "bound is at least 0"),
        (LearnedFeaturePrompt(rate=-1), "rate is at least 0"),
    ],
)
def test_options_out_of_range_are_refused(plan: LearnedFeaturePrompt, message: str) -> None:
    asked = target()
    with pytest.raises(AttackError, match=message):
        plan.bind(binding(asked))
    assert asked.asked == 0


def test_models_without_gradients_or_nodes_are_refused() -> None:
    told = target(answer="probabilities")
    assert not BRIEF.applies(told)
    assert BRIEF.applies(target())
    with pytest.raises(AttackError, match="no gradients"):
        BRIEF.bind(binding(told))
    images = wrap_classifier(cnn(), records=image_records().records)
    assert not BRIEF.applies(images)
    with pytest.raises(AttackError, match=r"changes graphs(.|\n)*image"):
        BRIEF.bind(binding(images))
    with pytest.raises(AttackError, match="asks classifiers"):
        FeaturePrompt(np.zeros((1, 1, 64), np.float32), 0.5).ask(object(), nodes([0]))  # type: ignore[arg-type]


def test_a_fault_while_learning_leaves_the_model_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = target()
    module = asked.module
    assert module is not None
    before = snapshot(module)
    left = iter(range(6))
    real = module.forward
    monkeypatch.setattr(module, "forward", lambda *given: next(left) >= 0 and real(*given))
    with pytest.raises((TargetError, StopIteration)):
        BRIEF.bind(binding(asked))
    monkeypatch.undo()
    assert same(snapshot(module), before)


def views(asked: Classifier, store: Store) -> Views:
    return Views({"target": asked}, EVAL.records, binding(asked), store)


def test_a_prompt_is_learned_once_and_read_back(tmp_path: Path) -> None:
    first, again = target(), target()
    options = {"steps": 3}
    found = views(first, Store(tmp_path)).program("learned_feature_prompt", options)
    read = views(again, Store(tmp_path)).program("learned_feature_prompt", options)
    assert first.asked > 0
    assert again.asked == 0
    assert isinstance(found, FeaturePrompt)
    assert isinstance(read, FeaturePrompt)
    assert_same(read, found)


def test_a_prompt_that_was_learned_on_what_is_measured_is_refused(prompt: FeaturePrompt, tmp_path: Path) -> None:
    path = tmp_path / "prompt.safetensors"
    attack = parse(f"reprogram:program={path}", "graph")
    save_program(prompt, path)
    scored = run_attack(attack, views(target(), Store(None)))
    assert scored.reason == ""
    assert scored.scores is not None
    np.testing.assert_allclose(scored.scores, scores(target(), prompt, EVAL), atol=1e-6)
    save_program(replace(prompt, seen=frozenset({content_digest(EVAL.records.contents[0])})), path)
    refused = run_attack(attack, views(target(), Store(None)))
    assert "learned on records that are measured here" in refused.reason
