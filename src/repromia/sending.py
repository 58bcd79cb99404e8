"""What units of work take, on its way to the processes of a Ray cluster."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from repromia.errors import ClusterError, said
from repromia.own_code import is_own
from repromia.records import Records

SMALL = (int, float, str, bytes, bool, type(None))
REPLICAS = 2  # that a worker keeps: a target and its reference


@dataclass(frozen=True)
class Replica:
    """Something large that many units take: each worker has one, kept by its key for the next unit.

    make: makes it on the worker; None: `value` is sent there.
    """

    key: str
    make: Callable[[], Any] | None = None
    value: Any = None


_replicas: dict[str, Any] = {}  # of this process


def received(argument: Any) -> Any:
    """What a unit's function gets: of a replica the one of this process, made at most once."""
    if not isinstance(argument, Replica):
        return argument
    if argument.key not in _replicas:
        made = argument.make() if argument.make is not None else _fetched(argument.value)
        while len(_replicas) >= REPLICAS:
            _replicas.pop(next(iter(_replicas)))
        _replicas[argument.key] = made
    return _replicas[argument.key]


def _fetched(value: Any) -> Any:
    """Itself, or what Ray holds under this reference."""
    ray = sys.modules.get("ray")
    return ray.get(value) if ray is not None and isinstance(value, ray.ObjectRef) else value


def shared(ray: Any, values: Sequence[Any]) -> dict[int, Any]:
    """What units take more than once, sent once: by identity."""
    taken = [one for one in values if not isinstance(one, SMALL)]
    count, distinct = Counter(id(one) for one in taken), {id(one): one for one in taken}
    try:
        return {
            place: _sent_once(ray, one) if isinstance(one, Replica) else ray.put(one)
            for place, one in distinct.items()
            if count[place] > 1 or isinstance(one, Replica)
        }
    except Exception as error:
        raise ClusterError(
            "The work cannot be sent to other processes.",
            found=said(error),
            hint="open files, locks and devices inside the function, not around it",
        ) from error


def _sent_once(ray: Any, replica: Replica) -> Replica:
    """The reference in place of the value: fetched by a worker that has none yet, not with every unit."""
    return replica if replica.make is not None else Replica(replica.key, None, ray.put(replica.value))


@contextmanager
def by_value(values: Sequence[Any]) -> Iterator[None]:
    """Functions of modules that are not installed travel with their code: nodes need not have the user's files."""
    from ray import cloudpickle

    held = {id(one): one for one in values}.values()
    modules = {_own_module(one) for value in held for one in _within(value)} - {None}
    added = [one for one in modules if one.__name__ not in cloudpickle.list_registry_pickle_by_value()]
    for one in added:
        cloudpickle.register_pickle_by_value(one)
    try:
        yield
    finally:
        for one in added:
            cloudpickle.unregister_pickle_by_value(one)


def _within(value: Any, depth: int = 4) -> Iterator[Any]:
    """A value and what it holds whose code may be the user's: functions, programs, the parts of a model."""
    if isinstance(value, partial):
        yield value.func
        return
    yield value
    parts = getattr(value, "modules", None)
    if callable(parts):  # a torch module
        yield from parts()
    elif isinstance(value, tuple | dict):
        for one in {type(one): one for one in (value.values() if isinstance(value, dict) else value)}.values():
            yield from _within(one, depth)
    elif depth and type(value).__module__.split(".")[0] == "repromia" and not isinstance(value, Records):
        for one in getattr(value, "__dict__", {}).values():
            yield from _within(one, depth - 1)


def _own_module(value: Any) -> Any:
    module = sys.modules.get(str(getattr(value, "__module__", None)))
    return module if module is not None and is_own(module) else None
