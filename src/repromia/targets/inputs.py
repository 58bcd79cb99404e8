"""From records to what a classifier takes: the same way for both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from repromia.errors import TargetError
from repromia.records import Content, Example, Picture, TableRow
from repromia.targets.nodes import Nodes
from repromia.targets.pixels import Resize, fitted

Inputs = Tensor | list[str] | Nodes


@runtime_checkable  # shapes are checked in the test run
class Reader(Protocol):
    """Reads records of one kind. shape: what every input looks like; key: what decides the inputs."""

    kind: str

    @property
    def shape(self) -> tuple[Any, ...]:
        """What two models must have in common to be asked the same."""
        ...

    @property
    def key(self) -> str:
        """Everything that decides what is read."""
        ...

    def read(self, contents: Sequence[Content]) -> Inputs:
        """Inputs, one a record. Raises TargetError for records of another kind."""
        ...

    def describe(self) -> str:
        """In words."""
        ...


@dataclass(frozen=True)
class Images:
    """Pixels in [0, 1], (record, channel, height, width); the model's own scaling comes after every change.

    edge: images of another size than `size` are first fitted to this larger one, whose middle is kept. flip: the model
    takes the channels in reverse order.
    """

    channels: int
    size: int
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    resize: Resize = "crop"
    edge: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        wrong = {len(one) for one in (self.mean, self.std)} - {self.channels}
        if bool(self.mean) != bool(self.std) or (self.mean and wrong) or not all(self.std):
            raise TargetError(
                "The scaling of the pixels does not fit the channels.",
                expected=f"a mean and a standard deviation above 0 for each of {self.channels} channels",
                found=f"mean {self.mean}, std {self.std}",
            )

    kind = "image"

    @property
    def shape(self) -> tuple[Any, ...]:
        """Kind, channels and size."""
        return (self.kind, self.channels, self.size)

    @property
    def key(self) -> str:
        """All of it."""
        return repr(self)

    def read(self, contents: Sequence[Content]) -> Tensor:
        """Decoded and fitted pixels."""
        pictures = [one for one in contents if isinstance(one, Picture)]
        _check_kind(len(pictures), contents, "images")
        pixels = [self._fitted(one.pixels()) for one in pictures]
        stacked = np.stack(pixels) if pixels else np.zeros((0, self.channels, self.size, self.size), np.uint8)
        return torch.from_numpy(stacked).float() / 255

    def _fitted(self, pixels: np.ndarray) -> np.ndarray:
        if self.edge <= self.size or pixels.shape[:2] == (self.size, self.size):
            return fitted(pixels, self.channels, self.size, self.resize)
        start = (self.edge - self.size) // 2
        middle = slice(start, start + self.size)
        return fitted(pixels, self.channels, self.edge, self.resize)[:, middle, middle]

    def scaled(self, pixels: Tensor) -> Tensor:
        """What the module sees of pixels in [0, 1]."""
        pixels = pixels.flip(-3) if self.flip else pixels
        if not self.mean:
            return pixels
        mean, std = (torch.tensor(one, dtype=pixels.dtype, device=pixels.device) for one in (self.mean, self.std))
        return (pixels - mean[:, None, None]) / std[:, None, None]

    def describe(self) -> str:
        """Size, channels and scaling."""
        shown = [", ".join(f"{value:.4g}" for value in one) for one in (self.mean, self.std)]
        scale = f"scaled by mean {shown[0]} and standard deviation {shown[1]}" if self.mean else "in [0, 1]"
        reverse = ", channels reversed" if self.flip else ""
        return f"images of {self.channels}x{self.size}x{self.size} {scale}{reverse}"


@dataclass(frozen=True)
class Texts:
    """Strings; the tokenizer is the model's own business. tokenizer: what decides its tokens."""

    tokenizer: str = ""

    kind = "text"

    @property
    def shape(self) -> tuple[Any, ...]:
        """The kind alone: another tokenizer is another model."""
        return (self.kind,)

    @property
    def key(self) -> str:
        """All of it."""
        return repr(self)

    def read(self, contents: Sequence[Content]) -> list[str]:
        """The texts."""
        texts = [one.text for one in contents if isinstance(one, Example)]
        _check_kind(len(texts), contents, "texts with a class")
        return texts

    def describe(self) -> str:
        """The kind."""
        return "texts"


@dataclass(frozen=True)
class Rows:
    """Numbers, (record, feature)."""

    features: int

    kind = "table"

    @property
    def shape(self) -> tuple[Any, ...]:
        """Kind and width."""
        return (self.kind, self.features)

    @property
    def key(self) -> str:
        """All of it."""
        return repr(self)

    def read(self, contents: Sequence[Content]) -> Tensor:
        """The numbers, in double precision."""
        rows = [one.values for one in contents if isinstance(one, TableRow)]
        _check_kind(len(rows), contents, "rows of a table")
        wrong = [len(one) for one in rows if len(one) != self.features]
        if wrong:
            raise TargetError(
                "A row has another number of features than the model.",
                expected=str(self.features),
                found=str(wrong[0]),
                hint="leave out columns that the model does not take",
            )
        return torch.tensor(rows, dtype=torch.float64).reshape(len(rows), self.features)

    def describe(self) -> str:
        """Width."""
        return f"rows of {self.features} numbers"


def _check_kind(found: int, contents: Sequence[Content], wanted: str) -> None:
    if found < len(contents):
        raise TargetError(
            "The classifier takes records of another kind.",
            expected=wanted,
            found=f"{len(contents) - found} of {len(contents)} records are something else",
        )
