"""Learned programs on disk and as JSON values: the same for all kinds, by their fields."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast, get_type_hints, runtime_checkable

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from repromia.errors import AttackError
from repromia.programs.soft_prompt import SoftPrompt

KINDS = {
    "soft_prompt": "repromia.programs.soft_prompt:SoftPrompt",
    "perturbation": "repromia.programs.perturbation:Perturbation",
    "overlay": "repromia.programs.overlay:Overlay",
    "class_prompt": "repromia.programs.class_prompt:ClassPrompt",
    "feature_prompt": "repromia.programs.feature_prompt:FeaturePrompt",
}


@runtime_checkable
class Learned(Protocol):
    """A learned program, a dataclass: it can be written down and read back, and may turn out to be the identity.

    Its first field is the array that was learned (float32); the others are strings, numbers, sets of strings, and
    `learned`: how it came about.
    """

    kind: str

    @property
    def is_identity(self) -> bool:
        """Whether nothing that was learned did better than asking as it is."""
        ...

    def check(self) -> None:
        """Raises ValueError for what no learning makes, as a damaged file may say it."""
        ...


Kind = TypeVar("Kind", bound=Learned)


def save_program(program: Learned, path: Path) -> None:
    """Write `path` (.safetensors) and `path` with .json."""
    name, array, about = _taken_apart(program)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: array}, path)
    text = json.dumps({"format": 1, "kind": program.kind, **about}, indent=2)
    path.with_suffix(".json").write_text(text, encoding="utf-8")


def load_program(path: Path, wanted: type[Kind]) -> Kind:
    """Read what `save_program` wrote of this class. Raises AttackError."""
    try:
        about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        if about["kind"] != wanted.kind:
            raise ValueError(f"a {about['kind']}, not a {wanted.kind}")
        array = load_file(path)[_array_of(wanted)]
        if not np.isfinite(array).all():
            raise ValueError("what was learned is not finite")
        program = _put_together(wanted, array, about)
        program.check()
    except (OSError, KeyError, TypeError, ValueError, AttackError, SafetensorError) as error:
        raise AttackError(
            f"The program {str(path)!r} cannot be read.",
            expected="a .safetensors file with a .json beside it, as an audit writes under OUT/programs/",
            found=f"{type(error).__name__}: {error}",
        ) from error
    return program


def dump_program(program: Learned) -> dict[str, Any]:
    """A learned program as JSON values (float32 survives the round trip exactly)."""
    name, array, about = _taken_apart(program)
    return {
        "kind": program.kind,
        "shape": list(array.shape),
        name: array.astype(np.float64).ravel().tolist(),
        **about,
    }


def parse_program(value: dict[str, Any]) -> Any:
    """The inverse of `dump_program`."""
    module, _, name = KINDS[value["kind"]].partition(":")
    kind = getattr(import_module(module), name)
    array = np.asarray(value[_array_of(kind)], dtype=np.float32).reshape(value["shape"])
    return _put_together(kind, array, value)


def _array_of(kind: Any) -> str:
    return fields(kind)[0].name


def _taken_apart(program: Any) -> tuple[str, np.ndarray, dict[str, Any]]:
    name = _array_of(program)
    rest = {one.name: getattr(program, one.name) for one in fields(program)[1:]}
    about = {key: sorted(value) if isinstance(value, frozenset) else value for key, value in rest.items()}
    return name, np.ascontiguousarray(getattr(program, name), dtype=np.float32), about


def _put_together(kind: type[Kind], array: np.ndarray, about: dict[str, Any]) -> Kind:
    hints, make = get_type_hints(kind), cast("Callable[..., Kind]", kind)
    made = {str: str, int: int, float: float, frozenset[str]: frozenset}
    rest = (one.name for one in fields(kind)[1:])  # type: ignore[arg-type]
    return make(array, **{name: made.get(hints[name], dict)(about[name]) for name in rest})


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
