"""What a classifier's margin would be on records that it was not trained on, learned from some of them.

A small network reads the record itself, not the answer about it: pixels by convolutions, numbers by one hidden layer,
weights of words linearly; and the record's class.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from repromia.errors import AttackError
from repromia.programs import Binding, Target, at_least
from repromia.programs.queries import classifier_behind
from repromia.records import Records
from repromia.signals import ForecastSignals
from repromia.targets.classifier import Classifier
from repromia.targets.inputs import Inputs
from repromia.targets.nodes import Nodes

LEAST = 20  # non-members of the fit role, below which a forecast is none
SIDE = 32  # pixels a side; larger images are averaged down
WORDS = 2000
HIDDEN = 64
BATCH = 64
KINDS = ("image", "text", "table")
Numbers = Float[Tensor, "record *shape"]
Labels = Int[Tensor, " record"]


@dataclass(frozen=True)
class LearnedForecast:
    """How the forecast is learned: on the non-members of fit, for as many of `epochs` as give those of select the
    highest likelihood; of 0 epochs it is the same for all records.

    The score is normal with a mean and a standard deviation of the record's own (Bertran et al. 2023, section 3.2, with
    small networks in place of ConvNext). AdamW, batches of 64.
    """

    epochs: int = 20

    def applies(self, target: Target) -> bool:
        """Whether a regressor can read what the target takes."""
        return isinstance(target, Classifier) and target.reader.kind in KINDS

    def bind(self, binding: Binding) -> Forecast:
        """Learn it. Raises AttackError."""
        at_least(1, epochs=self.epochs)
        model = classifier_behind(binding.target)
        if model.reader.kind not in KINDS:
            raise AttackError("No regressor reads such records.", expected=", ".join(KINDS), found=model.reader.kind)
        sides = binding.fit.nonmembers(), binding.select.nonmembers()
        if len(sides[0]) < LEAST or not len(sides[1]):
            raise AttackError(
                "There are too few non-members to learn a forecast from.",
                expected=f"{LEAST} in the fit role and some in the select role",
                found=f"{len(sides[0])} and {len(sides[1])}",
            )
        words = _words(sides[0]) if model.reader.kind == "text" else None
        fit, select = (_observed(model, one, words) for one in sides)
        network, learned = _learn(fit, select, len(model.classes), self.epochs, binding, words=words is not None)
        used = frozenset(name for one in sides for name in one.ids)
        return Forecast(network, words, learned, used)


@dataclass(frozen=True)
class Forecast:
    """The learned network. words: how it reads texts. used: ids of the records that it was learned on or chosen by."""

    network: nn.Module = field(repr=False)
    words: Any = field(repr=False)
    learned: dict[str, Any]
    used: frozenset[str] = frozenset()

    label = "learned forecast"

    @property
    def key(self) -> str:
        """Hash of the network, and of the words that it knows."""
        hasher = blake2b(digest_size=16)
        for name, weight in sorted(self.network.state_dict().items()):
            hasher.update(name.encode() + weight.numpy().tobytes())
        if self.words is not None:
            hasher.update(repr(sorted(self.words.vocabulary_.items())).encode("utf-8", "surrogatepass"))
            hasher.update(self.words.idf_.tobytes())
        return f"Forecast{hasher.hexdigest()}"

    @property
    def details(self) -> dict[str, Any]:
        """How it was learned."""
        return self.learned

    def close(self) -> None:
        """Nothing to free."""

    def ask(self, target: Target, records: Records) -> tuple[ForecastSignals, ...]:
        """The forecasts. The target only says how it reads the records and which classes they name."""
        batch = classifier_behind(target).encode(records.contents, records.ids)
        found = _answers(self.network, _numbers(batch.inputs, self.words), torch.from_numpy(batch.label))
        return (ForecastSignals(found[:, 0], np.exp(found[:, 1])),)


def _words(records: Records) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(max_features=WORDS, sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")  # noqa: S106
    return vectorizer.fit(getattr(one, "text", "") for one in records.contents)


def _numbers(inputs: Inputs, words: Any) -> Numbers:
    """What the network reads of inputs."""
    assert not isinstance(inputs, Nodes)  # noqa: S101 — were refused
    if isinstance(inputs, list):
        return torch.from_numpy(words.transform(inputs).toarray().astype(np.float32))
    if inputs.ndim == 4 and max(inputs.shape[2:]) > SIDE:
        high, wide = (min(side, SIDE) for side in inputs.shape[2:])
        return functional.adaptive_avg_pool2d(inputs, (high, wide))
    return inputs.float()


@dataclass(frozen=True)
class _Observed:
    numbers: Numbers
    label: Labels
    margin: Float[Tensor, " record"]


def _observed(model: Classifier, records: Records, words: Any) -> _Observed:
    """Records as the network reads them, and the margins that the target gives them."""
    numbers, label, margin = [], [], []
    for at in range(0, len(records), model.part_records):
        part = records.take(range(at, min(at + model.part_records, len(records))))
        batch = model.encode(part.contents, part.ids)
        numbers.append(_numbers(batch.inputs, words))
        label.append(torch.from_numpy(batch.label))
        margin.append(torch.from_numpy(model.signals(batch.inputs, batch.label).margin).float())
    return _Observed(torch.cat(numbers), torch.cat(label), torch.cat(margin))


class _Network(nn.Module):
    """Mean and logarithm of the standard deviation of the margin. Before it has learned, those of all records."""

    def __init__(self, seen: _Observed, classes: int, *, words: bool) -> None:
        super().__init__()
        numbers = seen.numbers
        over = (0, 2, 3) if numbers.ndim == 4 else (0,)
        centre, spread = numbers.mean(over, keepdim=True), numbers.std(over, keepdim=True)
        self.register_buffer("centre", torch.zeros_like(centre) if words else centre)
        self.register_buffer("spread", torch.ones_like(spread) if words else _above_zero(spread))
        self.register_buffer("level", torch.stack([seen.margin.mean(), _above_zero(seen.margin.std()).log()]))
        self.body, width = (nn.Identity(), numbers.shape[1]) if words else _body(numbers)
        self.last, self.own = nn.Linear(width, 2), nn.Embedding(classes, 2)
        for weight in (self.last.weight, self.last.bias, self.own.weight):
            nn.init.zeros_(weight)

    def forward(self, numbers: Numbers, label: Labels) -> Float[Tensor, "record 2"]:
        scaled = ((numbers - self.get_buffer("centre")) / self.get_buffer("spread")).clamp(-10, 10)
        found = self.last(self.body(scaled)) + self.own(label)
        level = self.get_buffer("level")
        mean = level[0] + level[1].exp() * found[:, 0]
        return torch.stack([mean, level[1] + found[:, 1].clamp(-5, 5)], dim=1)


def _above_zero(spread: Tensor) -> Tensor:
    return torch.where(spread > 1e-6, spread, torch.ones_like(spread))


def _body(numbers: Numbers) -> tuple[nn.Module, int]:
    """Layers below the last, and how many numbers they leave."""
    if numbers.ndim == 4:
        widths, layers = (numbers.shape[1], 16, 32, 64), list[nn.Module]()
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.GroupNorm(4, after), nn.ReLU()]
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), widths[-1]
    return nn.Sequential(nn.Linear(numbers.shape[1], HIDDEN), nn.ReLU()), HIDDEN


def _learn(
    fit: _Observed, select: _Observed, classes: int, epochs: int, binding: Binding, *, words: bool
) -> tuple[nn.Module, dict[str, Any]]:
    generator = torch.Generator().manual_seed(binding.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(binding.seed)
        network = _Network(fit, classes, words=words)
    rate = 3e-2 if words else 3e-3  # a text has few of all words, and each is small
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.05)
    best, trace = deepcopy(network), [_surprise(network, select)]
    with binding.progress.step("learning a forecast", epochs) as bar, torch.enable_grad():
        for _ in range(epochs):
            for rows in torch.split(torch.randperm(len(fit.margin), generator=generator), BATCH):
                optimiser.zero_grad()
                loss = _negative_log_likelihood(network(fit.numbers[rows], fit.label[rows]), fit.margin[rows])
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimiser.step()
            trace.append(_surprise(network, select))
            if trace[-1] < min(trace[:-1]):
                best = deepcopy(network)
            bar.advance()
    return best.requires_grad_(False), {
        "epochs": int(np.argmin(trace)),
        "select_nats": [round(one, 4) for one in trace],
        "fit_nonmembers": len(fit.margin),
        "weights": sum(one.numel() for one in network.parameters()),
    }


def _negative_log_likelihood(forecast: Float[Tensor, "record 2"], margin: Float[Tensor, " record"]) -> Tensor:
    return (forecast[:, 1] + 0.5 * ((margin - forecast[:, 0]) / forecast[:, 1].exp()) ** 2).mean()


def _surprise(network: nn.Module, seen: _Observed) -> float:
    found = torch.from_numpy(_answers(network, seen.numbers, seen.label))
    return float(_negative_log_likelihood(found, seen.margin.double()))


def _answers(network: nn.Module, numbers: Numbers, label: Labels) -> Float[np.ndarray, "record 2"]:
    with torch.no_grad():
        parts = zip(torch.split(numbers, BATCH), torch.split(label, BATCH), strict=True)
        return torch.cat([network(*one) for one in parts]).double().numpy()
