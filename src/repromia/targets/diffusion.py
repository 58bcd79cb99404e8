"""A diffusion model as a target: whatever its pipeline, it is asked for the noise in x_t."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from repromia.errors import TargetError
from repromia.records import Content, Picture
from repromia.targets.adapters import adapter_layers, adapter_state, adapters_off, check_separable
from repromia.targets.devices import full_float32
from repromia.targets.fingerprint import add_computation, add_weights
from repromia.targets.pixels import Resize, fitted

Prediction = Literal["epsilon", "v_prediction", "sample", "flow"]
Conditions = dict[str, Tensor]  # by the denoiser's own names, one row a record
PART_FLOATS = 2**23  # of clean images in one part of the records: what is held in memory at once


@runtime_checkable  # shapes are checked in the test run
class Denoiser(Protocol):
    """What differs between pipelines (see `repromia.targets.pipelines`).

    shape: channels, height and width of what is denoised (pixels or latents); pixels: channels and size of an image.
    prediction: what the network predicts; alphas: share of the clean image's variance left at each timestep (None: a
    flow, which is asked on the standard linear schedule). modules: everything whose weights decide the answers.
    """

    shape: tuple[int, int, int]
    pixels: tuple[int, int]
    prediction: Prediction
    alphas: Float[Tensor, " timestep"] | None
    modules: dict[str, torch.nn.Module]
    conditional: bool

    def encode(self, pixels: Float[Tensor, "record channel height width"]) -> Tensor:
        """What is denoised, from pixels in [-1, 1]: the pixels themselves, or latents (mean, scaled)."""
        ...

    def condition(self, captions: Sequence[str]) -> Conditions:
        """What captions (or class names) become; nothing for an unconditional model."""
        ...

    def check_captions(self, captions: Sequence[str]) -> None:
        """Raises TargetError for captions of records that the model cannot be asked with."""
        ...

    def predict(self, x: Tensor, t: Num[Tensor, " row"], conditions: Conditions) -> Tensor:
        """The network's own prediction. t: the timestep as the network takes it."""
        ...


@dataclass(frozen=True)
class Part:
    """Some records as the denoiser sees them, and what it was already asked about them.

    clean: x_0 on the CPU; columns: mean second and fourth powers by what was asked; predictions: whole answers that
    several attacks start from.
    """

    key: str
    clean: Float[Tensor, "record channel height width"]
    captions: tuple[str, ...]
    conditions: dict[str, Conditions] = field(default_factory=dict)
    columns: dict[tuple[Any, ...], tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    predictions: dict[tuple[Any, ...], Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.clean)


@dataclass
class DiffusionModel:
    """A frozen diffusion model and how it is asked.

    batch: denoiser evaluations in one forward pass; halved by itself when memory runs out. resize: what becomes of
    images of another size. adapter: False asks with LoRA switched off. asked: evaluations so far.
    The weights are never changed, and training mode is restored to what it was after every call.
    """

    denoiser: Denoiser
    name: str = "target"
    batch: int = 64
    resize: Resize = "crop"
    adapter: bool = True
    asked: int = field(default=0, compare=False)
    _fingerprint: str = field(default="", compare=False)
    _part: Part | None = field(default=None, compare=False, repr=False)

    modality = "diffusion"

    def __post_init__(self) -> None:
        if self.denoiser.prediction not in get_args(Prediction):
            raise TargetError(
                f"{self.name} has a parametrisation that is not known.",
                expected=f"one of {', '.join(get_args(Prediction))}",
                found=repr(self.denoiser.prediction),
            )
        alphas = LINEAR if self.denoiser.alphas is None else self.denoiser.alphas.double().cpu()
        if alphas.ndim != 1 or not len(alphas) or not ((alphas > 0) & (alphas <= 1)).all() or (alphas.diff() > 0).any():
            raise TargetError(
                f"{self.name} has a noise schedule that is not one.",
                expected="shares of the clean image's variance that fall from 1 towards 0",
                found=f"{tuple(alphas.shape)} values: {[round(float(one), 4) for one in alphas.flatten()[:4]]}",
            )
        self.alphas = alphas

    @property
    def defences(self) -> tuple[str, ...]:
        """What stands between the model and whoever asks it."""
        return tuple(getattr(self.denoiser, "defences", ()))

    @property
    def passes(self) -> int:
        """Forward passes that an evaluation takes: more than one behind input smoothing."""
        found: int = getattr(self.denoiser, "passes", 1)
        return found

    @property
    def steps(self) -> int:
        """Timesteps of the schedule."""
        return len(self.alphas)

    @property
    def device(self) -> torch.device:
        """Where the denoiser is."""
        weights = [weight for module in self.denoiser.modules.values() for weight in module.parameters()]
        return weights[0].device if weights else torch.device("cpu")

    @property
    def fingerprint(self) -> str:
        """Hash of weights, what is computed with them, schedule, parametrisation, adapter state and how images are
        fitted."""
        if not self._fingerprint:
            hasher = blake2b(digest_size=16)
            about = self.denoiser
            on = adapter_state(about.modules.values())
            policy = (about.shape, about.pixels, about.prediction, about.conditional, self.resize, self.adapter)
            hasher.update(repr((type(about).__name__, policy, getattr(about, "settings", ""), on)).encode())
            hasher.update(self.alphas.numpy().tobytes())
            for name, module in sorted(about.modules.items()):
                hasher.update(name.encode())
                add_computation(hasher, module)
                add_weights(hasher, module)
            self._fingerprint = hasher.hexdigest()
        return self._fingerprint

    @property
    def has_adapter(self) -> bool:
        """Whether LoRA or another PEFT adapter sits on any part of the model."""
        return bool(adapter_layers(self.denoiser.modules.values()))

    def base(self) -> DiffusionModel:
        """The same model with its adapter switched off: a reference at no cost in memory. Raises TargetError."""
        check_separable(self.denoiser.modules.values(), self.name)
        return replace(self, adapter=False, name=f"{self.name} (adapter off)", asked=0, _fingerprint="", _part=None)

    def describe(self) -> dict[str, Any]:
        """What a reader of the report needs to know about this model."""
        weights = [weight for module in self.denoiser.modules.values() for weight in module.parameters()]
        main = next(iter(self.denoiser.modules.values()), None)
        return {
            "name": self.name,
            "architecture": type(main).__name__ if main is not None else type(self.denoiser).__name__,
            "parameters": sum(weight.numel() for weight in weights),
            "dtype": str(weights[0].dtype).removeprefix("torch.") if weights else "float32",
            "device": str(self.device),
            "pixels": "x".join(str(one) for one in (self.denoiser.pixels[0], *[self.denoiser.pixels[1]] * 2)),
            "denoised": "x".join(str(one) for one in self.denoiser.shape),
            "prediction": self.denoiser.prediction,
            "timesteps": self.steps,
            "conditional": self.denoiser.conditional,
            "resize": self.resize,
            "adapter": self.adapter if self.has_adapter else None,
            **({"defences": list(self.defences), "passes_an_answer": self.passes} if self.defences else {}),
            "fingerprint": self.fingerprint,
        }

    def check_same_inputs(self, other: DiffusionModel) -> None:
        """Raises TargetError unless another model denoises the same things as this one."""
        ours, theirs = self.denoiser, other.denoiser
        if (ours.shape, ours.pixels, ours.conditional) != (theirs.shape, theirs.pixels, theirs.conditional):
            raise TargetError(
                "The reference denoises something else than the target.",
                expected=f"{ours.shape} from images of {ours.pixels[1]} pixels",
                found=f"{theirs.shape} from images of {theirs.pixels[1]} pixels",
                hint="name the checkpoint before fine-tuning, or a model trained in the same way on other images",
            )
        if len(self.alphas) != len(other.alphas) or not torch.allclose(self.alphas, other.alphas, atol=1e-6):
            raise TargetError(
                "The reference has another noise schedule than the target: a timestep is another amount of noise.",
                expected=f"{self.steps} timesteps, {float(self.alphas[-1]):.3g} of the image left at the last",
                found=f"{other.steps} timesteps, {float(other.alphas[-1]):.3g} left",
                hint="save the reference with the target's scheduler",
            )

    def refresh(self) -> None:
        """Forget what depends on the weights: a live model may have been trained on since."""
        self._fingerprint, self._part = "", None

    @property
    def part_records(self) -> int:
        """Records that are held as the denoiser sees them at once."""
        most = 64 if self.denoiser.conditional else 256  # encoded captions can be megabytes each
        return int(np.clip(PART_FLOATS // int(np.prod(self.denoiser.shape)), 8, most))

    def check_records(self, contents: Sequence[Content]) -> None:
        """Raises TargetError where all the records of an audit lack the captions that the model is asked with.

        Not asked of parts of them: some records may have empty captions, and those of a part may all be such.
        """
        captions = [one.caption for one in contents if isinstance(one, Picture)]
        if self.denoiser.conditional and captions and not any(map(str.strip, captions)):
            raise TargetError(
                f"{self.name} is asked with a caption, and the records have none.",
                expected="a caption for each image (--caption FIELD, metadata.jsonl, or name.txt beside name.png)",
                hint="with captions of one side only, the captions would be what is measured: give both",
            )

    def encode(self, contents: Sequence[Content], ids: Sequence[str] | None = None) -> Part:
        """Records as the denoiser sees them; the last part is kept, with what was asked about it.

        Raises TargetError for records that are no images, or with captions that the model cannot be asked with.
        """
        pictures = [one for one in contents if isinstance(one, Picture)]
        if len(pictures) < len(contents):
            raise TargetError(
                f"{self.name} denoises images, and the records are not images.",
                expected="folders of images, .npz arrays or a table with an image column",
                found=f"{len(contents) - len(pictures)} of {len(contents)} records are text",
            )
        self.denoiser.check_captions([one.caption for one in pictures])
        key = blake2b(repr([(one.digest, one.caption) for one in pictures]).encode(), digest_size=16).hexdigest()
        if self._part is None or self._part.key != key:
            channels, size = self.denoiser.pixels
            with self.asking():
                batches = [
                    self.denoiser.encode(
                        torch.from_numpy(
                            np.stack(
                                [fitted(one.pixels(), channels, size, self.resize) for one in pictures[at : at + 16]]
                            )
                        ).to(self.device)
                        / 127.5
                        - 1
                    ).float()
                    for at in range(0, len(pictures), 16)
                ]
            captions = tuple(one.caption for one in pictures)
            self._part = Part(key, torch.cat([one.cpu() for one in batches]), captions)
        return self._part

    def conditions(self, part: Part, captions: Sequence[str] | None = None) -> Conditions:
        """What the captions of a part (or others in their place) become; remembered with the part."""
        if not self.denoiser.conditional:
            return {}
        wanted = tuple(part.captions if captions is None else captions)
        key = blake2b(repr(wanted).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        if key not in part.conditions:
            with self.asking():
                batches = [self.denoiser.condition(wanted[at : at + 16]) for at in range(0, len(wanted), 16)]
            part.conditions[key] = {name: torch.cat([one[name].cpu() for one in batches]) for name in batches[0]}
        return part.conditions[key]

    def noise(self, x: Tensor, t: Int[Tensor, " row"], conditions: Conditions) -> Tensor:
        """Predicted noise in x (row, channel, height, width) at timestep indices t, batch by batch, on the CPU.

        x follows the variance-preserving convention whatever the model's own: sqrt(a) x_0 + sqrt(1 - a) noise.
        An answer does not depend on its batch mates. Raises TargetError where memory runs out on a single row.
        """
        found: list[Tensor] = []
        at = 0
        with self.asking():
            while at < len(x):
                rows = slice(at, at + self.batch)
                try:
                    own = {name: one[rows].to(self.device) for name, one in conditions.items()}
                    found.append(self.predicted_noise(x[rows].to(self.device), t[rows], own).float().cpu())
                except (MemoryError, RuntimeError) as error:  # on the CPU no error of its own
                    known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
                    if not known and "allocate memory" not in str(error):
                        raise
                    if self.batch == 1:
                        raise TargetError(
                            "Memory ran out on a single denoiser evaluation.",
                            hint="choose a smaller dtype (--dtype bfloat16) or another device",
                        ) from error
                    self.batch = max(1, self.batch // 2)
                    continue
                at += self.batch
        return torch.cat(found)

    def predicted_noise(self, x: Tensor, t: Int[Tensor, " row"], conditions: Conditions) -> Tensor:
        """One forward pass, differentiable where gradients are on: the noise, whatever the network predicts.

        v = sqrt(a) noise - sqrt(1 - a) x_0 (Salimans and Ho 2022); a flow predicts noise - x_0 at
        (1 - s) x_0 + s noise, which is x divided by sqrt(a) + sqrt(1 - a) (Lipman et al. 2023; Esser et al. 2024).
        """
        alpha = self.alphas[t.cpu()][:, None, None, None]
        kept, added = (one.sqrt().to(x.dtype).to(x.device) for one in (alpha, 1 - alpha))
        kind = self.denoiser.prediction
        if kind == "flow":
            sigma = added / (kept + added)
            inside = x / (kept + added)
            flow = self.denoiser.predict(inside, sigma.flatten() * 1000, conditions)
            self.asked += len(x) * self.passes
            return inside + (1 - sigma) * flow
        answer = self.denoiser.predict(x, t.to(x.device), conditions)
        self.asked += len(x) * self.passes
        if kind == "v_prediction":
            return kept * answer + added * x
        if kind == "sample":
            return (x - kept * answer) / added
        return answer

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Every module in eval mode, gradients off; both as they were afterwards. LoRA as `adapter` says."""
        modules = list(self.denoiser.modules.values())
        training = [one for module in modules for one in module.modules() if one.training]
        off = nullcontext() if self.adapter else adapters_off(modules)
        for module in modules:
            module.eval()
        try:
            with torch.no_grad(), full_float32(), off:
                yield
        finally:
            for one in training:
                one.training = True


# Ho et al. 2020: what flows are asked on, so that timesteps mean the same noise for every model.
LINEAR = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
