"""Pipelines that denoise latents: VAE and text encoders around a UNet or a transformer.

What a pipeline's own __call__ does at guidance scale 1 is done here, once for each family of pipelines.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal, cast

import torch
from jaxtyping import Float, Num
from torch import Tensor

from repromia.errors import TargetError
from repromia.targets import networks, prompts
from repromia.targets.diffusion import Conditions, Denoiser, Prediction
from repromia.targets.fingerprint import tokenizer_state
from repromia.targets.networks import Ask
from repromia.targets.pipelines import alphas_of, prediction_of, quiet, settings_of, square_size

PIXELS_AT_ONCE = 2**19  # for the VAE, whose activations are far larger than what it gives back


@dataclass(frozen=True)
class Family:
    """What pipelines of one kind share.

    network: the attribute that denoises; ask: how it is called; captions: what a caption becomes (None: nothing is
    asked for); autoencoder: the attribute that encodes; scaling: how its latents are brought to unit variance;
    packed: pixels of the latent, by side, that the network takes as one.
    """

    network: Literal["unet", "transformer"]
    ask: Ask
    captions: Callable[[Any, list[str]], Conditions] | None
    autoencoder: Literal["vae", "vqvae"] = "vae"
    scaling: Literal["scale", "shift", "standardise"] = "scale"
    packed: int = 1


FAMILIES = {
    "StableDiffusionPipeline": Family("unet", networks.unet, prompts.one_encoder),
    "StableDiffusionXLPipeline": Family("unet", networks.sized_unet, prompts.pooled, scaling="standardise"),
    "DiTPipeline": Family("transformer", networks.dit, prompts.class_ids),
    "PixArtAlphaPipeline": Family("transformer", networks.pixart, prompts.masked),
    "PixArtSigmaPipeline": Family("transformer", networks.pixart, prompts.masked),
    "StableDiffusion3Pipeline": Family("transformer", networks.stable_diffusion_3, prompts.three, scaling="shift"),
    "FluxPipeline": Family("transformer", networks.flux, prompts.flux, scaling="shift", packed=2),
    "LDMPipeline": Family("unet", networks.unconditional, None, autoencoder="vqvae"),
}


@dataclass
class LatentDenoiser:
    """The network of a latent pipeline, asked as the pipeline itself would ask it at guidance scale 1."""

    pipeline: Any
    family: Family
    shape: tuple[int, int, int]
    pixels: tuple[int, int]
    prediction: Prediction
    alphas: Float[Tensor, " timestep"] | None
    modules: dict[str, torch.nn.Module]
    settings: str
    conditional: bool

    def encode(self, pixels: Float[Tensor, "record channel height width"]) -> Tensor:
        """The mean latents, scaled as the pipeline scales them."""
        vae = getattr(self.pipeline, self.family.autoencoder)
        rows = max(1, PIXELS_AT_ONCE // self.pixels[1] ** 2)
        return torch.cat([self._scaled(latents_of(vae, one), vae.config) for one in torch.split(pixels, rows)])

    def _scaled(self, latents: Tensor, config: Any) -> Tensor:
        factor = float(config.scaling_factor)
        if self.family.scaling == "shift":
            return (latents - (config.shift_factor or 0.0)) * factor
        mean, deviation = config.get("latents_mean"), config.get("latents_std")
        if self.family.scaling == "standardise" and mean is not None and deviation is not None:
            mean, deviation = (torch.tensor(one, device=latents.device)[:, None, None] for one in (mean, deviation))
            return (latents - mean) * factor / deviation
        return latents * factor

    def condition(self, captions: Sequence[str]) -> Conditions:
        """Embeddings of captions, masks among them, or class ids; nothing for an unconditional model."""
        if self.family.captions is None:
            return {}
        with quiet():  # what is too long for the encoder is cut, as in training
            return self.family.captions(self.pipeline, list(captions))

    def check_captions(self, captions: Sequence[str]) -> None:
        """Raises TargetError for captions that the model would take for none."""
        if self.family.captions is prompts.class_ids:
            prompts.check_classes(self.pipeline, captions)

    def predict(self, x: Tensor, t: Num[Tensor, " row"], conditions: Conditions) -> Tensor:
        """The network's own prediction; of a learned variance, which comes behind it, nothing is used."""
        network = getattr(self.pipeline, self.family.network)
        dtype = next(network.parameters()).dtype
        own = {name: one.to(dtype) if one.is_floating_point() else one for name, one in conditions.items()}
        return self.family.ask(network, x.to(dtype), t, own, self.pixels[1])[:, : self.shape[0]]


def latent_denoiser(pipeline: Any, name: str) -> Denoiser:
    """What a latent pipeline denoises with. Raises TargetError for one that is not known or lacks a part."""
    classes = [one.__name__ for one in type(pipeline).__mro__]
    family = next((FAMILIES[one] for one in classes if one in FAMILIES), None)
    if family is None:
        raise TargetError(
            f"{name} is a pipeline that is not known.",
            expected=f"a pipeline of pixels (DDPM, DDIM), or one of {', '.join(FAMILIES)}",
            found=classes[0],
            hint="wrap its denoiser with repromia.targets.pipelines.wrap_callable",
        )
    network: Any = getattr(pipeline, family.network, None)
    vae: Any = getattr(pipeline, family.autoencoder, None)
    text = family.captions not in (None, prompts.class_ids)
    lacking: list[str] = [family.network] * (network is None) + [family.autoencoder] * (vae is None)
    lacking += ["text_encoder"] * (text and getattr(pipeline, "text_encoder", None) is None)
    if lacking:
        raise TargetError(f"{name} lacks a part.", expected=", ".join(lacking), hint="load the whole pipeline")
    size, channels = _latent_size(pipeline, family, name), network.config.in_channels // family.packed**2
    if channels != vae.config.latent_channels or size % family.packed:
        raise TargetError(
            f"{name} denoises something else than latents of its autoencoder.",
            expected=f"{vae.config.latent_channels} channels",
            found=f"{channels} channels of {size} x {size}",
            hint="pipelines that paint into or vary a given image are not known",
        )
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    modules = {one: getattr(pipeline, one, None) for one in (family.network, family.autoencoder, *_ENCODERS)}
    return LatentDenoiser(
        pipeline,
        family,
        (channels, size, size),
        (vae.config.in_channels, size * factor),
        prediction_of(pipeline.scheduler, name),
        alphas_of(pipeline.scheduler, name),
        {one: module for one, module in modules.items() if module is not None},
        _settings(pipeline, network, vae),
        family.captions is not None,
    )


_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")


def latents_of(vae: Any, pixels: Float[Tensor, "record channel height width"]) -> Tensor:
    """The mean of what an autoencoder makes of images, in float32; computed in float32 where the VAE asks for it."""
    dtype = next(vae.parameters()).dtype
    upcast = bool(vae.config.get("force_upcast")) and dtype != torch.float32
    with quiet():  # diffusers warns of every change of dtype
        try:
            if upcast:  # exact there and back: float32 holds every number of a smaller type
                vae.to(torch.float32)
            found = vae.encode(pixels.to(torch.float32 if upcast else dtype))
        finally:
            if upcast:
                vae.to(dtype)
    return cast(Tensor, found.latent_dist.mode() if hasattr(found, "latent_dist") else found.latents).float()


def _latent_size(pipeline: Any, family: Family, name: str) -> int:
    config: Any = getattr(pipeline, family.network).config
    # Flux's transformer has no size of its own
    return square_size(config.get("sample_size") or getattr(pipeline, "default_sample_size", None), name)


def _settings(pipeline: Any, network: Any, vae: Any) -> str:
    """What beside the weights decides the answers: architectures, tokenizers, names of classes."""
    tokenizers = [getattr(pipeline, one, None) for one in ("tokenizer", "tokenizer_2", "tokenizer_3")]
    said = [settings_of(network), settings_of(vae), json.dumps(getattr(pipeline, "labels", {}), sort_keys=True)]
    said += [tokenizer_state(one) + str(one.model_max_length) for one in tokenizers if one is not None]
    return f"{type(pipeline).__name__} {blake2b(chr(0).join(said).encode(), digest_size=16).hexdigest()}"
