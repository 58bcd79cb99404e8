"""Text that the target wrote itself: shared, and in front of records."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from test_programs import assert_equal, binding_of, records_of
from transformers import PreTrainedTokenizerFast

from repromia.errors import AttackError
from repromia.programs import Binding, Identity
from repromia.programs.own_text import LENGTH, GeneratedPrefix, own_samples
from repromia.programs.weights import NoiseAndRepair
from repromia.targets import sampling
from small import SmallModels
from targets.architectures import target_of, tiny


@pytest.fixture
def binding(models: SmallModels) -> Binding:
    return binding_of(models, longest=40)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts the target was let write, each time."""
    counts: list[int] = []
    sample = sampling.sample

    def watched(target: Any, count: int, *rest: Any, **options: Any) -> Any:
        counts.append(count)
        return sample(target, count, *rest, **options)

    monkeypatch.setattr(sampling, "sample", watched)
    return counts


def test_programs_of_one_audit_share_what_the_target_wrote(binding: Binding, asked: list[int]) -> None:
    records = binding.fit.records.take([0, 1])
    for draw in range(3):
        GeneratedPrefix(draw=draw).bind(binding).ask(binding.target, records)
    NoiseAndRepair(steps=8, batch=8).bind(binding).ask(binding.target, records)
    assert asked == [64]
    assert own_samples(binding, 64) is own_samples(replace(binding, select=binding.fit), 64)
    own_samples(binding, 10)
    assert asked == [64, 10]


@pytest.mark.parametrize("other", ["seed", "target", "longest"])
def test_another_seed_target_or_length_is_other_text(
    other: str, binding: Binding, asked: list[int], models: SmallModels
) -> None:
    changed = {
        "seed": replace(binding, seed=1),
        "target": replace(binding, target=models.base),
        "longest": replace(binding, longest=12),
    }[other]
    assert changed.memory is binding.memory
    before, after = own_samples(binding, 8), own_samples(changed, 8)
    assert asked == [8, 8]
    assert not all(np.array_equal(one, two) for one, two in zip(before, after, strict=True))
    assert all(np.array_equal(one, two) for one, two in zip(before, own_samples(binding, 8), strict=True))


@pytest.mark.parametrize("longest", [12, 40, 200])
def test_samples_are_no_longer_than_records(longest: int, models: SmallModels) -> None:
    found = own_samples(binding_of(models, longest=longest), 30)
    assert len(found) == 30
    assert max(map(len, found)) <= min(longest, LENGTH)


@pytest.mark.parametrize("length", [2, 5, 20, 64, 150])
def test_a_prefix_is_the_targets_own_text_and_a_blank_line(length: int, binding: Binding) -> None:
    target = binding.target
    program = GeneratedPrefix(length).bind(binding)
    border = target.encoder.plain_ids("\n\n")
    texts = [one.tolist()[1:] for one in own_samples(binding, 64)]
    wrote = [0] + [token for text in texts for token in text]
    assert len(program.ids) == length
    assert program.ids[0] == target.encoder.bos
    if length > 2 + len(border):
        assert list(program.ids[-len(border) :]) == border
        assert list(program.ids[: -len(border)]) == wrote[: length - len(border)]
    assert program.used == frozenset()
    assert GeneratedPrefix(length).bind(replace(binding, memory={})).key == program.key


def test_draws_are_other_texts(binding: Binding) -> None:
    found = [GeneratedPrefix(20, draw).bind(binding) for draw in range(4)]
    assert len({one.key for one in found}) == 4
    assert len({one.ids[:5] for one in found}) == 4


@pytest.mark.parametrize("room", [2, 3, 10, 63])
def test_a_prefix_never_exceeds_the_room(room: int, models: SmallModels) -> None:
    program = GeneratedPrefix().bind(binding_of(models, longest=256 - room))
    assert len(program.ids) == room


@pytest.mark.parametrize("room", [0, 1, -5])
def test_no_room_is_an_error_before_anything_is_written(room: int, models: SmallModels, asked: list[int]) -> None:
    with pytest.raises(AttackError, match="no room"):
        GeneratedPrefix().bind(binding_of(models, longest=256 - room))
    assert asked == []


@pytest.mark.parametrize("length", [0, 1, -3])
def test_a_prefix_of_nothing_is_refused(length: int, binding: Binding) -> None:
    with pytest.raises(AttackError):
        GeneratedPrefix(length).bind(binding)


def test_records_keep_their_own_tokens(binding: Binding, models: SmallModels) -> None:
    target, records = binding.target, records_of(models.nonmembers[40:43])
    program = GeneratedPrefix(20).bind(binding)
    (plain,) = Identity().ask(target, records)
    (got,) = program.ask(target, records)
    assert np.array_equal(got.token, plain.token)
    with torch.inference_mode():
        for row, sequence in enumerate(target.encode(records.contents)):
            ids = torch.tensor([*program.ids, *sequence.ids[1:]])
            logprob = target.model(input_ids=ids[None]).logits[0].double().log_softmax(-1)
            expected = logprob[19:-1].gather(-1, ids[20:, None])[:, 0]
            np.testing.assert_allclose(got.take([row]).logprob, expected, atol=1e-4)
    assert_equal(program.ask(target, records)[0], got)


def test_models_without_bos_write_too(models: SmallModels) -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=models.base.tokenizer.backend_tokenizer)
    target = target_of(tiny("gpt2"), tokenizer)
    assert target.encoder.bos is None
    binding = binding_of(models, target)
    starts = {int(one.ids[0]) for one in target.encode(binding.fit.records.contents)}
    assert {int(one[0]) for one in own_samples(binding, 20)} <= starts
    program = GeneratedPrefix(15).bind(binding)
    assert len(program.ids) == 15
    assert program.ids[0] in starts
    (got,) = program.ask(target, binding.fit.records.take([0]))
    (plain,) = Identity().ask(target, binding.fit.records.take([0]))
    assert np.array_equal(got.token, plain.token)


def test_mamba_reads_the_prefix_again(models: SmallModels) -> None:
    target = target_of(tiny("mamba"), models.base.tokenizer)
    binding = binding_of(models, target)
    (got,) = GeneratedPrefix(8).bind(binding).ask(target, binding.fit.records.take([0]))
    (plain,) = Identity().ask(target, binding.fit.records.take([0]))
    assert np.abs(got.logprob - plain.logprob).mean() > 0.05
