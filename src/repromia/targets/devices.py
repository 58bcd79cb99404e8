"""Where models go, and how exactly they count there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from repromia.errors import TargetError

T = TypeVar("T")


def device_named(name: str) -> torch.device:
    """The device of this name; empty: a GPU where there is one. Raises TargetError for one that torch cannot use."""
    chosen = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(1, device=chosen).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        found = f"{chosen!r}: {(str(error).strip().splitlines() or [''])[0][:120]}"
        if "out of memory" in str(error):
            raise TargetError(
                "The device has no memory left.",
                expected="room for the model and what it is asked",
                found=found,
                hint="end what else runs there, or name another with --device",
            ) from error
        raise TargetError(
            "There is no such device.",
            expected="cpu, or a GPU that the torch installed here sees (cuda, cuda:1, mps)",
            found=found,
            hint="leave --device out, or install a build of torch for it",
        ) from error


@contextmanager
def full_float32() -> Iterator[None]:
    """Convolutions and matrix products of float32 with all 24 bits of their inputs, settings as they were afterwards.

    By themselves convolutions on a GPU read eleven (TF32); what that may do to scores is in docs/gpu.md. Libraries
    read the settings of before torch 2.9 and fail where the newer ones were set, so that the former are used.
    """
    newer = _newer_settings()
    kept = [one.fp32_precision for one in newer]
    products, convolutions = _read(torch.get_float32_matmul_precision), _read(lambda: torch.backends.cudnn.allow_tf32)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        if products is not None:
            torch.set_float32_matmul_precision(products)
        if convolutions is not None:
            torch.backends.cudnn.allow_tf32 = convolutions
        for one, precision in zip(newer, kept, strict=True):
            if one.fp32_precision != precision:
                one.fp32_precision = precision


def _newer_settings() -> list[Any]:
    """Those of torch 2.9 and later."""
    cudnn: Any = torch.backends.cudnn
    return [torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn] if hasattr(cudnn, "conv") else []


def _read(setting: Callable[[], T]) -> T | None:
    """A setting of before torch 2.9; None where newer ones were set that it cannot tell."""
    try:
        return setting()
    except RuntimeError:
        return None
