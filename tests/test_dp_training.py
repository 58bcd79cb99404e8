"""The recipe of docs/dp.md on a few digits and texts: per-record gradients, the accountant, and the audit's bound."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from benchmarks import dp_training
from benchmarks.dp_training import Recipe, _known_warnings, audited, image_losses, pixels_in, text_losses, train
from repromia.split import SplitOptions, split

pytest.importorskip("opacus")


@torch.enable_grad()
def test_gradients_of_lora_are_those_of_texts_one_by_one() -> None:
    from opacus.grad_sample import GradSampleModule
    from peft import LoraConfig, get_peft_model

    from repromia.demo.language import small_llama
    from repromia.targets.load import quiet

    with quiet():
        adapted = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
        model = get_peft_model(small_llama(64, width=16, layers=2, context=32, seed=0), adapted).double().train()
    model.enable_input_require_grads()
    ids = torch.randint(0, 64, (5, 12), generator=torch.Generator().manual_seed(0))
    counted = (torch.arange(12)[None] < torch.tensor([[12], [9], [4], [12], [7]])).double()
    weights = {name: one for name, one in model.named_parameters() if one.requires_grad}
    assert {name.split(".")[-3] for name in weights} == {"lora_A", "lora_B"}
    losses = text_losses(model, (ids, counted))
    expected = [torch.autograd.grad(one, list(weights.values()), retain_graph=True) for one in losses]
    with _known_warnings():
        sampled = GradSampleModule(model, loss_reduction="mean")
        text_losses(sampled, (ids, counted)).mean().backward()
    for number, one in enumerate(weights.values()):
        wanted = torch.stack([each[number] for each in expected])
        assert torch.allclose(one.grad_sample, wanted, rtol=1e-4, atol=1e-6)  # norms are in single precision


@torch.enable_grad()
def test_a_texts_loss_does_not_depend_on_others_of_the_batch() -> None:
    from repromia.demo.language import small_llama

    model = small_llama(64, width=16, layers=2, context=32, seed=0)
    ids = torch.randint(0, 64, (3, 12), generator=torch.Generator().manual_seed(0))
    counted = (torch.arange(12)[None] < torch.tensor([[12], [5], [3]])).float()
    alone = torch.cat([text_losses(model, (ids[row : row + 1], counted[row : row + 1])) for row in range(3)])
    assert torch.allclose(text_losses(model, (ids, counted)), alone, atol=1e-5)


def linear(images: Tensor) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), 10))


@torch.enable_grad()
def test_private_training_spends_what_was_asked_and_is_held_back_by_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    images, classes = torch.rand(200, 1, 4, 4, generator=generator), torch.randint(0, 10, (200,), generator=generator)
    losses = {}
    for epsilon in (math.inf, 1.0):
        model = linear(images)
        recipe = Recipe(epochs=40, batch=50, rate=0.05)
        spent = train(model, TensorDataset(images, classes), image_losses, recipe, epsilon=epsilon, seed=0)
        assert spent == math.inf if epsilon == math.inf else 0.8 < spent <= 1.0
        assert type(model[1]) is nn.Linear
        with torch.no_grad():
            losses[epsilon] = float(image_losses(model, (images, classes)).mean())
    assert losses[math.inf] < losses[1.0] - 0.2  # random classes can only be learned by heart


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """280 digits of unlikely classes, drawn by lot: what a network can only know by heart."""
    folder = tmp_path_factory.mktemp("dp")
    images = np.rint(load_digits().images * 255 / 16).astype(np.uint8)
    classes = np.random.default_rng(0).integers(0, 10, 280)
    for row, (image, one) in enumerate(zip(images[:280].repeat(2, 1).repeat(2, 2), classes, strict=True)):
        place = folder / "pool" / str(one)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{row:04d}.png")
    split(folder / "pool", folder / "drawn", SplitOptions(class_field="folder"))
    return folder / "drawn"


@torch.enable_grad()
@pytest.mark.parametrize("epsilon", [math.inf, 1.0])
def test_the_audits_bound_lies_below_the_accountants_epsilon(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epsilon: float
) -> None:
    from repromia.config import AuditConfig

    quick: dict[str, Any] = {"attacks": ("loss", "scaled_logit"), "bootstrap": 200, "fprs": (0.05,)}
    monkeypatch.setattr(dp_training, "AuditConfig", lambda **given: AuditConfig(**(given | quick)))
    recipe = Recipe(60, 32, 3e-3) if math.isinf(epsilon) else Recipe(5, 32, 3e-3)
    spent = dp_training.image_classifier(drawn, tmp_path, recipe, epsilon=epsilon, seed=0)
    result = audited("classifier", drawn, tmp_path, 0)
    assert len(pixels_in(drawn / "members")) == json.loads((drawn / "manifest.json").read_text())["records"]["members"]
    assert result.epsilon.status == "measured"
    bounds = {one.name: one.epsilon for one in result.epsilon.bounds}
    assert all(one <= spent for one in bounds.values())
    found = dp_training.line(result, spent, 0.5, tuple(bounds))
    assert "(!)" not in found
    if math.isinf(epsilon):
        assert bounds["one_run"] > 1.0  # it knows unlikely classes by heart
    else:
        assert dp_training.line(result, -1.0, 0.5, tuple(bounds)).count("(!)") == 4  # a claim that is refuted shows
