"""Learned programs on disk: safetensors with a JSON beside it, and PEFT's prompt-tuning layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from repromia.errors import AttackError
from repromia.programs.soft_prompt import SoftPrompt


def save_soft_prompt(program: SoftPrompt, path: Path) -> None:
    """Write `path` (.safetensors) and `path` with .json: how it was learned."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"embeddings": np.ascontiguousarray(program.embeddings, dtype=np.float32)}, path)
    about = {
        "format": 1,
        "kind": "soft_prompt",
        "used": sorted(program.used),
        "seen": sorted(program.seen),
        "learned": program.learned,
    }
    path.with_suffix(".json").write_text(json.dumps(about, indent=2), encoding="utf-8")


def load_soft_prompt(path: Path) -> SoftPrompt:
    """Read what `save_soft_prompt` wrote. Raises AttackError."""
    try:
        embeddings = load_file(path)["embeddings"]
        about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        if embeddings.ndim != 2 or not np.isfinite(embeddings).all():
            raise ValueError(f"embeddings of shape {embeddings.shape} are not a finite (token, width) matrix")
        return SoftPrompt(embeddings, about["learned"], frozenset(about["used"]), frozenset(about["seen"]))
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise AttackError(
            f"The program {str(path)!r} cannot be read.",
            expected="a .safetensors file with a .json beside it, as an audit writes under OUT/programs/",
            found=f"{type(error).__name__}: {error}",
        ) from error


@runtime_checkable
class Learned(Protocol):
    """A learned program: it can be written down and read back, and may turn out to be the identity."""

    kind: str

    @property
    def is_identity(self) -> bool:
        """Whether nothing that was learned did better than asking as it is."""
        ...

    def save(self, path: Path) -> None:
        """Write `path` (.safetensors) and `path` with .json."""
        ...

    def dump(self) -> dict[str, Any]:
        """The program as JSON values."""
        ...


def dump_program(program: Learned) -> dict[str, Any]:
    """A learned program as JSON values, whatever its kind."""
    return {"kind": program.kind, **program.dump()}


def parse_program(value: dict[str, Any]) -> Any:
    """The inverse of `dump_program`."""
    if value["kind"] == "perturbation":
        from repromia.programs.perturbation import parse_perturbation

        return parse_perturbation(value)
    if value["kind"] == "overlay":
        from repromia.programs.overlay import parse_overlay

        return parse_overlay(value)
    if value["kind"] == "class_prompt":
        from repromia.programs.class_prompt import parse_class_prompt

        return parse_class_prompt(value)
    if value["kind"] == "feature_prompt":
        from repromia.programs.feature_prompt import parse_feature_prompt

        return parse_feature_prompt(value)
    return parse_soft_prompt(value)


def dump_soft_prompt(program: SoftPrompt) -> dict[str, Any]:
    """The program as JSON values (float32 survives the round trip exactly)."""
    return {
        "shape": list(program.embeddings.shape),
        "embeddings": program.embeddings.astype(np.float64).ravel().tolist(),
        "learned": program.learned,
        "used": sorted(program.used),
        "seen": sorted(program.seen),
    }


def parse_soft_prompt(value: dict[str, Any]) -> SoftPrompt:
    """The inverse of `dump_soft_prompt`."""
    embeddings = np.asarray(value["embeddings"], dtype=np.float32).reshape(value["shape"])
    return SoftPrompt(embeddings, value["learned"], frozenset(value["used"]), frozenset(value["seen"]))


def export_peft(program: SoftPrompt, folder: Path, *, base_model: str) -> None:
    """Write the prompt as a PEFT prompt-tuning adapter: `PeftModel.from_pretrained(base, folder)` loads it.

    Raises AttackError for the identity, which has no virtual tokens.
    """
    if program.is_identity:
        raise AttackError("The identity was chosen on select: there is no prompt to export.")
    from peft import PromptTuningConfig, TaskType

    folder.mkdir(parents=True, exist_ok=True)
    config = PromptTuningConfig(
        task_type=TaskType.CAUSAL_LM,
        num_virtual_tokens=len(program.embeddings),
        token_dim=program.embeddings.shape[1],
        base_model_name_or_path=base_model,
        inference_mode=True,
    )
    config.save_pretrained(str(folder))
    save_file(
        {"prompt_embeddings": np.ascontiguousarray(program.embeddings, dtype=np.float32)},
        folder / "adapter_model.safetensors",
    )
