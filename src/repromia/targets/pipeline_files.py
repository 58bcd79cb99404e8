"""Pipelines from disk or the hub: what is whole is loaded, what is damaged or a pickle is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from repromia.errors import TargetError
from repromia.targets.adapters import adapter_layers
from repromia.targets.pickles import checkpoint_hint
from repromia.targets.pipelines import DTYPES, DiffusionOptions, quiet

NOT_ASKED = ("safety_checker", "feature_extractor", "image_encoder")  # no part in denoising, and often large
NETWORKS = ("unet", "transformer")


def load_pipeline(source: str, options: DiffusionOptions) -> Any:
    """A diffusers pipeline from a folder or a hub id. Raises TargetError."""
    from diffusers import DiffusionPipeline

    folder = Path(source)
    if not folder.exists() and (source.startswith((".", "/", "~")) or source.count("/") != 1):
        raise TargetError(
            f"There is no model at {source!r}.",
            expected="a diffusers pipeline folder (with model_index.json), LoRA weights, or a hub id (owner/name)",
            hint="check the path",
        )
    if options.dtype not in ("auto", *DTYPES):
        raise TargetError(f"There is no dtype {options.dtype!r}.", expected="auto, " + ", ".join(DTYPES))
    given: dict[str, Any] = {"use_safetensors": True, "trust_remote_code": options.trust_remote_code}
    with quiet():
        try:
            if not folder.exists():
                wanted = given | ({"revision": options.revision} if options.revision else {})
                wanted |= {"variant": options.variant} if options.variant else {}
                folder = Path(DiffusionPipeline.download(source, **wanted))
            stated = _index(folder, source)
            given["torch_dtype"] = DTYPES.get(options.dtype, torch.float32)
            part = next((one for one in NETWORKS if (folder / f"{one}_{options.variant}").is_dir()), "")
            given |= {"variant": options.variant} if options.variant and not part else {}
            if "variant" in given and not _has_variant(folder, options.variant):
                raise TargetError(
                    f"{source!r} holds no variant {options.variant!r} of its denoiser.",
                    expected=f"*.{options.variant}.safetensors, or a folder such as unet_{options.variant}",
                    hint="leave --variant out",
                )
            given |= {one: None for one in NOT_ASKED if one in stated}
            pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True, **given)
            if part:
                other = folder / f"{part}_{options.variant}"
                kind = type(getattr(pipeline, part))
                dtype = given["torch_dtype"]
                setattr(pipeline, part, kind.from_pretrained(other, use_safetensors=True, torch_dtype=dtype))
            for name, module in pipeline.components.items():
                if isinstance(module, torch.nn.Module):
                    _check_filled(module, folder / (f"{part}_{options.variant}" if name == part else name), options)
        except TargetError:
            raise
        except Exception as error:  # damaged files make libraries raise anything
            raise TargetError(
                f"The pipeline {source!r} cannot be loaded.",
                expected="a diffusers pipeline with undamaged *.safetensors",
                found=_first_line(error),
                hint="read the code, then --trust-remote-code runs it"
                if "custom code" in str(error)
                else checkpoint_hint(source, "copy the files again, or name the folder that save_pretrained wrote"),
            ) from error
    return pipeline


def load_lora(pipeline: Any, file: Path) -> None:
    """Puts LoRA weights on a pipeline. Raises TargetError where they are damaged or belong to another one."""
    if not hasattr(pipeline, "load_lora_weights"):
        raise TargetError(f"{type(pipeline).__name__} takes no LoRA weights in diffusers' layout.", found=str(file))
    with quiet():
        try:
            with safe_open(file, "pt") as opened:
                stored = set(opened.keys())
            # without use_safetensors diffusers would fall back to pickles
            pipeline.load_lora_weights(
                str(file.parent), weight_name=file.name, local_files_only=True, use_safetensors=True
            )
        except Exception as error:  # as above
            raise TargetError(
                f"The LoRA weights {str(file)!r} cannot be loaded onto {type(pipeline).__name__}.",
                expected="pytorch_lora_weights.safetensors made for this base",
                found=_first_line(error),
            ) from error
    modules = [one for one in pipeline.components.values() if isinstance(one, torch.nn.Module)]
    layers = len(adapter_layers(modules))
    wanted = {name for name in stored if "lora" in name and name.endswith((".lora_A.weight", ".lora.down.weight"))}
    if not layers or layers < len(wanted):
        raise TargetError(
            f"The LoRA weights {str(file)!r} do not belong to {type(pipeline).__name__}.",
            expected=f"{len(wanted) or 'some'} adapted layers",
            found=str(layers),
            hint="name the pipeline that they were trained on with --base",
        )


def _index(folder: Path, source: str) -> dict[str, Any]:
    """model_index.json. Raises TargetError without it, or where it is damaged or names a pipeline that is not known."""
    import diffusers

    try:
        stated = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        kind = stated["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TargetError(
            f"{source!r} is no diffusers pipeline.",
            expected="model_index.json",
            found=_first_line(error),
            hint="save it with save_pretrained",
        ) from error
    if isinstance(kind, str) and not hasattr(diffusers, kind):
        raise TargetError(
            f"{source!r} is a pipeline that diffusers {diffusers.__version__} does not know.",
            found=kind,
            hint="install the version it was saved with, or give its denoiser to wrap_callable",
        )
    found: dict[str, Any] = stated
    return found


def _has_variant(folder: Path, variant: str) -> bool:
    # where only another part has one, diffusers would quietly take the denoiser's usual weights
    return any(True for part in NETWORKS for _ in (folder / part).glob(f"*.{variant}*.safetensors"))


def _check_filled(module: Any, folder: Path, options: DiffusionOptions) -> None:
    """Raises TargetError where weights are missing from the files: diffusers fills them with random numbers.

    The files' own lists of weights are compared first. They may use older names, so that what seems to be missing is
    asked of the library, which takes a second load.
    """
    stored: set[str] = set()
    files = list(folder.glob("*.safetensors"))
    own = [one for one in files if options.variant and f".{options.variant}" in one.stem]
    for file in own or [one for one in files if "." not in one.stem]:
        with safe_open(file, "pt") as opened:
            stored |= set(opened.keys())
    state = module.state_dict()
    filled = {state[name].data_ptr() for name in stored & set(state)}  # tied weights are stored once
    if not {name for name, weight in state.items() if name not in stored and weight.data_ptr() not in filled}:
        return
    given: dict[str, Any] = {"use_safetensors": True, "local_files_only": True, "output_loading_info": True}
    given |= {"variant": options.variant} if own else {}
    _, info = type(module).from_pretrained(folder, **given)
    missing = sorted(set(info["missing_keys"]))
    if missing:
        raise TargetError(
            f"{folder.name} of the pipeline lacks weights: they would be random numbers.",
            expected="a weight for every parameter",
            found=f"{len(missing)} missing: {missing[:3]}",
            hint="save the pipeline again",
        )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:300]}"
