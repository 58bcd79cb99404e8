"""Layers skipped and thinned out against copies of the model; and what every program of inference leaves behind."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from test_programs import assert_equal, records_of
from torch import Tensor, nn

from repromia.errors import AttackError
from repromia.programs import Fixed, Identity
from repromia.programs.context import Band, Chunks
from repromia.programs.embedding_noise import EmbeddingNoise
from repromia.programs.layers import Dropout, SkippedLayers
from repromia.programs.registry import PLANS
from repromia.programs.weights import WeightNoise
from repromia.records import Records
from repromia.signals import TokenSignals
from repromia.targets.blocks import decoder_blocks
from repromia.targets.fingerprint import model_fingerprint
from repromia.targets.language import LanguageModel
from repromia.targets.tokens import TokenSequence
from small import SmallModels
from targets.architectures import ARCHITECTURES, target_of, tiny, with_lora

EVERY: tuple[Any, ...] = (
    Band(2),
    Chunks(8),
    EmbeddingNoise(0.6),
    SkippedLayers(),
    Dropout(0.2),
    WeightNoise(0.2),
)


class InjectedError(Exception):
    pass


def deep(architecture: str, layers: int) -> Any:
    return tiny(architecture) if architecture == "gpt_neo" else tiny(architecture, num_hidden_layers=layers)


@pytest.fixture(params=ARCHITECTURES)
def target(request: pytest.FixtureRequest, models: SmallModels) -> LanguageModel:
    return target_of(deep(request.param, 3), models.base.tokenizer)


@pytest.fixture
def records(models: SmallModels) -> Records:
    return records_of([text[: 12 * (row + 2)] for row, text in enumerate(models.members[:6])])


@torch.no_grad()
def alone(model: Any, sequence: TokenSequence) -> np.ndarray:
    """Log-probabilities of one text's tokens, one pass, float64."""
    ids = torch.from_numpy(sequence.ids)
    logprob = model(input_ids=ids[None], use_cache=False).logits[0].double().log_softmax(-1)
    return logprob[:-1].gather(-1, ids[1:, None])[:, 0].numpy()


def assert_alone(model: Any, target: LanguageModel, got: TokenSignals, records: Records) -> None:
    for row, sequence in enumerate(target.encode(records.contents)):
        np.testing.assert_allclose(got.take([row]).logprob, alone(model, sequence), atol=1e-4)


def without_block(model: Any, at: int) -> Any:
    """A copy that was built with one block less."""
    shorter = copy.deepcopy(model)
    blocks = decoder_blocks(shorter)
    del blocks[at]
    config = shorter.config.get_text_config()
    if config.__dict__.get("layer_types"):
        config.layer_types = [one for layer, one in enumerate(config.layer_types) if layer != at]
    config.num_hidden_layers = len(blocks)
    for layer, block in enumerate(blocks):
        for module in block.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = layer
    return shorter


def test_a_variant_is_the_model_without_that_block(target: LanguageModel, records: Records) -> None:
    variants = SkippedLayers().ask(target, records)
    assert len(variants) == target.model.config.num_hidden_layers
    for at, got in enumerate(variants):
        assert_alone(without_block(target.model, at), target, got, records)
    assert min(np.abs(one.logprob - variants[0].logprob).mean() for one in variants[1:]) > 0.01


@pytest.mark.parametrize(
    ("layers", "most", "chosen"),
    [(1, 6, [0]), (5, 6, [0, 1, 2, 3, 4]), (6, 6, [0, 1, 2, 3, 4, 5]), (5, 3, [0, 2, 4]), (5, 2, [0, 4]), (5, 1, [0])],
)
def test_of_deep_models_evenly_spread_layers_are_skipped(
    layers: int, most: int, chosen: list[int], models: SmallModels, records: Records
) -> None:
    model = deep("llama", layers)
    target = target_of(model, models.base.tokenizer)
    variants = SkippedLayers(most).ask(target, records)
    assert len(variants) == len(chosen)
    for at, got in zip(chosen, variants, strict=True):
        assert_alone(without_block(model, at), target, got, records)


def test_very_deep_models_get_the_number_asked() -> None:
    for layers in range(6, 130):
        chosen = SkippedLayers(6).chosen(layers)
        assert len(chosen) == 6
        assert (chosen[0], chosen[-1]) == (0, layers - 1)
        gaps = np.diff(chosen)
        assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("layers", [1, 4, 5])
def test_what_is_not_computed_again_is_not_counted(layers: int, models: SmallModels, records: Records) -> None:
    target = target_of(deep("llama", layers), models.base.tokenizer)
    sequences = target.encode(records.contents)
    padded = len(sequences) * max(len(one.ids) for one in sequences)
    ran: list[int] = []
    handles = [
        block.mlp.register_forward_hook(lambda _module, _args, output: ran.append(output[..., 0].numel()))
        for block in decoder_blocks(target.model)
    ]
    target.asked = 0
    try:
        variants = SkippedLayers().ask(target, records)
    finally:
        for handle in handles:
            handle.remove()
    assert abs(target.asked - sum(ran) / layers) <= len(variants)  # whole tokens, rounded down
    assert padded <= target.asked
    assert layers == 1 or target.asked < len(variants) * padded


class Thinned(nn.Module):
    """A block of which a part of the units keeps what came in."""

    def __init__(self, inner: nn.Module, lost: np.ndarray, rate: float) -> None:
        super().__init__()
        self.inner, self.lost, self.rate = inner, torch.from_numpy(lost), rate

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        output = self.inner(hidden_states, *args, **kwargs)
        after = output[0] if isinstance(output, tuple) else output
        scaled = hidden_states + (after - hidden_states) / (1 - self.rate)
        mixed = torch.where(self.lost, hidden_states, scaled)
        return (mixed, *output[1:]) if isinstance(output, tuple) else mixed


def test_dropout_is_that_of_blocks_that_lose_units(target: LanguageModel, records: Records) -> None:
    variants = Dropout(0.3, draws=2, seed=5).ask(target, records)
    assert len(variants) == 2
    for draw, got in enumerate(variants):
        model = copy.deepcopy(target.model)
        blocks = decoder_blocks(model)
        for layer in range(len(blocks)):
            lost = np.random.default_rng([5, draw, layer]).random(32) < 0.3
            assert 0 < lost.sum() < 32
            blocks[layer] = Thinned(blocks[layer], lost, 0.3)
        assert_alone(model, target, got, records)
    assert np.abs(variants[0].logprob - variants[1].logprob).mean() > 0.05


def test_dropout_keeps_the_mean() -> None:
    """Of 20,000 units the mean factor is within 5 standard errors of 1 (false alarms: 6e-7)."""
    for rate in (0.1, 0.5, 0.9):
        kept = Dropout(rate).kept(0, 0, 20_000)
        assert set(np.unique(kept)) == {np.float32(0), np.float32(1 / (1 - rate))}
        assert abs(kept.mean() - 1) < 5 * np.sqrt(rate / (1 - rate) / 20_000)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_an_impossible_rate_is_refused(rate: float, models: SmallModels, records: Records) -> None:
    with pytest.raises(AttackError, match="between 0 and 1"):
        Dropout(rate).ask(models.base, records)


@pytest.mark.parametrize("program", [SkippedLayers(0), Dropout(draws=0), EmbeddingNoise(draws=0), WeightNoise(draws=0)])
def test_no_variant_at_all_is_refused(program: Any, models: SmallModels, records: Records) -> None:
    with pytest.raises(AttackError):
        program.ask(models.base, records)


# What holds for every program of inference ------------------------------------------------------------------------


def test_every_program_of_inference_is_listed() -> None:
    made = {type(one) for one in EVERY}
    text = {"identity", "lower_case", "word_swaps", "masked_neighbours"}
    fixed = {kind for name, kind in PLANS.items() if issubclass(kind, Fixed) and name not in text}
    assert made == fixed


def traces(model: Any) -> Iterator[tuple[Any, ...]]:
    for name, module in model.named_modules():
        yield (
            name,
            sorted(module.__dict__),
            list(module._forward_hooks),
            list(module._forward_pre_hooks),
            list(module._forward_hooks_with_kwargs),
            module.training,
        )
    for name, weight in model.named_parameters():
        yield name, weight.requires_grad, weight.grad


def whole_state(target: LanguageModel) -> tuple[Any, ...]:
    weights = {name: (one.dtype, one.numpy().tobytes()) for name, one in target.model.state_dict().items()}
    fingerprint = model_fingerprint(target.model, target.encoder, adapter=target.adapter)
    return weights, fingerprint, list(traces(target.model)), target.adapter, torch.get_rng_state().tolist()


def in_use(architecture: str, models: SmallModels, **options: Any) -> LanguageModel:
    """A model that its owner was training, with one part kept frozen."""
    model = copy.deepcopy(tiny(architecture)).requires_grad_(True)
    model.train()
    decoder_blocks(model)[1].eval()
    return target_of(model, models.base.tokenizer, **options)


@pytest.mark.parametrize("program", EVERY, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "mamba"])
def test_the_target_is_left_as_it_was(
    architecture: str, program: Any, models: SmallModels, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = in_use(architecture, models, batch_tokens=1)
    before = whole_state(target)
    able = not (architecture == "mamba" and isinstance(program, (Band, Chunks)))
    if able:
        first = program.ask(target, records)
    else:
        with pytest.raises(AttackError):
            program.ask(target, records)
    assert whole_state(target) == before
    if not able:
        return

    *_, last = decoder_blocks(target.model)[1].children()
    passes: list[int] = []
    forward = last.forward

    def fails(*args: Any, **kwargs: Any) -> Any:
        passes.append(1)
        if len(passes) == 3:
            raise InjectedError
        return forward(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setitem(last.__dict__, "forward", fails)
        during = whole_state(target)
        with pytest.raises(InjectedError):
            program.ask(target, records)
        assert whole_state(target) == during
    assert len(passes) == 3
    assert whole_state(target) == before
    for one, other in zip(first, program.ask(target, records), strict=True):
        assert_equal(one, other)


@pytest.mark.parametrize("program", EVERY, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3_text", "qwen2_moe"])
def test_a_record_does_not_feel_its_batch_mates(
    architecture: str, program: Any, models: SmallModels, records: Records
) -> None:
    target = target_of(tiny(architecture), models.base.tokenizer)
    whole = program.ask(target, records)
    order = np.array([3, 5, 0, 2, 4, 1])
    turned = program.ask(target, records.take(order))
    one_by_one = program.ask(replace(target, batch_tokens=1), records)
    single = program.ask(target, records.take([0]))  # the shortest: no longer text sets any length
    (plain,) = Identity().ask(target, records)
    for variant, got in enumerate(whole):
        np.testing.assert_allclose(one_by_one[variant].logprob, got.logprob, atol=1e-4)
        np.testing.assert_allclose(turned[variant].logprob, got.take(order).logprob, atol=1e-4)
        np.testing.assert_allclose(single[variant].logprob, got.take([0]).logprob, atol=1e-4)
        assert np.array_equal(got.token, plain.token)
        assert np.array_equal(got.offsets, plain.offsets)
        assert np.abs(got.logprob - plain.logprob).mean() > 0.05  # nothing here is the plain view


@pytest.mark.parametrize("program", EVERY, ids=lambda one: type(one).__name__)
def test_draws_differ_and_the_same_program_answers_the_same(
    program: Any, models: SmallModels, records: Records
) -> None:
    target = target_of(tiny("llama"), models.base.tokenizer)
    first = program.ask(target, records)
    torch.manual_seed(1)
    np.random.seed(1)
    for one, other in zip(first, replace(program).ask(target, records), strict=True):
        assert_equal(one, other)
    assert replace(program).key == program.key
    if hasattr(program, "draws"):
        again = replace(program, seed=1, draws=3)
        logprobs = [one.logprob for one in (*first, *again.ask(target, records))]
        assert len(logprobs) == 5
        assert min(np.abs(logprobs[i] - logprobs[j]).mean() for i in range(5) for j in range(i)) > 0.05
        assert again.key != program.key
        more = replace(program, draws=3).ask(target, records)
        assert_equal(more[1], first[1])  # a draw does not depend on how many there are


@pytest.mark.parametrize("program", EVERY, ids=lambda one: type(one).__name__)
def test_an_adapter_is_asked_as_the_merged_model_and_off_as_the_base(
    program: Any, models: SmallModels, records: Records
) -> None:
    adapted = with_lora(tiny("llama"))
    target = target_of(adapted, models.base.tokenizer)
    merged = target_of(copy.deepcopy(adapted).merge_and_unload(), models.base.tokenizer)
    bare = target_of(tiny("llama"), models.base.tokenizer)
    for asked, expected in ((target, merged), (target.base(), bare)):
        for got, one in zip(program.ask(asked, records), program.ask(expected, records), strict=True):
            np.testing.assert_allclose(got.logprob, one.logprob, atol=1e-4)
