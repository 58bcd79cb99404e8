"""Audit ResNet-20 and ResNet-56 as a third party trained them on CIFAR-10: a weak signal, no shadow models.

    python -m benchmarks.resnets --data ../shared/data --out /tmp/resnets

Weights: akamaster/pytorch_resnet_cifar10 (BSD-2-Clause), as shared/data/resnet_cifar10 holds them. Members are drawn
from the train images, non-members are all test images: CIFAR-10 divided its pool by lot. Either network has seen the
members of the other, so neither is a reference; the reference is the target's own noised and repaired copies.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.diffusion import table
from repromia.config import AuditConfig
from repromia.progress import Silent
from repromia.result import AuditResult
from repromia.run import audit_to_folder

ATTACKS = ("default", "rmia:reference=noise_and_repair/copies=4", "watson:reference=noise_and_repair/copies=4")
_MEAN, _SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Block(nn.Module):
    """Two convolutions; the shortcut has no weights: every second pixel, new channels of zeros on both sides."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.stride, self.more = width // before, (width - before) // 2
        self.conv1 = nn.Conv2d(before, width, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Activations (images, width, height / stride, width / stride)."""
        short = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.more, self.more))
        return functional.relu(self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x))))) + short)


class ResNet(nn.Module):
    """The CIFAR ResNet of He et al. 2016 (arXiv 1512.03385, section 4.2) with shortcut A."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(Block(before, width), *(Block(width, width) for _ in range(blocks - 1)))
            for before, width in ((16, 16), (16, 32), (32, 64))
        )
        self.linear = nn.Linear(64, 10)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits of pixels in [0, 1]."""
        mean, spread = (pixels.new_tensor(one).view(3, 1, 1) for one in (_MEAN, _SPREAD))
        x = functional.relu(self.bn1(self.conv1((pixels - mean) / spread)))
        found: Tensor = self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))
        return found


def resnet20() -> ResNet:
    """For `--model benchmarks.resnets:resnet20`."""
    return ResNet(3)


def resnet56() -> ResNet:
    """For `--model benchmarks.resnets:resnet56`."""
    return ResNet(9)


def write(data: Path, out: Path, records: int) -> None:
    """members.npz and nonmembers.npz, `records` images each."""
    pool = np.load(data / "cifar10" / "cifar10_12k_4k.npz")
    for name, part in (("members", "train"), ("nonmembers", "test")):
        rows = np.sort(np.random.default_rng(0).permutation(len(pool[f"y_{part}"]))[:records])
        ids = np.array([f"{part}-{number}" for number in rows])
        np.savez(out / f"{name}.npz", images=pool[f"x_{part}"][rows], labels=pool[f"y_{part}"][rows], ids=ids)


def audit(data: Path, out: Path, network: str, attacks: tuple[str, ...]) -> AuditResult:
    """One network's audit."""
    config = AuditConfig(
        model=f"benchmarks.resnets:{network}",
        weights=str(data / "resnet_cifar10" / f"{network}.safetensors"),
        members=out / "members.npz",
        nonmembers=out / "nonmembers.npz",
        class_field="label",
        out=out / network,
        attacks=attacks,
        fprs=(0.05, 0.01),
        program_permutations=0,
        batch_images=256,
    )
    return audit_to_folder(config, Silent())


def main() -> None:
    """Audit and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--networks", nargs="+", choices=("resnet20", "resnet56"), default=["resnet20", "resnet56"])
    parser.add_argument("--records", type=int, default=4000)
    parser.add_argument("--attacks", nargs="*", default=list(ATTACKS))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    write(given.data, given.out, given.records)
    torch.set_num_threads(1)
    results = {one: audit(given.data, given.out, one, tuple(given.attacks)) for one in given.networks}
    print(table(results))
    for name, one in results.items():
        print(f"\n{name}")
        for finding in one.findings:
            print(f"  {finding.sentence}")


if __name__ == "__main__":
    main()
