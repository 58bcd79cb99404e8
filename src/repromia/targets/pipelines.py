"""Diffusers pipelines, and anything that can be called, as denoisers."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float, Num
from torch import Tensor

from repromia.errors import TargetError
from repromia.targets.devices import device_named
from repromia.targets.diffusion import LINEAR, Conditions, Denoiser, DiffusionModel, Prediction
from repromia.targets.pixels import Resize

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class DiffusionOptions:
    """How a pipeline is loaded and asked.

    variant: other weights of the same folder: a diffusers variant (such as non_ema), or a sibling folder such as
    unet_ema. base: the pipeline that a folder of LoRA weights belongs to. batch: evaluations in one forward pass.
    """

    dtype: str = "auto"
    device: str = ""
    variant: str = ""
    revision: str = ""
    base: str = ""
    trust_remote_code: bool = False
    resize: Resize = "crop"
    batch: int = 64


@dataclass
class PixelDenoiser:
    """A network that denoises pixels in [-1, 1]: `UNet2DModel` of DDPM, DDIM and kin, or any callable.

    predict_with: called with x and t, returns a tensor or an object with `.sample`.
    """

    shape: tuple[int, int, int]
    prediction: Prediction
    alphas: Float[Tensor, " timestep"] | None
    predict_with: Callable[..., Any]
    modules: dict[str, torch.nn.Module] = field(default_factory=dict)
    settings: str = ""
    conditional: bool = False
    pixels: tuple[int, int] = field(init=False)

    def __post_init__(self) -> None:
        self.pixels = self.shape[0], self.shape[1]

    def encode(self, pixels: Float[Tensor, "record channel height width"]) -> Tensor:
        """The pixels themselves."""
        return pixels

    def condition(self, captions: Sequence[str]) -> Conditions:
        """Nothing: the model knows no captions."""
        return {}

    def check_captions(self, captions: Sequence[str]) -> None:
        """Nothing to check."""

    def predict(self, x: Tensor, t: Num[Tensor, " row"], conditions: Conditions) -> Tensor:
        """The network's own prediction; of a learned variance, which comes behind it, nothing is used."""
        dtype = next((weight.dtype for one in self.modules.values() for weight in one.parameters()), x.dtype)
        answer = self.predict_with(x.to(dtype), t)
        return cast(Tensor, getattr(answer, "sample", answer))[:, : self.shape[0]]


def load_diffusion_model(path: str, options: DiffusionOptions, *, name: str = "") -> DiffusionModel:
    """A frozen target from a diffusers pipeline folder, LoRA weights, or a hub id. Raises TargetError.

    A path on disk never touches the network; weights are read from safetensors only.
    """
    from repromia.targets.pipeline_files import load_lora, load_pipeline

    lora = lora_file(Path(path))
    if lora is not None and not options.base:
        raise TargetError(
            f"{path!r} holds LoRA weights without the pipeline they belong to.",
            hint="name it with --base",
        )
    pipeline = load_pipeline(options.base if lora is not None else path, options)
    if lora is not None:
        load_lora(pipeline, lora)
    pipeline.to(device_named(options.device))
    target = wrap_pipeline(pipeline, options=options, name=name or path)
    for module in target.denoiser.modules.values():
        module.eval().requires_grad_(False)
    return target


def wrap_pipeline(pipeline: Any, *, options: DiffusionOptions | None = None, name: str = "target") -> DiffusionModel:
    """A live diffusers pipeline as a target. The pipeline is not changed. Raises TargetError."""
    options = options or DiffusionOptions()
    return DiffusionModel(denoiser_of(pipeline, name), name, options.batch, options.resize)


def wrap_callable(
    predict: Callable[[Tensor, Tensor], Any],
    *,
    shape: tuple[int, int, int],
    prediction: Prediction = "epsilon",
    alphas: Float[Tensor, " timestep"] | None = None,
    resize: Resize = "crop",
    batch: int = 64,
    name: str = "target",
) -> DiffusionModel:
    """Anything that denoises pixels in [-1, 1] as a target. Raises TargetError where its answer has another shape.

    predict: called with x (row, channel, height, width) and t (row,), answers as `prediction` says, with a tensor or
    an object with `.sample`. t: the timestep's index, or 1000 times the share of noise for a flow. alphas: share of
    the clean image's variance at each timestep; without it the linear schedule of Ho et al. (2020).
    A torch module is hashed by its weights and code; of anything else the answer to one fixed question tells whether it
    changed.
    """
    square_size(shape[1:], name)
    owner = getattr(predict, "__self__", predict)
    modules = {"model": owner} if isinstance(owner, torch.nn.Module) else {}
    schedule = None if prediction == "flow" else LINEAR if alphas is None else alphas
    denoiser = PixelDenoiser(shape, prediction, schedule, predict, modules)
    target = DiffusionModel(denoiser, name, batch, resize)
    question = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)).to(target.device)
    with target.asking():
        t = torch.tensor([0, target.steps // 2], device=target.device)
        answer, again = (denoiser.predict(question, t, {}) for _ in range(2))
    if answer.shape != question.shape:
        raise TargetError(
            f"{name} answers with another shape than it is asked with.",
            expected=str(tuple(question.shape)),
            found=str(tuple(answer.shape)),
        )
    if not torch.allclose(answer, again, rtol=1e-3, atol=1e-4):
        raise TargetError(
            f"{name} answers the same question differently each time.",
            expected="a network in eval mode",
            hint="call network.eval() first, or pass the torch module itself in place of a function",
        )
    called = getattr(predict, "__name__", "")  # of a method; its code is hashed with the module
    denoiser.settings = called if modules else sha256(answer.double().cpu().numpy().tobytes()).hexdigest()
    return target


def denoiser_of(pipeline: Any, name: str) -> Denoiser:
    """What a pipeline denoises with. Raises TargetError for one that is not known."""
    from diffusers import UNet2DModel

    unet: Any = getattr(pipeline, "unet", None)
    plain = unet.get_base_model() if hasattr(unet, "get_base_model") else unet  # PEFT around it
    if isinstance(plain, UNet2DModel) and not hasattr(pipeline, "vae") and not hasattr(pipeline, "vqvae"):
        if plain.config.num_class_embeds is not None or plain.config.class_embed_type is not None:
            raise TargetError(
                f"{name} denoises pixels of a class that it must be told.",
                expected="an unconditional UNet, or a text-conditional or class-conditional latent pipeline",
                hint="wrap it with repromia.targets.pipelines.wrap_callable, which fixes the class",
            )
        size = square_size(plain.config.sample_size, name)
        return PixelDenoiser(
            (plain.config.in_channels, size, size),
            prediction_of(pipeline.scheduler, name),
            alphas_of(pipeline.scheduler, name),
            unet,
            {"unet": unet},
            settings_of(plain),
        )
    from repromia.targets.latent import latent_denoiser

    return latent_denoiser(pipeline, name)


def square_size(stated: Any, name: str) -> int:
    """Height and width as one number. Raises TargetError unless a config states a square."""
    sides = {stated} if isinstance(stated, int) else set(stated or ())
    if len(sides) != 1:
        raise TargetError(f"{name} denoises images that are not square.", found=f"sample_size {stated}")
    return int(sides.pop())


def prediction_of(scheduler: Any, name: str) -> Prediction:
    """The parametrisation that a scheduler states; a flow-matching scheduler means a flow."""
    if "FlowMatch" in type(scheduler).__name__:
        return "flow"
    found = getattr(scheduler.config, "prediction_type", "epsilon")
    if found == "flow_prediction":
        return "flow"
    if found not in ("epsilon", "v_prediction", "sample"):
        raise TargetError(
            f"{name} has a parametrisation that is not known.",
            expected="epsilon, v_prediction, sample, or a flow-matching scheduler",
            found=repr(found),
        )
    return cast(Prediction, found)


def alphas_of(scheduler: Any, name: str) -> Float[Tensor, " timestep"] | None:
    """Shares of the clean image's variance by timestep; None for a flow."""
    if prediction_of(scheduler, name) == "flow":
        return None
    alphas = getattr(scheduler, "alphas_cumprod", None)
    if not isinstance(alphas, Tensor):
        raise TargetError(
            f"{name} has a noise schedule that is not known.",
            expected="a scheduler with alphas_cumprod (DDPM, DDIM, PNDM, DPM++, …) or a flow-matching one",
            found=type(scheduler).__name__,
            hint="save the pipeline with the scheduler it was trained with, such as DDPMScheduler",
        )
    return alphas.clamp(min=2**-24)  # zero terminal SNR; as diffusers' own Euler schedulers do


def settings_of(module: Any) -> str:
    """The architecture as text, for fingerprints."""
    settings = {key: value for key, value in dict(module.config).items() if not key.startswith("_")}
    return json.dumps(settings, sort_keys=True, default=str)


def is_pipeline(path: str) -> bool:
    """Whether a folder holds a diffusers pipeline or LoRA weights of one."""
    return (Path(path) / "model_index.json").is_file() or lora_file(Path(path)) is not None


def lora_file(folder: Path) -> Path | None:
    """LoRA weights in diffusers' layout, given as their folder or the file itself."""
    if folder.is_file() and folder.suffix == ".safetensors":
        return folder
    usual = folder / "pytorch_lora_weights.safetensors"
    return usual if usual.is_file() else None


@contextmanager
def quiet() -> Iterator[None]:
    """Without progress bars, log lines and warnings of diffusers and transformers: what is wrong is raised."""
    from diffusers.utils import logging

    logs = [logging]
    if "transformers" in sys.modules:  # a pipeline of pixels does without
        from transformers.utils import logging as transformers_logging

        logs.append(transformers_logging)
    before = [(one, one.get_verbosity(), one.is_progress_bar_enabled()) for one in logs]
    for one in logs:
        one.set_verbosity_error()
        one.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, level, bars in before:
            one.set_verbosity(level)
            if bars:
                one.enable_progress_bar()
