"""ReproMIA for image classifiers: one learned change of the input, the same for every record or for every class.

Added to every pixel (additive), to a coarse grid (coarse), painted on a border around the shrunken image (border), or
a slight affine move (affine). Learned on fit by gradients, or without them from scores or labels alone; of nothing
and every step, what has the best AUC on select is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

from repromia.errors import AttackError
from repromia.programs import Program, Target
from repromia.programs.denoising import drawn_noise
from repromia.programs.queries import Query, classifier_behind
from repromia.records import Records
from repromia.signals import ClassSignals
from repromia.targets.classifier import Classifier

Where = Literal["additive", "coarse", "border", "affine"]
Answers = Literal["scores", "labels"]
COARSE = 4  # side of the coarse grid
SIDE = 0.125  # share of the side that the border takes on each side
MOVE = 0.2  # most of any entry of the affine matrix
DRAWS, LEVEL = 8, 0.05  # noises behind a vote, where only labels are told
Pixels = Float[Tensor, "record channel height width"]


@dataclass(frozen=True)
class Votes(Query):
    """The records as they are; where only labels count, under each of a few drawn noises."""

    answers: str = "scores"

    @property
    def kinds(self) -> tuple[str, ...]:
        """Images, and texts, which get no noise."""
        return ("image", "text")

    def changed(self, inputs: Any) -> Any:
        """One variant, or one a noise. Raises AttackError for votes on texts."""
        if self.answers == "labels" and isinstance(inputs, list):
            raise AttackError("Votes are taken on noised images.", expected="answers=scores", found="texts")
        return voted(inputs, self.answers)


def voted(pixels: Pixels, answers: str) -> list[Pixels]:
    """The pixels, or their noised copies."""
    if answers == "scores":
        return [pixels]
    return [(pixels + LEVEL * drawn_noise(pixels.shape[1:], -1, draw)).clamp(0, 1) for draw in range(DRAWS)]


def size_of(where: str, shape: tuple[int, int, int]) -> tuple[int, ...]:
    """Shape of the weights of a change. Raises AttackError for an unknown one."""
    if where not in get_args(Where):
        raise AttackError(f"There is no change {where!r}.", expected=", ".join(get_args(Where)))
    return {"coarse": (shape[0], COARSE, COARSE), "affine": (2, 3)}.get(where, shape)


def overlaid(
    pixels: Pixels, weights: Tensor, where: str, bound: float, label: Int[np.ndarray, " record"] | None = None
) -> Pixels:
    """The changed pixels in [0, 1], differentiable in the weights. bound: in 255ths, of what is added. label: the class
    of every record, for weights of which there are some a class."""
    height, width = pixels.shape[-2:]
    if weights.ndim > len(size_of(where, (1, height, width))):
        weights = weights[torch.from_numpy(label)]
    if where == "affine":
        still = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], dtype=weights.dtype)
        matrix = (still + MOVE * torch.tanh(weights)).expand(len(pixels), 2, 3)
        grid = affine_grid(matrix, list(pixels.shape), align_corners=False)
        return grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)
    if where == "border":
        edge = max(1, round(SIDE * width))
        inner = interpolate(
            pixels, (height - 2 * edge, width - 2 * edge), mode="bilinear", align_corners=False, antialias=True
        )
        painted = torch.sigmoid(weights).expand(len(pixels), -1, -1, -1).clone()
        painted[..., edge : height - edge, edge : width - edge] = inner
        return painted
    added = bound / 255 * torch.tanh(weights)
    if where == "coarse":
        added = added if added.ndim == 4 else added[None]
        added = interpolate(added, (height, width), mode="bilinear", align_corners=False)
    return (pixels + added).clamp(0, 1)


@dataclass(frozen=True)
class Overlay:
    """A learned change. weights: see `size_of`, or so many a class; empty: the identity, as nothing learned did better
    on select.

    learned: how it came about. used: ids, and seen: content hashes, of the records it was learned on.
    """

    weights: Float[np.ndarray, "*shape"]
    where: str
    bound: float
    answers: str
    learned: dict[str, Any] = field(default_factory=dict)
    used: frozenset[str] = frozenset()
    seen: frozenset[str] = frozenset()

    kind = "overlay"
    label = "learned change"
    evaluations = 1

    @property
    def key(self) -> str:
        """Hash of the change, and the question."""
        values = np.ascontiguousarray(self.weights, dtype=np.float32)
        digest = blake2b(values.tobytes(), digest_size=16).hexdigest()
        return f"Overlay{values.shape}{digest} {self.where} {self.bound} {self.answers}"

    @property
    def is_identity(self) -> bool:
        """Whether the records are asked as they are."""
        return self.weights.size == 0

    @property
    def identity(self) -> Program:
        """The same question about unchanged records."""
        return Votes(self.answers)

    @property
    def details(self) -> dict[str, Any]:
        """How it was learned."""
        return self.learned

    def close(self) -> None:
        """Nothing to free."""

    def ask(self, target: Target, records: Records) -> tuple[ClassSignals, ...]:
        """Signals of the changed records. Raises AttackError for a model of other inputs."""
        model = images_of(target)
        batch = model.encode(records.contents, records.ids)
        if self.is_identity:
            changed = batch.inputs
        else:
            wanted = size_of(self.where, tuple(batch.inputs.shape[1:]))  # type: ignore[union-attr]
            each = self.weights.ndim > len(wanted)
            count = (len(model.classes) or len(self.weights)) if each else 0
            fits = self.weights.shape == ((count, *wanted) if each else wanted)
            if not fits or (each and int(batch.label.max(initial=0)) >= count):
                raise AttackError(
                    "The program was learned on images of another shape, or for other classes.",
                    expected=f"{wanted}" + (f" for each of {len(model.classes) or 'its'} classes" if each else ""),
                    found=str(self.weights.shape),
                )
            weights = torch.from_numpy(self.weights)
            changed = overlaid(batch.inputs, weights, self.where, self.bound, batch.label)  # type: ignore[arg-type]
        return tuple(model.signals(one, batch.label) for one in voted(changed, self.answers))  # type: ignore[arg-type]

    def check(self) -> None:
        """Raises ValueError for a change that does not exist."""
        if self.where not in get_args(Where):
            raise ValueError(f"there is no change {self.where!r}")


def images_of(target: Target) -> Classifier:
    """The target as a classifier of images. Raises AttackError."""
    model = classifier_behind(target)
    if model.reader.kind != "image":
        raise AttackError("This program changes images.", expected="a classifier of images", found=model.reader.kind)
    return model


def classes_of(model: Classifier, records: Records) -> int:
    """How many classes it has. Of a module that does not name them they are counted when it answers: it is asked."""
    if not model.classes:
        Query().ask(model, records.take([0]))
    return len(model.classes)
