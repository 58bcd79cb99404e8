"""Which tokens a model is fed and which of them count."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from tokenizers import processors

from repromia.errors import RecordsError, TargetError
from repromia.records import Chat, Completion
from repromia.targets.load import wrap_language_model
from repromia.targets.tokens import Encoder, TokenSequence
from small import SmallModels

TEMPLATE = (
    "{% for one in messages %}<|{{ one.role }}|>\n{{ one.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
TALK = Chat((("system", "Be brief."), ("user", "Who spoke?"), ("assistant", "Lincoln."), ("user", "And?")))
LONGER = Chat((*TALK.turns, ("assistant", "Nobody else.")))


@pytest.fixture
def tokenizer(models: SmallModels) -> Any:
    """Puts a BOS token in front."""
    return copy.deepcopy(models.base.tokenizer)


@pytest.fixture
def bare_tokenizer(tokenizer: Any) -> Any:
    """Like GPT-2's: knows a BOS token and does not put it in front."""
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def scored_text(encoder: Encoder, sequence: TokenSequence) -> str:
    return str(encoder.tokenizer.decode(sequence.ids[sequence.scored]))


def test_bos_is_fed_and_never_scored(tokenizer: Any) -> None:
    encoder = Encoder(tokenizer, 100)
    (one,) = encoder.encode(["My fellow citizens"])
    assert one.ids.tolist() == tokenizer("My fellow citizens")["input_ids"]
    assert one.ids[0] == encoder.bos == tokenizer.bos_token_id
    assert one.scored.tolist() == [False] + [True] * (len(one.ids) - 1)
    assert scored_text(encoder, one) == "My fellow citizens"


def test_without_bos_the_first_token_is_fed_and_not_scored(bare_tokenizer: Any) -> None:
    encoder = Encoder(bare_tokenizer, 100)
    (one,) = encoder.encode(["My fellow citizens"])
    assert encoder.bos is None
    assert one.ids.tolist() == encoder.plain_ids("My fellow citizens")
    assert one.scored.tolist() == [False] + [True] * (len(one.ids) - 1)


def test_long_records_are_cut_at_the_end(tokenizer: Any, models: SmallModels) -> None:
    whole = Encoder(tokenizer, 1000).encode(models.members[:20])
    cut = Encoder(tokenizer, 30, score_end=True).encode(models.members[:20])
    assert max(len(one.ids) for one in whole) > 30
    for long, short in zip(whole, cut, strict=True):
        assert len(short.ids) == len(short.scored) == min(30, len(long.ids) + 1)
        assert short.ids[: len(long.ids)].tolist() == long.ids[:30].tolist()


@pytest.mark.parametrize("prompt", ["Question: who spoke?\nAnswer:", "Who spoke?\n\n", "Say"])
def test_completion_mask_is_that_of_a_trainer(prompt: str, tokenizer: Any) -> None:
    encoder = Encoder(tokenizer, 100)
    completion = " President Lincoln, of course."
    (one,) = encoder.encode([Completion(prompt, completion)])
    joint, before = tokenizer(prompt + completion)["input_ids"], tokenizer(prompt)["input_ids"]
    assert joint[: len(before)] == before
    assert one.ids.tolist() == joint
    assert one.scored.tolist() == [False] * len(before) + [True] * (len(joint) - len(before))
    (whole,) = Encoder(tokenizer, 100, "all").encode([Completion(prompt, completion)])
    assert whole.scored.tolist() == [False] + [True] * (len(joint) - 1)


def test_a_merge_across_the_border_counts_as_completion(tokenizer: Any, models: SmallModels) -> None:
    encoder = Encoder(tokenizer, 1000)
    merged = 0
    for text in models.members[:60]:
        cut = text.index(" ", len(text) // 2) + 1  # "Answer: " + "yes": most tokenizers put the space into " yes"
        (one,) = encoder.encode([Completion(text[:cut], text[cut:])])
        spans = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        assert one.scored.tolist() == [False] + [stop > cut for _, stop in spans]
        merged += any(start < cut < stop for start, stop in spans)
    assert merged > 50


def test_only_the_assistants_turns_of_a_chat_count(tokenizer: Any) -> None:
    tokenizer.chat_template = TEMPLATE
    encoder = Encoder(tokenizer, 1000)
    one, two = encoder.encode([Chat(TALK.turns[:3]), LONGER])
    assert scored_text(encoder, one) == "Lincoln.</s>\n"
    assert scored_text(encoder, two) == "Lincoln.</s>\nNobody else.</s>\n"
    assert tokenizer.decode(two.ids).startswith("<|system|>\nBe brief.</s>\n<|user|>")

    (every,) = Encoder(tokenizer, 1000, "all").encode([LONGER])
    assert every.ids.tolist() == two.ids.tolist()
    assert every.scored.tolist() == [False] + [True] * (len(every.ids) - 1)


def test_a_chat_without_template_says_what_to_do(tokenizer: Any) -> None:
    with pytest.raises(TargetError, match=r"no chat template[\s\S]*plain text"):
        Encoder(tokenizer, 100).encode([TALK])


@pytest.mark.parametrize("content", ["My fellow citizens", Completion("My fellow", " citizens")])
def test_the_end_token_is_scored_on_request(content: str | Completion, tokenizer: Any) -> None:
    (plain,) = Encoder(tokenizer, 100).encode([content])
    (ended,) = Encoder(tokenizer, 100, score_end=True).encode([content])
    assert ended.ids.tolist() == [*plain.ids.tolist(), tokenizer.eos_token_id]
    assert ended.scored.tolist() == [*plain.scored.tolist(), True]


@pytest.mark.parametrize("empty", ["", "~", Completion("~", "")])
def test_records_with_nothing_to_score_are_named_by_id(empty: str | Completion, bare_tokenizer: Any) -> None:
    with pytest.raises(RecordsError) as error:
        Encoder(bare_tokenizer, 100).encode(["My fellow citizens", empty], ["first", "second"])
    assert "1 of 2 records, first: second" in str(error.value)
    assert "~" not in str(error.value)
    assert "citizens" not in str(error.value)


def test_a_prompt_that_fills_the_limit_leaves_nothing(tokenizer: Any) -> None:
    with pytest.raises(RecordsError, match="--max-tokens"):
        Encoder(tokenizer, 5).encode([Completion("a prompt that goes on and on", " and ends")])


def test_a_tokenizer_that_yields_nothing_is_refused(tokenizer: Any, models: SmallModels) -> None:
    from tokenizers import normalizers

    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("The quick brown fox", "")
    with pytest.raises(TargetError, match="no token for ordinary text"):
        wrap_language_model(models.base.model, tokenizer)


def test_the_order_of_records_is_kept(tokenizer: Any, models: SmallModels) -> None:
    encoder = Encoder(tokenizer, 1000)
    order = np.random.default_rng(0).permutation(10)
    forward = encoder.encode(models.members[:10])
    shuffled = encoder.encode([models.members[row] for row in order])
    assert [one.ids.tolist() for one in shuffled] == [forward[row].ids.tolist() for row in order]
