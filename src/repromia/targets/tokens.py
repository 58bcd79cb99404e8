"""From a record's content to the token ids that a language model is asked about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Int

from repromia.errors import RecordsError, TargetError
from repromia.records import Chat, Completion, Content
from repromia.targets.chats import UnusableChat, assistant_tokens, chat_text, common_prefix

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

    def encode(
        self, contents: Sequence[Content], ids: Sequence[str] | None = None, *, keep_bare: bool = False
    ) -> list[TokenSequence]:
        """One sequence a content.

        Raises RecordsError where the chat template refuses a record or leaves out an assistant's turn, and, unless
        `keep_bare`, where nothing of a record can be scored.
        """
        bos = self.bos
        sequences: list[TokenSequence] = []
        unusable: dict[int, str] = {}
        for row, content in enumerate(contents):
            try:
                sequences.append(self._encode_one(content, bos))
            except UnusableChat as reason:
                unusable[row] = str(reason)
        if unusable:
            raise RecordsError(
                "The tokenizer's chat template does not take some records as they are.",
                expected="chats that the template accepts, and writes with all that the assistant says",
                found=f"{named(list(unusable), len(contents), ids)}; {next(iter(unusable.values()))}",
                hint="bring these chats into the form that the model was trained on, or leave them out",
            )
        bare = [row for row, sequence in enumerate(sequences) if sequence.n_scored == 0]
        if bare and not keep_bare:
            raise RecordsError(
                "Some records leave no token to score.",
                expected="at least one scored token a record (two tokens where the tokenizer adds no BOS)",
                found=named(bare, len(sequences), ids),
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
                start = common_prefix(self.plain_ids(prompt), body)
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
        """By the tokenizer's own chat template."""
        if not getattr(self.tokenizer, "chat_template", None):
            raise TargetError(
                "The records are chats, and the tokenizer has no chat template.",
                hint="save the training template with the tokenizer, or give the records as plain text",
            )
        messages = [{"role": role, "content": text} for role, text in chat.turns]
        if self.loss_on == "all":
            ids = self.plain_ids(chat_text(self.tokenizer, messages))
            return self._cut(ids, [True] * len(ids))
        return self._cut(*assistant_tokens(self.tokenizer, self.plain_ids, messages))


def named(rows: Sequence[int], total: int, ids: Sequence[str] | None) -> str:
    """These of `total` records, the first by their ids (or their numbers)."""
    return f"{len(rows)} of {total} records, first: {', '.join(ids[row] if ids else str(row) for row in rows[:5])}"
