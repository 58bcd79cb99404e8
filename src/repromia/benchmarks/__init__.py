"""Benchmarks of the field and suites of our own: `repromia bench`.

A benchmark is a value in one short file of `repromia.benchmarks.sets`. Another package adds its own by an entry point
of the group `repromia.benchmarks` that loads to a Benchmark, or to several.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules

from repromia.benchmarks.benchmark import Benchmark
from repromia.errors import ConfigError


@cache
def registry() -> dict[str, Benchmark]:
    """All benchmarks by name, this package's first. Raises ConfigError where two have the same name."""
    found: dict[str, Benchmark] = {}
    for one in (*_own(), *_of_others()):
        if one.name in found:
            raise ConfigError(f"Two benchmarks are named {one.name!r}.", hint="rename that of the other package")
        found[one.name] = one
    return found


def _own() -> Iterator[Benchmark]:
    sets = import_module("repromia.benchmarks.sets")
    for module in iter_modules(sets.__path__, f"{sets.__name__}."):
        yield from import_module(module.name).BENCHMARKS


def _of_others() -> Iterator[Benchmark]:
    for entry in entry_points(group="repromia.benchmarks"):
        loaded = entry.load()
        for one in (loaded,) if isinstance(loaded, Benchmark) else tuple(loaded):
            if not isinstance(one, Benchmark):
                raise ConfigError(
                    f"The entry point {entry.name!r} is no benchmark.",
                    expected="a repromia.benchmarks.benchmark.Benchmark, or a list of them",
                    found=type(one).__name__,
                )
            yield one


def find(names: tuple[str, ...]) -> list[Benchmark]:
    """Benchmarks by name, or by the first part of several names (`wikimia`: all lengths). Raises ConfigError."""
    known, found = registry(), dict[str, Benchmark]()
    for name in names:
        own = [one for one in known if one == name] or [one for one in known if one.startswith(f"{name}-")]
        if not own:
            near = get_close_matches(name, known, n=1)
            raise ConfigError(
                f"There is no benchmark {name!r}.",
                expected=", ".join(known),
                hint=f"did you mean {near[0]!r}?" if near else "run `repromia bench --list`",
            )
        found.update((one, known[one]) for one in own)
    return list(found.values())
