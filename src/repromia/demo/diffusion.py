"""A small diffusion model trained here on real images, members drawn by lot, ready to be audited."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from repromia.demo.denoiser import Recipe, train_denoiser
from repromia.demo.language import Files
from repromia.progress import Progress

MEMBERS = 500  # as many non-members; the rest trains the reference
RECIPE = Recipe(steps=1500, rate=2e-3, channels=(16, 32), ema=0.0)
ATTACKS = "default"


def handwritten_digits() -> UInt8[np.ndarray, "record 8 8 1"]:
    """1,797 handwritten digits (UCI ML repository, shipped with scikit-learn)."""
    from sklearn.datasets import load_digits

    images = (load_digits().images * (255 / 16)).round().astype(np.uint8)
    return images[..., None]


def prepare(out: Path, *, seed: int, progress: Progress) -> Files:
    """Write members/, nonmembers/, model/ and reference/ under `out`; what is already there is used again."""
    files = Files(out / "reference", out / "model", out / "members", out / "nonmembers")
    done = out / "recipe.json"
    recipe = json.dumps({"seed": seed, **asdict(RECIPE)})
    if done.is_file() and done.read_text(encoding="utf-8") == recipe:
        return files
    images = handwritten_digits()
    images = images[np.random.default_rng(seed).permutation(len(images))]
    sides = images[:MEMBERS], images[MEMBERS : 2 * MEMBERS], images[2 * MEMBERS :]
    _write(sides[0], files.members)
    _write(sides[1], files.nonmembers)
    for part, folder in ((sides[0], files.finetuned), (sides[2], files.base)):
        pipeline, _ = train_denoiser(part, RECIPE, seed=seed, progress=progress)
        pipeline.save_pretrained(folder)
    done.write_text(recipe, encoding="utf-8")
    return files


def _write(images: UInt8[np.ndarray, "record height width 1"], folder: Path) -> None:
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for row, one in enumerate(images):
        Image.fromarray(one[:, :, 0]).save(folder / f"{row:04d}.png")
