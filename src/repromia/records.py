"""Records and what is known about them.

`Records` carry no labels. Labels travel only in `LabelledRecords`, and those of the eval role only in
`repromia.sealed.SealedLabels`, which nothing that learns may import.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Int, UInt8

from repromia.graphs import Graph

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage


_REPEATED = 20  # characters


@dataclass(frozen=True)
class Chat:
    """A conversation: (role, text) turns in order."""

    turns: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Completion:
    """A prompt and the completion that was trained on."""

    prompt: str
    completion: str


@dataclass(frozen=True)
class Example:
    """A text and the class that a classifier was to give it."""

    text: str
    label: str


@dataclass(frozen=True)
class TableRow:
    """Numbers and the class that a classifier was to give them. names: of the numbers, where their source has any."""

    values: tuple[float, ...]
    label: str
    names: tuple[str, ...] = field(default=(), repr=False, compare=False)


@dataclass(frozen=True)
class Node:
    """A node of a graph and the class that a model was to give it.

    number: its row in the graph; source: the graph's digest, so that equal numbers of two graphs differ.
    """

    number: int
    label: str
    source: str
    graph: Graph = field(repr=False, compare=False)


@dataclass(frozen=True)
class FileFacts:
    """What a file says of an image beside its pixels: enough to tell two sources apart without looking at it.

    format: PNG, JPEG, …, or "array"; channels: 1, 3 or 4 as stored; size: bytes on disk (0 for arrays); quality: of
    a JPEG, estimated from its quantisation tables (1 to 100), else None.
    """

    format: str
    width: int
    height: int
    channels: int
    size: int = 0
    quality: int | None = None


@dataclass(frozen=True)
class Picture:
    """An image and its caption, or the name of its class.

    Files are decoded each time they are looked at, so that many can be held.
    digest: hash of the decoded pixels; equal pictures in different files are equal.
    """

    digest: str
    facts: FileFacts
    caption: str = ""
    source: Path | bytes | UInt8[np.ndarray, "height width channel"] = field(default=b"", repr=False, compare=False)

    def pixels(self) -> UInt8[np.ndarray, "height width channel"]:
        """Decoded pixels: one channel (grey) or three (RGB; transparency is laid on white)."""
        if isinstance(self.source, np.ndarray):
            return self.source
        return decoded(self.source)


def decoded(source: Path | bytes) -> UInt8[np.ndarray, "height width channel"]:
    """Pixels of an encoded image, turned as its EXIF tag says. Raises OSError where it cannot be read."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # damaged EXIF and the like: the pixels are there all the same
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(BytesIO(source) if isinstance(source, bytes) else source) as opened:
                return pixels_of(opened)
        except Exception as error:  # noqa: BLE001 — damaged bytes make decoders raise anything
            raise OSError(f"the image cannot be decoded ({type(error).__name__})") from None


def pixels_of(opened: PillowImage) -> UInt8[np.ndarray, "height width channel"]:
    """Pixels of a PIL image as `Picture.pixels` gives them. Raises ValueError for pixels that are not 8 or 16 bits."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(opened)
    if image.mode == "F":
        raise ValueError("floating-point pixels state no range")
    if image.mode.startswith("I"):  # 16 bits
        return (np.asarray(image).astype(np.int64).clip(0, 65535) // 256).astype(np.uint8)[:, :, None]
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode in ("1", "L"):
        return np.array(image.convert("L"))[:, :, None]
    return np.array(image.convert("RGB"))


Content = str | Chat | Completion | Picture | Example | TableRow | Node


def without_records(message: str, records: Records) -> str:
    """A message of somebody else's error; a stand-in where it repeats 20 characters of a record, or a whole short one.

    Longer repetitions are what tokenizers and parsers put into their errors; shorter ones any sentence may share.
    """
    texts = [as_text(one) for one in records.contents]
    parts = {message[at : at + _REPEATED] for at in range(max(0, len(message) - _REPEATED + 1))}
    everything = "\0".join(texts)
    if any(part in everything for part in parts) or any(8 <= len(one) < _REPEATED and one in message for one in texts):
        return f"{message.partition(':')[0][:40]}: the rest of the message repeats a record and is left out"
    return message


def as_text(content: Content) -> str:
    """Everything a reader would see of a record, as one string."""
    match content:
        case str():
            return content
        case Chat(turns):
            return "\n".join(text for _, text in turns)
        case Completion(prompt, completion):
            return f"{prompt}{completion}"
        case Picture():
            return content.caption
        case Example(text, label):
            return f"{text}\n{label}"
        case TableRow(values, label):
            return f"{' '.join(map(repr, values))} {label}"
        case Node(number, label):
            return f"node {number} of class {label}"


def class_of(content: Content) -> str:
    """The class that a record names; empty where it names none."""
    match content:
        case Picture():
            return content.caption
        case Example() | TableRow() | Node():
            return content.label
    return ""


def content_digest(content: Content) -> str:
    """Hash of what a record says, whatever it is called."""
    if isinstance(content, Picture):
        return content.digest  # the same pixels in another file are the same picture
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


def joined(first: Records, second: Records | None) -> Records:
    """The one after the other."""
    if second is None:
        return first
    return Records(first.ids + second.ids, first.contents + second.contents, first.groups + second.groups)


def matched(labelled: LabelledRecords) -> bool:
    """Whether both sides are asked about in the same way: nodes on the same graphs."""
    sources = [
        {content.source for content in side.contents if isinstance(content, Node)}
        for side in (labelled.members(), labelled.nonmembers())
    ]
    return sources[0] == sources[1]
