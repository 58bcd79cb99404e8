"""Was this set of images used: the command on a denoiser and on a classifier as they lie on disk.

Seeds are fixed. Of a model that was trained on others, "used" is a false alarm: once in 20.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from repromia.cli import main
from test_cli_classifier import QUICK
from test_cli_classifier import on_disk as with_classifier  # noqa: F401 — a fixture
from test_cli_diffusion import on_disk as with_denoiser  # noqa: F401 — a fixture


def answer(monkeypatch: pytest.MonkeyPatch, folder: Path, **flags: str) -> dict[str, object]:
    monkeypatch.chdir(folder)
    given = [part for name, value in flags.items() for part in (f"--{name.replace('_', '-')}", value)]
    with pytest.raises(SystemExit) as ended:
        main(["dataset-inference", *given, *(part for pair in QUICK.items() for part in pair), "--no-controls"])
    found: dict[str, object] = json.loads((folder / flags["out"] / "dataset_inference.json").read_text())
    assert ended.value.code == 0, found["sentence"]
    return found


def test_images_and_a_diffusers_pipeline(with_denoiser: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """CDI's question (Dubiński et al. 2025, arXiv 2411.12858). The bank has a head: only eval is tested."""
    sets = {"suspect": "members.npz", "heldout": "nonmembers.npz", "attacks": "sima:t=30+80,probe_bank:t=30+80"}
    used = answer(monkeypatch, with_denoiser, model="denoiser", out="used", headline="probe_bank:t=30+80", **sets)
    assert (used["outcome"], used["tested"]) == ("used", "eval")
    unused = answer(monkeypatch, with_denoiser, model="private", out="unused", headline="sima:t=30+80", **sets)
    assert (unused["outcome"], unused["tested"]) == ("not_shown", "eval")  # its timestep is chosen by labels of select


def test_images_and_a_classifier(with_classifier: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """Without labels and named beforehand, `loss` is tested on all records."""
    sets = {"model": "mine:build", "suspect": "train", "heldout": "heldout", "class_field": "folder"}
    monkeypatch.syspath_prepend(str(with_classifier))
    own = sets | {"attacks": "loss", "headline": "loss"}
    used = answer(monkeypatch, with_classifier, weights="model.safetensors", out="used", **own)
    assert (used["outcome"], used["tested"]) == ("used", "all")
    mixed = {name: one.flip(0) for name, one in load_file(with_classifier / "model.safetensors").items()}
    save_file({name: one.contiguous() for name, one in mixed.items()}, with_classifier / "mixed.safetensors")
    unused = answer(monkeypatch, with_classifier, weights="mixed.safetensors", out="unused", **own)
    assert unused["outcome"] == "not_shown"  # units in another order know nothing by heart
