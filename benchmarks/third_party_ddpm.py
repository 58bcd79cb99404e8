"""A near-null case: a small DDPM that a third party trained on the whole train split of Fashion-MNIST (28 x 28).

    python -m benchmarks.third_party_ddpm --shared ../shared/data --out /tmp/third-party

Members are images of the train split, non-members of the test split. The network is no diffusers model: it shows how
any callable is audited.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d, layer_norm, linear, silu

import repromia
from repromia.targets.pipelines import wrap_callable
from repromia.terminal import print_result


class SmallDdpm(torch.nn.Module):
    """The network of niuwengang/mnist_ddpm, from its published tensors."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tensors = {name.replace(".", "/"): one for name, one in load_file(path).items()}
        for name, one in self.tensors.items():
            self.register_buffer(name.replace("/", "__"), one)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Predicted noise in x (record, 1, 28, 28)."""
        time = self.tensors["time_embed/weight"][t.long()]
        first = self._level("b1", x, "te1", time)
        second = self._level("b2", self._down("down1", first), "te2", time)
        third = self._level("b3", self._down("down2", second), "te3", time)
        middle = self._down("down3/2", silu(self._conv("down3/0", third, 0)))
        middle = self._level("b_mid", middle, "te_mid", time)
        up = self._up("up1/2", silu(self._up("up1/0", middle)), stride=1, padding=0)
        up = self._level("b4", torch.cat([third, up], 1), "te4", time)
        up = self._level("b5", torch.cat([second, self._up("up2", up)], 1), "te5", time)
        up = self._level("b_out", torch.cat([first, self._up("up3", up)], 1), "te_out", time, normalise_last=False)
        return self._conv("conv_out", up, 1)

    def _level(self, name: str, x: Tensor, embedding: str, time: Tensor, *, normalise_last: bool = True) -> Tensor:
        hidden = silu(linear(time, *self._both(f"{embedding}/0")))
        x = x + linear(hidden, *self._both(f"{embedding}/2"))[:, :, None, None]
        for block in range(3):
            if block < 2 or normalise_last:
                x = layer_norm(x, x.shape[1:], *self._both(f"{name}/{block}/ln"))
            x = silu(self._conv(f"{name}/{block}/conv1", x, 1))
            x = silu(self._conv(f"{name}/{block}/conv2", x, 1))
        return x

    def _both(self, name: str) -> tuple[Tensor, Tensor]:
        return self.tensors[f"{name}/weight"], self.tensors[f"{name}/bias"]

    def _conv(self, name: str, x: Tensor, padding: int) -> Tensor:
        return conv2d(x, *self._both(name), padding=padding)

    def _down(self, name: str, x: Tensor) -> Tensor:
        return conv2d(x, *self._both(name), stride=2, padding=1)

    def _up(self, name: str, x: Tensor, *, stride: int = 2, padding: int = 1) -> Tensor:
        return conv_transpose2d(x, *self._both(name), stride=stride, padding=padding)


def main() -> None:
    """Audit it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--each", type=int, default=2000, help="images a side")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    arrays = np.load(given.shared / "fashion_mnist" / "fashion_mnist_12k_4k.npz")
    weights = given.shared / "ddpm_mnist_fashion"
    fashion, mnist = (
        wrap_callable(SmallDdpm(weights / f"ddpm_{name}.safetensors"), shape=(1, 28, 28), name=f"ddpm_{name}")
        for name in ("fashion", "mnist")
    )
    records = repromia.load_records(arrays["x_train"][: given.each], arrays["x_test"][: given.each])
    result = repromia.audit(
        fashion,
        records,
        reference=mnist,
        out=given.out,
        attacks=("naive", "sima", "pia", "shift_contrast", "probe_bank"),
    )
    from rich.console import Console

    print_result(result, Console(), report_path=given.out / "report.html")


if __name__ == "__main__":
    main()
