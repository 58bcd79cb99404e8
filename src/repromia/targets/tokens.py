"""From a record's content to the token ids that a language model is asked about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Int

from repromia.errors import RecordsError, TargetError
from repromia.records import Chat, Completion, Content

LossOn = Literal["auto", "all", "completion"]


@dataclass(frozen=True)
class TokenSequence:
    """ids: tokens as fed to the model; scored: which of them count (never the first: nothing predicts it)."""

    ids: Int[np.ndarray, " token"]
    scored: Bool[np.ndarray, " token"]

    @property
    def n_scored(self) -> int:
        """Tokens that get a log-probability."""
        return int(self.scored.sum())


@dataclass(frozen=True)
class Encoder:
    """Turns contents into token sequences, always in the same way for every view.

    tokenizer: a transformers tokenizer. The beginning-of-sequence token is put in front when the tokenizer
    itself does so; it is never scored, and without it the first token is not scored either.
    limit: longest sequence in tokens; longer ones are cut at the end and counted by the caller.
    loss_on: which tokens count. `auto`: all of a plain text, the completion of a prompt-completion pair, the
    assistant's turns of a chat.
    score_end: append and score the end-of-sequence token (as trainers such as TRL do).
    """

    tokenizer: Any
    limit: int
    loss_on: LossOn = "auto"
    score_end: bool = False

    @property
    def bos(self) -> int | None:
        """The id that the tokenizer puts in front of every text, if it does."""
        ids = self.tokenizer("a")["input_ids"]
        bos = self.tokenizer.bos_token_id
        return int(bos) if bos is not None and len(ids) > 0 and ids[0] == bos else None

    def plain_ids(self, text: str) -> list[int]:
        """Ids of a text without special tokens."""
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def encode(self, contents: Sequence[Content], ids: Sequence[str] | None = None) -> list[TokenSequence]:
        """One sequence a content. Raises RecordsError where nothing of a record can be scored."""
        bos = self.bos
        sequences = [self._encode_one(content, bos) for content in contents]
        bare = [row for row, sequence in enumerate(sequences) if sequence.n_scored == 0]
        if bare:
            named = [ids[row] if ids else str(row) for row in bare[:5]]
            raise RecordsError(
                "Some records leave no token to score.",
                expected="at least one scored token a record (two tokens where the tokenizer adds no BOS)",
                found=f"{len(bare)} of {len(sequences)} records, first: {', '.join(named)}",
                hint="remove these records, or raise --max-tokens where a prompt fills the context",
            )
        return sequences

    def _encode_one(self, content: Content, bos: int | None) -> TokenSequence:
        match content:
            case str():
                body = self.plain_ids(content)
                counted = [True] * len(body)
            case Completion(prompt, completion):
                body = self.plain_ids(prompt + completion)
                start = _common_prefix(self.plain_ids(prompt), body)
                counted = [self.loss_on == "all" or at >= start for at in range(len(body))]
            case Chat():
                return self._chat(content)
        if self.score_end and self.tokenizer.eos_token_id is not None:
            body, counted = [*body, int(self.tokenizer.eos_token_id)], [*counted, True]
        if bos is not None:
            body, counted = [bos, *body], [False, *counted]
        return self._cut(body, counted)

    def _cut(self, ids: list[int], counted: list[bool]) -> TokenSequence:
        scored = np.asarray(counted[: self.limit], dtype=bool)
        scored[:1] = False
        return TokenSequence(np.asarray(ids[: self.limit], dtype=np.int64), scored)

    def _chat(self, chat: Chat) -> TokenSequence:
        """The tokenizer's own chat template; assistant turns found by the length of what comes before them."""
        if not getattr(self.tokenizer, "chat_template", None):
            raise TargetError(
                "The records are chats, and the tokenizer has no chat template.",
                hint="save the training template with the tokenizer, or give the records as plain text",
            )
        messages = [{"role": role, "content": text} for role, text in chat.turns]
        ids = self._template(messages, prompt=False)
        if self.loss_on == "all":
            return self._cut(ids, [True] * len(ids))
        counted = [False] * len(ids)
        for turn, message in enumerate(messages):
            if message["role"] == "assistant":
                start = _common_prefix(self._template(messages[:turn], prompt=True), ids) if turn else 0
                stop = _common_prefix(self._template(messages[: turn + 1], prompt=False), ids)
                counted[start:stop] = [True] * (stop - start)
        return self._cut(ids, counted)

    def _template(self, messages: list[dict[str, str]], *, prompt: bool) -> list[int]:
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
        return self.plain_ids(text)


def _common_prefix(head: list[int], ids: list[int]) -> int:
    """How many leading tokens the two share (a merge across the border makes it shorter than `head`)."""
    shared = 0
    for left, right in zip(head, ids, strict=False):
        if left != right:
            break
        shared += 1
    return shared
