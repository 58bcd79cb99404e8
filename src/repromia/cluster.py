"""The same work in this process or on a Ray cluster.

A unit is a function of its arguments alone: seeds are among them, global generators are the unit's own business, and
it runs on one thread wherever it runs. Its figures therefore agree bit for bit between a laptop and a cluster of
nodes with equal processors (on GPUs as far as the function's own kernels repeat themselves), whatever the number of
workers and whoever finishes first.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, fields, is_dataclass
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from typing import Any, Protocol

import numpy as np

from repromia.errors import ClusterError, ConfigError, RepromiaError, said
from repromia.joining import joined
from repromia.progress import Progress
from repromia.sending import by_value, received, shared
from repromia.store import code_digest

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
AHEAD = 2  # units handed to Ray at a time, for each of its processors


@dataclass(frozen=True)
class Unit:
    """A piece of work. key: digest of everything that decides the result; function: returns a dataclass of arrays (or
    of tuples of such), and can be sent to another process, as the arguments, of which a `Replica` arrives as what it
    stands for; name: what errors call it; gpus: held while it runs (on Ray only)."""

    key: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    name: str = "a unit"
    gpus: float = 0.0


class Finished(Protocol):
    """Where results are kept by key: a Store, or what reads and writes like one."""

    def get(self, key: str, /) -> Any:
        """The result, or None."""
        ...

    def put(self, key: str, result: Any, /) -> None:
        """Keep it."""
        ...


def run_units(
    units: Sequence[Unit],
    *,
    cluster: str = "local",
    store: Finished,
    progress: Progress,
    retries: int = 2,
    what: str = "units",
    failed: Callable[[Unit, RepromiaError], Any] | None = None,
) -> list[Any]:
    """Results in the order of the units; those in the store are read back, the others stored as each is finished.

    cluster: `local`, one after the other in this process; `ray`, the cluster of RAY_ADDRESS, or the one that runs on
    this machine, or one started here for as long as this takes; `ray://host:port`, through Ray's client server. A
    connection that this process already has is used. retries: how often a unit starts again whose worker died; what
    it raises itself ends the run, unless `failed` makes a result of it. Raises ConfigError without Ray, and
    RepromiaError that names the unit.
    """
    _check_name(cluster)
    done = {unit.key: stored for unit in units if (stored := store.get(unit.key)) is not None}
    todo = list({unit.key: unit for unit in units if unit.key not in done}.values())
    with progress.step(f"{what} ({cluster})", len(todo)) as bar:
        finished = _locally(todo) if cluster == "local" else _on_ray(todo, cluster, retries)
        with closing(finished):
            for unit, found in finished:
                result = _or_failed(unit, found, failed)
                store.put(unit.key, result)
                done[unit.key] = result
                bar.advance()
    return [done[unit.key] for unit in units]


@contextmanager
def connected(cluster: str) -> Iterator[None]:
    """Holds the connection to a cluster over several `run_units`, so that one started here is started once."""
    if cluster == "local":
        yield
        return
    _check_name(cluster)
    with joined(cluster):
        yield


def _check_name(cluster: str) -> None:
    if cluster not in ("local", "ray") and not cluster.startswith("ray://"):
        raise ConfigError("There is no such cluster.", expected="local, ray or ray://host:port", found=repr(cluster))


@contextmanager
def one_thread() -> Iterator[None]:
    """Arithmetic on one thread, so that sums have one order; as it was afterwards."""
    import torch
    from threadpoolctl import threadpool_limits

    threads, before = torch.get_num_threads(), {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))  # for libraries that are first loaded within
    try:
        with threadpool_limits(1):
            torch.set_num_threads(1)
            yield
    finally:
        torch.set_num_threads(threads)
        for name, value in before.items():
            os.environ.pop(name)
            os.environ.update({name: value} if value is not None else {})


def _or_failed(unit: Unit, found: Callable[[], Any], failed: Callable[[Unit, RepromiaError], Any] | None) -> Any:
    try:
        return found()
    except RepromiaError as error:
        if failed is None:
            raise
        return failed(unit, error)


def _locally(units: Sequence[Unit]) -> Generator[tuple[Unit, Callable[[], Any]]]:
    for unit in units:
        yield unit, partial(_here, unit)


def _here(unit: Unit) -> Any:
    try:
        with one_thread():
            return unit.function(*map(received, unit.arguments))
    except Exception as error:
        raise named(unit.name, error) from error


def named(name: str, error: BaseException) -> RepromiaError:
    """An error that says what it happened to; of the same kind where it was raised on purpose."""
    if isinstance(error, RepromiaError):
        return type(error)(f"{name}: {error}")
    return RepromiaError(f"{name} failed.", found=said(error))


def _taken(units: Sequence[Unit]) -> list[Any]:
    return [one for unit in units for one in (unit.function, *unit.arguments)]


def _on_ray(units: Sequence[Unit], cluster: str, retries: int) -> Generator[tuple[Unit, Callable[[], Any]]]:
    if not units:
        return
    with joined(cluster) as ray, by_value(_taken(units)):
        known = shared(ray, _taken(units))
        remote = ray.remote(_on_node)
        room = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        waiting, running = iter(units), dict[Any, Unit]()
        try:
            while True:
                for unit in islice(waiting, room - len(running)):
                    sent = [known.get(id(one), one) for one in (unit.function, *unit.arguments)]
                    task = remote.options(
                        max_retries=retries,
                        retry_exceptions=False,
                        num_gpus=unit.gpus,
                        runtime_env={"env_vars": dict.fromkeys(THREADS, "1")},
                    )
                    running[task.remote(_versions(), *sent)] = unit
                if not running:
                    return
                ready = ray.wait(list(running), num_returns=1)[0][0]
                unit = running.pop(ready)
                yield unit, partial(_result, ray, unit, ready)
        finally:
            for one in running:
                with suppress(Exception):
                    ray.cancel(one, force=True)


def _on_node(versions: dict[str, str], function: Callable[..., Any], *arguments: Any) -> Any:
    here = _versions()
    other = [name for name in versions if versions[name] != here[name]]
    if other:
        raise ClusterError(
            f"A node of the cluster has another version of {', '.join(other)}.",
            expected=", ".join(versions[name] for name in other),
            found=", ".join(here[name] for name in other),
            hint="install the same versions on every node",
        )
    with one_thread():
        return function(*map(received, arguments))


@cache
def _versions() -> dict[str, str]:
    found = {"repromia": code_digest()}
    for name in ("numpy", "torch", "scikit-learn", "transformers", "diffusers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


def _result(ray: Any, unit: Unit, ready: Any) -> Any:
    try:
        found = ray.get(ready)
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(error, ray.exceptions.RayTaskError) and not isinstance(cause, ray.exceptions.RayError):
            raise named(unit.name, cause or error) from error
        raise ClusterError(
            f"{unit.name} could not be finished: its workers died.",
            found=said(cause or error),
            hint="give the workers more memory, or start fewer of them; what is finished was stored",
        ) from error
    return _owned(found)


def _owned(value: Any) -> Any:
    """A copy: arrays that Ray hands out are read-only and keep its memory occupied."""
    if isinstance(value, np.ndarray):
        return np.array(value)
    if isinstance(value, tuple):
        return tuple(map(_owned, value))
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(**{one.name: _owned(getattr(value, one.name)) for one in fields(value)})
    return value
