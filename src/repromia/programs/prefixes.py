"""Programs that put labelled text from the fit role in front of the record."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from repromia.errors import AttackError
from repromia.programs import Binding
from repromia.records import Records
from repromia.signals import TokenSignals

if TYPE_CHECKING:
    from repromia.targets.language import LanguageModel


@dataclass(frozen=True)
class TextPrefix:
    """Token ids in front of every record.

    The record's own tokens are scored, the same ones as without the prefix: where the tokenizer begins texts
    with a BOS token, the prefix takes its place (BOS, shots, record).
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

    def ask(self, target: LanguageModel, records: Records) -> tuple[TokenSignals, ...]:
        """Signals of the records behind the prefix, which is read once."""
        sequences = target.encode(records.contents, records.ids)
        front = self.ids
        if target.encoder.bos is not None:
            front, link = self.ids[:-1], self.ids[-1]
            sequences = [replace(one, ids=np.concatenate([[link], one.ids[1:]])) for one in sequences]
        with torch.no_grad():
            prefix = target.key_values(torch.tensor(front))
        return (target.signals(sequences, prefix),)


@dataclass(frozen=True)
class Shots:
    """`shots` texts of one side of the fit role, separated by blank lines, cut to what the context leaves.

    ReCaLL (Xie et al. 2024) takes non-members, Con-ReCall (Wang et al. 2025) members too.
    """

    shots: int = 12
    side: Literal["nonmembers", "members"] = "nonmembers"
    draw: int = 0  # another number, other shots

    def bind(self, binding: Binding) -> TextPrefix:
        """Draw the shots. Raises AttackError where not even part of one fits."""
        target = binding.target
        pool = binding.fit.nonmembers() if self.side == "nonmembers" else binding.fit.members()
        seeds = [binding.seed, self.side == "members", *([self.draw] if self.draw else [])]
        order = np.random.default_rng(seeds).permutation(len(pool))
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
            raise AttackError(
                "The context leaves no room for a prefix.",
                expected="at least 2 tokens between the longest record and the context length",
                found=f"{room} tokens",
                hint="cut records with --max-tokens",
            )
        return TextPrefix(tuple(ids), frozenset(used), len(used), self.shots)


@dataclass(frozen=True)
class NonmemberShots(Shots):
    """Non-member shots."""


@dataclass(frozen=True)
class MemberShots(Shots):
    """Member shots."""

    side: Literal["nonmembers", "members"] = "members"


def visible_texts(target: LanguageModel, records: Records) -> list[str]:
    """Each record's text as far as the target reads it (records beyond the token limit are cut)."""
    texts = records.texts()
    sequences = target.encode(records.contents, records.ids)
    limit = target.encoder.limit
    return [
        str(target.tokenizer.decode(one.ids, skip_special_tokens=True)) if len(one.ids) >= limit else text
        for text, one in zip(texts, sequences, strict=True)
    ]
