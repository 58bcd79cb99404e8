"""A small image classifier trained here on real images, members drawn by lot, ready for an audit with shadows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from repromia.demo.diffusion import handwritten_digits
from repromia.records import Picture, Records

MEMBERS = 500  # as many non-members
EPOCHS = 60
WIDTH = 32


class Files(NamedTuple):
    """What `prepare` wrote."""

    members: Path
    nonmembers: Path
    weights: Path


def build() -> nn.Module:
    """The network: pixels in [0, 1], (record, 1, 8, 8), to logits of ten digits."""
    return nn.Sequential(
        nn.Conv2d(1, WIDTH, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(WIDTH * 64, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def train(records: Records, seed: int) -> nn.Module:
    """A network fitted to the records' classes until it knows them by heart."""
    pictures = [one for one in records.contents if isinstance(one, Picture)]
    pixels = torch.from_numpy(np.stack([one.pixels()[:, :, 0] for one in pictures])).float()[:, None] / 255
    return fitted(pixels, torch.tensor([int(one.caption) for one in pictures]), seed)


def fitted(pixels: Tensor, label: Tensor, seed: int) -> nn.Module:
    """AdamW, `EPOCHS` times through."""
    torch.manual_seed(seed)
    model = build()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(pixels)).split(32):  # type: ignore[no-untyped-call]
            loss = nn.functional.cross_entropy(model(pixels[rows]), label[rows])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return model.eval()


def half_hidden_digits() -> UInt8[np.ndarray, "record 8 8 1"]:
    """Handwritten digits whose lower half is black: hard enough that a network must learn some by heart."""
    images = handwritten_digits().copy()
    images[:, 4:] = 0
    return images


def prepare(out: Path, *, seed: int) -> Files:
    """Write members/, nonmembers/ (a folder a digit) and model.safetensors under `out`, or use what is there."""
    from safetensors.torch import save_file
    from sklearn.datasets import load_digits

    files = Files(out / "members", out / "nonmembers", out / "model.safetensors")
    done, recipe = out / "recipe.json", json.dumps({"seed": seed, "members": MEMBERS, "epochs": EPOCHS})
    if done.is_file() and done.read_text(encoding="utf-8") == recipe:
        return files
    images, label = half_hidden_digits(), load_digits().target
    rows = np.random.default_rng(seed).permutation(len(images))
    sides = rows[:MEMBERS], rows[MEMBERS : 2 * MEMBERS]
    for side, folder in zip(sides, files[:2], strict=True):
        _write(images[side], label[side], folder)
    pixels = torch.from_numpy(images[sides[0]]).float().permute(0, 3, 1, 2) / 255
    model = fitted(pixels, torch.from_numpy(label[sides[0]]), seed)
    save_file(model.state_dict(), files.weights)
    done.write_text(recipe, encoding="utf-8")
    return files


def _write(images: np.ndarray, label: np.ndarray, folder: Path) -> None:
    from PIL import Image

    for row, (image, digit) in enumerate(zip(images, label, strict=True)):
        place = folder / str(digit)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[:, :, 0]).save(place / f"{row:04d}.png")
