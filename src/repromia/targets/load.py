"""Load a causal language model from a folder, a hub id or an adapter; refuse what is damaged or unsafe."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from repromia.errors import TargetError
from repromia.targets.devices import device_named
from repromia.targets.language import LanguageModel
from repromia.targets.pickles import checkpoint_hint
from repromia.targets.tokens import Encoder, LossOn

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class LoadOptions:
    """How a model is loaded and asked.

    dtype: auto is the checkpoint's own, but float32 on a CPU. device_map: passed to accelerate, for models that
    do not fit one device. base: the base model of an adapter, where its config names none on this disk.
    max_tokens: longest record; 0 is three quarters of the context, so that prefixes fit.
    """

    dtype: str = "auto"
    device: str = ""
    device_map: str = ""
    gguf_file: str = ""
    revision: str = ""
    base: str = ""
    trust_remote_code: bool = False
    max_tokens: int = 0
    loss_on: LossOn = "auto"
    score_end: bool = False
    batch_tokens: int = 4096


def load_language_model(path: str, options: LoadOptions, *, name: str = "") -> LanguageModel:
    """A frozen target. Raises TargetError saying what was expected and found.

    A path on disk never touches the network; anything else is taken as a hub id that the user named.
    """
    folder = Path(path)
    if not folder.exists() and (path.startswith((".", "/", "~")) or path.count("/") != 1):
        raise TargetError(
            f"There is no model at {path!r}.",
            expected="a folder with config.json, *.safetensors and a tokenizer; or a hub id (owner/name)",
            hint="check the path",
        )
    if (folder / "adapter_config.json").is_file():
        model, tokenizer = _load_adapter(folder, options)
    else:
        model = _load_model(path, options)
        tokenizer = _load_tokenizer(path, options)
    if not options.device_map:
        model.to(device_named(options.device))
    return wrap_language_model(model, tokenizer, options=options, name=name or path)


def wrap_language_model(
    model: Any, tokenizer: Any, *, options: LoadOptions | None = None, name: str = "target"
) -> LanguageModel:
    """A live causal LM and its tokenizer as a target. The model is not changed. Raises TargetError."""
    options = options or LoadOptions()
    if tokenizer is None or not callable(tokenizer):
        raise TargetError("The model came without a tokenizer.", expected="the tokenizer it was trained with")
    kinds = {getattr(kind, "value", kind) for kind in _peft_types(model)}
    if kinds & {"PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING", "MULTITASK_PROMPT_TUNING"}:
        raise TargetError(
            "The adapter is a prompt (prompt or prefix tuning), which shifts every token's position.",
            expected="full weights or a weight adapter (LoRA and its kin)",
        )
    if not len(tokenizer("The quick brown fox", add_special_tokens=False)["input_ids"]):
        raise TargetError("The tokenizer yields no token for ordinary text.", hint="check the tokenizer's files")
    context = context_length(model, tokenizer)
    limit = options.max_tokens or context * 3 // 4
    if limit > context:
        raise TargetError(
            "--max-tokens is longer than the model's context.",
            expected=f"at most {context}",
            found=str(limit),
        )
    encoder = Encoder(tokenizer, limit, options.loss_on, options.score_end)
    return LanguageModel(model, encoder, name, context, batch_tokens=options.batch_tokens)


def context_length(model: Any, tokenizer: Any) -> int:
    """Positions that the model was made for; 2,048 where neither config nor tokenizer says."""
    config = model.config.get_text_config()
    for field in ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length"):
        value = getattr(config, field, None)
        if isinstance(value, int) and value > 0:
            return value
    stated = int(min(getattr(tokenizer, "model_max_length", 0) or 0, 10**9))
    return stated if 0 < stated < 10**6 else 2048


def _peft_types(model: Any) -> list[Any]:
    configs = getattr(model, "peft_config", None)
    return [one.peft_type for one in configs.values()] if isinstance(configs, dict) else []


@contextmanager
def quiet() -> Iterator[None]:
    """No loading bars, reports or deprecations of transformers and peft: what matters is checked and raised here."""
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def _dtype(options: LoadOptions, path: str) -> torch.dtype | str:
    if options.dtype in DTYPES:
        return DTYPES[options.dtype]
    if options.dtype != "auto":
        raise TargetError(f"There is no dtype {options.dtype!r}.", expected="auto, " + ", ".join(DTYPES))
    on_cpu = options.device == "cpu" or not torch.cuda.is_available()
    return torch.float32 if on_cpu else "auto"


def _load_model(path: str, options: LoadOptions) -> Any:
    local = Path(path).exists()
    given: dict[str, Any] = {
        "dtype": _dtype(options, path),
        "trust_remote_code": options.trust_remote_code,
        "local_files_only": local,
        "output_loading_info": True,
    }
    if options.gguf_file:
        given["gguf_file"] = options.gguf_file
    else:
        given["use_safetensors"] = True  # never a pickle
    if options.device_map:
        given["device_map"] = options.device_map
    if options.revision:
        given["revision"] = options.revision
    try:
        with quiet():
            model, info = AutoModelForCausalLM.from_pretrained(path, **given)
    except ImportError as error:
        raise TargetError(f"Loading {path!r} needs another package.", found=str(error)) from error
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise TargetError(
            f"The model {path!r} cannot be loaded.",
            expected="config.json and undamaged *.safetensors of a causal language model",
            found=_first_line(error),
            hint=checkpoint_hint(path, "copy the files again, or name the folder that save_pretrained wrote"),
        ) from error
    missing = sorted(set(info.get("missing_keys", ())))
    mismatched = sorted(str(one) for one in info.get("mismatched_keys", ()))
    if missing or mismatched:
        raise TargetError(
            f"The checkpoint {path!r} does not fill the model: the rest would be random numbers.",
            expected="a weight for every parameter",
            found=f"{len(missing)} missing, {len(mismatched)} of another shape: {(missing + mismatched)[:3]}",
            hint="save the checkpoint again, or name the right folder",
        )
    return model.eval().requires_grad_(False)


def _load_tokenizer(path: str, options: LoadOptions) -> Any:
    given: dict[str, Any] = {
        "trust_remote_code": options.trust_remote_code,
        "local_files_only": Path(path).exists(),
    }
    if options.gguf_file:
        given["gguf_file"] = options.gguf_file
    if options.revision:
        given["revision"] = options.revision
    try:
        with quiet():
            return AutoTokenizer.from_pretrained(path, **given)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError) as error:
        raise TargetError(
            f"The tokenizer of {path!r} cannot be loaded.",
            expected="the tokenizer files beside the weights",
            found=_first_line(error),
            hint="save it with tokenizer.save_pretrained(folder)",
        ) from error


def _load_adapter(folder: Path, options: LoadOptions) -> tuple[Any, Any]:
    from peft import PeftModel

    try:
        settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise TargetError(f"{folder}/adapter_config.json is not valid JSON.", found=_first_line(error)) from error
    base = options.base or str(settings.get("base_model_name_or_path") or "")
    beside = folder / base
    base = str(beside) if base and not Path(base).exists() and beside.exists() else base
    if not base or (not Path(base).exists() and not options.base):
        raise TargetError(
            f"The base model of the adapter {str(folder)!r} is not on this disk.",
            found=f"base_model_name_or_path = {base!r}",
            hint="name it with --base (a folder, or a hub id to download)",
        )
    _check_adapter_weights(folder)
    model = _load_model(base, options)
    try:
        with quiet(), warnings.catch_warnings():
            warnings.filterwarnings("error", "Found missing adapter keys", UserWarning)  # they would stay random
            model = PeftModel.from_pretrained(model, str(folder), is_trainable=False)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError, UserWarning) as error:
        raise TargetError(
            f"The adapter {str(folder)!r} cannot be loaded onto {base!r}.",
            expected="adapter_model.safetensors made for this base",
            found=_first_line(error),
        ) from error
    own = (folder / "tokenizer_config.json").is_file()
    return model.eval().requires_grad_(False), _load_tokenizer(str(folder) if own else base, options)


def _check_adapter_weights(folder: Path) -> None:
    """Without safetensors PEFT would read a pickle, or ask the hub for a repository of the folder's name."""
    if (folder / "adapter_model.safetensors").is_file():
        return
    hint = "copy the files again, or name the folder that save_pretrained wrote"
    pickled = (folder / "adapter_model.bin").is_file()
    raise TargetError(
        f"The adapter {str(folder)!r} has no weights that can be loaded.",
        expected="adapter_model.safetensors beside adapter_config.json",
        found="adapter_model.bin" if pickled else "adapter_config.json alone",
        hint=checkpoint_hint(folder, hint) if pickled else hint,
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"{type(error).__name__}: {lines[0][:300]}"
