"""Adapters (LoRA and kin) on any module, whoever put them there: found, told apart, switched off."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from repromia.errors import TargetError


def adapter_layers(modules: Iterable[nn.Module]) -> list[Any]:
    """PEFT's layers among these modules and their parts, in order."""
    if "peft" not in sys.modules:  # without PEFT there is no adapter, and importing it takes seconds
        return []
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import ModulesToSaveWrapper

    kinds = (BaseTunerLayer, ModulesToSaveWrapper)
    return [layer for module in modules for layer in module.modules() if isinstance(layer, kinds)]


def adapter_state(modules: Iterable[nn.Module]) -> str:
    """Which adapters are on and how strongly, as text for fingerprints; empty without any."""
    layers = adapter_layers(modules)
    return repr(
        [
            (layer.disable_adapters, list(layer.active_adapters), sorted(getattr(layer, "scaling", {}).items()))
            for layer in layers
        ]
        if layers
        else ""
    )


def check_separable(modules: Iterable[nn.Module], name: str) -> None:
    """Raises TargetError unless there are adapters and all can be switched off without touching a weight."""
    layers = adapter_layers(modules)
    if not layers:
        raise TargetError(f"{name} carries no adapter, so it has no base to compare with.")
    if any(getattr(layer, "merged", False) for layer in layers):
        raise TargetError(
            f"The adapter of {name} is fused into its weights, so it cannot be switched off exactly.",
            hint="give the pipeline without fuse_lora(), or the base itself as --reference",
        )


@contextmanager
def adapters_off(modules: Iterable[nn.Module]) -> Iterator[None]:
    """While open, every adapter is off. Afterwards all is as it was: which were on, and which weights learn."""
    layers = adapter_layers(modules)
    on = [layer for layer in layers if not layer.disable_adapters]
    learning = [(weight, weight.requires_grad) for layer in on for weight in layer.parameters()]
    try:
        for layer in on:
            layer.enable_adapters(False)
        yield
    finally:
        for layer in on:
            layer.enable_adapters(True)
        for weight, flag in learning:  # PEFT makes a layer that is switched on learn
            weight.requires_grad_(flag)
