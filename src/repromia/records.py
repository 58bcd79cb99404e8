"""Records and what is known about them.

`Records` carry no labels. Labels travel only in `LabelledRecords`, and those of the eval role only in
`repromia.sealed.SealedLabels`, which nothing that learns may import.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from jaxtyping import Bool, Int


@dataclass(frozen=True)
class Chat:
    """A conversation: (role, text) turns in order."""

    turns: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Completion:
    """A prompt and the completion that was trained on."""

    prompt: str
    completion: str


Content = str | Chat | Completion


def as_text(content: Content) -> str:
    """Everything a reader would see of a record, as one string."""
    match content:
        case str():
            return content
        case Chat(turns):
            return "\n".join(text for _, text in turns)
        case Completion(prompt, completion):
            return f"{prompt}{completion}"


def content_digest(content: Content) -> str:
    """Hash of what a record says, whatever it is called."""
    return blake2b(repr(content).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Records:
    """Records without labels, in a fixed order.

    ids: unique names; contents: what the target was or was not trained on; groups: records of one group
    (passages of one document, near-duplicates) share a role and are resampled together.
    """

    ids: tuple[str, ...]
    contents: tuple[Content, ...]
    groups: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.ids) == len(self.contents) == len(self.groups):
            raise ValueError("ids, contents and groups differ in length")

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Sequence[int] | Int[np.ndarray, " row"]) -> Records:
        """The records at these positions, in this order."""
        picked = [int(row) for row in rows]
        return Records(
            tuple(self.ids[row] for row in picked),
            tuple(self.contents[row] for row in picked),
            tuple(self.groups[row] for row in picked),
        )

    def texts(self) -> list[str]:
        """One string a record (see `as_text`)."""
        return [as_text(content) for content in self.contents]

    @property
    def grouped(self) -> bool:
        """Whether any group holds more than one record."""
        return len(set(self.groups)) < len(self.groups)

    def digest(self) -> str:
        """Hash of ids, contents and groups, in order."""
        hasher = blake2b(digest_size=16)
        for row in zip(self.ids, self.contents, self.groups, strict=True):
            hasher.update(repr(row).encode("utf-8", "surrogatepass"))
        return hasher.hexdigest()


@dataclass(frozen=True)
class LabelledRecords:
    """Records whose membership is known to whoever holds this object."""

    records: Records
    member: Bool[np.ndarray, " record"]

    def __post_init__(self) -> None:
        if len(self.records) != len(self.member):
            raise ValueError("records and member differ in length")

    def __len__(self) -> int:
        return len(self.records)

    def take(self, rows: Sequence[int] | Int[np.ndarray, " row"]) -> LabelledRecords:
        """The labelled records at these positions, in this order."""
        index = np.asarray(rows, dtype=np.int64)
        return LabelledRecords(self.records.take(index), self.member[index])

    def members(self) -> Records:
        """The members."""
        return self.records.take(np.flatnonzero(self.member))

    def nonmembers(self) -> Records:
        """The non-members."""
        return self.records.take(np.flatnonzero(~self.member))
