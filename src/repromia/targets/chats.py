"""What a chat template makes of a chat, and which of its tokens are the assistant's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from repromia.errors import said

Message = dict[str, str]  # role, content


class UnusableChat(Exception):  # noqa: N818 — a reason that `Encoder` gathers, not an error that anyone sees
    """Why a chat cannot be asked about, without a word of it."""


def assistant_tokens(
    tokenizer: Any, plain_ids: Callable[[str], list[int]], messages: list[Message]
) -> tuple[list[int], list[bool]]:
    """Token ids of a chat, and which are the assistant's: what it says, and how the template ends its turn.

    plain_ids: a text's ids without special tokens. A turn's text is sought in the whole chat, as templates may write
    the last turn otherwise than the same turn with others behind it (Qwen 3 puts empty thoughts into it).
    Raises UnusableChat where the template refuses the chat or leaves out what the assistant says.
    """
    whole = chat_text(tokenizer, messages)
    ids = plain_ids(whole)
    counted = [False] * len(ids)
    for turn, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        begin, end = _content(tokenizer, messages, turn, whole)
        start = common_prefix(plain_ids(_before(tokenizer, messages, turn, whole[:begin])), ids) if turn else 0
        stop = common_prefix(plain_ids(_through(tokenizer, messages, turn, whole, end)), ids)
        if stop > start:
            counted[start:stop] = [True] * (stop - start)
        elif message["content"].strip():
            raise UnusableChat("the template leaves out what the assistant says in a turn")
    return ids, counted


def chat_text(tokenizer: Any, messages: list[Message], *, prompt: bool = False) -> str:
    """The chat as the template writes it; prompt: with the header of a turn that the assistant is to write.

    Raises UnusableChat where the template refuses it.
    """
    try:
        return _rendered(tokenizer, messages, prompt)
    except Exception as error:  # noqa: BLE001 — templates raise anything
        reason = said(error)
    try:  # said of other words too, it quotes none of these
        _rendered(tokenizer, [{**one, "content": "x"} for one in messages], prompt)
    except Exception as error:  # noqa: BLE001
        if said(error) == reason:
            raise UnusableChat(f"the template says {reason}") from None
    raise UnusableChat("the template refuses it (what it says may repeat the record and is left out)")


def common_prefix(head: Sequence[object], whole: Sequence[object]) -> int:
    """How many leading tokens (or characters) the two share: of tokens fewer than `head` has, where a merge crosses."""
    shared = 0
    for left, right in zip(head, whole, strict=False):
        if left != right:
            break
        shared += 1
    return shared


def _rendered(tokenizer: Any, messages: list[Message], prompt: bool) -> str:
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt))


def _content(tokenizer: Any, messages: list[Message], turn: int, whole: str) -> tuple[int, int]:
    """Where in the whole chat stands what a turn says: what changes when it says something else."""
    mark = next(chr(code) for code in range(0xE000, 0xF900) if chr(code) not in whole)  # so that no end is shared
    other = chat_text(tokenizer, [*messages[:turn], {**messages[turn], "content": mark}, *messages[turn + 1 :]])
    begin = common_prefix(whole, other)
    behind = common_prefix(whole[::-1], other[::-1])
    return begin, max(begin, len(whole) - behind)


def _before(tokenizer: Any, messages: list[Message], turn: int, front: str) -> str:
    """The text in front of a turn: what the model is given to go on from.

    front: the chat up to what the turn says. It counts where the template writes more than its own prompt for a turn
    (empty thoughts): the same in every record, that tells of none.
    """
    prompt = chat_text(tokenizer, messages[:turn], prompt=True)
    if prompt.rstrip() == front.rstrip() or prompt == chat_text(tokenizer, messages[:turn]):
        return prompt
    return front


def _through(tokenizer: Any, messages: list[Message], turn: int, whole: str, end: int) -> str:
    """The text up to the end of a turn, whose last word in the whole chat stands at `end`."""
    alone = chat_text(tokenizer, messages[: turn + 1])
    if alone.startswith(whole[:end]):
        return alone
    _, stop = _content(tokenizer, messages[: turn + 1], turn, alone)
    return whole[: end + common_prefix(alone[stop:], whole[end:])]
