"""Settings of torch that decide how exactly a GPU counts; they can be read and set without one."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import repromia
from classifier_models import row_records
from diffusion_models import own, pictures, wrapped
from repromia.errors import TargetError
from repromia.targets import devices
from repromia.targets.devices import device_named, full_float32
from small import SmallModels

MATMUL: Any = torch.backends.cuda.matmul
CUDNN: Any = torch.backends.cudnn


def settings() -> list[str]:
    return [one.fp32_precision for one in (MATMUL, CUDNN.conv, CUDNN.rnn)]


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    torch.set_float32_matmul_precision("highest")
    CUDNN.allow_tf32 = True
    MATMUL.fp32_precision, CUDNN.conv.fp32_precision, CUDNN.rnn.fp32_precision = "none", "tf32", "tf32"


def nothing() -> None:
    """As torch starts."""


def of_before() -> None:
    torch.set_float32_matmul_precision("high")
    CUDNN.allow_tf32 = False


def newer() -> None:
    MATMUL.fp32_precision, CUDNN.conv.fp32_precision = "tf32", "ieee"


@pytest.mark.parametrize("chosen", [nothing, of_before, newer])
def test_float32_is_full_within_and_as_it_was_outside(chosen: Callable[[], None]) -> None:
    chosen()
    before = settings()
    with full_float32():
        assert not CUDNN.allow_tf32  # as libraries read it
        assert not MATMUL.allow_tf32
        assert torch.get_float32_matmul_precision() == "highest"
        assert not {one.fp32_precision for one in (MATMUL, CUDNN.conv, CUDNN.rnn)} & {"tf32"}
    assert settings() == before


def test_a_full_gpu_is_not_said_to_be_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA error: out of memory")

    monkeypatch.setattr(devices.torch, "empty", full)
    with pytest.raises(TargetError, match="no memory left"):
        device_named("cuda")
    with pytest.raises(TargetError, match="no memory left"):
        device_named("")


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(TargetError, match="There is no such device"):
        device_named("abacus")


def test_every_target_is_asked_in_full_float32(models: SmallModels) -> None:
    seen: dict[str, list[bool]] = {"classifier": [], "language": [], "diffusion": []}
    rows, language, pipeline = torch.nn.Linear(64, 10), copy.deepcopy(models.base.model), own("ddpm")
    for module, name in zip((rows, language, pipeline.unet), seen, strict=True):
        module.register_forward_pre_hook(lambda *_, name=name: seen[name].append(CUDNN.allow_tf32))
    records = row_records()
    classifier = repromia.classifier(rows, records)
    batch = classifier.encode(records.records.contents, records.records.ids)
    classifier.signals(batch.inputs, batch.label)
    dataclasses.replace(models.base, model=language).signals(models.base.encode(models.members[:2]))
    target = wrapped(pipeline)
    noise, times = torch.randn(1, *target.denoiser.shape), torch.tensor([50])
    target.noise(noise, times, target.conditions(target.encode(pictures(1))))
    assert {name: set(one) for name, one in seen.items()} == {name: {False} for name in seen}
