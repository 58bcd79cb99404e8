"""Context ablations against masks written out in loops, and against text that really is alone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from test_programs import records_of

from repromia.errors import AttackError
from repromia.programs import Fixed, Identity
from repromia.programs.context import Band, Chunks
from repromia.records import Records
from repromia.signals import TokenSignals
from repromia.targets.language import LanguageModel
from repromia.targets.tokens import TokenSequence
from small import SmallModels
from targets.architectures import ARCHITECTURES, target_of, tiny, with_lora

CANNOT = {"mamba", "opt", "bloom"}  # may not, and must not be wrong
WINDOW = 8  # of the sliding windows among the architectures
SLIDING = {"mistral", "gemma2", "gemma3_text"}


@pytest.fixture(params=ARCHITECTURES)
def target(request: pytest.FixtureRequest, models: SmallModels) -> LanguageModel:
    return target_of(tiny(request.param), models.base.tokenizer)


@pytest.fixture(params=[name for name in ARCHITECTURES if name not in CANNOT])
def able(request: pytest.FixtureRequest, models: SmallModels) -> LanguageModel:
    """Architectures that obey a mask."""
    return target_of(tiny(request.param), models.base.tokenizer)


@pytest.fixture
def records(models: SmallModels) -> Records:
    return records_of([text[: 12 * (row + 2)] for row, text in enumerate(models.members[:6])])


def ask(program: Band | Chunks, target: LanguageModel, records: Records) -> TokenSignals:
    (signals,) = program.ask(target, records)
    return signals


@torch.no_grad()
def logprobs(model: Any, ids: Sequence[int], **inputs: Any) -> np.ndarray:
    """Float64 log-probabilities (position, vocabulary) of one text alone."""
    logits = model(input_ids=torch.tensor([list(ids)]), use_cache=False, **inputs).logits
    return logits[0].double().log_softmax(-1).numpy()


def under_mask(model: Any, sequence: TokenSequence, sees: Callable[[int, int], bool]) -> np.ndarray:
    """Log-probability of every token but the first, with an additive mask built pair by pair."""
    length = len(sequence.ids)
    mask = torch.zeros(1, 1, length, length)
    for query in range(length):
        for key in range(length):
            if not sees(query, key):
                mask[0, 0, query, key] = -1e30
    found = logprobs(model, sequence.ids, attention_mask=mask, position_ids=torch.arange(length)[None])
    return np.array([found[at - 1, sequence.ids[at]] for at in range(1, length)])


def in_chunks(model: Any, sequence: TokenSequence, size: int) -> np.ndarray:
    """Each token from the chunk of the token before it, which the model gets as a text of its own."""
    found = []
    for at in range(1, len(sequence.ids)):
        first = (at - 1) // size * size
        found.append(logprobs(model, sequence.ids[first:at])[-1, sequence.ids[at]])
    return np.array(found)


def test_a_band_is_the_mask_or_an_error(target: LanguageModel, records: Records) -> None:
    try:
        got = ask(Band(2), target, records)
    except AttackError:
        assert target.model.config.model_type in CANNOT
        return
    for row, sequence in enumerate(target.encode(records.contents)):
        expected = under_mask(target.model, sequence, lambda query, key: query - 1 <= key <= query)
        np.testing.assert_allclose(got.take([row]).logprob, expected, atol=1e-4)


def test_chunks_are_fresh_texts_or_an_error(target: LanguageModel, records: Records) -> None:
    try:
        got = ask(Chunks(5), target, records)
    except AttackError:
        assert target.model.config.model_type in CANNOT
        return
    for row, sequence in enumerate(target.encode(records.contents)):
        np.testing.assert_allclose(got.take([row]).logprob, in_chunks(target.model, sequence, 5), atol=1e-4)


def test_a_band_of_one_is_every_token_alone(able: LanguageModel, records: Records) -> None:
    """Without any mask: a text of one token at its own place."""
    got = ask(Band(1), able, records)
    for row, sequence in enumerate(able.encode(records.contents)[:3]):
        expected = [
            logprobs(able.model, [before], position_ids=torch.tensor([[at]]))[0, token]
            for at, (before, token) in enumerate(zip(sequence.ids[:-1], sequence.ids[1:], strict=True))
        ]
        np.testing.assert_allclose(got.take([row]).logprob, expected, atol=1e-4)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen2_moe"])
@pytest.mark.parametrize("width", [1, 3])
def test_a_band_is_not_truncated_text_in_deep_models(architecture: str, width: int, models: SmallModels) -> None:
    target = target_of(tiny(architecture), models.base.tokenizer)
    records = records_of(models.members[:1])
    (sequence,) = target.encode(records.contents)
    got = ask(Band(width), target, records).logprob
    truncated = []
    for at in range(1, len(sequence.ids)):
        first = max(0, at - width)
        places = torch.arange(first, at)[None]
        truncated.append(logprobs(target.model, sequence.ids[first:at], position_ids=places)[-1, sequence.ids[at]])
    apart = np.abs(got - truncated)
    assert apart[:width].max() < 1e-4  # the first tokens have no more context than that
    assert (apart[width:].max() < 1e-4) == (width == 1)
    assert width == 1 or np.median(apart[width:]) > 0.1


def test_a_band_as_wide_as_the_text_is_the_plain_view(able: LanguageModel, records: Records) -> None:
    (plain,) = Identity().ask(able, records)
    longest = int(plain.lengths.max()) + 1
    assert longest > WINDOW
    for program in (Band(longest), Chunks(longest), Band(10_000)):
        try:
            got = ask(program, able, records)
        except AttackError:
            assert able.model.config.model_type in SLIDING  # an honest answer too
            continue
        np.testing.assert_allclose(got.logprob, plain.logprob, atol=1e-4, err_msg=repr(program))


@pytest.mark.parametrize("program", [Band(1), Band(2), Band(3), Chunks(4)])
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3_text", "mixtral"])
def test_a_token_is_felt_as_far_as_layers_carry_it(
    architecture: str, program: Band | Chunks, models: SmallModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = target_of(tiny(architecture), models.base.tokenizer)
    records = records_of(models.members[:1])
    (sequence,) = target.encode(records.contents)
    changed_at, length = 13, len(sequence.ids)
    ids = sequence.ids.copy()
    ids[changed_at] = 500 if ids[changed_at] != 500 else 501
    before = ask(program, target, records).logprob
    monkeypatch.setattr(target, "encode", lambda *_: [replace(sequence, ids=ids)])
    after = ask(program, target, records).logprob
    depth = 2
    if isinstance(program, Band):
        last = changed_at + depth * (program.width - 1)
    else:
        last = changed_at // program.size * program.size + program.size - 1
    # token `at` is predicted at `at - 1`; the changed token is itself another one
    felt = {changed_at, *range(changed_at + 1, last + 2)}
    moved = {at for at in range(1, length) if abs(after[at - 1] - before[at - 1]) > 1e-4}
    assert moved <= felt
    assert changed_at in moved
    assert {changed_at + 1, last + 1} <= moved
    assert last + 1 < length - 1


def test_models_that_obey_no_mask_are_refused_every_time(models: SmallModels, records: Records) -> None:
    for architecture in ("mamba", "bloom"):
        target = target_of(tiny(architecture), models.base.tokenizer)
        for program in (Band(1), Band(1), Chunks(8)):
            with pytest.raises(AttackError, match=r"context[\s\S]*expected:[\s\S]*found:"):
                program.ask(target, records)


def test_a_model_that_ignores_the_mask_is_refused(models: SmallModels, records: Records) -> None:
    target = target_of(copy.deepcopy(tiny("llama")), models.base.tokenizer)
    forward = target.model.model.forward
    target.model.model.forward = lambda *args, attention_mask=None, **rest: forward(*args, **rest)
    with pytest.raises(AttackError, match="does not obey"):
        Band(2).ask(target, records)


@pytest.mark.parametrize("program", [Band(0), Band(-1), Chunks(0)])
def test_no_context_at_all_is_refused(program: Fixed, models: SmallModels, records: Records) -> None:
    with pytest.raises(AttackError, match="at least one token"):
        program.ask(models.base, records)  # type: ignore[attr-defined]


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_eager_attention_gives_the_same(architecture: str, models: SmallModels, records: Records) -> None:
    target = target_of(tiny(architecture), models.base.tokenizer)
    eager = copy.deepcopy(tiny(architecture))
    eager.set_attn_implementation("eager")
    other = target_of(eager, models.base.tokenizer)
    assert eager.config._attn_implementation == "eager" != target.model.config._attn_implementation
    for program in (Band(2), Chunks(8)):
        got, expected = ask(program, other, records), ask(program, target, records)
        np.testing.assert_allclose(got.logprob, expected.logprob, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_close(dtype: torch.dtype, models: SmallModels, records: Records) -> None:
    target = target_of(tiny("llama"), models.base.tokenizer)
    half = target_of(copy.deepcopy(tiny("llama")).to(dtype), models.base.tokenizer)
    for program in (Band(2), Chunks(8)):
        apart = np.abs(ask(program, half, records).logprob - ask(program, target, records).logprob)
        changed = np.abs(
            ask(program, target, records).logprob - target.signals(target.encode(records.contents)).logprob
        )
        assert apart.mean() < 0.1 * changed.mean()


def test_adapters_are_asked_on_and_off(models: SmallModels, records: Records) -> None:
    target = target_of(with_lora(tiny("llama")), models.base.tokenizer)
    merged = target_of(copy.deepcopy(target.model).merge_and_unload(), models.base.tokenizer)
    bare = target_of(tiny("llama"), models.base.tokenizer)
    for program in (Band(2), Chunks(8)):
        on, off = ask(program, target, records), ask(program, target.base(), records)
        np.testing.assert_allclose(on.logprob, ask(program, merged, records).logprob, atol=1e-4)
        np.testing.assert_allclose(off.logprob, ask(program, bare, records).logprob, atol=1e-4)
        assert np.abs(on.logprob - off.logprob).mean() > 0.1
