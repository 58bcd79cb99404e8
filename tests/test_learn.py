"""Learning a soft prompt: the gradient, what is kept, what may be seen."""

from __future__ import annotations

import copy
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from repromia.errors import AttackError
from repromia.learn import RECIPES, Learned, Recipe, _initial_prompt, _Learner, learn_soft_prompt
from repromia.programs import Binding
from repromia.programs.learned_prompt import LearnedSoftPrompt
from repromia.programs.saved import save_program
from repromia.programs.soft_prompt import SoftPrompt
from repromia.progress import Silent
from repromia.records import LabelledRecords, Records
from repromia.targets.language import LanguageModel
from repromia.training import train
from small import SmallModels

QUICK = {name: replace(recipe, length=6, steps=4) for name, recipe in RECIPES.items()}


def labelled(models: SmallModels, start: int, stop: int, name: str) -> LabelledRecords:
    texts = models.members[start:stop] + models.nonmembers[start:stop]
    ids = tuple(f"{name}{row}" for row in range(len(texts)))
    return LabelledRecords(Records(ids, tuple(texts), ids), np.repeat([True, False], stop - start))


def learn(models: SmallModels, recipe: Recipe, *, seed: int = 0, target: LanguageModel | None = None) -> Learned:
    fit, select = labelled(models, 0, 24, "fit"), labelled(models, 24, 60, "select")
    return learn_soft_prompt(target or models.leaky, fit, select, recipe, seed=seed, progress=Silent())


def start_of(models: SmallModels, recipe: Recipe, target: LanguageModel | None = None) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return _initial_prompt(target or models.leaky, labelled(models, 0, 24, "fit").nonmembers(), recipe, generator)


def loss_under(learner: _Learner, prompt: Tensor) -> float:
    """The objective, written out from the recipe's description."""
    recipe = learner.recipe
    prompted = learner.statistics(learner.fit, prompt).double()
    plain = learner.plain_fit.double()
    score = prompted if recipe.score == "low_tail" else 2 * plain - prompted
    inside, outside = score[learner.fit_member], score[~learner.fit_member]
    if recipe.objective == "pairwise":
        return float(torch.exp(-(inside[:, None] - outside[None]) / plain.std()).log1p().mean())
    half = len(inside) // 2
    return float(outside.sort().values[-half:].mean() - inside.sort().values[:half].mean())


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_the_gradient_is_that_of_the_objective(recipe: str, models: SmallModels) -> None:
    target = replace(models.leaky, model=copy.deepcopy(models.leaky.model).double())
    learner = _Learner(target, labelled(models, 0, 8, "fit"), labelled(models, 8, 12, "select"), QUICK[recipe])
    prompt = start_of(models, QUICK[recipe], target)
    assert prompt.dtype == torch.float64
    gradient = learner.gradient(prompt)
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        direction = torch.randn(prompt.shape, generator=generator, dtype=torch.float64)
        step = 3e-4
        slope = (loss_under(learner, prompt + step * direction) - loss_under(learner, prompt - step * direction)) / (
            2 * step
        )
        assert abs(slope) > 1e-3
        assert float((gradient * direction).sum()) == pytest.approx(slope, rel=2e-2, abs=1e-3)


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_the_gradient_does_not_depend_on_batches(recipe: str, models: SmallModels) -> None:
    fit, select = labelled(models, 0, 12, "fit"), labelled(models, 24, 28, "select")
    one, many = (
        _Learner(replace(models.leaky, batch_tokens=size), fit, select, QUICK[recipe]).gradient(
            start_of(models, QUICK[recipe])
        )
        for size in (100, 100_000)
    )
    torch.testing.assert_close(one, many, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_the_loss_falls(recipe: str, models: SmallModels) -> None:
    chosen = QUICK[recipe]
    learner = _Learner(models.leaky, labelled(models, 0, 24, "fit"), labelled(models, 24, 30, "select"), chosen)
    prompt = start_of(models, chosen)
    before = loss_under(learner, prompt)
    size = 0.1 * float(models.leaky.embeddings.std())
    for _ in range(5):
        gradient = learner.gradient(prompt)
        prompt = prompt - size * gradient / gradient.square().mean().sqrt()
    assert loss_under(learner, prompt) < before - 0.02


def test_what_is_kept_has_the_best_select_auc(models: SmallModels) -> None:
    learned = learn(models, QUICK["forgetting"])
    trace = learned.details["trace"]
    assert [row["step"] for row in trace] == [-1, 0, 1, 2, 3, 4]
    assert trace[0]["select_auc"] == learned.details["identity_select_auc"]
    assert learned.details["select_auc"] == max(row["select_auc"] for row in trace)
    assert learned.details["select_auc"] > learned.details["identity_select_auc"]
    assert learned.details["kept"] == "prompt"
    assert learned.embeddings.shape == (6, 64)
    learner = _Learner(
        models.leaky, labelled(models, 0, 24, "fit"), labelled(models, 24, 60, "select"), QUICK["forgetting"]
    )
    assert learner.select_auc(torch.from_numpy(learned.embeddings)) == learned.details["select_auc"]


def test_the_identity_is_kept_when_nothing_beats_it(models: SmallModels) -> None:
    fit, pool = labelled(models, 0, 24, "fit"), labelled(models, 24, 60, "select")
    signals = models.leaky.signals(models.leaky.encode(pool.records.contents))
    order = np.argsort(signals.average(signals.logprob))
    outside = [row for row in order if not pool.member[row]][:15]
    inside = [row for row in order if pool.member[row]][-15:]
    learned = learn_soft_prompt(
        models.leaky, fit, pool.take(outside + inside), QUICK["forgetting"], seed=0, progress=Silent()
    )
    assert learned.details["identity_select_auc"] == 1
    assert len(learned.details["trace"]) == 6
    assert learned.details["kept"] == "identity"
    assert learned.embeddings.shape == (0, 64)


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_steps_that_break_the_model_are_never_kept(recipe: str, models: SmallModels) -> None:
    learned = learn(models, replace(QUICK[recipe], step_size=1e42, steps=2))
    assert [row["select_auc"] for row in learned.details["trace"][2:]] == [0, 0]
    assert np.isfinite(learned.embeddings).all()
    assert learned.details["select_auc"] == max(row["select_auc"] for row in learned.details["trace"][:2])


def test_no_steps_keep_the_start_or_the_identity(models: SmallModels) -> None:
    learned = learn(models, replace(QUICK["forgetting"], steps=0))
    assert [row["step"] for row in learned.details["trace"]] == [-1, 0]
    start, identity = learned.details["trace"][1]["select_auc"], learned.details["identity_select_auc"]
    assert learned.details["kept"] == ("prompt" if start > identity else "identity")


def test_every_step_stays_within_the_bound(models: SmallModels, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    ask = _Learner.select_auc

    def watch(self: _Learner, prompt: Tensor | None) -> float:
        if prompt is not None:
            seen.append(prompt)
        return ask(self, prompt)

    monkeypatch.setattr(_Learner, "select_auc", watch)
    learn(models, replace(QUICK["forgetting"], bound=1.2, step_size=3.0, steps=2))
    largest = 1.2 * models.leaky.embeddings.norm(dim=1).mean()
    norms = torch.stack([prompt.norm(dim=1) for prompt in seen[1:]])
    assert len(norms) == 2
    assert norms.max() <= largest * 1.0001
    assert norms.max() > largest * 0.99  # the steps were long enough to meet it


@pytest.mark.parametrize("initialisation", ["nonmember_text", "vocabulary", "noise"])
def test_the_seed_decides(initialisation: str, models: SmallModels) -> None:
    recipe = replace(QUICK["forgetting"], initialisation=initialisation, steps=1)
    one, again, other = (learn(models, recipe, seed=seed) for seed in (0, 0, 1))
    assert one.embeddings.tobytes() == again.embeddings.tobytes()
    assert one.details == again.details
    assert one.details["trace"][1:] != other.details["trace"][1:]


def test_restarts_begin_elsewhere_and_the_best_is_kept(models: SmallModels) -> None:
    once, again = (LearnedSoftPrompt(length=6, steps=1, restarts=count).bind(binding_of(models)) for count in (1, 3))
    found = again.details["restarts"]
    assert found[0] == {"select_auc": once.details["select_auc"]}
    assert len({one["select_auc"] for one in found}) == 3
    assert again.details["select_auc"] == max(one["select_auc"] for one in found)
    assert (again.used, again.seen) == (once.used, once.seen)
    with pytest.raises(AttackError, match="restarts is at least 1"):
        LearnedSoftPrompt(restarts=0).bind(binding_of(models))


def test_at_most_so_many_records_a_class_are_used(models: SmallModels) -> None:
    assert learn(models, replace(QUICK["forgetting"], steps=0, per_class=7)).details["fit_records"] == 14


def test_weights_stay_as_they_are(models: SmallModels) -> None:
    before = {name: weight.clone() for name, weight in models.leaky.model.state_dict().items()}
    learn(models, replace(QUICK["forgetting"], steps=1))
    for name, weight in models.leaky.model.state_dict().items():
        assert torch.equal(weight, before[name]), name
    assert all(weight.grad is None for weight in models.leaky.model.parameters())


def binding_of(models: SmallModels, target: LanguageModel | None = None, *, longest: int = 128) -> Binding:
    fit, select = labelled(models, 0, 24, "fit"), labelled(models, 24, 60, "select")
    return Binding(target or models.leaky, fit, select, 0, Silent(), longest)


def test_there_is_no_place_for_eval_labels() -> None:
    """memory holds what targets wrote and their copies, by the target's fingerprint; about: records, which have no
    labels, and what models answer; spread: a function of other bindings."""
    names = [one.name for one in fields(Binding)]
    assert names == ["target", "fit", "select", "seed", "progress", "longest", "memory", "about", "spread"]


def test_what_was_used_is_recorded(models: SmallModels) -> None:
    binding = binding_of(models)
    program = LearnedSoftPrompt(length=4, steps=1).bind(binding)
    assert program.used == {*binding.fit.records.ids, *binding.select.records.ids}
    assert program.details["recipe"]["length"] == 4


def test_options_override_the_recipe() -> None:
    assert LearnedSoftPrompt().resolved() == RECIPES["forgetting"]
    assert LearnedSoftPrompt("paper", length=3, bound=2.0).resolved() == replace(RECIPES["paper"], length=3, bound=2.0)


def test_names_that_do_not_exist(models: SmallModels) -> None:
    with pytest.raises(AttackError, match=r"no recipe 'papr'[\s\S]*forgetting, paper"):
        LearnedSoftPrompt("papr").bind(binding_of(models))
    with pytest.raises(AttackError, match=r"no initialisation 'zeros'[\s\S]*noise"):
        LearnedSoftPrompt(length=3, initialisation="zeros").bind(binding_of(models))


def test_a_program_learned_on_a_shadow_model_carries_over(models: SmallModels, tmp_path: Path) -> None:
    shadow_model = copy.deepcopy(models.base.model).requires_grad_(True)
    train(shadow_model, models.base.encoder, models.members[60:], epochs=1, learning_rate=2e-3)
    shadow = replace(models.base, model=shadow_model.requires_grad_(False), name="shadow")
    path = tmp_path / "soft.safetensors"
    learned = SoftPrompt(start_of(models, QUICK["forgetting"], shadow).numpy(), {"on": "shadow"}, frozenset({"s1"}))
    save_program(learned, path)
    program = LearnedSoftPrompt(program=str(path)).bind(binding_of(models))
    assert isinstance(program, SoftPrompt)
    assert (program.key, program.used) == (learned.key, learned.used)
    records = labelled(models, 100, 104, "eval").records
    (on_target,) = program.ask(models.leaky, records)
    (on_shadow,) = learned.ask(shadow, records)
    assert np.array_equal(on_target.token, on_shadow.token)
    assert not np.array_equal(on_target.logprob, on_shadow.logprob)


def test_prompts_that_leave_no_room_are_refused(models: SmallModels, tmp_path: Path) -> None:
    with pytest.raises(AttackError, match=r"does not fit[\s\S]*256[\s\S]*80 prompt tokens"):
        LearnedSoftPrompt().bind(binding_of(models, longest=200))
    path = tmp_path / "soft.safetensors"
    save_program(SoftPrompt(np.zeros((80, 64), np.float32), {}), path)
    with pytest.raises(AttackError, match="does not fit"):
        LearnedSoftPrompt(program=str(path)).bind(binding_of(models, longest=200))
