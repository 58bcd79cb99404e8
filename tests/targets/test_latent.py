"""Latent pipelines: every answer against the pipeline's own modules, called by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline
from torch import Tensor

from diffusion_models import BUILDERS, conditioned, own, pictures, pixart_alpha, stable_diffusion_xl, tiny, wrapped
from repromia.errors import TargetError
from repromia.targets.diffusion import DiffusionModel
from repromia.targets.pipelines import quiet

CAPTIONS = ["a cat", "a dog on the red moon which is far too long to fit", "tiger shark", ""]
TIMES = torch.tensor([3, 250, 640, 999])


def question(target: DiffusionModel, rows: int = 4) -> Tensor:
    return torch.randn(rows, *target.denoiser.shape, generator=torch.Generator().manual_seed(5))


def ldm(pipeline: Any, x: Tensor, t: Tensor, captions: list[str]) -> Tensor:
    return pipeline.unet(x, t).sample


def stable_diffusion(pipeline: Any, x: Tensor, t: Tensor, captions: list[str]) -> Tensor:
    text, _ = pipeline.encode_prompt(captions, torch.device("cpu"), 1, False)
    return pipeline.unet(x, t, encoder_hidden_states=text).sample


def stable_diffusion_xl_answer(pipeline: Any, x: Tensor, t: Tensor, captions: list[str]) -> Tensor:
    text, _, summary, _ = pipeline.encode_prompt(captions, do_classifier_free_guidance=False)
    ids = pipeline._get_add_time_ids((16, 16), (0, 0), (16, 16), torch.float32, 32).repeat(len(x), 1)
    added = {"text_embeds": summary, "time_ids": ids}
    return pipeline.unet(x, t, encoder_hidden_states=text, added_cond_kwargs=added).sample


def dit(pipeline: Any, x: Tensor, t: Tensor, captions: list[str]) -> Tensor:
    classes = [pipeline.labels.get(one, 10) for one in captions]  # 10 classes: the eleventh is none
    return pipeline.transformer(x, timestep=t, class_labels=torch.tensor(classes)).sample.chunk(2, dim=1)[0]


def pixart(pipeline: Any, x: Tensor, t: Tensor, captions: list[str]) -> Tensor:
    text, mask, _, _ = pipeline.encode_prompt(captions, do_classifier_free_guidance=False)
    sized = pipeline.transformer.config.use_additional_conditions
    ones = torch.ones(len(x), 1)
    added = {"resolution": torch.tensor([[16.0, 16.0]]).repeat(len(x), 1), "aspect_ratio": ones} if sized else {}
    added = added or {"resolution": None, "aspect_ratio": None}
    answer = pipeline.transformer(
        x, encoder_hidden_states=text, encoder_attention_mask=mask, timestep=t, added_cond_kwargs=added
    )
    return answer.sample.chunk(2, dim=1)[0]


def stable_diffusion_3(pipeline: Any, x: Tensor, t: Tensor, captions: list[str]) -> Tensor:
    text, _, summary, _ = pipeline.encode_prompt(captions, captions, captions, do_classifier_free_guidance=False)
    return pipeline.transformer(x, timestep=t, encoder_hidden_states=text, pooled_projections=summary).sample


def flux(pipeline: Any, x: Tensor, t: Tensor, captions: list[str]) -> Tensor:
    text, summary, text_ids = pipeline.encode_prompt(captions, captions)
    answer = pipeline.transformer(
        hidden_states=FluxPipeline._pack_latents(x, len(x), 4, 8, 8),
        timestep=t / 1000,
        guidance=torch.ones(len(x)) if pipeline.transformer.config.guidance_embeds else None,
        pooled_projections=summary,
        encoder_hidden_states=text,
        txt_ids=text_ids,
        img_ids=FluxPipeline._prepare_latent_image_ids(len(x), 4, 4, "cpu", torch.float32),
    ).sample
    return FluxPipeline._unpack_latents(answer, 16, 16, pipeline.vae_scale_factor)


BY_HAND: dict[str, Callable[[Any, Tensor, Tensor, list[str]], Tensor]] = {
    "ldm": ldm,
    "sd1": stable_diffusion,
    "sd2": stable_diffusion,
    "sdxl": stable_diffusion_xl_answer,
    "dit": dit,
    "pixart-alpha": pixart,
    "pixart-sigma": pixart,
    "sd3": stable_diffusion_3,
    "flux-dev": flux,
    "flux-schnell": flux,
}


@pytest.mark.parametrize("name", BY_HAND)
def test_predicted_noise_is_the_pipelines_own(name: str) -> None:
    pipeline = tiny(name)
    target = wrapped(pipeline)
    x = question(target)
    conditions = target.conditions(target.encode(pictures(4, CAPTIONS)))
    with torch.no_grad():
        if target.denoiser.prediction == "flow":
            alpha = target.alphas[TIMES][:, None, None, None]
            exact = (1 - alpha).sqrt() / (alpha.sqrt() + (1 - alpha).sqrt())
            sigma, inside = exact.float(), (x * (1 - exact) / alpha.sqrt()).float()
            velocity = BY_HAND[name](pipeline, inside, sigma.flatten() * 1000, CAPTIONS)
            expected = inside + (1 - sigma) * velocity  # (1 - s) x_0 + s n, and n - x_0
        else:
            expected = BY_HAND[name](pipeline, x, TIMES, CAPTIONS)
        if name == "sd2":
            alpha = pipeline.scheduler.alphas_cumprod[TIMES][:, None, None, None]
            expected = alpha.sqrt() * expected + (1 - alpha).sqrt() * x
    assert torch.allclose(target.noise(x, TIMES, conditions), expected, atol=1e-5)
    assert target.steps == 1000
    assert target.describe()["conditional"] == (name != "ldm")


OPTIONS: dict[str, dict[str, Any]] = {
    "ldm": {"batch_size": 2},
    "dit": {"class_labels": [3, 9], "guidance_scale": 1.0},
    "pixart-alpha": {"use_resolution_binning": False, "clean_caption": False},
    "pixart-sigma": {"use_resolution_binning": False, "clean_caption": False},
}


@pytest.mark.parametrize("name", BY_HAND)
def test_a_pipeline_that_paints_asks_the_same(name: str) -> None:
    """What the network is asked and says while the pipeline paints at guidance scale 1."""
    # only at 128 x 128 latents does PixArt's pipeline tell the network their size
    pipeline = pixart_alpha(128) if name == "pixart-alpha" else own(name)
    target = wrapped(pipeline)
    network = getattr(pipeline, target.denoiser.family.network)
    caught: list[tuple[Tensor, Tensor, Tensor]] = []

    def catch(_: object, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        x = args[0] if args else kwargs["hidden_states"]
        t = args[1] if len(args) > 1 else kwargs["timestep"]
        caught.append((x, t, output[0] if isinstance(output, tuple) else output.sample))

    captions = ["3", "9"] if name == "dit" else CAPTIONS[:2]
    said: dict[str, Any] = {"output_type": "pil" if name in ("ldm", "dit") else "latent", "num_inference_steps": 3}
    said |= {"generator": torch.Generator().manual_seed(0)}
    said |= (
        OPTIONS[name]
        if name in ("ldm", "dit")
        else {"prompt": captions, "guidance_scale": 1.0, **OPTIONS.get(name, {})}
    )
    handle = network.register_forward_hook(catch, with_kwargs=True)
    with quiet():
        pipeline.set_progress_bar_config(disable=True)
        pipeline(**said)
    handle.remove()
    assert len(caught) >= 3
    with target.asking():
        conditions = target.denoiser.condition(captions)
        for x, t, answer in caught:
            if name.startswith("flux"):
                x, answer = (FluxPipeline._unpack_latents(one, 16, 16, 2) for one in (x, answer))
                t = t * 1000
            found = target.denoiser.predict(x, t.expand(2), conditions)
            assert torch.allclose(found, answer[:, : target.denoiser.shape[0]], atol=1e-5)


@pytest.mark.parametrize("name", BY_HAND)
def test_clean_latents_are_decoded_as_the_pipeline_decodes(name: str) -> None:
    """encode is the inverse of what each pipeline does in front of its decoder."""
    pipeline = tiny(name)
    part = wrapped(pipeline).encode(pictures(4, CAPTIONS))
    pixels = torch.stack([torch.from_numpy(one.pixels()).permute(2, 0, 1) for one in pictures(4)]) / 127.5 - 1
    autoencoder = pipeline.vqvae if name == "ldm" else pipeline.vae
    with torch.no_grad():
        encoded = autoencoder.encode(pixels)
        latents = encoded.latents if name == "ldm" else encoded.latent_dist.mean
        shift = autoencoder.config.shift_factor if name.startswith(("sd3", "flux")) else 0
        assert torch.allclose(part.clean / autoencoder.config.scaling_factor + shift, latents, atol=1e-5)


def test_latents_of_known_mean_and_spread() -> None:
    mean, spread = [0.5, -1.0, 2.0, 0.0], [2.0, 1.0, 0.5, 4.0]
    plain = wrapped(tiny("sdxl")).encode(pictures(2, CAPTIONS)).clean / 0.13025
    pipeline = stable_diffusion_xl(latents_mean=mean, latents_std=spread)
    found = wrapped(pipeline).encode(pictures(2, CAPTIONS)).clean
    decoded = found * torch.tensor(spread)[:, None, None] / 0.13025 + torch.tensor(mean)[:, None, None]
    assert torch.allclose(decoded, plain, atol=1e-4)


@pytest.mark.parametrize("name", BUILDERS)
def test_an_answer_depends_on_no_batch_mate(name: str) -> None:
    target = wrapped(tiny(name), batch=64)
    alone = wrapped(tiny(name), batch=1)
    some = pictures(4, CAPTIONS)
    x = question(target)
    together, apart = (one.noise(x, TIMES, one.conditions(one.encode(some))) for one in (target, alone))
    order = [2, 0, 3, 1]
    turned = target.encode([some[row] for row in order])
    assert torch.allclose(together, apart, atol=1e-5)
    assert torch.allclose(turned.clean, target.encode(some).clean[order], atol=1e-5)
    assert torch.allclose(target.noise(x[order], TIMES[order], target.conditions(turned)), together[order], atol=1e-5)


@pytest.mark.parametrize("name", [one for one in BUILDERS if one not in ("ddpm", "ddim", "ldm")])
def test_captions_matter(name: str) -> None:
    target = wrapped(tiny(name))
    part = target.encode(pictures(4, CAPTIONS))
    own_, other = target.conditions(part), target.conditions(part, ["ostrich"] * 4)
    x = question(target)
    assert not torch.allclose(target.noise(x, TIMES, own_), target.noise(x, TIMES, other), atol=1e-3)
    with pytest.raises(TargetError, match="records have none"):
        target.check_records(pictures(2))


@pytest.mark.parametrize("name", BUILDERS)
def test_everything_is_made_where_the_model_is(name: str) -> None:
    """The meta device refuses tensors of the CPU as a GPU would."""
    pipeline, here = own(name), wrapped(tiny(name))
    with quiet():
        pipeline.to("meta")
    target = wrapped(pipeline)
    captions = ["a cat", "3"]
    with target.asking():
        clean = target.denoiser.encode(torch.zeros(2, 3, 16, 16, device="meta"))
        # transformers looks into T5's mask, which has no values here
        asked = (here if name.startswith("pixart") else target).denoiser.condition(captions)
        moved = {key: one.to("meta") for key, one in asked.items()}
        noise = target.predicted_noise(clean, TIMES[:2], moved)
    assert (clean.device.type, noise.device.type) == ("meta", "meta")
    assert noise.shape == clean.shape == (2, *target.denoiser.shape)


def test_classes_by_number_and_by_name() -> None:
    target = wrapped(tiny("dit"))
    said = ["3", "Tiger Shark", "tench", "tench, Tinca tinca", "9", "", "a bicycle", "12"]
    assert target.denoiser.condition(said)["class"].tolist() == [3, 3, 0, 0, 9, 10, 10, 10]


def test_a_distilled_network_is_told_scale_one() -> None:
    pipeline = own("sd1")
    pipeline.unet = conditioned(time_cond_proj_dim=9)
    target = wrapped(pipeline)
    x = question(target)
    text, _ = pipeline.encode_prompt(CAPTIONS, torch.device("cpu"), 1, False)
    told = pipeline.get_guidance_scale_embedding(torch.zeros(4), embedding_dim=9)
    with torch.no_grad():
        expected = pipeline.unet(x, TIMES, encoder_hidden_states=text, timestep_cond=told).sample
    conditions = target.conditions(target.encode(pictures(4, CAPTIONS)))
    assert torch.allclose(target.noise(x, TIMES, conditions), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["sd1", "sd3", "dit"])
def test_half_precision_stays_close(name: str) -> None:
    exact, target = wrapped(tiny(name)), wrapped(own(name).to(dtype=torch.bfloat16))
    before = {key: weight.clone() for key, weight in target.denoiser.pipeline.vae.state_dict().items()}
    some, x = pictures(4, CAPTIONS), question(exact)
    answers = [one.noise(x, TIMES, one.conditions(one.encode(some))) for one in (exact, target)]
    assert answers[1].dtype == torch.float32
    assert (answers[0] - answers[1]).square().mean() < 0.01 * answers[0].square().mean()
    assert (exact.encode(some).clean - target.encode(some).clean).abs().max() < 0.05
    after = target.denoiser.pipeline.vae.state_dict()
    assert all(weight.dtype == torch.bfloat16 and torch.equal(weight, before[key]) for key, weight in after.items())


def test_a_pipeline_that_is_not_known() -> None:
    from diffusers import StableDiffusionInpaintPipeline

    parts = {key: one for key, one in tiny("sd1").components.items() if key != "image_encoder"}
    pipeline = StableDiffusionInpaintPipeline(**parts, requires_safety_checker=False)
    with pytest.raises(TargetError, match=r"(?s)not known.*StableDiffusionXLPipeline.*found: +StableDiffusionInpaint"):
        wrapped(pipeline)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda one: setattr(one, "text_encoder", None), "text_encoder"),
        (lambda one: setattr(one, "vae", None), "vae"),
        (lambda one: one.unet.register_to_config(sample_size=(8, 4)), "not square"),
        (lambda one: one.unet.register_to_config(sample_size=None), "not square"),
        (lambda one: one.unet.register_to_config(in_channels=9), "something else than latents"),
        (lambda one: one.scheduler.register_to_config(prediction_type="score"), "parametrisation"),
    ],
)
def test_a_pipeline_that_lacks_something(change: Callable[[Any], None], said: str) -> None:
    pipeline = own("sd1")
    change(pipeline)
    with pytest.raises(TargetError, match=said):
        wrapped(pipeline)


def test_a_caption_that_names_no_class_is_not_taken_for_none() -> None:
    target = wrapped(tiny("dit"))
    assert target.encode(pictures(4, ["Tench", "tiger shark", "9", ""])).captions[0] == "Tench"
    with pytest.raises(
        TargetError, match=r"(?s)2 captions name no class.*0 to 9.*'Tinca tinca', 'tench'.*'tench-like', '11'"
    ):
        target.encode(pictures(4, ["tench-like", "ostrich", "11", "3"]))
    with pytest.raises(TargetError, match="a text of 60 characters") as refused:
        target.encode(pictures(2, ["private " * 7 + "text", "3"]))
    assert "private" not in str(refused.value)
