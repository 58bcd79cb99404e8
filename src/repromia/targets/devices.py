"""Where models go."""

from __future__ import annotations

import torch

from repromia.errors import TargetError


def device_named(name: str) -> torch.device:
    """The device of this name; empty: a GPU where there is one. Raises TargetError for one that torch cannot use."""
    chosen = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(1, device=chosen).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise TargetError(
            "There is no such device.",
            expected="cpu, or a GPU that the torch installed here sees (cuda, cuda:1, mps)",
            found=f"{name!r}: {(str(error).strip().splitlines() or [''])[0][:120]}",
            hint="leave --device out, or install a build of torch for it",
        ) from error
