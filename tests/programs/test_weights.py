"""Throw-away copies: what noise and repair do to them, and that the target never feels it."""

from __future__ import annotations

import copy
import gc
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_programs import assert_equal, binding_of, records_of
from torch import Tensor, nn

from repromia.errors import AttackError
from repromia.parts import Asking, Workers
from repromia.programs import Binding, Identity
from repromia.programs.own_text import own_samples
from repromia.programs.registry import plan_for
from repromia.programs.weights import NoiseAndRepair, WeightNoise
from repromia.progress import Silent
from repromia.records import Records
from repromia.signals import TokenSignals
from repromia.store import Store
from repromia.targets.copies import noised_copy, repair
from repromia.targets.fingerprint import model_fingerprint
from repromia.targets.language import LanguageModel
from small import SmallModels
from targets.architectures import ARCHITECTURES, target_of, tiny, with_lora

QUICK = NoiseAndRepair(noise=0.8, steps=6, batch=8)
WRITTEN = QUICK.steps * QUICK.batch


@pytest.fixture
def records(models: SmallModels) -> Records:
    return records_of([text[: 20 * (row + 2)] for row, text in enumerate(models.members[:5])])


@pytest.fixture
def adapted(models: SmallModels) -> LanguageModel:
    return target_of(with_lora(models.base.model), models.base.tokenizer)


def weights(target: LanguageModel) -> dict[str, Tensor]:
    return {name: one.detach() for name, one in target.model.named_parameters()}


def bits(target: LanguageModel) -> tuple[Any, ...]:
    state = {name: one.numpy().tobytes() for name, one in target.model.state_dict().items()}
    flags = [(one.requires_grad, one.grad) for one in target.model.parameters()]
    modes = [one.training for one in target.model.modules()]
    return state, flags, modes, model_fingerprint(target.model, target.encoder, adapter=target.adapter)


def logprobs(signals: tuple[TokenSignals, ...]) -> np.ndarray:
    return np.stack([one.logprob for one in signals])


@torch.no_grad()
def loss(target: LanguageModel, texts: list[np.ndarray]) -> float:
    """Mean over tokens, one text at a time."""
    total, count = 0.0, 0
    for ids in texts:
        logprob = target.model(input_ids=torch.from_numpy(ids)[None], use_cache=False).logits[0].log_softmax(-1)
        total -= float(logprob[:-1].gather(-1, torch.from_numpy(ids)[1:, None]).sum())
        count += len(ids) - 1
    return total / count


def uneven(architecture: str) -> Any:
    """A copy whose biases and norms are not all the same: noise in proportion to their spread would show."""
    model = copy.deepcopy(tiny(architecture))
    torch.manual_seed(0)
    for weight in model.parameters():
        if weight.dim() < 2:
            weight.add_(0.1 * torch.randn(weight.shape))
    return model


@torch.no_grad()
def divergence(target: LanguageModel, other: LanguageModel, texts: list[np.ndarray]) -> float:
    """Mean over all places of KL(target || other), one text at a time, float64."""
    found = []
    for ids in texts:
        own, copied = (
            one.model(input_ids=torch.from_numpy(ids)[None], use_cache=False).logits[0].double().log_softmax(-1)
            for one in (target, other)
        )
        found += (own.exp() * (own - copied)).sum(-1).tolist()
    return float(np.mean(found))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_noise_is_relative_to_each_matrix_and_spares_the_rest(architecture: str, models: SmallModels) -> None:
    """Of n entries, spread and mean are within 6 standard errors (false alarms: 4e-9 a matrix)."""
    target = target_of(uneven(architecture), models.base.tokenizer)
    before = bits(target)
    noised = noised_copy(target, 0.4, seed=3)
    assert bits(target) == before
    assert noised.model is not target.model
    own, other = weights(target), weights(noised)
    assert list(own) == list(other)
    drawn = []
    for name, weight in own.items():
        change = other[name] - weight
        if weight.dim() < 2 or float(weight.std()) == 0:
            assert not change.any(), name
            continue
        relative = change.double() / (0.4 * float(weight.std()))
        assert abs(float(relative.std()) - 1) < 6 / np.sqrt(2 * relative.numel()), name
        assert abs(float(relative.mean())) < 6 / np.sqrt(relative.numel()), name
        drawn.append(relative.flatten()[:64])
    together = torch.corrcoef(torch.stack([one for one in drawn if len(one) == 64])) - torch.eye(
        sum(len(one) == 64 for one in drawn)
    )
    assert together.abs().max() < 6 / np.sqrt(64)  # no two matrices got the same noise


def test_tied_matrices_stay_tied(models: SmallModels) -> None:
    target = target_of(tiny("gpt2"), models.base.tokenizer)
    copied = noised_copy(target, 0.4, seed=0).model
    assert copied.get_input_embeddings().weight is copied.get_output_embeddings().weight


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "mamba"])
def test_weight_noise_is_the_noised_copys_answer(architecture: str, models: SmallModels, records: Records) -> None:
    target = target_of(tiny(architecture), models.base.tokenizer)
    target.asked = 0
    answers = WeightNoise(0.2, draws=2).ask(target, records)
    sequences = target.encode(records.contents)
    longest = max(len(one.ids) for one in sequences)
    assert target.asked >= 2 * len(records) * longest
    (plain,) = Identity().ask(target, records)
    (none,) = WeightNoise(0.0, draws=1).ask(target, records)
    np.testing.assert_allclose(none.logprob, plain.logprob, atol=1e-5)
    assert np.abs(logprobs(answers) - plain.logprob).mean() > 0.05
    assert np.abs(answers[0].logprob - answers[1].logprob).mean() > 0.05
    for got, again in zip(answers, WeightNoise(0.2, draws=2).ask(target, records), strict=True):
        assert_equal(got, again)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_repair_brings_back_what_noise_took(architecture: str, models: SmallModels) -> None:
    target = target_of(tiny(architecture), models.base.tokenizer)
    binding = binding_of(models, target, longest=24)
    samples = own_samples(binding, 24)
    before = bits(target)
    noised = noised_copy(target, 0.8, seed=0)
    broken = loss(noised, samples)
    apart = [divergence(target, noised, part) for part in (samples[:4], samples)]
    first, last = repair(noised, target, samples, batch=4, rate=0.05, progress=Silent())
    assert first == pytest.approx(apart[0], abs=1e-4)
    assert last < first
    assert divergence(target, noised, samples) < 0.9 * apart[1]
    assert loss(noised, samples) < broken - 0.02
    assert bits(target) == before
    assert all(not one.requires_grad and one.grad is None for one in noised.model.parameters())


def test_a_repaired_copy_lies_between_noise_and_target(models: SmallModels) -> None:
    """Of a model that has learned a language, on the text it writes."""
    binding = binding_of(models)
    samples = own_samples(binding, WRITTEN)
    before = bits(binding.target)
    repaired, _ = QUICK.copy_of(binding)
    noised = noised_copy(binding.target, QUICK.noise, seed=binding.seed)
    assert loss(binding.target, samples) < loss(repaired, samples) < loss(noised, samples) - 0.05
    longer, _ = replace(QUICK, steps=30).copy_of(binding)
    assert loss(longer, samples) < loss(repaired, samples) - 0.05
    assert bits(binding.target) == before


def test_biases_and_norms_of_a_repaired_copy_are_the_targets(models: SmallModels) -> None:
    target = target_of(uneven("gpt2"), models.base.tokenizer)
    repaired, _ = QUICK.copy_of(binding_of(models, target))
    other = weights(repaired)
    for name, weight in weights(target).items():
        assert torch.equal(other[name], weight) == (weight.dim() < 2), name


def test_no_noise_and_no_step_is_the_plain_view(models: SmallModels, records: Records) -> None:
    binding = binding_of(models)
    (plain,) = Identity().ask(binding.target, records)
    (got,) = NoiseAndRepair(noise=0.0, steps=0).bind(binding).ask(binding.target, records)
    np.testing.assert_allclose(got.logprob, plain.logprob, atol=1e-5)


def test_how_a_copy_was_repaired_is_known_when_its_answers_are_read_back(
    models: SmallModels, records: Records, tmp_path: Path
) -> None:
    told = []
    for _ in range(2):
        binding = binding_of(models)
        program = QUICK.bind(binding)
        Asking(binding.target, Store(tmp_path), Silent(), Workers()).ask([program], records, "a copy")
        told.append((program.details, len(binding.memory) > 0))
    assert told[0][0].keys() == {"divergence_before", "divergence_after"}
    assert told == [(told[0][0], True), (told[0][0], False)]


def test_noise_without_repair_is_the_noised_copy(models: SmallModels, records: Records) -> None:
    binding = binding_of(models)
    (got,) = NoiseAndRepair(noise=0.3, steps=0).bind(binding).ask(binding.target, records)
    (expected,) = Identity().ask(noised_copy(binding.target, 0.3, seed=0), records)
    np.testing.assert_allclose(got.logprob, expected.logprob, atol=1e-5)


def test_the_answer_depends_on_options_and_seed_alone(models: SmallModels, records: Records) -> None:
    binding = binding_of(models)
    program = QUICK.bind(binding)
    (first,) = program.ask(binding.target, records)
    torch.manual_seed(5)
    (again,) = replace(QUICK).bind(replace(binding, memory={})).ask(binding.target, records)
    assert_equal(again, first)
    for other in (
        QUICK.bind(replace(binding, seed=1)),
        replace(QUICK, noise=0.3).bind(binding),
        replace(QUICK, rate=0.002).bind(binding),
        replace(QUICK, steps=3).bind(binding),
        replace(QUICK, batch=4).bind(binding),
    ):
        assert other.key != program.key
        assert np.abs(other.ask(binding.target, records)[0].logprob - first.logprob).mean() > 1e-3
    keys = [
        QUICK.bind(replace(binding, target=models.base)).key,
        QUICK.bind(replace(binding, longest=60)).key,
        QUICK.bind(replace(binding, fit=binding.fit.take(range(30)))).key,
        replace(QUICK, where="adapter").bind(binding).key,
        program.key,
    ]
    assert len(set(keys)) == 5
    assert QUICK.bind(replace(binding, select=binding.fit)).key == program.key  # nothing of select is used
    flipped = replace(binding.fit, member=~binding.fit.member)
    assert QUICK.bind(replace(binding, fit=flipped)).key == program.key  # nor any label


def test_asking_in_parts_is_asking_at_once(models: SmallModels, records: Records) -> None:
    binding = binding_of(models)
    program = QUICK.bind(binding)
    (whole,) = program.ask(binding.target, records)
    for row in (3, 0):
        (part,) = program.ask(binding.target, records.take([row]))
        np.testing.assert_allclose(part.logprob, whole.take([row]).logprob, atol=1e-4)
    (one_by_one,) = program.ask(replace(binding.target, batch_tokens=1), records)
    np.testing.assert_allclose(one_by_one.logprob, whole.logprob, atol=1e-4)


def test_closing_frees_the_copy_and_asking_again_makes_the_same(models: SmallModels, records: Records) -> None:
    binding = binding_of(models)
    program = QUICK.bind(binding)
    program.close()
    (first,) = program.ask(binding.target, records)
    held = weakref.ref(QUICK.copy_of(binding)[0].model)
    (second,) = program.ask(binding.target, records)
    assert held() is QUICK.copy_of(binding)[0].model
    program.close()
    gc.collect()
    assert held() is None
    (third,) = program.ask(binding.target, records)
    assert_equal(second, first)
    assert_equal(third, first)


def test_what_the_copy_is_asked_counts_for_the_target(models: SmallModels, records: Records) -> None:
    target = replace(models.leaky, asked=0)
    program = QUICK.bind(binding_of(models, target))
    program.ask(target, records)
    began = target.asked
    padded = len(records) * max(len(one.ids) for one in target.encode(records.contents))
    assert began > padded  # the samples too
    program.ask(target, records)
    assert target.asked == began + padded


def test_a_copy_is_a_model_with_a_state_of_its_own(models: SmallModels) -> None:
    target = models.leaky
    fingerprint = target.fingerprint
    copied = noised_copy(target, 0.1, seed=0)
    assert copied.fingerprint != fingerprint == target.fingerprint
    assert copied.name != target.name
    assert copied._remembered is not target._remembered
    assert copied.encoder is target.encoder


def lora(name: str) -> bool:
    return "lora_" in name


def test_noise_on_the_adapter_leaves_the_base(adapted: LanguageModel, models: SmallModels) -> None:
    before = bits(adapted)
    binding = binding_of(models, adapted)
    noised = noised_copy(adapted, 0.3, seed=0, where="adapter")
    repaired, _ = replace(QUICK, where="adapter").copy_of(binding)
    assert bits(adapted) == before
    for copied in (noised, repaired):
        assert copied.has_adapter
        other = weights(copied)
        for name, weight in weights(adapted).items():
            assert torch.equal(other[name], weight) != lora(name), name
    samples = own_samples(binding, WRITTEN)
    assert loss(repaired, samples) < loss(noised_copy(adapted, 0.8, seed=0, where="adapter"), samples)


@pytest.mark.parametrize("where", ["auto", "weights"])
def test_noise_on_the_weights_merges_the_adapter(
    where: Any, adapted: LanguageModel, models: SmallModels, records: Records
) -> None:
    before = bits(adapted)
    merged = noised_copy(adapted, 0.0, seed=0, where=where)
    assert not merged.has_adapter
    (expected,) = Identity().ask(adapted, records)
    (got,) = Identity().ask(merged, records)
    np.testing.assert_allclose(got.logprob, expected.logprob, atol=1e-4)
    noised = noised_copy(adapted, 0.3, seed=0, where=where)
    same = {name: torch.equal(one, weights(merged)[name]) for name, one in weights(noised).items()}
    assert {name for name, one in same.items() if one} == {n for n, one in weights(merged).items() if one.dim() < 2}
    assert bits(adapted) == before
    (bare,) = Identity().ask(models.base, records)
    (off,) = Identity().ask(noised_copy(adapted.base(), 0.0, seed=0, where=where), records)
    np.testing.assert_allclose(off.logprob, bare.logprob, atol=1e-4)


def test_the_merged_copy_of_the_program_answers_as_the_adapter_does(
    adapted: LanguageModel, models: SmallModels, records: Records
) -> None:
    binding = binding_of(models, adapted)
    (expected,) = Identity().ask(adapted, records)
    for where in ("weights", "adapter"):
        (got,) = NoiseAndRepair(0.0, 0, where=where).bind(binding).ask(adapted, records)
        np.testing.assert_allclose(got.logprob, expected.logprob, atol=1e-4)


def test_there_must_be_an_adapter_to_noise(models: SmallModels) -> None:
    with pytest.raises(AttackError, match="no adapter"):
        noised_copy(models.leaky, 0.1, seed=0, where="adapter")


def test_an_unknown_place_is_refused(adapted: LanguageModel, models: SmallModels, records: Records) -> None:
    with pytest.raises(AttackError, match="adaptor"):  # noqa: PT012 — wherever it is noticed
        plan = plan_for("noise_and_repair/where=adaptor/steps=1", {})
        plan.bind(binding_of(models, adapted)).ask(adapted, records)


def on_meta(model: Any) -> None:
    model.to("meta")


def with_integer_weights(model: Any) -> None:
    layer = model.model.layers[0].mlp.up_proj
    layer.weight = nn.Parameter((layer.weight * 64).round().to(torch.int8), requires_grad=False)


def with_integer_buffers(model: Any) -> None:
    """As GPTQ and AWQ keep them: no parameter is left where the weights were."""
    layer = model.model.layers[0].mlp.up_proj
    packed = (layer.weight * 64).round().to(torch.int32)
    del layer.weight
    layer.register_buffer("qweight", packed)
    layer.forward = lambda hidden: nn.functional.linear(hidden, packed.float() / 64)
    model.config.quantization_config = {"quant_method": "gptq", "bits": 4}
    model.is_quantized = True


@pytest.mark.parametrize("change", [on_meta, with_integer_weights, with_integer_buffers])
def test_weights_that_cannot_be_noised_are_refused(change: Any, models: SmallModels) -> None:
    target = target_of(copy.deepcopy(tiny("llama")), models.base.tokenizer)
    change(target.model)
    with pytest.raises(AttackError, match="cannot be copied and noised"):
        noised_copy(target, 0.1, seed=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_noised_and_repaired(dtype: torch.dtype, models: SmallModels, records: Records) -> None:
    target = target_of(copy.deepcopy(models.leaky.model).to(dtype), models.base.tokenizer)
    binding = binding_of(models, target)
    samples = own_samples(binding, WRITTEN)
    noised = noised_copy(target, QUICK.noise, seed=0)
    assert all(one.dtype == dtype for one in noised.model.parameters())
    repaired, _ = QUICK.copy_of(binding)
    assert loss(repaired, samples) < loss(noised, samples) - 0.05
    assert np.isfinite(Identity().ask(repaired, records)[0].logprob).all()


def test_a_failure_on_the_way_leaves_no_half_made_copy(
    models: SmallModels, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    binding: Binding = binding_of(models)
    before = bits(binding.target)
    program = QUICK.bind(binding)
    with monkeypatch.context() as patch:
        patch.setattr(nn.utils, "clip_grad_norm_", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            program.ask(binding.target, records)
    assert program.key not in binding.memory
    assert bits(binding.target) == before
    (got,) = program.ask(binding.target, records)
    assert_equal(got, QUICK.bind(binding).ask(binding.target, records)[0])
