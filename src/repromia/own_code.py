"""The user's own code behind a model or a function: what is neither installed nor a part of repromia or of Python."""

from __future__ import annotations

import inspect
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from functools import partial
from hashlib import blake2b
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

_INSTALLED = {"site-packages", "dist-packages"}  # of whatever Python: environments may look into others
_PLAIN = (int, float, complex, str, bytes, bool, type(None))


def is_own(module: ModuleType) -> bool:
    """Whether a module is the user's: neither installed nor a part of repromia or of Python."""
    file = getattr(module, "__file__", None)
    if file is None or module.__name__ == "__main__" or module.__name__.split(".")[0] == "repromia":
        return False
    path, paths = Path(file), sysconfig.get_paths()
    return not _INSTALLED & set(path.parts) and not any(
        path.is_relative_to(paths[name]) for name in ("stdlib", "platstdlib", "purelib", "platlib")
    )


def code_behind(values: Iterable[Any]) -> str:
    """A hash that changes with the user's own code among classes and functions; empty where all of it is installed.

    What classes inherit counts, and the files of the user's modules with those of his that they take something from.
    What was typed at a prompt has no file: its compiled functions count, the numbers that they refer to among them.
    """
    own = {_named(one): one for value in values for one in getattr(value, "__mro__", (value,)) if _is_users(one)}
    if not own:
        return ""
    parts = sources(*(sys.modules[one.__module__] for one in own.values() if one.__module__ in sys.modules))
    seen: set[int] = set()
    parts += [f"{name} {text}" for name, one in sorted(own.items()) for text in _compiled(one, seen)]
    return _hashed(parts)


def code_named(path: str) -> str:
    """The same of the module in `package.module:function`, if it was imported; empty for anything else."""
    module = sys.modules.get(path.partition(":")[0]) if ":" in path else None
    parts = sources(module) if module is not None else []
    return _hashed(parts) if parts else ""


def sources(*modules: ModuleType) -> list[str]:
    """The files of the user's own modules among these, and of those that they take something from, by name."""
    found: dict[str, str] = {}
    left = list(modules)
    while left:
        one = left.pop()
        if one.__name__ not in found and (is_own(one) or one.__name__ == "__main__"):
            found[one.__name__] = _file(one)
            left += _used(one)
    return [f"{name} {text}" for name, text in sorted(found.items())]


def _is_users(value: Any) -> bool:
    name = str(getattr(value, "__module__", None))
    module = sys.modules.get(name)
    # a module that is not there: of a class that came to this process with its code
    return name != "builtins" and (module is None or name == "__main__" or is_own(module))


def _named(value: Any) -> str:
    return f"{value.__module__}.{getattr(value, '__qualname__', type(value).__qualname__)}"


def _file(module: ModuleType) -> str:
    try:
        return blake2b(Path(str(getattr(module, "__file__", ""))).read_bytes(), digest_size=16).hexdigest()
    except OSError:  # typed at a prompt, or in an archive
        return ""


def _used(module: ModuleType) -> Iterator[ModuleType]:
    for value in list(vars(module).values()):
        if isinstance(value, ModuleType):
            yield value
        elif isinstance(value, type) or inspect.isroutine(value):
            named = sys.modules.get(str(getattr(value, "__module__", None)))
            if named is not None:
                yield named


def _compiled(value: Any, seen: set[int]) -> Iterator[str]:
    """Of a function, or of the functions of a class."""
    for name, held in sorted(vars(value).items()) if isinstance(value, type) else [("", value)]:
        for one in (held.fget, held.fset) if isinstance(held, property) else (getattr(held, "__func__", held),):
            function = one.func if isinstance(one, partial) else one
            function = inspect.unwrap(function) if callable(function) else None
            if isinstance(function, FunctionType):
                yield from (f"{name} {text}" for text in _of_function(function, seen))


def _of_function(function: FunctionType, seen: set[int]) -> Iterator[str]:
    """Its instructions, and the plain values and functions of the same module that it refers to."""
    if id(function) in seen:
        return
    seen.add(id(function))
    names: list[str] = []
    for code in _codes(function.__code__):
        yield f"{code.co_code.hex()} {code.co_names} {[_constant(one) for one in code.co_consts]}"
        names += code.co_names
    refers = [(name, function.__globals__[name]) for name in names if name in function.__globals__]
    for name, value in [*refers, *_enclosed(function)]:
        if isinstance(value, _PLAIN):
            yield f"{name} = {value!r}"
        elif isinstance(value, FunctionType) and value.__module__ == function.__module__:
            yield from _of_function(value, seen)


def _enclosed(function: FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not filled yet
            continue


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield from _codes(one)


def _constant(value: Any) -> str:
    if isinstance(value, CodeType):  # on its own; its text holds an address
        return value.co_name
    return repr(sorted(map(repr, value)) if isinstance(value, frozenset) else value)  # sets have no order


def _hashed(parts: Iterable[str]) -> str:
    return blake2b("\n".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
