"""How a classifier is loaded and asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch

from repromia.errors import TargetError
from repromia.targets.class_answers import Answer
from repromia.targets.nodes import WHOLE
from repromia.targets.pixels import Resize

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class ClassifierOptions:
    """How a classifier is loaded and asked.

    classes: names in the model's order; empty: the model's own, else 0, 1, … answer: empty: modules answer with
    logits, estimators with probabilities; functions must say. weights: a safetensors file for a module that was built.
    resize: auto is the model's own, else crop. random: answers may differ from call to call. pixels, channels: side
    and channels of images; 0: the model's own, else those of the first record. mean, std: a channel each, of pixels in
    [0, 1]; empty: the model's own, else none. edge: images of another size are first fitted to this larger side, of
    which the middle is kept; 0: none. flip: the model takes channels in reverse order (BGR). hops, neighbours: of
    nodes, see `repromia.targets.nodes.NodeReader`.
    """

    classes: tuple[str, ...] = ()
    answer: str = ""
    weights: str = ""
    device: str = ""
    dtype: str = "auto"
    revision: str = ""
    batch: int = 256
    resize: Resize | Literal["auto"] = "auto"
    random: bool = False
    pixels: int = 0
    channels: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    edge: int = 0
    flip: bool = False
    hops: int = WHOLE
    neighbours: int = 0

    def __post_init__(self) -> None:
        if self.answer not in ("", *get_args(Answer)):
            raise TargetError(
                "There is no such answer of a classifier.", expected=", ".join(get_args(Answer)), found=self.answer
            )
        if self.dtype not in ("auto", *DTYPES):
            raise TargetError(f"There is no dtype {self.dtype!r}.", expected="auto, " + ", ".join(DTYPES))
        if self.batch < 1 or self.pixels < 0 or self.channels not in (0, 1, 3):
            raise TargetError(
                "The options of the classifier are out of range.",
                expected="batch at least 1, pixels at least 0, channels 1 or 3 (0: found by itself)",
                found=f"batch {self.batch}, pixels {self.pixels}, channels {self.channels}",
            )
