"""Ways to ask a denoiser about records. Evaluations are folded over timesteps and shared within a part of the records.

clean: the image itself, with a timestep that claims noise (SimA). noised: with drawn noise; the same draws for every
record and every program (naive loss, PFAMI, CLiD). own_noise: with the noise predicted at the clean image (PIA);
own_noise_normalised: that noise brought to the mean size of a normal one (PIAN). inversion: along the deterministic
DDIM path, one step ahead and back (SecMI).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from repromia.errors import AttackError
from repromia.programs import Fixed, Program, Target
from repromia.records import Records
from repromia.signals import DenoiseSignals
from repromia.targets.diffusion import Conditions, DiffusionModel, Part

Images = Float[Tensor, "record channel height width"]
Way = Literal["clean", "noised", "own_noise", "own_noise_normalised", "inversion"]
Prompts = Literal["own", "same", "shuffled"]
Reduced = Literal["", "empty", "half"]
NONE, OWN = -1, -2  # draws: no noise, or the model's own
FOLDED_FLOATS = 2**24  # of noised images laid side by side


class Question(NamedTuple):
    """One way at some timesteps. draws: noises at each; interval: of the DDIM path.

    prompts: whose captions, and reduced: how much of them.
    """

    way: str
    timesteps: tuple[int, ...]
    draws: int = 1
    interval: int = 10
    prompts: str = "own"
    reduced: str = ""


def denoiser_behind(target: Target) -> DiffusionModel:
    """The target as a diffusion model. Raises AttackError."""
    if not isinstance(target, DiffusionModel):
        raise AttackError("This program asks diffusion models.", found=type(target).__name__)
    return target


@dataclass(frozen=True)
class Denoised(Fixed):
    """The records as they are, asked in one way. Subclasses change the clean image first.

    t: timestep indices joined by + (or - within a list of programs); draws, interval: see `Question`.
    """

    t: str = "30+80"
    way: str = "clean"
    draws: int = 1
    interval: int = 10
    prompts: str = "own"
    reduced: str = ""

    def changed(self, clean: Images) -> tuple[Images, ...]:
        """What is asked about in place of the clean images: one entry a variant."""
        return (clean,)

    @property
    def change(self) -> str:
        """Name of the change, the same for every way of asking."""
        if type(self).changed is Denoised.changed:
            return "identity"
        own = {name: value for name, value in vars(self).items() if name not in Denoised.__dataclass_fields__}
        return f"{type(self).changed.__qualname__}{sorted(own.items())}"

    @property
    def label(self) -> str:
        """What the table of costs calls it."""
        return f"{self.way} {type(self).__name__}".lower()

    @property
    def identity(self) -> Program:
        """The same question about unchanged records."""
        return Denoised(**{name: getattr(self, name) for name in Denoised.__dataclass_fields__})

    @property
    def question(self) -> Question:
        """What is asked. Raises AttackError where it cannot be."""
        if self.way not in get_args(Way):
            raise AttackError(f"There is no way to ask {self.way!r}.", expected=", ".join(get_args(Way)))
        if self.prompts not in get_args(Prompts) or self.reduced not in get_args(Reduced):
            raise AttackError(
                f"There are no prompts {self.prompts!r} {self.reduced!r}.",
                expected=f"prompts {', '.join(get_args(Prompts))}; reduced empty or half",
            )
        if self.draws < 1:
            raise AttackError("The number of draws is at least 1.", found=str(self.draws))
        return Question(self.way, timesteps_of(self.t), self.draws, self.interval, self.prompts, self.reduced)

    @property
    def evaluations(self) -> int:
        """Evaluations of the denoiser a record and variant, where nothing is shared."""
        question = self.question
        count = len(question.timesteps)
        if question.way == "inversion":
            return max(question.timesteps) // question.interval + 1
        return {"noised": count * question.draws, "clean": count}.get(question.way, count + 1)

    def ask(self, target: Target, records: Records) -> tuple[DenoiseSignals, ...]:
        """Signals of every variant."""
        model = denoiser_behind(target)
        part = model.encode(records.contents, records.ids)
        variants = self.changed(part.clean)
        names = [f"{self.change} {at}" if len(variants) > 1 else self.change for at in range(len(variants))]
        return tuple(answer(model, part, one, name, self.question) for one, name in zip(variants, names, strict=True))


def timesteps_of(text: str) -> tuple[int, ...]:
    """`30+80`, or `30-80` within a list of programs, to timestep indices. Raises AttackError."""
    try:
        found = tuple(dict.fromkeys(int(one) for one in str(text).replace("-", "+").split("+")))
    except ValueError as error:
        raise AttackError("Timesteps cannot be read.", expected="numbers joined by +", found=repr(text)) from error
    return found


def check_timesteps(model: DiffusionModel, timesteps: Sequence[int]) -> None:
    """Raises AttackError where the schedule is shorter."""
    outside = [t for t in timesteps if not 0 <= t < model.steps]
    if outside:
        scaled = dict.fromkeys(
            t * model.steps // max(1000, *(one + 1 for one in timesteps)) for t in timesteps if t >= 0
        )
        raise AttackError(
            f"A timestep lies outside the noise schedule, which has {model.steps} timesteps.",
            expected=f"0 to {model.steps - 1}",
            found=", ".join(map(str, outside)),
            hint=f"write t={'+'.join(map(str, scaled)) or 0}, or other timesteps of this model",
        )


def answer(model: DiffusionModel, part: Part, images: Images, name: str, question: Question) -> DenoiseSignals:
    """Signals of a part of the records. name: what was done to the clean images; equal names share evaluations."""
    check_timesteps(model, question.timesteps)
    asked = _Asked(model, part, images, name, (question.prompts, question.reduced), _prompted(model, part, question))
    columns = _WAYS[question.way](asked, question)
    t, draw = zip(*columns, strict=True)
    square, fourth = (np.stack(one, axis=1) for one in zip(*columns.values(), strict=True))
    return DenoiseSignals(np.array(t), np.array(draw), square, fourth)


Columns = dict[tuple[int, int], tuple[np.ndarray, np.ndarray]]  # by timestep and draw


@dataclass(frozen=True)
class _Asked:
    """A part under one change and one kind of prompts."""

    model: DiffusionModel
    part: Part
    images: Images
    name: str
    prompts: tuple[str, str]
    conditions: Conditions

    def key(self, *what: object) -> tuple[object, ...]:
        return (self.name, self.prompts, *what)

    def predictions(self, xs: Sequence[Images], timesteps: Sequence[int]) -> list[Images]:
        """Predicted noise in each x at its timestep, folded into as few passes as memory allows."""
        found: list[Images] = []
        count, size = len(self.images), max(1, FOLDED_FLOATS // max(1, self.images.numel()))
        for at in range(0, len(xs), size):
            some = xs[at : at + size]
            t = torch.tensor(timesteps[at : at + size]).repeat_interleave(count)
            conditions = {name: one.repeat(len(some), *[1] * (one.ndim - 1)) for name, one in self.conditions.items()}
            found += torch.split(self.model.noise(torch.cat(list(some)), t, conditions), count)
        return found

    def at_clean(self) -> Images:
        """The noise predicted in the clean image at timestep 0: where PIA, PIAN and SecMI start."""
        key = self.key("clean", 0)
        if key not in self.part.predictions:
            self.part.predictions[key] = self.predictions([self.images], [0])[0]
            self.part.columns[self.key("clean", 0, NONE)] = moments(self.part.predictions[key])
        return self.part.predictions[key]

    def recall(self, way: str, wanted: Sequence[tuple[int, int]], ask: Callable[..., list[Images]]) -> Columns:
        """Columns by timestep and draw; `ask` gives the deviations of those that are not known yet."""
        missing = [one for one in wanted if self.key(way, *one) not in self.part.columns]
        size = max(1, FOLDED_FLOATS // max(1, self.images.numel()))
        for at in range(0, len(missing), size):
            some = missing[at : at + size]
            for one, deviation in zip(some, ask(some), strict=True):
                self.part.columns[self.key(way, *one)] = moments(deviation)
        return {one: self.part.columns[self.key(way, *one)] for one in wanted}


def moments(deviation: Images) -> tuple[np.ndarray, np.ndarray]:
    """Mean second and fourth power over each record."""
    square = deviation.double().square().flatten(1)
    return square.mean(1).numpy(), square.square().mean(1).numpy()


def noised(model: DiffusionModel, images: Images, noise: Tensor, t: int) -> Images:
    """sqrt(a) x_0 + sqrt(1 - a) noise."""
    alpha = model.alphas[t]
    return alpha.sqrt().float() * images + (1 - alpha).sqrt().float() * noise


def drawn_noise(shape: Sequence[int], t: int, draw: int) -> Tensor:
    """The normal noise of a draw at a timestep: the same for every record, program and model of this shape."""
    seed = int.from_bytes(blake2b(f"noise {t} {draw}".encode(), digest_size=7).digest())
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed))


def _clean(asked: _Asked, question: Question) -> Columns:
    if 0 in question.timesteps:
        asked.at_clean()

    def ask(wanted: Sequence[tuple[int, int]]) -> list[Images]:
        return asked.predictions([asked.images] * len(wanted), [t for t, _ in wanted])

    return asked.recall("clean", [(t, NONE) for t in question.timesteps], ask)


def _noised(asked: _Asked, question: Question) -> Columns:
    def ask(wanted: Sequence[tuple[int, int]]) -> list[Images]:
        noises = [drawn_noise(asked.images.shape[1:], t, draw) for t, draw in wanted]
        xs = [noised(asked.model, asked.images, one, t) for one, (t, _) in zip(noises, wanted, strict=True)]
        found = asked.predictions(xs, [t for t, _ in wanted])
        return [one - noise for one, noise in zip(found, noises, strict=True)]

    return asked.recall("noised", [(t, draw) for t in question.timesteps for draw in range(question.draws)], ask)


def _own_noise(asked: _Asked, question: Question) -> Columns:
    noise = asked.at_clean()
    if question.way == "own_noise_normalised":
        size = noise.abs().mean(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)
        noise = noise / size * (2 / torch.pi) ** 0.5  # PIAN, equation 16: the mean size of a standard normal

    def ask(wanted: Sequence[tuple[int, int]]) -> list[Images]:
        xs = [noised(asked.model, asked.images, noise, t) for t, _ in wanted]
        return [noise - one for one in asked.predictions(xs, [t for t, _ in wanted])]

    return asked.recall(question.way, [(t, OWN) for t in question.timesteps], ask)


def _inversion(asked: _Asked, question: Question) -> Columns:
    _check_on_path(question.timesteps, question.interval)
    far, step = max(question.timesteps), question.interval
    wanted = [(t, OWN) for t in question.timesteps]
    way = f"inversion by {step}"
    if any(asked.key(way, *one) not in asked.part.columns for one in wanted):
        for t, deviation in _there_and_back(asked, far, step):
            asked.part.columns[asked.key(way, t, OWN)] = moments(deviation)
    return {one: asked.part.columns[asked.key(way, *one)] for one in wanted}


def _check_on_path(timesteps: Sequence[int], step: int) -> None:
    wrong = [t for t in timesteps if step < 1 or t % step or t < step]
    if wrong:
        raise AttackError(
            "A timestep is not on the DDIM path.", expected=f"multiples of the interval {step}", found=str(wrong[0])
        )


def _there_and_back(asked: _Asked, far: int, step: int) -> Iterator[tuple[int, Images]]:
    """The DDIM path up to `far`; at each t, what a step from t - step to t and back is off by.

    Which is a multiple of the difference of both predictions: the difference of both images would lose digits.
    """
    model, x, noise = asked.model, asked.images, asked.at_clean()
    for t in range(step, far + 1, step):
        x, before = ddim_step(model, x, noise, t - step, t), noise
        (noise,) = asked.predictions([x], [t])
        near, far_ = model.alphas[t - step], model.alphas[t]
        factor = (1 - near).sqrt() - (near / far_).sqrt() * (1 - far_).sqrt()
        yield t, float(factor) * (before - noise)


def inversion_maps(model: DiffusionModel, part: Part, t: int, interval: int) -> Images:
    """Pixel by pixel, what `Inverted` at one timestep takes the moments of. Raises AttackError off the path."""
    _check_on_path([t], interval)
    check_timesteps(model, [t])
    own = Question("inversion", (t,), interval=interval)
    asked = _Asked(model, part, part.clean, "identity", (own.prompts, own.reduced), _prompted(model, part, own))
    *_, (_, deviation) = _there_and_back(asked, t, interval)
    return deviation


def ddim_step(model: DiffusionModel, x: Images, noise: Images, at: int, to: int) -> Images:
    """The deterministic DDIM step between two timesteps (Song et al. 2021, equation 12 with sigma 0), unclipped."""
    now, then = (model.alphas[one].to(x.device).float() for one in (at, to))
    clean = (x - (1 - now).sqrt() * noise) / now.sqrt()
    return then.sqrt() * clean + (1 - then).sqrt() * noise


_WAYS: dict[str, Callable[[_Asked, Question], Columns]] = {
    "clean": _clean,
    "noised": _noised,
    "own_noise": _own_noise,
    "own_noise_normalised": _own_noise,
    "inversion": _inversion,
}


def _prompted(model: DiffusionModel, part: Part, question: Question) -> Conditions:
    changed = (question.prompts, question.reduced) != ("own", "")
    if not model.denoiser.conditional:
        if changed:
            raise AttackError("The model is not asked with captions, so none can be changed.")
        return {}
    captions = changed_captions(part.captions, question.prompts, question.reduced) if changed else None
    return model.conditions(part, captions)


def changed_captions(captions: Sequence[str], prompts: str, reduced: str) -> list[str]:
    """One caption for all, each other's or the own; of these all, the first half of the words, or nothing."""
    found = list(captions)
    if prompts == "same":
        found = ["an image"] * len(found)
    elif prompts == "shuffled":
        order = np.random.default_rng(len(found)).permutation(len(found))
        given = dict(zip(order, np.roll(order, 1), strict=True))  # one round: nobody keeps the own caption
        found = [found[given[row]] for row in range(len(found))]
    if reduced == "empty":
        return [""] * len(found)
    if reduced == "half":
        return [" ".join(one.split()[: len(one.split()) // 2]) for one in found]
    return found


@dataclass(frozen=True)
class Noised(Denoised):
    """With drawn noise."""

    way: str = "noised"


@dataclass(frozen=True)
class NoisedWithoutCaption(Noised):
    """With drawn noise and an empty caption."""

    reduced: str = "empty"


@dataclass(frozen=True)
class NoisedWithHalfCaption(Noised):
    """With drawn noise and the first half of the caption."""

    reduced: str = "half"


@dataclass(frozen=True)
class OwnNoise(Denoised):
    """With the noise predicted at the clean image."""

    way: str = "own_noise"


@dataclass(frozen=True)
class OwnNoiseNormalised(Denoised):
    """With the noise predicted at the clean image, at the mean size of a normal one."""

    way: str = "own_noise_normalised"


@dataclass(frozen=True)
class Inverted(Denoised):
    """Along the DDIM path."""

    way: str = "inversion"
