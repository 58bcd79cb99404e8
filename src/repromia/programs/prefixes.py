"""Programs that put labelled text from the fit role in front of the record."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from repromia.errors import AttackError
from repromia.programs import Binding, Target, weights_of
from repromia.records import Records, content_digest
from repromia.signals import TokenSignals
from repromia.targets.endpoint import EndpointModel
from repromia.targets.tokens import TokenSequence

BORDER = 4  # tokens at a record's beginning that a text in front may cut otherwise


@dataclass(frozen=True)
class TextPrefix:
    """Token ids in front of every record.

    The record's own tokens are scored, the same ones as without the prefix: where the tokenizer begins texts
    with a BOS token, the prefix takes its place (BOS, shots, record). A record that has none, as many chat templates
    write none, follows the prefix whole.
    """

    ids: tuple[int, ...]
    used: frozenset[str]
    shots: int
    shots_asked: int

    @property
    def key(self) -> str:
        """The prefix's tokens."""
        return f"TextPrefix{self.ids}"

    @property
    def details(self) -> dict[str, Any]:
        """How much of the prefix fitted."""
        return {"shots": self.shots, "shots_asked": self.shots_asked, "prefix_tokens": len(self.ids)}

    def close(self) -> None:
        """Nothing to free."""

    def ask(self, target: Target, records: Records) -> tuple[TokenSignals, ...]:
        """Signals of the records behind the prefix, which is read once. Raises AttackError without weights."""
        target = weights_of(target, "TextPrefix")
        sequences = target.encode(records.contents, records.ids)
        front, bos = self.ids, target.encoder.bos
        if bos is not None:
            front, link = self.ids[:-1], self.ids[-1]
            sequences = [_linked(one, link, bos) for one in sequences]
        with torch.no_grad():
            prefix = target.key_values(torch.tensor(front))
        return (target.signals(sequences, prefix),)


def _linked(sequence: TokenSequence, link: int, bos: int) -> TokenSequence:
    """The record behind the prefix's last token, which stands in the place of its BOS, if it has one."""
    if sequence.ids[0] == bos:
        return replace(sequence, ids=np.concatenate([[link], sequence.ids[1:]]))
    return TokenSequence(np.concatenate([[link], sequence.ids]), np.concatenate([[False], sequence.scored]))


@dataclass(frozen=True)
class TextInFront:
    """Text in front of every record, for an endpoint, which takes no token ids. The record's own tokens are scored."""

    text: str
    used: frozenset[str]
    shots: int
    shots_asked: int

    @property
    def key(self) -> str:
        """Hash of the text: keys are no place for records."""
        return f"TextInFront{content_digest(self.text)}"

    @property
    def details(self) -> dict[str, Any]:
        """How much of the prefix fitted."""
        return {"shots": self.shots, "shots_asked": self.shots_asked, "prefix_characters": len(self.text)}

    def close(self) -> None:
        """Nothing to free."""

    def ask(self, target: Target, records: Records) -> tuple[TokenSignals, ...]:
        """Signals of the records behind the text. Raises AttackError where it changes how they are cut."""
        if not isinstance(target, EndpointModel):
            raise AttackError("A prefix made for an endpoint cannot be asked of another target.")
        sequences = target.encode(records.contents, records.ids)
        return (own_tokens(target.signals(sequences), target.signals(sequences, self.text)),)


def own_tokens(plain: TokenSignals, behind: TokenSignals) -> TokenSignals:
    """Figures from behind a text for the tokens of the plain view, matched from a record's end.

    Text in front may cut a record's first tokens otherwise, or uncover one that a server without BOS does not
    score. Tokens of the plain view that are gone (at most `BORDER` a record) keep their plain figure: no change.
    Raises AttackError where more are gone, or all of a record.
    """
    logprob, broken = plain.logprob.copy(), 0
    for row in range(len(plain)):
        first, stop = plain.offsets[row : row + 2]
        begin, end = behind.offsets[row : row + 2]
        most = min(stop - first, end - begin)
        unlike = np.flatnonzero(plain.token[stop - most : stop][::-1] != behind.token[end - most : end][::-1])
        same = int(unlike[0]) if len(unlike) else most
        broken += same < max(1, stop - first - BORDER)
        logprob[stop - same : stop] = behind.logprob[end - same : end]
    if broken:
        raise AttackError(
            "The endpoint cuts records into other tokens behind a text.",
            expected=f"the same tokens, but for the first {BORDER} of a record",
            found=f"{broken} of {len(plain)} records cut otherwise",
        )
    return replace(plain, logprob=logprob)


@dataclass(frozen=True)
class Shots:
    """`shots` texts of one side of the fit role, separated by blank lines, cut to what the context leaves.

    ReCaLL (Xie et al. 2024) takes non-members, Con-ReCall (Wang et al. 2025) members too.
    """

    shots: int = 12
    side: Literal["nonmembers", "members"] = "nonmembers"
    draw: int = 0  # another number, other shots

    def bind(self, binding: Binding) -> TextPrefix | TextInFront:
        """Draw the shots. Raises AttackError where not even part of one fits."""
        pool = binding.fit.nonmembers() if self.side == "nonmembers" else binding.fit.members()
        seeds = [binding.seed, self.side == "members", *([self.draw] if self.draw else [])]
        order = np.random.default_rng(seeds).permutation(len(pool))
        if isinstance(binding.target, EndpointModel):
            return self._as_text(binding.target, pool.take(order[: self.shots]), binding.longest)
        target = weights_of(binding.target, type(self).__name__)
        room = target.context - binding.longest
        bos = target.encoder.bos
        ids: list[int] = [] if bos is None else [bos]
        used: list[str] = []
        for row in order[: self.shots]:
            shot = target.encoder.plain_ids(pool.texts()[row] + "\n\n")
            if len(ids) + len(shot) > room:
                break
            ids += shot
            used.append(pool.ids[row])
        if not used:  # one cut shot is better than none, and is recorded as such
            ids += target.encoder.plain_ids(pool.texts()[order[0]])[: max(0, room - len(ids))]
            used.append(pool.ids[order[0]])
        if len(ids) < 2:
            raise _no_room(room, "cut records with --max-tokens")
        return TextPrefix(tuple(ids), frozenset(used), len(used), self.shots)

    def _as_text(self, target: EndpointModel, pool: Records, longest: int) -> TextInFront:
        """Shots in the pool's order. A shot's tokens are known from its plain view; its blank line counts as two."""
        lengths = target.lengths(target.encode(pool.contents, pool.ids))
        room = target.context - longest
        texts, front, used = pool.texts(), "", 0
        for text, length in zip(texts, lengths, strict=True):
            if length + 2 > room:
                break
            front, room, used = f"{front}{text}\n\n", room - length - 2, used + 1
        if not used and room > 0:  # one cut shot is better than none, and is recorded as such
            front, used = texts[0][: len(texts[0]) * room // (lengths[0] + 2)], 1
        if len(front) < 2:
            raise _no_room(room, "raise --endpoint-context if the server reads more, or leave out the longest records")
        return TextInFront(front, frozenset(pool.ids[:used]), used, self.shots)


def _no_room(room: int, hint: str) -> AttackError:
    return AttackError(
        "The context leaves no room for a prefix.",
        expected="at least 2 tokens between the longest record and the context length",
        found=f"{room} tokens",
        hint=hint,
    )


@dataclass(frozen=True)
class NonmemberShots(Shots):
    """Non-member shots."""


@dataclass(frozen=True)
class MemberShots(Shots):
    """Member shots."""

    side: Literal["nonmembers", "members"] = "members"


def visible_texts(target: Target, records: Records) -> list[str]:
    """Each record's text as far as the target reads it: cut beyond the token limit, which an endpoint has not."""
    texts = records.texts()
    if isinstance(target, EndpointModel):
        return texts
    target = weights_of(target, "visible_texts")
    sequences = target.encode(records.contents, records.ids)
    limit = target.encoder.limit
    return [
        str(target.tokenizer.decode(one.ids, skip_special_tokens=True)) if len(one.ids) >= limit else text
        for text, one in zip(texts, sequences, strict=True)
    ]
