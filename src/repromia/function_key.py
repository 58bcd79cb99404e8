"""What tells functions apart in a store."""

from __future__ import annotations

import inspect
from functools import partial
from hashlib import blake2b
from typing import Any

import numpy as np
import torch

from repromia.own_code import sources
from repromia.targets.fingerprint import add_weights


def described(value: Any) -> str:
    """Text that changes with the code behind a callable and with the values that it refers to.

    The source is that of the whole module, so that a changed helper counts, and of those of the user's own modules
    that it takes something from; what installed modules do does not.
    """
    if isinstance(value, partial):
        return repr((described(value.func), [_valued(one) for one in value.args], _all_valued(value.keywords)))
    if inspect.ismethod(value):
        return repr((described(value.__func__), _valued(value.__self__)))
    kind = value if inspect.isroutine(value) or inspect.isclass(value) else type(value)
    parts = [f"{kind.__module__}.{kind.__qualname__}", _source(kind)]
    module = inspect.getmodule(kind)
    parts += sources(module) if module is not None else []
    if inspect.isfunction(value):
        refers, named_defaults = inspect.getclosurevars(value), value.__kwdefaults__ or {}
        parts.append(repr([_valued(one) for one in value.__defaults__ or ()]))
        parts += [repr(_all_valued(one)) for one in (named_defaults, refers.nonlocals, refers.globals)]
    elif kind is not value:
        parts.append(_valued(value))
    return blake2b("\n".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _source(kind: Any) -> str:
    for one in (inspect.getmodule(kind), kind):
        try:
            return inspect.getsource(one) if one is not None else ""
        except (OSError, TypeError):  # typed at a prompt, or compiled
            continue
    return ""


def _valued(value: Any) -> str:
    if isinstance(value, partial):  # its text holds an address
        return described(value)
    if inspect.ismodule(value) or inspect.isclass(value) or inspect.isroutine(value):
        return getattr(value, "__qualname__", "") or str(value.__name__)
    hasher = blake2b(digest_size=16)
    if isinstance(value, torch.nn.Module):
        add_weights(hasher, value)
        return f"{value!r} {hasher.hexdigest()}"
    if isinstance(value, np.ndarray | torch.Tensor):  # their text leaves the middle out
        array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
        hasher.update(repr(array.tolist()).encode("utf-8", "surrogatepass"))
        return f"{array.dtype} {array.shape} {hasher.hexdigest()}"
    if f" at {hex(id(value))}" not in repr(value):
        return repr(value)
    return f"{type(value).__qualname__} {sorted(map(repr, getattr(value, '__dict__', {}).items()))}"


def _all_valued(values: Any) -> list[tuple[str, str]]:
    return sorted((name, _valued(one)) for name, one in values.items())
