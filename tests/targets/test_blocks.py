"""Decoder blocks changed and skipped: against copies of the model, and gone without a trace."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from architectures import ARCHITECTURES, tiny, with_lora
from torch import Tensor, nn

from repromia.errors import AttackError
from repromia.targets.blocks import changed_outputs, decoder_blocks, recorded, skipped

IDS = torch.tensor([[0, 17, 301, 45, 45, 9, 260, 111]])


class InjectedError(Exception):
    pass


@torch.no_grad()
def logits(model: Any, ids: Tensor = IDS) -> Tensor:
    return model(input_ids=ids, use_cache=False).logits


def traces(model: Any) -> Iterator[tuple[Any, ...]]:
    """What a change could leave behind on any module."""
    for name, module in model.named_modules():
        yield (
            name,
            sorted(key for key in module.__dict__ if key != "_modules"),
            list(module._forward_hooks),
            list(module._forward_pre_hooks),
            list(module._forward_hooks_with_kwargs),
            list(module._forward_pre_hooks_with_kwargs),
            module.training,
        )


@pytest.fixture(params=ARCHITECTURES)
def model(request: pytest.FixtureRequest) -> Any:
    return tiny(request.param)


def test_blocks_are_found_in_order(model: Any) -> None:
    blocks = decoder_blocks(model)
    assert len(blocks) == model.config.num_hidden_layers
    ran: list[int] = []
    handles = [one.register_forward_hook(lambda *_, at=at: ran.append(at)) for at, one in enumerate(blocks)]
    try:
        logits(model)
    finally:
        for handle in handles:
            handle.remove()
    assert ran == list(range(len(blocks)))


def test_blocks_are_found_behind_an_adapter() -> None:
    model = with_lora(tiny("llama"))
    assert decoder_blocks(model) is model.base_model.model.model.layers


def test_experts_are_not_taken_for_blocks() -> None:
    model = copy.deepcopy(tiny("llama"))
    model.model.layers[0].mlp.experts = nn.ModuleList([nn.Identity(), nn.Identity()])  # as many as there are layers
    assert decoder_blocks(model) is model.model.layers


def test_a_model_without_a_list_of_blocks_is_refused() -> None:
    model = copy.deepcopy(tiny("llama"))
    model.config.num_hidden_layers = 7
    with pytest.raises(AttackError, match="one list of 7 decoder blocks in LlamaForCausalLM"):
        decoder_blocks(model)


def test_every_block_is_recorded(model: Any) -> None:
    blocks = decoder_blocks(model)
    before = list(traces(model))
    inputs: list[Tensor] = []
    outputs: list[Any] = []
    with recorded(blocks, inputs, outputs):
        got = logits(model)
    assert torch.equal(got, logits(model))
    assert len(inputs) == len(outputs) == len(blocks)
    first = outputs[0][0] if isinstance(outputs[0], tuple) else outputs[0]
    assert torch.equal(first, inputs[1])
    assert list(traces(model)) == before


def test_outputs_that_are_not_changed_change_nothing(model: Any) -> None:
    before = list(traces(model))
    seen: list[int] = []

    def same(at: int, _before: Tensor, after: Tensor) -> Tensor:
        seen.append(at)
        return after

    with changed_outputs(decoder_blocks(model), same):
        got = logits(model)
    assert torch.equal(got, logits(model))
    assert seen == [0, 1]
    assert list(traces(model)) == before


def test_outputs_replaced_by_inputs_are_blocks_that_do_nothing(model: Any) -> None:
    with changed_outputs(decoder_blocks(model), lambda _at, before, _after: before):
        got = logits(model)
    hidden: list[Tensor] = []
    with recorded(decoder_blocks(model), hidden, []):
        logits(model)
    with changed_outputs(decoder_blocks(model)[1:], lambda _at, _before, _after: hidden[0]):
        expected = logits(model)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
    assert (got - logits(model)).abs().max() > 0.1


@pytest.mark.parametrize("skip", [0, 1])
def test_nothing_is_left_behind_when_a_pass_fails(skip: int, model: Any) -> None:
    blocks = decoder_blocks(model)
    inputs: list[Tensor] = []
    outputs: list[Any] = []
    before, expected = list(traces(model)), logits(model)
    with recorded(blocks, inputs, outputs):
        logits(model)

    def fail() -> None:
        raise InjectedError

    for change in (
        changed_outputs(blocks, lambda *_: fail()),
        changed_outputs(blocks, lambda _at, before, _after: before),
        recorded(blocks, [], []),
        skipped(blocks, skip, inputs, outputs),
    ):
        with pytest.raises(InjectedError), change:  # noqa: PT012 — both ways to fail, inside the pass or beside it
            logits(model)
            fail()
        assert list(traces(model)) == before
        assert all("forward" not in block.__dict__ for block in blocks)
    assert torch.equal(logits(model), expected)


def test_blocks_before_the_skipped_one_are_not_computed() -> None:
    model = tiny("llama", num_hidden_layers=4)
    blocks = decoder_blocks(model)
    inputs: list[Tensor] = []
    outputs: list[Any] = []
    with recorded(blocks, inputs, outputs):
        logits(model)
    ran: list[int] = []
    handles = [one.mlp.register_forward_hook(lambda *_, at=at: ran.append(at)) for at, one in enumerate(blocks)]
    try:
        for skip in range(4):
            ran.clear()
            with skipped(blocks, skip, inputs, outputs):
                logits(model)
            assert ran == list(range(skip + 1, 4))
    finally:
        for handle in handles:
            handle.remove()


def test_a_forward_that_was_put_on_a_block_stays() -> None:
    """As accelerate does for weights kept elsewhere."""
    model = copy.deepcopy(tiny("llama"))
    blocks = decoder_blocks(model)
    calls: list[int] = []
    own = type(blocks[0]).forward

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return own(blocks[0], *args, **kwargs)

    blocks[0].forward = wrapped
    inputs: list[Tensor] = []
    outputs: list[Any] = []
    with recorded(blocks, inputs, outputs):
        logits(model)
    with skipped(blocks, 1, inputs, outputs):
        logits(model)
    assert len(calls) == 1
    assert blocks[0].__dict__["forward"] is wrapped
    assert "forward" not in blocks[1].__dict__
    logits(model)
    assert len(calls) == 2


class Pair(nn.Module):
    """Blocks of some architectures return a tuple, whose first entry are the hidden states."""

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, str]:
        return 3 * hidden_states, "kept"


def test_other_outputs_of_a_block_are_kept() -> None:
    blocks = nn.ModuleList([Pair(), Pair()])
    ones = torch.ones(1, 1, 32)
    inputs: list[Tensor] = []
    outputs: list[Any] = []
    with recorded(blocks, inputs, outputs):
        blocks[1](hidden_states=blocks[0](ones)[0])
    assert torch.equal(inputs[1], 3 * ones)
    with changed_outputs(blocks, lambda at, before, after: before + at * (after - before)):
        hidden, other = blocks[1](hidden_states=ones)
        assert torch.equal(hidden, 3 * ones)
        assert other == "kept"
        assert torch.equal(blocks[0](ones)[0], ones)
    with skipped(blocks, 1, inputs, outputs):
        assert torch.equal(blocks[0](7 * ones)[0], 3 * ones)  # what is known, whatever comes in
        hidden, other = blocks[1](hidden_states=7 * ones)
        assert torch.equal(hidden, 3 * ones)  # its input of the recorded pass
        assert other == "kept"
