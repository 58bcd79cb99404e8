"""Training in parts that fit a device is training on the whole batch."""

from __future__ import annotations

import copy

import pytest
import torch

from repromia import training
from small import SmallModels


def test_a_batch_in_parts_gives_the_same_weights(models: SmallModels, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [*models.members[:30], "Oh", "No"]

    def trained() -> tuple[torch.Tensor, float]:
        model = copy.deepcopy(models.base.model).requires_grad_(True)
        loss = training.train(model, models.base.encoder, texts, epochs=2, learning_rate=1e-3, batch=16)
        return torch.cat([one.detach().flatten() for one in model.parameters()]), loss

    whole, loss = trained()
    monkeypatch.setattr(training, "AT_ONCE", 300)
    parts, loss_of_parts = trained()
    assert loss_of_parts == pytest.approx(loss, rel=1e-4)
    moved = (whole - torch.cat([one.flatten() for one in models.base.model.parameters()])).abs().max()
    assert (parts - whole).abs().max() < 0.02 * moved
    assert (parts != whole).any()
