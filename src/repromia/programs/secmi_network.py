"""SecMI_nns: a small network learns from fit what the deviations of one DDIM step ahead and back show of members."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from repromia.errors import AttackError
from repromia.programs import Binding, Program, Target, at_least
from repromia.programs.denoising import Denoised, denoiser_behind, inversion_maps
from repromia.records import LabelledRecords, Records
from repromia.signals import DenoiseSignals

LARGEST = 64  # pixels a side; larger maps are averaged down
BATCH = 32
REMEMBERED = 2**26  # floats of maps that are kept for the next time the network is learned
Maps = Float[Tensor, "record channel height width"]


@dataclass(frozen=True)
class SecmiNetwork:
    """How the network is learned: on fit, for as many of `epochs` as give the best AUC on select.

    AdamW at 1e-3 with binary cross-entropy, batches of 32, maps in standard deviations of the fit role. The original
    (Duan et al. 2023) trains a ResNet-18 with SGD on the squared error of the label and keeps the last of 15 epochs.
    """

    t: str = "100"
    interval: int = 10
    epochs: int = 15

    def bind(self, binding: Binding) -> MapReader:
        """Learn it. Raises AttackError."""
        at_least(1, epochs=self.epochs)
        if not self.t.isdecimal():
            raise AttackError("The network reads the map of one timestep.", expected="a number", found=repr(self.t))
        fit, select = (
            deviation_maps(binding.target, one.records, int(self.t), self.interval, binding.memory)
            for one in (binding.fit, binding.select)
        )
        network, learned = _learn((fit, binding.fit), (select, binding.select), self.epochs, binding)
        used = frozenset((*binding.fit.records.ids, *binding.select.records.ids))
        return MapReader(network, self.t, self.interval, learned, used, binding.memory)


@dataclass(frozen=True)
class MapReader:
    """The learned network. Its signals have one column, whose `square` is exp(-logit) of membership.

    used: ids of the records that it was learned on or chosen by. memory: maps asked before, shared within an audit.
    """

    network: nn.Module = field(repr=False)
    t: str
    interval: int
    learned: dict[str, Any] = field(default_factory=dict)
    used: frozenset[str] = frozenset()
    memory: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    travels = False  # what it remembers is here

    label = "secmi network"

    @property
    def key(self) -> str:
        """Hash of the network, and the question."""
        hasher = blake2b(digest_size=16)
        for name, weight in sorted(self.network.state_dict().items()):
            hasher.update(name.encode() + weight.numpy().tobytes())
        return f"MapReader{hasher.hexdigest()} {self.t} {self.interval}"

    @property
    def identity(self) -> Program:
        """The same maps, reduced to their mean square: SecMI_stat."""
        return Denoised(t=self.t, way="inversion", interval=self.interval)

    @property
    def details(self) -> dict[str, Any]:
        """How it was learned."""
        return self.learned

    @property
    def evaluations(self) -> int:
        """Evaluations of the denoiser a record."""
        return int(self.t) // self.interval + 1

    def close(self) -> None:
        """Nothing to free."""

    def ask(self, target: Target, records: Records) -> tuple[DenoiseSignals, ...]:
        """What the network makes of the maps. Raises AttackError for a model of another number of channels."""
        maps = deviation_maps(target, records, int(self.t), self.interval, self.memory)
        if maps.shape[1] != self.network.get_buffer("centre").shape[1]:
            raise AttackError("The network was learned on a model of another shape.", found=str(tuple(maps.shape[1:])))
        square = np.exp(-_logits(self.network, maps).clip(-300, 300))[:, None]
        return (DenoiseSignals(np.array([int(self.t)]), np.array([-1]), square, square**2),)


def deviation_maps(target: Target, records: Records, t: int, interval: int, memory: dict[str, Any]) -> Maps:
    """|x - x after one step ahead and back| at t - interval, pixel by pixel, at most 64 pixels a side."""
    model = denoiser_behind(target)
    key = f"deviation maps {model.fingerprint} {t} {interval} {records.digest()}"
    if key not in memory:
        size, found = model.part_records, []
        for at in range(0, len(records), size):
            some = records.take(range(at, min(at + size, len(records))))
            maps = inversion_maps(model, model.encode(some.contents, some.ids), t, interval).abs()
            high, wide = (min(side, LARGEST) for side in maps.shape[2:])
            found.append(maps if (high, wide) == maps.shape[2:] else functional.adaptive_avg_pool2d(maps, (high, wide)))
        joined = torch.cat(found)
        kept = sum(one.numel() for name, one in memory.items() if name.startswith("deviation maps"))
        if kept + joined.numel() > REMEMBERED:
            return joined
        memory[key] = joined
    known: Maps = memory[key]
    return known


class _Network(nn.Module):
    """Two residual stages; log-odds. Only the branches are normalised, so that the size of a map gets through."""

    def __init__(self, maps: Maps, width: int = 16) -> None:
        super().__init__()
        self.register_buffer("centre", maps.mean((0, 2, 3), keepdim=True))
        self.register_buffer("spread", maps.std((0, 2, 3), keepdim=True).clamp(min=1e-12))
        self.stem = nn.Conv2d(maps.shape[1], width, 3, padding=1)
        self.near, self.far = _branch(width, width, 1), _branch(width, 2 * width, 2)
        self.across = nn.Conv2d(width, 2 * width, 1)
        self.last = _branch(2 * width, 2 * width, 1)
        self.out = nn.Linear(2 * width, 1)

    def forward(self, maps: Maps) -> Float[Tensor, " record"]:
        x = self.stem((maps - self.get_buffer("centre")) / self.get_buffer("spread"))
        x = x + self.near(x)
        x = self.far(x) + self.across(functional.avg_pool2d(x, 2, ceil_mode=True))
        odds: Tensor = self.out((x + self.last(x)).mean((2, 3)))
        return odds[:, 0]


def _branch(width: int, wider: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.GroupNorm(4, width),
        nn.ReLU(),
        nn.Conv2d(width, wider, 3, stride, padding=1, bias=False),
        nn.GroupNorm(4, wider),
        nn.ReLU(),
        nn.Conv2d(wider, wider, 3, padding=1, bias=False),
    )


def _learn(
    fit: tuple[Maps, LabelledRecords], select: tuple[Maps, LabelledRecords], epochs: int, binding: Binding
) -> tuple[_Network, dict[str, Any]]:
    from repromia.metrics import auc

    maps, member = fit[0], torch.from_numpy(fit[1].member).float()
    generator = torch.Generator().manual_seed(binding.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(binding.seed)
        network = _Network(maps)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    best, trace = deepcopy(network), []
    with binding.progress.step("learning to read maps", epochs) as bar, torch.enable_grad():
        for _ in range(epochs):
            for rows in torch.split(torch.randperm(len(maps), generator=generator), BATCH):
                optimiser.zero_grad()
                loss = functional.binary_cross_entropy_with_logits(network(maps[rows]), member[rows])
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
            trace.append(auc(_logits(network, select[0]), select[1].member))
            if trace[-1] > max(trace[:-1], default=-1.0):
                best = deepcopy(network)
            bar.advance()
    return best.requires_grad_(False), {
        "epochs": int(np.argmax(trace)) + 1,
        "select_auc": max(trace),
        "fit_records": len(maps),
        "weights": sum(one.numel() for one in network.parameters()),
        "trace": trace,
    }


def _logits(network: nn.Module, maps: Maps) -> Float[np.ndarray, " record"]:
    with torch.no_grad():
        return torch.cat([network(one) for one in torch.split(maps, BATCH)]).double().numpy()
