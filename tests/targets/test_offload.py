"""Models that accelerate keeps off the device are asked and fingerprinted like any other."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import torch
from accelerate import cpu_offload

from small import SmallModels


def test_offloaded_weights_give_the_same_signals_and_fingerprint(models: SmallModels) -> None:
    moved = copy.deepcopy(models.base.model)
    cpu_offload(moved, execution_device=torch.device("cpu"))
    assert all(weight.is_meta for weight in moved.parameters())
    target = replace(models.base, model=moved, _fingerprint="")
    sequences = models.base.encode(models.members[:10])
    here, there = models.base.signals(sequences), target.signals(sequences)
    np.testing.assert_allclose(here.logprob, there.logprob, atol=1e-6)
    assert target.fingerprint == models.base.fingerprint
    assert torch.equal(target.embeddings, models.base.embeddings)
