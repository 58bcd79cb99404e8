"""Any target behind defences (`repromia.defences`): the same kind of target, whose answers are the defended ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import blake2b
from typing import Any, TypeVar, cast

import numpy as np
import torch
from jaxtyping import UInt64
from torch import Tensor

from repromia.defences import Defence, LabelOnly, Noise, Rounding, Smoothing, Temperature, TopK, parse_defences
from repromia.errors import ConfigError
from repromia.targets.answers import noise_by_code, rounded_probabilities, tempered, top
from repromia.targets.class_answers import Answer, logprobs_of
from repromia.targets.classifier import Classifier
from repromia.targets.defended_denoiser import DefendedDenoiser
from repromia.targets.defended_tokens import token_defences
from repromia.targets.diffusion import DiffusionModel
from repromia.targets.inputs import Inputs
from repromia.targets.language import LanguageModel
from repromia.targets.nodes import Nodes

AnyTarget = TypeVar("AnyTarget")


def defended(target: AnyTarget, specs: Sequence[str]) -> AnyTarget:
    """The target behind defences such as `temperature:t=5`, the first nearest to the model.

    Its weights stay where they are and serve to learn programs and to make copies, through the defence; whoever may
    ask the weights themselves is not held back by any of this. Raises ConfigError for defences that this kind of
    target cannot carry.
    """
    if not specs:
        return target
    found: Any
    if isinstance(target, Classifier):
        found = target
        for one in parse_defences([*defences_of(target), *specs], target.modality)[len(defences_of(target)) :]:
            found = _classifier(found, one)
    elif isinstance(target, LanguageModel):
        found = _language(target, specs)
    elif isinstance(target, DiffusionModel):
        found = target
        for one in parse_defences(specs, target.modality):
            salt = found.fingerprint
            denoiser = DefendedDenoiser(found.denoiser, one, salt)
            found = replace(found, denoiser=denoiser, asked=0, _fingerprint="", _part=None)
    else:
        raise ConfigError(
            "A defence is put in front of a model in memory.",
            expected="a classifier, a graph model, a language model or a diffusion model",
            found=type(target).__name__,
        )
    return cast(AnyTarget, found)


def defences_of(target: Any) -> tuple[str, ...]:
    """The defences in front of a target, as they are written."""
    return tuple(getattr(target, "defences", ()))


def behind_the_same(wrap: Callable[[Any], Classifier], target: Any) -> Callable[[Any], Classifier]:
    """Shadow models as the target is asked: behind the same defences. Raises ConfigError for label_only, which
    leaves nothing that shadow models could be compared by."""
    specs = defences_of(target)
    if any(one.startswith(LabelOnly.name) for one in specs):
        raise ConfigError(
            "Shadow models are compared by probabilities, and label_only tells none.",
            hint="leave the shadow models out, or the defence",
        )
    return partial(_wrapped, wrap, specs) if specs else wrap


def _wrapped(wrap: Callable[[Any], Classifier], specs: tuple[str, ...], model: Any) -> Classifier:
    return defended(wrap(model), specs)


def _language(target: LanguageModel, specs: Sequence[str]) -> LanguageModel:
    together = (*target.defences, *specs)
    salt = replace(target, defence=None, _fingerprint="", _remembered={}).fingerprint
    found = token_defences(parse_defences(together, "language"), salt)
    return replace(target, defence=found, asked=0, _fingerprint="", _remembered={})


def _classifier(target: Classifier, defence: Defence) -> Classifier:
    kind = target.reader.kind
    if isinstance(defence, Smoothing) and kind == "text":
        raise ConfigError(
            "Texts cannot be smoothed: there is no adding noise to words.",
            expected="a classifier of images, rows or nodes",
        )
    if target.answer == "label" and not isinstance(defence, LabelOnly):
        raise ConfigError(
            f"The model tells its predicted class alone: there is nothing that {defence.name} could change.",
            expected="a classifier that tells probabilities",
        )
    answer: Answer = "label" if isinstance(defence, LabelOnly) else "logits"
    again = isinstance(defence, Noise) and defence.random
    return replace(
        target,
        forward=DefendedForward(target, defence),
        answer=answer,
        identity=f"{target.fingerprint} behind {defence.spec}",
        random=target.random or again,
        asked=0,
        _fingerprint="",
        _batch=None,
        _checked=frozenset(),
    )


@dataclass(frozen=True)
class DefendedForward:
    """Asks a classifier, and answers with what a defence makes of its log-probabilities, or with the class alone.

    Differentiable where the classifier is, but for label_only.
    """

    inner: Classifier
    defence: Defence
    draws: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0), compare=False, repr=False)

    @property
    def architecture(self) -> str:
        """Of the model behind it."""
        return str(getattr(self.inner.forward, "architecture", "callable"))

    @property
    def passes(self) -> int:
        """Forward passes that an answer takes."""
        return self.inner.passes * (self.defence.copies if isinstance(self.defence, Smoothing) else 1)

    @property
    def defences(self) -> tuple[str, ...]:
        """This one and those behind it."""
        return (*self.inner.defences, self.defence.spec)

    def with_module(self, module: torch.nn.Module, name: str) -> DefendedForward:
        """Other weights behind the same defence."""
        return replace(self, inner=self.inner.with_module(module, name))

    def __call__(self, inputs: Inputs) -> Any:
        """Log-probabilities in double precision, or predicted classes."""
        match self.defence:
            case Smoothing():
                logs = [self._logs(one) for one in noisy_copies(inputs, self.defence)]
                found: Tensor = torch.stack(logs).logsumexp(0) - float(np.log(len(logs)))
            case LabelOnly():
                return self._labels(inputs)
            case Noise(scale, _, random):
                logs_ = self._logs(inputs)
                found = torch.log_softmax(logs_ + scale * self._noise(inputs, logs_, random=random), -1)
            case Rounding(digits):
                found = rounded_probabilities(self._logs(inputs), digits)
            case TopK(k):
                found = top(self._logs(inputs), k)
            case Temperature(t):
                found = tempered(self._logs(inputs), t)
            case _:
                raise ConfigError(f"Classifiers do not know the defence {self.defence.name!r}.")
        return found

    def _logs(self, inputs: Inputs) -> Tensor:
        """What the classifier answers, checked as if it were asked by itself."""
        answer = self.inner.forward(inputs)
        rows = np.asarray(self.inner._checked_rows(answer, len(inputs)), dtype=np.float64)
        checked = logprobs_of(rows, self.inner.answer, self.inner.name)
        if isinstance(answer, Tensor) and self.inner.answer == "logits":
            return torch.log_softmax(answer.double(), -1)
        return torch.from_numpy(checked)

    def _labels(self, inputs: Inputs) -> np.ndarray:
        if self.inner.answer == "label":
            return np.asarray(self.inner._checked_rows(self.inner.forward(inputs), len(inputs)))
        first = self._logs(inputs).argmax(-1).cpu().numpy()
        named = self.inner.classes  # known now that it has answered
        return np.array([named[at] for at in first.tolist()], dtype=str)

    def _noise(self, inputs: Inputs, logs: Tensor, *, random: bool) -> Tensor:
        if random:
            drawn = self.draws.standard_normal(tuple(logs.shape))
        else:
            assert isinstance(self.defence, Noise)  # noqa: S101 — alone calls this
            salt = f"{self.defence.seed} {self.inner.fingerprint}"  # another model's noise tells nothing of this one's
            drawn = noise_by_code(codes_of(inputs, salt), logs.shape[1])
        return torch.from_numpy(drawn).to(logs.device, logs.dtype)


def codes_of(inputs: Inputs, salt: str) -> UInt64[np.ndarray, " record"]:
    """A number a record, drawn by what is asked about it and nothing else."""
    if isinstance(inputs, Nodes):
        graphs = [_digest(salt, *_parts(inputs, place)) for place in range(len(inputs.graphs))]
        places, numbers = inputs.place.tolist(), inputs.number.tolist()
        rows = [_digest("", graphs[place], str(number)) for place, number in zip(places, numbers, strict=True)]
    elif isinstance(inputs, Tensor):
        rows = [_digest(salt, row.tobytes()) for row in inputs.detach().cpu().numpy()]
    else:
        rows = [_digest(salt, text) for text in inputs]
    return np.array([int.from_bytes(one[:8]) for one in rows], dtype=np.uint64)


def _parts(inputs: Nodes, place: int) -> list[bytes | str]:
    graph = inputs.graphs[place]
    shown = [graph.features, graph.edges, graph.weights, inputs.own[place] if inputs.own else None]
    return [str(inputs.hops), *(one.detach().cpu().numpy().tobytes() for one in shown if one is not None)]


def _digest(salt: str, *parts: bytes | str) -> bytes:
    hasher = blake2b(salt.encode(), digest_size=16)
    for one in parts:
        hasher.update(one.encode("utf-8", "surrogatepass") if isinstance(one, str) else one)
    return hasher.digest()


def noisy_copies(inputs: Inputs, defence: Smoothing) -> list[Inputs]:
    """The inputs with noise, once a copy: the same noise for every record, whoever it is asked with. Pixels stay in
    [0, 1]; of graphs all nodes' features get noise."""

    def noisy(values: Tensor, copy: int) -> Tensor:
        generator = torch.Generator().manual_seed(1_000_003 * defence.seed + copy)
        drawn = torch.randn(values.shape, generator=generator, dtype=torch.float64)
        return values + (defence.spread * drawn).to(values.device, values.dtype)

    found: list[Inputs] = []
    for copy in range(defence.copies):
        if isinstance(inputs, Nodes):
            graphs = tuple(replace(one, features=noisy(one.features, copy)) for one in inputs.graphs)
            found.append(replace(inputs, graphs=graphs, own=tuple(noisy(one, copy) for one in inputs.own)))
            continue
        assert isinstance(inputs, Tensor)  # noqa: S101 — texts were refused
        added = noisy(torch.zeros_like(inputs[:1]), copy)  # noise of one record, for all
        found.append((inputs + added).clamp(0, 1) if inputs.ndim == 4 else inputs + added)
    return found
