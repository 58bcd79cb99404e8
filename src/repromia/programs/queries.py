"""Fixed changes of what a classifier is asked about: pixels in [0, 1], words, or the numbers of a row.

Those of graphs are in `repromia.programs.graph_queries`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from repromia.errors import AttackError
from repromia.programs import Fixed, Program, Target, at_least
from repromia.programs.denoising import drawn_noise
from repromia.programs.image_changes import blurred, cropped, mirrored, shifted
from repromia.records import Records
from repromia.signals import ClassSignals
from repromia.targets.classifier import Classifier
from repromia.targets.inputs import Inputs
from repromia.targets.nodes import Nodes

Pixels = Float[Tensor, "record channel height width"]


def classifier_behind(target: Target) -> Classifier:
    """The target as a classifier. Raises AttackError."""
    if not isinstance(target, Classifier):
        raise AttackError("This program asks classifiers.", found=type(target).__name__)
    return target


@dataclass(frozen=True)
class Query(Fixed):
    """The records as they are. Subclasses change the inputs first; kinds: of inputs that they know."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of inputs that can be changed so."""
        return ("image", "text", "table", "node")

    @property
    def identity(self) -> Program:
        """The records as they are."""
        return Query()

    @property
    def evaluations(self) -> int:
        """Answers a record and variant."""
        return 1

    def applies(self, target: Target) -> bool:
        """Whether the target takes inputs of a kind that can be changed so."""
        return isinstance(target, Classifier) and target.reader.kind in self.kinds

    def changed(self, inputs: Inputs) -> Sequence[Inputs]:
        """What is asked about in place of the inputs: one entry a variant."""
        return (inputs,)

    def ask(self, target: Target, records: Records) -> tuple[ClassSignals, ...]:
        """Signals of every variant. Raises AttackError for inputs of another kind."""
        model = classifier_behind(target)
        if model.reader.kind not in self.kinds:
            raise AttackError(
                f"{type(self).__name__} does not change inputs of this kind.",
                expected=" or ".join(self.kinds),
                found=model.reader.kind,
            )
        batch = model.encode(records.contents, records.ids)
        return tuple(model.signals(one, batch.label) for one in self.changed(batch.inputs))


@dataclass(frozen=True)
class ImageQuery(Query):
    """A change of images; what leaves [0, 1] is cut."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """Images."""
        return ("image",)

    def changed(self, inputs: Inputs) -> Sequence[Inputs]:
        """The variants, cut to [0, 1]."""
        assert isinstance(inputs, Tensor)  # noqa: S101 — images are
        return [one.clamp(0, 1) for one in self.variants(inputs)]

    def variants(self, pixels: Pixels) -> Sequence[Pixels]:
        """What becomes of the pixels."""
        raise NotImplementedError


@dataclass(frozen=True)
class Augmented(Query):
    """Of images: as they are, mirrored, and moved by a pixel in four directions; of nodes: as they are, and without
    their neighbours; of others: as they are."""

    def changed(self, inputs: Inputs) -> Sequence[Inputs]:
        """Six variants, two, or one; the first is the record itself."""
        if isinstance(inputs, Nodes):
            return (inputs, replace(inputs, hops=0))
        if not isinstance(inputs, Tensor) or inputs.ndim != 4:
            return (inputs,)
        moved = [shifted(inputs, x, y) for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1))]
        return (inputs, mirrored(inputs, "horizontal"), *moved)


@dataclass(frozen=True)
class Flip(ImageQuery):
    """Mirrored. axis: horizontal or vertical."""

    axis: str = "horizontal"

    def variants(self, pixels: Pixels) -> Sequence[Pixels]:
        """One."""
        return (mirrored(pixels, self.axis),)


@dataclass(frozen=True)
class Shifts(ImageQuery):
    """Moved by `far` pixels in each of the four directions."""

    far: float = 1.0

    def variants(self, pixels: Pixels) -> Sequence[Pixels]:
        """Right, left, down, up."""
        return [shifted(pixels, x, y) for x, y in ((self.far, 0), (-self.far, 0), (0, self.far), (0, -self.far))]


@dataclass(frozen=True)
class Blur(ImageQuery):
    """Each pixel averaged with its neighbours by 1-2-1 weights, `times` times."""

    times: int = 1

    def variants(self, pixels: Pixels) -> Sequence[Pixels]:
        """One."""
        return (blurred(pixels, self.times),)


@dataclass(frozen=True)
class Turn(ImageQuery):
    """Turned by so many degrees about the middle; the edge is repeated."""

    degrees: float = 10.0

    def variants(self, pixels: Pixels) -> Sequence[Pixels]:
        """One to the left and one to the right."""
        found = []
        for angle in (np.deg2rad(self.degrees), -np.deg2rad(self.degrees)):
            cos, sin = float(np.cos(angle)), float(np.sin(angle))
            matrix = torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0]]).expand(len(pixels), 2, 3)
            grid = affine_grid(matrix, list(pixels.shape), align_corners=False)
            found.append(grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False))
        return found


@dataclass(frozen=True)
class Crops(ImageQuery):
    """The middle cut out and enlarged again, `count` times, from 95 to 70 % of the side."""

    count: int = 3

    def variants(self, pixels: Pixels) -> Sequence[Pixels]:
        """From the largest crop to the smallest."""
        at_least(1, count=self.count)
        kept = torch.linspace(0.95, 0.70, self.count).tolist()
        return [cropped(pixels, max(2, round(pixels.shape[-1] * share))) for share in kept]


@dataclass(frozen=True)
class Contrast(ImageQuery):
    """Distances to each image's mean multiplied."""

    by: float = 0.7

    def variants(self, pixels: Pixels) -> Sequence[Pixels]:
        """One."""
        mean = pixels.mean(dim=(1, 2, 3), keepdim=True)
        return (mean + self.by * (pixels - mean),)


@dataclass(frozen=True)
class Noisy(Query):
    """With normal noise: the same draws for all records. level: standard deviation, of pixels in [0, 1]; of a table
    in units of each number's own size."""

    level: float = 0.05
    draws: int = 2

    @property
    def kinds(self) -> tuple[str, ...]:
        """Numbers."""
        return ("image", "table")

    def changed(self, inputs: Inputs) -> Sequence[Inputs]:
        """One variant a draw."""
        assert isinstance(inputs, Tensor)  # noqa: S101 — of a kind that is
        at_least(1, draws=self.draws)
        noises = [self.level * drawn_noise(inputs.shape[1:], -1, draw) for draw in range(self.draws)]
        if inputs.ndim == 2:
            return [inputs * (1 + one.to(inputs.dtype)) for one in noises]
        return [(inputs + one).clamp(0, 1) for one in noises]


@dataclass(frozen=True)
class LowerCase(Query):
    """Texts in lower case."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """Texts."""
        return ("text",)

    def changed(self, inputs: Inputs) -> Sequence[Inputs]:
        """One."""
        assert isinstance(inputs, list)  # noqa: S101 — texts are
        return ([one.lower() for one in inputs],)


@dataclass(frozen=True)
class DroppedWords(Query):
    """Texts without a share of their words, drawn by the text itself; the first word stays."""

    share: float = 0.15
    draws: int = 2

    @property
    def kinds(self) -> tuple[str, ...]:
        """Texts."""
        return ("text",)

    def changed(self, inputs: Inputs) -> Sequence[Inputs]:
        """One variant a draw."""
        at_least(1, draws=self.draws)
        assert isinstance(inputs, list)  # noqa: S101 — texts are
        return [[self._without(one, draw) for one in inputs] for draw in range(self.draws)]

    def _without(self, text: str, draw: int) -> str:
        words = text.split()
        seed = int.from_bytes(blake2b(f"{draw} {text}".encode("utf-8", "surrogatepass"), digest_size=8).digest())
        kept = np.random.default_rng(seed).random(len(words)) >= self.share
        return " ".join(word for at, word in enumerate(words) if at == 0 or kept[at])
