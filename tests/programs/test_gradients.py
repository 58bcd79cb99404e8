"""Gradient norms against gradients taken by hand; what they do not depend on; what is left as it was."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion_models import own, pictures, tiny, with_lora, wrapped
from repromia.errors import AttackError
from repromia.programs.denoising import drawn_noise
from repromia.programs.gradients import Gradients
from repromia.records import Picture, Records
from repromia.signals import GradientSignals, join
from repromia.store import Store
from repromia.targets.diffusion import DiffusionModel
from repromia.targets.pipelines import wrap_callable

TIMES = (99, 499, 999)
PLAN = Gradients(t="+".join(map(str, TIMES)))
CAPTIONS = ["a cat", "on the moon", "3"]


def records(contents: Sequence[Picture]) -> Records:
    ids = tuple(f"p{row}" for row in range(len(contents)))
    return Records(ids, tuple(contents), ids)


def norms(target: DiffusionModel, contents: Sequence[Picture], plan: Gradients = PLAN) -> np.ndarray:
    (found,) = plan.ask(target, records(contents))
    return found.norms


def by_hand(unet: Any, alphas: Tensor, one: Picture) -> list[float]:
    """One timestep after the other, from the schedule of the pipeline and the pixels."""
    clean = torch.from_numpy(one.pixels()).permute(2, 0, 1)[None].float() / 127.5 - 1
    loss = torch.zeros(())
    for t in TIMES:
        noise = drawn_noise(clean.shape[1:], t, 0)
        x = alphas[t] ** 0.5 * clean + (1 - alphas[t]) ** 0.5 * noise
        loss = loss + torch.nn.functional.mse_loss(unet(x, t).sample, noise[None]) / len(TIMES)
    unet.zero_grad()
    loss.backward()
    return [float((weight.grad**2).sum() ** 0.5) for weight in unet.parameters()]


def test_norms_are_those_of_gradients_taken_by_hand() -> None:
    pipeline, contents = own("ddpm"), pictures(3)
    found = norms(wrapped(copy.deepcopy(pipeline)), contents)
    assert len(np.unique(found.round(6), axis=0)) == 3
    alphas = torch.cumprod(1 - pipeline.scheduler.betas, 0)
    for row, one in enumerate(contents):
        np.testing.assert_allclose(found[row], by_hand(pipeline.unet, alphas, one), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["ddpm", "sd1", "sd3"])
def test_a_record_does_not_depend_on_batch_order_or_company(name: str) -> None:
    contents = pictures(3, CAPTIONS)
    whole = norms(wrapped(own(name)), contents)
    small = norms(wrapped(own(name), batch=2), contents)
    np.testing.assert_allclose(small, whole, rtol=1e-3, atol=1e-5)
    turned = norms(wrapped(own(name)), contents[::-1])
    np.testing.assert_allclose(turned[::-1], whole, rtol=1e-3, atol=1e-5)
    alone = norms(wrapped(own(name)), contents[1:2])
    np.testing.assert_allclose(alone, whole[1:2], rtol=1e-3, atol=1e-5)


def test_a_caption_decides_its_own_record_alone() -> None:
    target = wrapped(tiny("sd1"))
    before, after = (norms(target, pictures(2, ["a cat", one])) for one in ("on the moon", "in the sea"))
    np.testing.assert_array_equal(before[0], after[0])
    assert not np.allclose(before[1], after[1], rtol=1e-3)


def test_what_sees_a_record_first_has_no_gradient() -> None:
    target = wrapped(tiny("sd1"))
    (found,) = norms(target, pictures(1, CAPTIONS))
    counts = [sum(1 for _ in module.parameters()) for module in target.denoiser.modules.values()]
    assert (found[: counts[0]] > 0).mean() > 0.9
    assert not found[counts[0] :].any()
    assert len(found) == sum(counts)


def test_an_adapter_that_is_off_has_no_gradient_and_frozen_weights_have_one() -> None:
    pipeline = with_lora(own("sd1"))
    lora = ["lora_" in name for name, _ in pipeline.unet.named_parameters()]
    flags = [weight.requires_grad for weight in pipeline.unet.parameters()]
    assert set(flags) == {True, False}  # PEFT freezes what it adapts
    target = wrapped(pipeline)
    on, off = (norms(one, pictures(1, CAPTIONS))[0, : len(lora)] for one in (target, target.base()))
    assert (on[lora] > 0).all()
    assert not off[lora].any()
    assert (off[~np.array(lora)] > 0).mean() > 0.9
    assert [weight.requires_grad for weight in pipeline.unet.parameters()] == flags


@pytest.mark.parametrize("fails", [False, True], ids=["works", "fails"])
def test_the_model_is_left_as_it_was(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = own("ddpm")
    weights = list(pipeline.unet.parameters())
    weights[0].requires_grad_(False)
    weights[1].grad = torch.full_like(weights[1], 3.0)
    pipeline.unet.train()
    pipeline.unet.mid_block.eval()
    state = copy.deepcopy(pipeline.unet.state_dict())
    modes = [one.training for one in pipeline.unet.modules()]
    target = wrapped(pipeline)
    if fails:
        monkeypatch.setattr("torch.autograd.grad", _broken)
        with pytest.raises(RuntimeError, match="broken"):
            norms(target, pictures(2))
    else:
        norms(target, pictures(2))
        assert target.asked == 2 * len(TIMES)
    for name, one in pipeline.unet.state_dict().items():
        torch.testing.assert_close(one, state[name], rtol=0, atol=0)
    assert [one.requires_grad for one in weights] == [False, *[True] * (len(weights) - 1)]
    assert [at for at, one in enumerate(weights) if one.grad is not None] == [1]
    assert (weights[1].grad == 3).all()  # type: ignore[union-attr]
    assert [one.training for one in pipeline.unet.modules()] == modes
    assert torch.is_grad_enabled()


def _broken(*_: Any, **__: Any) -> None:
    raise RuntimeError("broken")


def test_too_little_memory_means_fewer_timesteps_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    target, asked = wrapped(tiny("ddpm")), []
    whole, predict = norms(target, pictures(2)), DiffusionModel.predicted_noise

    def small(self: DiffusionModel, x: Tensor, *rest: Any) -> Tensor:
        asked.append(len(x))
        if len(x) > limit:
            raise torch.OutOfMemoryError
        return predict(self, x, *rest)

    monkeypatch.setattr(DiffusionModel, "predicted_noise", small)
    limit = 1
    np.testing.assert_allclose(norms(target, pictures(2)), whole, rtol=1e-3, atol=1e-6)
    assert asked == [3, 2, *[1] * 6]
    limit = 0
    with pytest.raises(AttackError, match="Memory ran out"):
        norms(target, pictures(2))


def test_what_cannot_be_asked_says_why() -> None:
    function = wrap_callable(lambda x, t: 0.5 * x, shape=(3, 16, 16))
    with pytest.raises(AttackError, match="shows none"):
        norms(function, pictures(1))
    with pytest.raises(AttackError, match="do not lead back"):
        norms(wrap_callable(_Closed(), shape=(3, 16, 16)), pictures(1))
    with pytest.raises(AttackError, match="outside the noise schedule"):
        norms(wrapped(tiny("ddpm")), pictures(1), Gradients(t="99+1000"))
    with pytest.raises(AttackError, match="diffusion models"):
        PLAN.ask(object(), records(pictures(1)))  # type: ignore[arg-type]


class _Closed(torch.nn.Module):
    """Has weights, and answers without them."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return x * self.scale.detach()


def signals(count: int = 3) -> GradientSignals:
    return GradientSignals(np.array(TIMES), np.random.default_rng(0).random((count, 4)))


def test_signals_are_taken_joined_and_stored(tmp_path: Path) -> None:
    one = signals()
    assert len(one) == 3
    np.testing.assert_array_equal(one.take([2, 0]).norms, one.norms[[2, 0]])
    np.testing.assert_array_equal(join([one, one.take([1])]).norms, one.norms[[0, 1, 2, 1]])
    store = Store(tmp_path)
    store.put("key", one)
    again = store.get("key")
    assert isinstance(again, GradientSignals)
    np.testing.assert_array_equal(again.norms, one.norms)
    np.testing.assert_array_equal(again.t, one.t)


def test_gradients_that_are_not_finite_are_no_figures() -> None:
    broken = signals().norms.copy()
    broken[1, 2] = np.inf
    with pytest.raises(AttackError, match="1 of 3 records"):
        replace(signals(), norms=broken)
