"""Hashes that tell whether a cached view still belongs to a model."""

from __future__ import annotations

import json
import re
from hashlib import blake2b
from typing import Any

import torch

from repromia.own_code import code_behind
from repromia.targets.tokens import Encoder

# Settings of where and how a model was loaded or saved: they change no answer.
_CIRCUMSTANCES = (
    "architectures",
    "_name_or_path",
    "base_model_name_or_path",
    "transformers_version",
    "torch_dtype",
    "dtype",
)
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def model_fingerprint(model: Any, encoder: Encoder, *, adapter: bool) -> str:
    """Hash of weights (names, shapes, dtypes, bytes), adapter state, architecture, tokenizer and token policy; of a
    model of the user's own code also of that."""
    hasher = blake2b(digest_size=16)
    peft = {name: _settings(settings) for name, settings in getattr(model, "peft_config", {}).items()}
    policy = (encoder.limit, encoder.loss_on, encoder.score_end, encoder.bos)
    for part in (_json(_settings(model.config)), _json(peft), repr(adapter), repr(policy)):
        hasher.update(part.encode())
    hasher.update(tokenizer_state(encoder.tokenizer).encode())
    hasher.update(_own_code(model).encode())
    add_weights(hasher, model)
    return hasher.hexdigest()


def masked_fingerprint(model: Any, tokenizer: Any) -> str:
    """Hash of a masked language model's weights, architecture and tokenizer."""
    hasher = blake2b(digest_size=16)
    hasher.update(_json(_settings(model.config)).encode())
    hasher.update(tokenizer_state(tokenizer).encode())
    hasher.update(_own_code(model).encode())
    add_weights(hasher, model)
    return hasher.hexdigest()


def _settings(config: Any) -> dict[str, Any]:
    return {key: value for key, value in config.to_dict().items() if key not in _CIRCUMSTANCES}


def _json(value: object) -> str:
    """Canonical JSON: PEFT keeps sets, whose order differs from process to process."""
    return json.dumps(value, sort_keys=True, default=lambda one: sorted(one) if isinstance(one, set) else str(one))


def add_weights(hasher: blake2b, model: Any) -> None:
    for name, tensor in sorted(_all_weights(model).items()):
        hasher.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        hasher.update(_raw_bytes(tensor))


def add_computation(hasher: blake2b, model: Any) -> None:
    """What is computed with the weights: the parts of a module as torch prints them, and the user's own code."""
    try:
        printed = _ADDRESS.sub("", repr(model))
    except Exception:  # noqa: BLE001 — a part of others may print itself in any way
        printed = ""
    hasher.update(f"{printed}{_own_code(model)}".encode("utf-8", "surrogatepass"))


def _own_code(model: Any) -> str:
    """Of the parts whose classes are the user's; empty for those of libraries, which their versions stand for."""
    return code_behind({type(one) for one in model.modules()})


def tokenizer_state(tokenizer: Any) -> str:
    """Everything that decides how a text becomes ids."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        rules = json.dumps(tokenizer.get_vocab(), sort_keys=True)
    else:  # padding and truncation are left over from whoever called last, and never used here
        stated = json.loads(backend.to_str())
        rules = json.dumps({key: value for key, value in stated.items() if key not in ("padding", "truncation")})
    return rules + repr(sorted(tokenizer.special_tokens_map.items())) + str(getattr(tokenizer, "chat_template", ""))


def _all_weights(model: Any) -> dict[str, torch.Tensor]:
    """The state dict, with weights that accelerate keeps on the CPU or on disk read back."""
    state: dict[str, torch.Tensor] = model.state_dict()
    if any(tensor.is_meta for tensor in state.values()):
        from accelerate.utils.modeling import get_state_dict_offloaded_model

        state = get_state_dict_offloaded_model(model)
    return state


def _raw_bytes(tensor: torch.Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return bytes(flat.view(torch.uint8).numpy().data) if flat.numel() else b""
