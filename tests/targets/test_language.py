"""Signals against a forward pass of one record at a time, over the architectures people audit."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES, NO_KEY_VALUES, SCALED_HEAD, target_of, tiny, with_lora
from torch import Tensor

from repromia.errors import TargetError
from repromia.signals import TOKEN_FIELDS, TokenSignals
from repromia.targets.language import LanguageModel
from repromia.targets.output_head import own_logits
from repromia.targets.prefix import KeyValues
from repromia.targets.tokens import TokenSequence
from small import SmallModels

FIGURES = ("logprob", "mean", "std", "top_logprob")


def state_of(model: Any) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same_bits(model: Any, before: dict[str, Tensor]) -> None:
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def assert_close(got: TokenSignals, expected: TokenSignals, tolerance: float = 1e-4) -> None:
    assert np.array_equal(got.offsets, expected.offsets)
    assert np.array_equal(got.token, expected.token)
    for name in FIGURES:
        np.testing.assert_allclose(getattr(got, name), getattr(expected, name), atol=tolerance, err_msg=name)


def naive_logits(model: Any, sequences: list[TokenSequence], front: Tensor | None = None) -> Iterator[Tensor]:
    """Float64 logits of one record at a time; `front`: embeddings concatenated before it."""
    for sequence in sequences:
        embedded = model.get_input_embeddings()(torch.from_numpy(sequence.ids))
        length = 0 if front is None else len(front)
        joined = embedded if front is None else torch.cat([front, embedded])
        yield model(inputs_embeds=joined[None], use_cache=False).logits[0, length:].double()


@torch.no_grad()
def naive(model: Any, sequences: list[TokenSequence], front: Tensor | None = None) -> dict[str, np.ndarray]:
    parts: dict[str, list[Tensor]] = {name: [] for name in TOKEN_FIELDS}
    for sequence, logits in zip(sequences, naive_logits(model, sequences, front), strict=True):
        ids = torch.from_numpy(sequence.ids)
        for at in np.flatnonzero(sequence.scored):
            logprob = logits[at - 1].log_softmax(-1)
            odds = logprob.exp()
            mean = (odds * logprob).sum()
            parts["token"].append(ids[at])
            parts["logprob"].append(logprob[ids[at]])
            parts["mean"].append(mean)
            parts["std"].append((odds * (logprob - mean) ** 2).sum().sqrt())
            parts["top_token"].append(logprob.argmax())
            parts["top_logprob"].append(logprob.max())
            parts["rank"].append((logprob > logprob[ids[at]]).sum())
    return {name: torch.stack(values).numpy() for name, values in parts.items()}


def assert_naive(got: TokenSignals, expected: dict[str, np.ndarray]) -> None:
    assert np.array_equal(got.token, expected["token"])
    for name in FIGURES:
        np.testing.assert_allclose(getattr(got, name), expected[name], atol=1e-4, err_msg=name)
    # two vocabulary entries closer than rounding may swap places
    assert (got.top_token == expected["top_token"]).mean() > 0.99
    assert np.abs(got.rank - expected["rank"]).max() <= 1


@pytest.fixture(params=ARCHITECTURES)
def target(request: pytest.FixtureRequest, models: SmallModels) -> LanguageModel:
    return target_of(tiny(request.param), models.base.tokenizer)


@pytest.fixture
def sequences(models: SmallModels) -> list[TokenSequence]:
    texts = [text[: 12 * (row + 2)] for row, text in enumerate(models.members[:7])]  # of many lengths
    return target_of(tiny("llama"), models.base.tokenizer).encode(texts)


@pytest.fixture
def front(models: SmallModels) -> Tensor:
    return torch.tensor(models.base.encoder.plain_ids(models.nonmembers[0])[:20])


def test_signals_are_those_of_one_record_at_a_time(target: LanguageModel, sequences: list[TokenSequence]) -> None:
    before = state_of(target.model)
    got = target.signals(sequences)
    assert_naive(got, naive(target.model, sequences))
    assert got.std.mean() > 0.1  # nothing here is flat
    assert_same_bits(target.model, before)


def test_prefix_is_the_concatenation(target: LanguageModel, sequences: list[TokenSequence], front: Tensor) -> None:
    with torch.no_grad():
        prefix = target.key_values(front)
    assert isinstance(prefix, KeyValues) != (target.model.config.model_type in NO_KEY_VALUES)
    first, again = target.signals(sequences, prefix), target.signals(sequences, prefix)
    assert_naive(first, naive(target.model, sequences, target.embed(front)))
    for name in TOKEN_FIELDS:  # the first pass left the prefix as it was
        assert np.array_equal(getattr(first, name), getattr(again, name)), name
    assert np.abs(first.logprob - target.signals(sequences).logprob).mean() > 0.01


def test_prefix_gradient_is_that_of_the_concatenation(
    target: LanguageModel, sequences: list[TokenSequence], front: Tensor
) -> None:
    leaf = target.embed(front).detach().requires_grad_()
    plain = torch.zeros((), dtype=torch.float64)
    for sequence, logits in zip(sequences, naive_logits(target.model, sequences, leaf), strict=True):
        ids = torch.from_numpy(sequence.ids)[1:, None]
        plain = plain + logits[:-1].log_softmax(-1).gather(-1, ids).mean()
    (expected,) = torch.autograd.grad(plain, leaf)

    total = torch.zeros(())
    for _, logprobs in target.record_logprobs(sequences, target.key_values(leaf)):
        total = total + torch.stack([one.mean() for one in logprobs]).sum()
    (gradient,) = torch.autograd.grad(total, leaf)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(gradient, expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_every_architecture_gets_a_head_that_works_in_chunks(architecture: str, models: SmallModels) -> None:
    target = target_of(tiny(architecture), models.base.tokenizer)
    assert target._head is not own_logits
    assert (target._head is not target.model.get_output_embeddings()) == (architecture in SCALED_HEAD)


def test_a_head_that_cannot_be_set_apart_is_asked_as_it_is(models: SmallModels, sequences: list[TokenSequence]) -> None:
    model = copy.deepcopy(tiny("llama"))

    def shifted(_module: object, _args: object, output: Any) -> Any:
        output.logits = output.logits + torch.linspace(0, 3, 512)
        return output

    model.register_forward_hook(shifted)
    target = target_of(model, models.base.tokenizer)
    assert target._head is own_logits
    assert_naive(target.signals(sequences), naive(model, sequences))


@pytest.mark.parametrize("architecture", ["gpt2", "mamba", "phi3"])
@pytest.mark.parametrize("records", [1, 7, 64])
def test_a_record_does_not_feel_its_batch_mates(architecture: str, records: int, models: SmallModels) -> None:
    model = tiny(architecture)
    texts = [text[: 20 + 2 * row] for row, text in enumerate(models.members[:40])]
    one_by_one = target_of(model, models.base.tokenizer, batch_tokens=1)
    sequences = one_by_one.encode(texts)
    expected = one_by_one.signals(sequences)
    longest = max(len(sequence.ids) for sequence in sequences)
    target = target_of(model, models.base.tokenizer, batch_tokens=records * longest)
    assert_close(target.signals(sequences), expected)
    order = np.random.default_rng(0).permutation(len(sequences))
    assert_close(target.signals([sequences[row] for row in order]), expected.take(order))


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_tokenizers_padding_side_plays_no_part(side: str, models: SmallModels) -> None:
    tokenizer = copy.deepcopy(models.base.tokenizer)
    tokenizer.padding_side = side
    target = target_of(tiny("gpt2"), tokenizer)
    sequences = target.encode(models.members[:5])
    assert_naive(target.signals(sequences), naive(target.model, sequences))


@contextmanager
def memory_for(model: Any, records: int, error: type[RuntimeError]) -> Iterator[list[weakref.ref[Tensor]]]:
    """Injected fault: a forward pass over more than `records` records fails; yields what each such pass had held."""
    held: list[weakref.ref[Tensor]] = []
    alive: list[int] = []

    def fail(_module: object, args: tuple[Tensor, ...], keywords: dict[str, Tensor]) -> None:
        gc.collect()
        alive.append(sum(one() is not None for one in held))
        assert alive[-1] == 0, "the failed batch is still in memory when the next one starts"
        ids = keywords["input_ids"]
        if len(ids) > records:
            activations = torch.zeros(len(ids), 100)
            held.append(weakref.ref(activations))
            raise error("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    handle = model.register_forward_pre_hook(fail, with_kwargs=True)
    try:
        yield held
    finally:
        handle.remove()


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, pytest.param(RuntimeError, marks=pytest.mark.slow)])
def test_out_of_memory_halves_the_batch(
    error: type[RuntimeError], models: SmallModels, sequences: list[TokenSequence]
) -> None:
    target = target_of(tiny("llama"), models.base.tokenizer)
    expected = target.signals(sequences)
    with memory_for(target.model, 2, error) as failed:
        got = target.signals(sequences)
    assert len(failed) >= 2
    assert target.batch_tokens < 4096
    assert_close(got, expected)


def test_a_record_that_does_not_fit_is_an_error(models: SmallModels, sequences: list[TokenSequence]) -> None:
    target = target_of(tiny("llama"), models.base.tokenizer)
    with memory_for(target.model, 0, torch.OutOfMemoryError), pytest.raises(TargetError, match="--max-tokens"):
        target.signals(sequences)


def test_other_failures_are_not_taken_for_lack_of_memory(models: SmallModels, sequences: list[TokenSequence]) -> None:
    target = target_of(copy.deepcopy(tiny("llama")), models.base.tokenizer)
    target.model.model.layers[0].mlp.up_proj.weight = torch.nn.Parameter(torch.zeros(3, 3))
    with pytest.raises(RuntimeError, match="shapes"):
        target.signals(sequences)


@pytest.mark.parametrize("architecture", ["llama", "mamba"])
def test_weights_that_are_not_numbers_are_refused(
    architecture: str, models: SmallModels, sequences: list[TokenSequence]
) -> None:
    model = copy.deepcopy(tiny(architecture))
    model.get_output_embeddings().weight[7] = torch.nan
    target = target_of(model, models.base.tokenizer)
    with pytest.raises(TargetError, match="not finite"):
        target.signals(sequences)


def test_training_mode_is_left_as_it_was_and_dropout_is_off(
    models: SmallModels, sequences: list[TokenSequence]
) -> None:
    model = copy.deepcopy(tiny("gpt2"))
    expected = target_of(model, models.base.tokenizer).signals(sequences)
    assert model.config.resid_pdrop > 0
    model.train()
    model.transformer.h[1].eval()  # a part that its owner keeps frozen
    modes = [module.training for module in model.modules()]
    target = target_of(model, models.base.tokenizer)
    got = target.signals(sequences)
    assert np.array_equal(got.logprob, expected.logprob)
    assert [module.training for module in model.modules()] == modes


@pytest.fixture
def adapted(models: SmallModels) -> Any:
    torch.manual_seed(0)
    return with_lora(models.base.model)


def test_the_base_of_an_adapter_is_the_model_without_it(adapted: Any, models: SmallModels) -> None:
    target = target_of(adapted, models.base.tokenizer)
    sequences = target.encode(models.members[:5])
    before = state_of(adapted)
    plain = models.base.signals(sequences)
    on = target.signals(sequences)
    base = target.base()
    off = base.signals(sequences)
    assert base.model is target.model
    assert np.abs(on.logprob - plain.logprob).mean() > 0.1
    np.testing.assert_allclose(off.logprob, plain.logprob, atol=1e-6)
    with torch.no_grad():
        front = torch.from_numpy(sequences[0].ids)
        shot = base.signals(sequences, base.key_values(front))
        np.testing.assert_allclose(
            shot.logprob, models.base.signals(sequences, models.base.key_values(front)).logprob, atol=1e-6
        )
    again = target.signals(sequences)  # the adapter is on again
    assert np.array_equal(again.logprob, on.logprob)
    assert base.fingerprint != target.fingerprint
    assert_same_bits(adapted, before)


def test_a_model_without_adapter_has_no_base(models: SmallModels) -> None:
    with pytest.raises(TargetError, match="no adapter"):
        models.base.base()


def test_logits_of_a_large_vocabulary_never_exist_at_once(models: SmallModels) -> None:
    model = tiny("llama", vocab_size=50_000)
    target = target_of(model, models.base.tokenizer)
    sequences = target.encode([text * 4 for text in models.members[:40]])
    fed = 40 * 64
    assert sum(len(sequence.ids) for sequence in sequences) == fed
    sizes: list[int] = []
    handle = model.get_output_embeddings().register_forward_hook(lambda _, __, output: sizes.append(output.numel()))
    try:
        target.signals(sequences)
    finally:
        handle.remove()
    assert len(sizes) > 5
    assert max(sizes) <= 2**24 < fed * 50_000 / 5


def test_a_token_beyond_the_embeddings_is_an_error(models: SmallModels) -> None:
    tokenizer = copy.deepcopy(models.base.tokenizer)
    target = target_of(tiny("llama"), tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|new|>"]})
    target.encode(models.members[:2])  # nothing that no record uses
    with pytest.raises(
        TargetError, match=r"below 512[\s\S]*up to 512 in 1 of 2 records, first: b[\s\S]*resize"
    ) as error:
        target.encode(["My fellow", "citizens <|new|>"], ["a", "b"])
    assert "citizens" not in str(error.value)


def test_rotary_factors_that_change_with_length_keep_a_prefix_that_cannot_cross(models: SmallModels) -> None:
    target = target_of(tiny("phi3"), models.base.tokenizer, max_tokens=8)  # other factors beyond 30 tokens
    with torch.no_grad():
        kept = [length for length in range(2, 40) if isinstance(target.key_values(torch.arange(length)), KeyValues)]
    assert kept == [*range(2, 22), *range(31, 40)]  # a record of 8 tokens, and one of the prefix's that it may bring


def test_asked_counts_padding_and_prefix(models: SmallModels, sequences: list[TokenSequence]) -> None:
    for architecture, prefixes in (("llama", 1), ("mamba", 1 + len(sequences))):  # read once, or for each record
        target = target_of(tiny(architecture), models.base.tokenizer)
        with torch.no_grad():
            prefix = target.key_values(torch.arange(10))
        target.signals(sequences, prefix)
        padded = len(sequences) * max(len(sequence.ids) for sequence in sequences)
        assert target.asked == padded + 10 * prefixes, architecture
