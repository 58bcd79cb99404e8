"""A diffusion model as a target: one answer whatever the parametrisation, batch or order, and nothing changed by it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

from diffusion_models import BUILDERS, ddpm, own, pictures, tiny, unet, with_lora, wrapped
from repromia.errors import TargetError
from repromia.targets.diffusion import LINEAR, DiffusionModel
from repromia.targets.pipelines import PixelDenoiser, wrap_callable

TIMES = torch.tensor([1, 200, 600, 999])
CAPTIONS = ["a cat", "a dog", "3", "the moon"]
SHAPE = (3, 16, 16)


def question(shape: tuple[int, int, int] = SHAPE, rows: int = 4) -> Tensor:
    return torch.randn(rows, *shape, generator=torch.Generator().manual_seed(5))


def answers(target: DiffusionModel) -> Tensor:
    conditions = target.conditions(target.encode(pictures(4, CAPTIONS)))
    return target.noise(question(target.denoiser.shape), TIMES, conditions)


@pytest.mark.parametrize("name", ["ddpm", "ddim"])
def test_predicted_noise_of_pixels_is_the_unets(name: str) -> None:
    pipeline = tiny(name)
    with torch.no_grad():
        expected = pipeline.unet(question(), TIMES).sample
    target = wrapped(pipeline)
    assert torch.equal(answers(target), expected)
    assert target.asked == 4
    part = target.encode(pictures(4))
    pixels = torch.stack([torch.from_numpy(one.pixels()).permute(2, 0, 1) for one in pictures(4)])
    assert torch.allclose(part.clean, pixels / 127.5 - 1, atol=1e-6)
    assert (part.clean.min(), part.clean.max()) == (-1, 1)


@dataclass
class Rewritten:
    """One epsilon network, asked as if it had been trained to predict something else."""

    network: Any
    alphas: Tensor
    kind: str

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        if self.kind == "flow":  # t is 1000 sigma here: find the timestep whose noise level that is
            levels = (1 - self.alphas).sqrt() / (self.alphas.sqrt() + (1 - self.alphas).sqrt())
            rows = (levels[None] - t.double()[:, None] / 1000).abs().argmin(1)
            sigma = levels[rows].float()[:, None, None, None]
            noise = self.network(x * (self.alphas[rows].sqrt() / (1 - levels[rows])).float()[:, None, None, None], rows)
            return (noise.sample - x) / (1 - sigma)  # x = (1 - s) x_0 + s n, so n - x_0 = (n - x) / (1 - s)
        a = self.alphas[t].float()[:, None, None, None]
        noise = self.network(x, t).sample
        clean = (x - (1 - a).sqrt() * noise) / a.sqrt()
        return {"epsilon": noise, "sample": clean, "v_prediction": a.sqrt() * noise - (1 - a).sqrt() * clean}[self.kind]


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample", "flow"])
def test_parametrisations_of_one_network_agree(kind: Any) -> None:
    network = tiny("ddpm").unet
    times = torch.tensor([40, 200, 400, 600])  # at the ends one form loses what the other keeps, in float32
    with torch.no_grad():
        expected = network(question(), times).sample
    target = wrap_callable(Rewritten(network, LINEAR, kind), shape=SHAPE, prediction=kind)
    assert target.denoiser.prediction == kind
    assert torch.allclose(target.noise(question(), times, {}), expected, atol=1e-5)


def test_schedules_as_diffusers_states_them() -> None:
    zero = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    target = wrapped(DDPMPipeline(unet(), DDPMScheduler(**zero)))
    assert target.alphas[-1] == 2**-24  # zero terminal SNR
    assert torch.isfinite(target.noise(question(), TIMES, {})).all()
    assert wrapped(ddpm(num_train_timesteps=50, prediction_type="sample")).steps == 50
    flow = wrapped(DDPMPipeline(unet(), FlowMatchEulerDiscreteScheduler()))
    assert flow.denoiser.prediction == "flow"
    assert torch.equal(flow.alphas, LINEAR)
    assert torch.allclose(wrapped(tiny("ddpm")).alphas.float(), LINEAR.float(), atol=1e-6)


def test_a_learned_variance_is_left_aside() -> None:
    network = unet(out_channels=6)
    target = wrapped(DDPMPipeline(network, DDPMScheduler()))
    with torch.no_grad():
        assert torch.equal(answers(target), network(question(), TIMES).sample[:, :3])


@pytest.mark.parametrize("name", BUILDERS)
def test_asking_changes_nothing(name: str) -> None:
    pipeline = own(name)
    target = wrapped(pipeline)
    parts = target.denoiser.modules
    before = {key: {one: weight.clone() for one, weight in part.state_dict().items()} for key, part in parts.items()}
    first = answers(target)
    next(iter(parts.values())).train()
    flags = [module.training for part in parts.values() for module in part.modules()]
    grads = [weight.requires_grad for part in parts.values() for weight in part.parameters()]
    random = torch.get_rng_state()
    target._part = None
    assert torch.equal(answers(target), first)  # training mode would drop out
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for part in parts.values() for module in part.modules()] == flags
    assert [weight.requires_grad for part in parts.values() for weight in part.parameters()] == grads
    for key, part in parts.items():
        assert all(torch.equal(weight, before[key][one]) for one, weight in part.state_dict().items())
    assert torch.is_grad_enabled()
    json.dumps(target.describe())


def test_gradients_reach_x() -> None:
    x = question().requires_grad_()
    wrapped(tiny("sd2")).predicted_noise(latent := x[:, :, :8, :8].repeat(1, 2, 1, 1)[:, :4], TIMES, text := {
        "text": torch.zeros(4, 16, 32)
    }).square().sum().backward()  # fmt: skip
    assert latent.shape == (4, 4, 8, 8)
    assert text["text"].grad is None
    assert x.grad is not None
    assert float(x.grad.abs().max()) > 0


class Crowded(PixelDenoiser):
    """Memory for a few rows only."""

    room = 3
    error: Callable[[], Exception] = torch.OutOfMemoryError

    def predict(self, x: Tensor, t: Tensor, conditions: dict[str, Tensor]) -> Tensor:
        if len(x) > self.room:
            raise self.error()
        return super().predict(x, t, conditions)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError, MemoryError, lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_out_of_memory_halves_the_batch(error: Callable[[], Exception]) -> None:
    network = tiny("ddpm").unet
    denoiser = Crowded(SHAPE, "epsilon", LINEAR, network, {"unet": network})
    denoiser.error = error
    target, x, t = DiffusionModel(denoiser, batch=16), question(rows=10), torch.arange(10) * 100
    with torch.no_grad():
        assert torch.allclose(target.noise(x, t, {}), network(x, t).sample, atol=1e-5)
    assert target.batch == 2
    assert target.asked == 10
    denoiser.room = 0
    with pytest.raises(TargetError, match="single denoiser evaluation"):
        target.noise(x, t, {})


def test_other_errors_are_not_taken_for_memory() -> None:
    network = tiny("ddpm").unet
    denoiser = Crowded(SHAPE, "epsilon", LINEAR, network, {"unet": network})
    denoiser.error = lambda: RuntimeError("shapes")
    with pytest.raises(RuntimeError, match="shapes"):
        DiffusionModel(denoiser).noise(question(), TIMES, {})


def test_a_fingerprint_names_what_decides_the_answers() -> None:
    plain, other = wrapped(tiny("sd1")), own("sd1")
    assert wrapped(own("sd1")).fingerprint == plain.fingerprint
    assert wrapped(tiny("sd1"), batch=3).fingerprint == plain.fingerprint
    found = [plain.fingerprint, wrapped(tiny("sd1"), resize="squash").fingerprint, wrapped(tiny("sd2")).fingerprint]
    for part in (other.unet, other.vae, other.text_encoder):
        with torch.no_grad():
            next(part.parameters())[0] += 1e-3
        found.append(wrapped(other).fingerprint)
    other.scheduler = DDIMScheduler(beta_schedule="squaredcos_cap_v2")
    found.append(wrapped(other).fingerprint)
    other.tokenizer.model_max_length = 8
    found.append(wrapped(other).fingerprint)
    with_lora(other)
    found += [wrapped(other).fingerprint, wrapped(other).base().fingerprint]
    other.unet.set_adapters("default", 0.5)
    found.append(wrapped(other).fingerprint)
    other.disable_lora()
    found.append(wrapped(other).fingerprint)
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("name", ["sd1", "sdxl", "sd3", "flux-dev", "pixart-alpha"])
def test_the_base_of_a_lora_is_the_pipeline_without_it(name: str) -> None:
    plain = answers(wrapped(tiny(name)))
    pipeline = with_lora(own(name), text=name.startswith("sd"))
    target = wrapped(pipeline)
    state = [(weight.clone(), weight.requires_grad) for weight in target.denoiser.modules["text_encoder"].parameters()]
    with_it = answers(target)
    base = target.base()
    assert target.has_adapter
    assert base.asked == 0
    assert base.name == "target (adapter off)"
    assert torch.equal(answers(base), plain)
    assert torch.equal(answers(target), with_it)
    assert not torch.allclose(plain, with_it, atol=1e-3)
    assert (target.describe()["adapter"], base.describe()["adapter"]) == (True, False)
    after = target.denoiser.modules["text_encoder"].parameters()
    assert all(
        torch.equal(weight, was) and weight.requires_grad == flag
        for weight, (was, flag) in zip(after, state, strict=True)
    )


def test_a_part_that_learns_learns_again_afterwards() -> None:
    pipeline = with_lora(own("sd1"))
    for name, weight in pipeline.unet.named_parameters():
        weight.requires_grad_("lora_A" in name)
    answers(wrapped(pipeline).base())
    assert all(weight.requires_grad == ("lora_A" in name) for name, weight in pipeline.unet.named_parameters())


def test_lora_on_pixels_by_peft() -> None:
    from peft import LoraConfig, get_peft_model

    pipeline = own("ddpm")
    pipeline.unet = get_peft_model(pipeline.unet, LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False))
    target = wrapped(pipeline)
    assert torch.equal(answers(target.base()), answers(wrapped(tiny("ddpm"))))
    assert not torch.equal(answers(target), answers(target.base()))


def test_no_base_without_an_adapter_or_with_one_fused() -> None:
    target = wrapped(tiny("sd1"))
    assert not target.has_adapter
    assert target.describe()["adapter"] is None
    with pytest.raises(TargetError, match="carries no adapter"):
        target.base()
    fused = with_lora(own("sd1"))
    fused.fuse_lora()
    with pytest.raises(TargetError, match="fused"):
        wrapped(fused).base()


def test_any_callable() -> None:
    def half(x: Tensor, t: Tensor) -> Tensor:
        return x / 2 + t[:, None, None, None] / 1000

    target = wrap_callable(half, shape=(1, 4, 4), name="half")
    x = question((1, 4, 4))
    assert torch.equal(target.noise(x, TIMES, {}), half(x, TIMES))
    assert target.encode(pictures(2)).clean.shape == (2, 1, 4, 4)
    assert target.device.type == "cpu"
    assert target.describe()["parameters"] == 0
    assert target.asked == 4
    assert target.fingerprint == wrap_callable(half, shape=(1, 4, 4)).fingerprint
    assert target.fingerprint != wrap_callable(lambda x, t: x / 3, shape=(1, 4, 4)).fingerprint
    with pytest.raises(TargetError, match="another shape"):
        wrap_callable(lambda x, t: x.mean(1), shape=(3, 4, 4))
    with pytest.raises(TargetError, match="not square"):
        wrap_callable(half, shape=(3, 4, 8))


def test_a_module_that_is_called() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.drop = nn.Conv2d(3, 3, 1), nn.Dropout(0.5)

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return self.drop(self.layer(x))

    network = Network()
    target, method = wrap_callable(network, shape=SHAPE), wrap_callable(network.forward, shape=SHAPE)
    assert list(target.denoiser.modules) == list(method.denoiser.modules) == ["model"]
    assert torch.equal(target.noise(question(), TIMES, {}), network.layer(question()).detach())
    assert network.training
    mark = target.fingerprint
    with torch.no_grad():
        network.layer.bias += 1
    assert wrap_callable(network, shape=SHAPE).fingerprint != mark
    assert wrap_callable(network.bfloat16(), shape=SHAPE).noise(question(), TIMES, {}).dtype == torch.float32


@pytest.mark.parametrize(
    "alphas",
    [torch.linspace(0, 1, 10), torch.zeros(10), torch.full((10,), torch.nan), torch.ones(2, 2), torch.ones(0)],
)
def test_a_schedule_that_is_none(alphas: Tensor) -> None:
    denoiser = PixelDenoiser(SHAPE, "epsilon", LINEAR, lambda x, t: x)
    denoiser.alphas = alphas
    with pytest.raises(TargetError, match="noise schedule that is not one"):
        DiffusionModel(denoiser)


def test_a_parametrisation_that_is_none() -> None:
    denoiser: Any = PixelDenoiser(SHAPE, "epsilon", LINEAR, lambda x, t: x)
    denoiser.prediction = "score"
    with pytest.raises(TargetError, match=r"(?s)epsilon, v_prediction, sample, flow.*'score'"):
        DiffusionModel(denoiser)


def test_pipelines_that_cannot_be_asked() -> None:
    from diffusers import ScoreSdeVeScheduler

    def pixels(network: Any, scheduler: Any = None) -> Any:
        return wrapped(DDPMPipeline(network, scheduler or DDPMScheduler()))

    with pytest.raises(TargetError, match=r"(?s)schedule that is not known.*found: +ScoreSdeVe"):
        pixels(tiny("ddpm").unet, ScoreSdeVeScheduler())
    with pytest.raises(TargetError, match=r"(?s)parametrisation.*'score'"):
        wrapped(ddpm(prediction_type="score"))
    with pytest.raises(TargetError, match="not square"):
        pixels(unet(size=(16, 8)))
    assert pixels(unet(size=[16, 16])).denoiser.pixels == (3, 16)
    with pytest.raises(TargetError, match="class that it must be told"):
        pixels(unet(num_class_embeds=10))


def test_records_that_cannot_be_asked() -> None:
    target = wrapped(tiny("ddpm"))
    with pytest.raises(TargetError, match=r"(?s)not images.*1 of 3 records are text"):
        target.encode([*pictures(2), "a text"])
    with pytest.raises(TargetError, match=r"(?s)caption"):
        wrapped(tiny("sd1")).check_records(pictures(2))
    with pytest.raises(TargetError, match="channels"):
        target.encode(pictures(1, channels=2))
    with pytest.raises(TargetError, match="another size"):
        wrapped(tiny("ddpm"), resize="refuse").encode(pictures(1, size=20))


def test_a_part_may_have_no_captions_where_others_have() -> None:
    target = wrapped(tiny("sd1"))
    some = [*pictures(2, ["a cat"]), *pictures(1)]
    target.check_records(some)
    assert {len(one) for one in target.conditions(target.encode(some[2:])).values()} == {1}
    wrapped(tiny("ddpm")).check_records(pictures(2))


def test_a_part_is_remembered_until_the_next() -> None:
    target = wrapped(tiny("sd1"))
    part = target.encode(pictures(4, CAPTIONS))
    assert target.encode(pictures(4, CAPTIONS)) is part
    assert target.encode(pictures(4, CAPTIONS[::-1])) is not part
    assert len(part) == 4
    assert target.conditions(part) is target.conditions(part)
    assert set(target.conditions(part)) == {"text"}
    assert wrapped(tiny("ddpm")).conditions(part) == {}


def test_a_network_that_answers_differently_each_time_is_refused() -> None:
    drawn = torch.Generator().manual_seed(0)
    with pytest.raises(TargetError, match=r"(?s)differently each time.*eval"):
        wrap_callable(lambda x, t: x + torch.randn(x.shape, generator=drawn), shape=(1, 4, 4))
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Dropout(0.5))  # in training mode, and hidden in a function
    with pytest.raises(TargetError, match="differently each time"):
        wrap_callable(lambda x, t: network(x), shape=(1, 4, 4))


def test_a_reference_with_another_schedule_is_refused() -> None:
    target = wrapped(ddpm())
    target.check_same_inputs(wrapped(ddpm()))
    with pytest.raises(TargetError, match=r"(?s)another noise schedule.*1000 timesteps.*50 timesteps"):
        target.check_same_inputs(wrapped(ddpm(num_train_timesteps=50)))
    with pytest.raises(TargetError, match="another noise schedule"):
        target.check_same_inputs(wrapped(ddpm(beta_schedule="squaredcos_cap_v2")))


def test_a_refreshed_model_answers_with_the_weights_it_has() -> None:
    pipeline = own("ddpm")
    target = wrapped(pipeline)
    mark, part = target.fingerprint, target.encode(pictures(2))
    with torch.no_grad():
        next(pipeline.unet.parameters()).add_(0.1)
    target.refresh()
    assert target.fingerprint != mark
    assert target.encode(pictures(2)) is not part
