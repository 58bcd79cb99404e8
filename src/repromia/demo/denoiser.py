"""Train a small denoiser from scratch: what the demo and the benchmarks audit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import UInt8

from repromia.progress import Progress, Silent

if TYPE_CHECKING:
    import torch
    from diffusers import DDPMPipeline, UNet2DModel

Images = UInt8[np.ndarray, "record height width channel"]
Augmentation = Literal["none", "flip", "shift", "flip+shift"]


@dataclass(frozen=True)
class Recipe:
    """How a denoiser is trained. ema: decay of the averaged weights; 0: the raw weights alone. attention: levels of the
    UNet that have it, beside the middle; schedule: of the step size; `warmup` steps rise to a constant one."""

    steps: int = 4000
    batch: int = 64
    rate: float = 1e-3
    channels: tuple[int, ...] = (16, 32, 64)
    augment: Augmentation = "none"
    ema: float = 0.999
    shift: int = 2  # most pixels that shift augmentation moves an image by
    blocks: int = 1
    attention: tuple[int, ...] = ()
    dropout: float = 0.0
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: int = 0


def train_denoiser(
    images: Images, recipe: Recipe, *, seed: int, progress: Progress | None = None
) -> tuple[DDPMPipeline, DDPMPipeline]:
    """A DDPM trained on these images alone, with its raw and with its averaged weights.

    Noise prediction, 1,000 linear steps from 1e-4 to .02, AdamW, gradients clipped at 1. Every random number comes from
    the seed but those of dropout. On a GPU where there is one.
    """
    import torch
    from diffusers import DDPMPipeline, DDPMScheduler
    from diffusers.training_utils import EMAModel

    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = unet_of(recipe, images.shape[1], images.shape[3])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    unet = unet.to(device)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
    optimiser = torch.optim.AdamW(unet.parameters(), lr=recipe.rate)
    schedule = _schedule(optimiser, recipe)
    ema = EMAModel(unet.parameters(), decay=recipe.ema) if recipe.ema else None
    unet.train()
    with (progress or Silent()).step("training the denoiser", recipe.steps) as bar:
        for _ in range(recipe.steps):
            rows = torch.randint(len(pixels), (recipe.batch,), generator=generator)
            clean = _augmented(pixels[rows], recipe, generator)
            noise = torch.randn(clean.shape, generator=generator)
            t = torch.randint(1000, (recipe.batch,), generator=generator)
            predicted = unet(scheduler.add_noise(clean, noise, t).to(device), t.to(device)).sample
            loss = (predicted - noise.to(device)).square().mean()
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            if ema is not None:
                ema.step(unet.parameters())
            bar.advance()
    averaged = unet_of(recipe, images.shape[1], images.shape[3]).to(device)
    averaged.load_state_dict(unet.state_dict())
    if ema is not None:
        ema.copy_to(averaged.parameters())
    return DDPMPipeline(unet.cpu().eval(), scheduler), DDPMPipeline(averaged.cpu().eval(), scheduler)


def _schedule(optimiser: torch.optim.Optimizer, recipe: Recipe) -> torch.optim.lr_scheduler.LRScheduler:
    from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR

    if recipe.schedule == "cosine":
        return CosineAnnealingLR(optimiser, recipe.steps)
    return LambdaLR(optimiser, lambda step: min(1.0, (step + 1) / (recipe.warmup or 1)))


def unet_of(recipe: Recipe, size: int, channels: int) -> UNet2DModel:
    """The recipe's convolutional UNet, with attention in the middle."""
    from diffusers import UNet2DModel

    levels = range(len(recipe.channels))
    down = tuple("AttnDownBlock2D" if level in recipe.attention else "DownBlock2D" for level in levels)
    up = tuple("AttnUpBlock2D" if level in recipe.attention else "UpBlock2D" for level in reversed(levels))
    return UNet2DModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=recipe.blocks,
        block_out_channels=recipe.channels,
        down_block_types=down,
        up_block_types=up,
        norm_num_groups=8,
        attention_head_dim=8,
        dropout=recipe.dropout,
    )


def _augmented(clean: torch.Tensor, recipe: Recipe, generator: torch.Generator) -> torch.Tensor:
    import torch

    if "flip" in recipe.augment:
        flipped = torch.rand(len(clean), generator=generator) < 0.5
        clean = torch.where(flipped[:, None, None, None], clean.flip(-1), clean)
    if "shift" in recipe.augment:
        far, size = recipe.shift, clean.shape[-1]
        padded = torch.nn.functional.pad(clean, (far,) * 4, mode="replicate")
        corners = torch.randint(2 * far + 1, (len(clean), 2), generator=generator).tolist()
        clean = torch.stack([one[:, y : y + size, x : x + size] for one, (y, x) in zip(padded, corners, strict=True)])
    return clean
