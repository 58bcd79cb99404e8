"""Chat templates that write a turn otherwise when it is the last, refuse chats, or leave turns out."""

from __future__ import annotations

import copy

import pytest

from repromia.errors import RecordsError
from repromia.records import Chat
from repromia.targets.tokens import Encoder
from small import SmallModels

PROMPT = "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
# As Qwen 3: thoughts, empty ones where there are none, stand in the last turn alone.
THINKS = (
    "{% for one in messages %}<|{{ one.role }}|>\n{% set parts = one.content.split('</think>') %}"
    "{% if loop.last and one.role == 'assistant' %}"
    "<think>\n{{ parts[0].split('<think>')[-1].strip() if parts | length > 1 }}\n</think>\n\n{% endif %}"
    "{{ parts[-1].strip() }}</s>\n{% endfor %}" + PROMPT
)
REFUSES = (
    "{% for one in messages %}"
    "{% if one.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% if '$' in one.content %}{{ raise_exception('Not allowed: ' ~ one.content) }}{% endif %}"
    "<|{{ one.role }}|>\n{{ one.content }}</s>\n{% endfor %}" + PROMPT
)
FORGETS = "{% for one in messages[-2:] %}<|{{ one.role }}|>\n{{ one.content }}</s>\n{% endfor %}" + PROMPT
TALK = (("user", "Who spoke?"), ("assistant", "Lincoln."), ("user", "And?"), ("assistant", "Nobody else."))


@pytest.fixture
def encoder(models: SmallModels) -> Encoder:
    return Encoder(copy.deepcopy(models.base.tokenizer), 1000)


def scored(encoder: Encoder, *turns: tuple[str, str]) -> str:
    (one,) = encoder.encode([Chat(turns)])
    return str(encoder.tokenizer.decode(one.ids[one.scored]))


def test_turns_that_the_template_writes_otherwise_when_last_count_alike(encoder: Encoder) -> None:
    encoder.tokenizer.chat_template = THINKS
    assert scored(encoder, *TALK[:2]) == "Lincoln.</s>\n"
    assert scored(encoder, *TALK[:3]) == "Lincoln.</s>\n"
    assert scored(encoder, *TALK) == "Lincoln.</s>\nNobody else.</s>\n"


def test_thoughts_of_a_record_count_where_the_template_writes_them(encoder: Encoder) -> None:
    encoder.tokenizer.chat_template = THINKS
    thought = ("assistant", "<think>\nThe sixteenth.\n</think>\n\nLincoln.")
    assert scored(encoder, TALK[0], thought) == "The sixteenth.\n</think>\n\nLincoln.</s>\n"
    assert scored(encoder, TALK[0], thought, *TALK[2:]) == "Lincoln.</s>\nNobody else.</s>\n"


def test_a_template_without_its_own_prompt_counts_its_header(encoder: Encoder) -> None:
    encoder.tokenizer.chat_template = REFUSES.removesuffix(PROMPT)
    assert scored(encoder, *TALK[:3]) == "<|assistant|>\nLincoln.</s>\n"


def test_chats_that_the_template_refuses_are_named_with_what_it_says(encoder: Encoder) -> None:
    encoder.tokenizer.chat_template = REFUSES
    kind = Chat((("system", "Be kind."), *TALK))
    with pytest.raises(RecordsError, match=r"2 of 3 records, first: b, c; .*System role not supported") as error:
        encoder.encode([Chat(TALK), kind, kind], ["a", "b", "c"])
    assert "kind" not in str(error.value)
    with pytest.raises(RecordsError, match="2 of 2 records"):
        Encoder(encoder.tokenizer, 1000, "all").encode([kind, kind])


def test_what_a_template_quotes_of_a_record_is_left_out(encoder: Encoder) -> None:
    encoder.tokenizer.chat_template = REFUSES
    with pytest.raises(RecordsError, match="may repeat the record and is left out") as error:
        encoder.encode([Chat((("user", "Pay $9."), TALK[1]))])
    assert "Pay" not in str(error.value)
    assert "Not allowed" not in str(error.value)


def test_a_turn_that_the_template_leaves_out_is_an_error(encoder: Encoder) -> None:
    encoder.tokenizer.chat_template = FORGETS
    assert scored(encoder, *TALK[:2]) == "Lincoln.</s>\n"
    with pytest.raises(RecordsError, match=r"1 of 2 records, first: long; .*leaves out what the assistant says"):
        encoder.encode([Chat(TALK[:2]), Chat(TALK)], ["short", "long"])
    assert scored(encoder, TALK[0], ("assistant", ""), *TALK[2:]) == "Nobody else.</s>\n"
