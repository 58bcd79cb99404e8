"""Programs that change the text of a record. The edited text has other tokens: compare record statistics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from repromia.errors import AttackError
from repromia.programs import Fixed, Target, text_target
from repromia.records import Chat, Completion, Content, Example, Node, Picture, Records, TableRow, as_text
from repromia.signals import TokenSignals

if TYPE_CHECKING:
    from repromia.targets.masked import MaskedModel


def edited(content: Content, edit: Callable[[str], str]) -> Content:
    """The content with every text in it edited; roles and the prompt's border stay."""
    match content:
        case str():
            return edit(content)
        case Example(text, label):
            return Example(edit(text), label)
        case Picture() | TableRow() | Node():
            raise AttackError("Only texts can be edited as text.")
        case Chat(turns):
            return Chat(tuple((role, edit(text)) for role, text in turns))
        case Completion(prompt, completion):
            return Completion(edit(prompt), edit(completion))


def _asked(target: Target, contents: Sequence[Content], records: Records) -> TokenSignals:
    model = text_target(target)
    return model.signals(model.encode(contents, records.ids))


def generator_for(content: Content, seed: int, variant: int) -> np.random.Generator:
    """Random numbers that depend on the record's own text, never on its place among the others."""
    digest = blake2b(as_text(content).encode("utf-8", "surrogatepass"), digest_size=8, salt=b"edit").digest()
    return np.random.default_rng([int.from_bytes(digest, "little"), seed, variant])


@dataclass(frozen=True)
class Edit(Fixed):
    """Base of programs after which the text has other tokens."""

    changes_tokens: ClassVar[bool] = True


@dataclass(frozen=True)
class LowerCase(Edit):
    """The text in lower case (Carlini et al. 2021, section 5.2)."""

    def ask(self, target: Target, records: Records) -> tuple[TokenSignals, ...]:
        """Signals of the lower-cased records."""
        lowered = [edited(content, str.lower) for content in records.contents]
        return (_asked(target, lowered, records),)


@dataclass(frozen=True)
class WordSwaps(Edit):
    """`copies` copies of the text, each with `share` of its words swapped in random pairs (PAC, Ye et al. 2024)."""

    copies: int = 10
    share: float = 0.3
    seed: int = 0

    def ask(self, target: Target, records: Records) -> tuple[TokenSignals, ...]:
        """One signal a copy."""
        return tuple(self._ask_copy(target, records, copy) for copy in range(self.copies))

    def _ask_copy(self, target: Target, records: Records, copy: int) -> TokenSignals:
        contents = []
        for content in records.contents:
            generator = generator_for(content, self.seed, copy)
            contents.append(edited(content, partial(swap_words, share=self.share, generator=generator)))
        return _asked(target, contents, records)


def swap_words(text: str, share: float, generator: np.random.Generator) -> str:
    """The text with max(1, share * words) random pairs of words exchanged."""
    words = text.split()
    if len(words) < 2:
        return text
    for _ in range(max(1, int(share * len(words)))):
        left, right = generator.choice(len(words), size=2, replace=False)
        words[left], words[right] = words[right], words[left]
    return " ".join(words)


@dataclass(frozen=True)
class MaskedNeighbours(Edit):
    """Neighbours of the text: some words replaced by a masked language model (Mattern et al. 2023).

    masked_model: folder or hub id of a masked LM. One in ten positions is replaced in each of `copies` copies;
    candidates are drawn from the model's `top` predictions for the masked position, never the word itself.
    """

    masked_model: str = ""
    copies: int = 10
    share: float = 0.1
    top: int = 10
    seed: int = 0

    @property
    def key(self) -> str:
        """Options and the masked model's fingerprint: other weights, other neighbours."""
        return f"{self!r} {self._masked().fingerprint}"

    def ask(self, target: Target, records: Records) -> tuple[TokenSignals, ...]:
        """One signal a neighbour."""
        masked = self._masked()
        return tuple(self._ask_copy(target, records, masked, copy) for copy in range(self.copies))

    def _masked(self) -> MaskedModel:
        from repromia.targets.masked import MaskedModel

        if not self.masked_model:
            raise AttackError(
                "The neighbour attack needs a masked language model.",
                expected="neighbour:masked_model=FOLDER (or a hub id, such as FacebookAI/roberta-base)",
                hint="name one, or leave the neighbour attack out",
            )
        return MaskedModel.load(self.masked_model)

    def _ask_copy(self, target: Target, records: Records, masked: MaskedModel, copy: int) -> TokenSignals:
        contents = []
        for content in records.contents:
            generator = generator_for(content, self.seed, copy)
            edit = partial(masked.neighbour, share=self.share, top=self.top, generator=generator)
            contents.append(edited(content, edit))
        return _asked(target, contents, records)
