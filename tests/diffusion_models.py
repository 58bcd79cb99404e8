"""Tiny diffusers pipelines with random weights: every class that is known, as a user would have it."""

from __future__ import annotations

import copy
import string
from collections.abc import Callable, Sequence
from functools import cache
from hashlib import blake2b
from typing import Any

import diffusers
import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from repromia.records import FileFacts, Picture
from repromia.targets.diffusion import DiffusionModel
from repromia.targets.pipelines import DiffusionOptions, quiet, wrap_pipeline

SIZE = 16  # pixels; the autoencoder halves it
LETTERS = string.ascii_lowercase
CLASSES = {  # of the DiT; captions that tests ask every pipeline with are among them
    0: "tench, Tinca tinca",
    1: "a cat",
    2: "a dog",
    3: "tiger shark",
    4: "the moon",
    5: "on the moon",
    6: "a dog on the red moon which is far too long to fit",
    9: "ostrich",
}


def picture(pixels: np.ndarray, caption: str = "") -> Picture:
    """An image that was never a file."""
    height, width, channels = pixels.shape
    digest = blake2b(np.ascontiguousarray(pixels).tobytes(), digest_size=8).hexdigest()
    return Picture(digest, FileFacts("array", width, height, channels), caption, pixels)


def pictures(count: int, captions: Sequence[str] = ("",), size: int = SIZE, channels: int = 3) -> list[Picture]:
    """Images of noise with captions in turn."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, size, size, channels), dtype=np.uint8)
    return [picture(one, captions[row % len(captions)]) for row, one in enumerate(pixels)]


def wrapped(pipeline: Any, **options: Any) -> DiffusionModel:
    """The pipeline as a target."""
    return wrap_pipeline(pipeline, options=DiffusionOptions(**options))


def filled(module: Any, seed: int = 0) -> Any:
    """The module with every weight away from zero (transformers start with silent gates), ready to be asked."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            spread = torch.randn(weight.shape, generator=generator)
            weight.copy_(1 + 0.1 * spread if weight.dim() == 1 and "weight" in name else 0.15 * spread)
    return module.eval()


def clip_tokenizer() -> CLIPTokenizer:
    """Letters, alone and at the end of a word."""
    vocabulary = [*LETTERS, *(f"{one}</w>" for one in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    ids = {token: number for number, token in enumerate(vocabulary)}
    return CLIPTokenizer(vocab=ids, merges=[], unk_token="<|endoftext|>", model_max_length=16)  # noqa: S106


def t5_tokenizer() -> PreTrainedTokenizerFast:
    """Letters."""
    vocabulary = {token: number for number, token in enumerate(["<pad>", "</s>", "<unk>", *LETTERS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))  # noqa: S106
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=512, **special)


def _clip(projected: bool, seed: int) -> Any:
    config = CLIPTextConfig(
        vocab_size=54,
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=16,
        projection_dim=32,
        bos_token_id=52,
        eos_token_id=53,
        pad_token_id=53,
    )
    return filled((CLIPTextModelWithProjection if projected else CLIPTextModel)(config), seed)


def _t5(seed: int) -> Any:
    settings = {"vocab_size": 29, "d_model": 32, "d_kv": 8, "d_ff": 37, "num_layers": 2, "num_heads": 4}
    return filled(T5EncoderModel(T5Config(**settings, dropout_rate=0.1)), seed)


def _vae(seed: int = 1, **changes: Any) -> Any:
    settings = {
        "block_out_channels": (8, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "latent_channels": 4,
        "norm_num_groups": 4,
        "sample_size": SIZE,
        **changes,
    }
    return filled(diffusers.AutoencoderKL(**settings), seed)


def conditioned(**changes: Any) -> Any:
    """A small UNet that looks at embeddings."""
    settings = {
        "sample_size": SIZE // 2,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": 32,
        "attention_head_dim": 4,
        **changes,
    }
    return filled(diffusers.UNet2DConditionModel(**settings))


def unet(channels: int = 3, size: Any = SIZE, seed: int = 0, **changes: Any) -> Any:
    """A small unconditional UNet."""
    settings = {
        "sample_size": size,
        "in_channels": channels,
        "out_channels": channels,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": 8,
        **changes,
    }
    return filled(diffusers.UNet2DModel(**settings), seed)


def ddpm(**schedule: Any) -> Any:
    """Pixels."""
    return diffusers.DDPMPipeline(unet(), diffusers.DDPMScheduler(**schedule))


def ddim(**schedule: Any) -> Any:
    """Pixels, another class."""
    return diffusers.DDIMPipeline(unet(), diffusers.DDIMScheduler(**schedule))


def ldm() -> Any:
    """Unconditional latents of a quantised autoencoder."""
    settings = {
        "block_out_channels": (8, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "latent_channels": 3,
        "norm_num_groups": 4,
        "num_vq_embeddings": 16,
        "scaling_factor": 0.7,
    }
    vqvae = filled(diffusers.VQModel(**settings), 1)
    return diffusers.LDMPipeline(vqvae=vqvae, unet=unet(size=SIZE // 2), scheduler=diffusers.DDIMScheduler())


def stable_diffusion(prediction: str = "epsilon", **changes: Any) -> Any:
    """One text encoder; v_prediction as in version 2."""
    return diffusers.StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=_clip(False, 2),
        tokenizer=clip_tokenizer(),
        unet=conditioned(**changes),
        scheduler=diffusers.PNDMScheduler(
            prediction_type=prediction, beta_schedule="scaled_linear", steps_offset=1, skip_prk_steps=True
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_diffusion_xl(**latents: Any) -> Any:
    """Two text encoders and the size of the image."""
    return diffusers.StableDiffusionXLPipeline(
        vae=_vae(scaling_factor=0.13025, **latents),
        text_encoder=_clip(False, 2),
        text_encoder_2=_clip(True, 3),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        unet=conditioned(
            cross_attention_dim=64,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=32 + 6 * 8,
        ),
        scheduler=diffusers.EulerDiscreteScheduler(beta_schedule="scaled_linear"),
        add_watermarker=False,
    )


def _transformer(**changes: Any) -> dict[str, Any]:
    return {
        "sample_size": SIZE // 2,
        "patch_size": 2,
        "in_channels": 4,
        "out_channels": 8,
        "num_layers": 2,
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        **changes,
    }


def dit() -> Any:
    """Ten classes, a learned variance."""
    return diffusers.DiTPipeline(
        filled(diffusers.DiTTransformer2DModel(**_transformer(num_embeds_ada_norm=10))),
        _vae(),
        diffusers.DDIMScheduler(),
        id2label=CLASSES,
    )


def _pixart(kind: Any, scheduler: Any, sized: bool, size: int = SIZE // 2) -> Any:
    width = {"num_attention_heads": 3, "cross_attention_dim": 24, "caption_channels": 32}
    settings = _transformer(**width, use_additional_conditions=sized, sample_size=size)
    network = filled(diffusers.PixArtTransformer2DModel(**settings))
    return kind(tokenizer=t5_tokenizer(), text_encoder=_t5(2), vae=_vae(), transformer=network, scheduler=scheduler)


def pixart_alpha(size: int = SIZE // 2) -> Any:
    """Told its size."""
    return _pixart(diffusers.PixArtAlphaPipeline, diffusers.DPMSolverMultistepScheduler(), True, size)


def pixart_sigma() -> Any:
    """Not told."""
    return _pixart(diffusers.PixArtSigmaPipeline, diffusers.DDPMScheduler(), False)


def stable_diffusion_3() -> Any:
    """A flow, three encoders."""
    network = diffusers.SD3Transformer2DModel(
        **_transformer(out_channels=4, joint_attention_dim=64, caption_projection_dim=16, pooled_projection_dim=64),
        pos_embed_max_size=8,
    )
    return diffusers.StableDiffusion3Pipeline(
        transformer=filled(network),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_vae(scaling_factor=1.5, shift_factor=0.06),
        text_encoder=_clip(True, 2),
        tokenizer=clip_tokenizer(),
        text_encoder_2=_clip(True, 3),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=_t5_wide(),
        tokenizer_3=t5_tokenizer(),
    )


def _t5_wide() -> Any:
    settings = {"vocab_size": 29, "d_model": 64, "d_kv": 8, "d_ff": 37, "num_layers": 2, "num_heads": 4}
    return filled(T5EncoderModel(T5Config(**settings)), 4)


def flux(guidance: bool = True) -> Any:
    """A flow of packed latents, guidance-distilled or not."""
    network = diffusers.FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=guidance,
    )
    pipeline = diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=_vae(scaling_factor=0.36, shift_factor=0.11),
        text_encoder=_clip(False, 2),
        tokenizer=clip_tokenizer(),
        text_encoder_2=_t5(3),
        tokenizer_2=t5_tokenizer(),
        transformer=filled(network),
    )
    pipeline.default_sample_size = SIZE // 2
    return pipeline


BUILDERS: dict[str, Callable[[], Any]] = {
    "ddpm": ddpm,
    "ddim": ddim,
    "ldm": ldm,
    "sd1": stable_diffusion,
    "sd2": lambda: stable_diffusion("v_prediction"),
    "sdxl": stable_diffusion_xl,
    "dit": dit,
    "pixart-alpha": pixart_alpha,
    "pixart-sigma": pixart_sigma,
    "sd3": stable_diffusion_3,
    "flux-dev": flux,
    "flux-schnell": lambda: flux(guidance=False),
}


@cache
def tiny(name: str) -> Any:
    """A pipeline that tests share: copy it before changing it."""
    with quiet():
        return BUILDERS[name]()


def own(name: str) -> Any:
    """A pipeline of one's own."""
    return copy.deepcopy(tiny(name))


def with_lora(pipeline: Any, text: bool = False, scale: float = 0.3) -> Any:
    """The pipeline with LoRA that changes its answers (PEFT starts at no change)."""
    network = "unet" if hasattr(pipeline, "unet") else "transformer"
    config = LoraConfig(r=2, lora_alpha=4, target_modules=["to_q", "to_v", "q_proj"])
    generator = torch.Generator().manual_seed(7)
    for name in [network, *(["text_encoder"] if text else [])]:
        part = getattr(pipeline, name)
        if hasattr(part, "add_adapter"):
            part.add_adapter(config)
        else:  # diffusers knows no LoRA of PixArt: PEFT is wrapped around it
            part = get_peft_model(part, config)
            setattr(pipeline, name, part)
        with torch.no_grad():
            for weight_name, weight in part.named_parameters():
                if "lora_" in weight_name:
                    weight.copy_(scale * torch.randn(weight.shape, generator=generator))
        part.eval()
    return pipeline
