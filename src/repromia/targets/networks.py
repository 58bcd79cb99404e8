"""How the networks of latent pipelines are called: what each takes beside x and t."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

# network, x (row, channel, height, width), t (row,), conditions, size of the image -> its prediction
Ask = Callable[[Any, Tensor, Tensor, dict[str, Tensor], int], Tensor]


def unconditional(network: Any, x: Tensor, t: Tensor, conditions: dict[str, Tensor], size: int) -> Tensor:
    """`UNet2DModel`."""
    return cast(Tensor, network(x, t, return_dict=False)[0])


def unet(network: Any, x: Tensor, t: Tensor, conditions: dict[str, Tensor], size: int) -> Tensor:
    """`UNet2DConditionModel` with the embeddings of one text encoder."""
    return _conditioned(network, x, t, conditions, None)


def sized_unet(network: Any, x: Tensor, t: Tensor, conditions: dict[str, Tensor], size: int) -> Tensor:
    """SDXL's: told the pooled text, and that the image was neither resized nor cropped."""
    ids = torch.tensor([[size, size, 0, 0, size, size]], dtype=x.dtype, device=x.device).expand(len(x), -1)
    return _conditioned(network, x, t, conditions, {"text_embeds": conditions["pooled"], "time_ids": ids})


def _conditioned(network: Any, x: Tensor, t: Tensor, conditions: dict[str, Tensor], added: Any) -> Tensor:
    width = network.config.time_cond_proj_dim  # consistency distillation: told the guidance scale, less one
    guidance = None
    if width is not None:
        half = torch.zeros(len(x), width // 2, dtype=x.dtype, device=x.device)
        guidance = torch.cat([half, torch.ones_like(half), half[:, : width % 2]], 1)  # sines and cosines of zero
    text = conditions["text"]
    answer = network(
        x, t, encoder_hidden_states=text, timestep_cond=guidance, added_cond_kwargs=added, return_dict=False
    )
    return cast(Tensor, answer[0])


def dit(network: Any, x: Tensor, t: Tensor, conditions: dict[str, Tensor], size: int) -> Tensor:
    """`DiTTransformer2DModel`, told a class."""
    return cast(Tensor, network(x, timestep=t, class_labels=conditions["class"], return_dict=False)[0])


def pixart(network: Any, x: Tensor, t: Tensor, conditions: dict[str, Tensor], size: int) -> Tensor:
    """`PixArtTransformer2DModel`; told size and aspect ratio where it was trained to be."""
    added: dict[str, Tensor | None] = {"resolution": None, "aspect_ratio": None}
    if network.use_additional_conditions:
        one = torch.ones(len(x), 1, dtype=x.dtype, device=x.device)
        added = {"resolution": (one * size).expand(-1, 2), "aspect_ratio": one}
    answer = network(
        x,
        encoder_hidden_states=conditions["text"],
        encoder_attention_mask=conditions["mask"],
        timestep=t,
        added_cond_kwargs=added,
        return_dict=False,
    )
    return cast(Tensor, answer[0])


def stable_diffusion_3(network: Any, x: Tensor, t: Tensor, conditions: dict[str, Tensor], size: int) -> Tensor:
    """`SD3Transformer2DModel`; t lies in 0 to 1000."""
    answer = network(
        hidden_states=x,
        timestep=t,
        encoder_hidden_states=conditions["text"],
        pooled_projections=conditions["pooled"],
        return_dict=False,
    )
    return cast(Tensor, answer[0])


def flux(network: Any, x: Tensor, t: Tensor, conditions: dict[str, Tensor], size: int) -> Tensor:
    """`FluxTransformer2DModel`: 2 x 2 patches in a row with their positions; t lies in 0 to 1.

    A guidance-distilled one is told scale 1.
    """
    rows, channels, height, width = x.shape
    high, wide = height // 2, width // 2
    patches = x.reshape(rows, channels, high, 2, wide, 2).permute(0, 2, 4, 1, 3, 5).reshape(rows, high * wide, -1)
    grid = torch.cartesian_prod(torch.arange(1), torch.arange(high), torch.arange(wide))
    answer = network(
        hidden_states=patches,
        timestep=t / 1000,
        guidance=torch.ones(rows, device=x.device) if network.config.guidance_embeds else None,
        pooled_projections=conditions["pooled"],
        encoder_hidden_states=conditions["text"],
        txt_ids=torch.zeros(conditions["text"].shape[1], 3, dtype=x.dtype, device=x.device),
        img_ids=grid.to(x.device, x.dtype),
        return_dict=False,
    )
    flow = cast(Tensor, answer[0]).reshape(rows, high, wide, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return flow.reshape(rows, channels, height, width)
