"""The same work in this process or on a Ray cluster.

A unit is a function of its arguments alone: seeds are among them, global generators are the unit's own business, and
it runs on one thread wherever it runs. Its figures therefore agree bit for bit between a laptop and a cluster of
nodes with equal processors (on GPUs as far as the function's own kernels repeat themselves), whatever the number of
workers and whoever finishes first.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import sysconfig
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, fields
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from repromia.errors import ConfigError, RepromiaError
from repromia.progress import Progress
from repromia.store import code_digest

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
AHEAD = 2  # units handed to Ray at a time, for each of its processors
SMALL = (int, float, str, bytes, bool, type(None))


@dataclass(frozen=True)
class Unit:
    """A piece of work. key: digest of everything that decides the result; function: returns a dataclass of arrays, and
    can be sent to another process; name: what errors call it; gpus: held while it runs (on Ray only)."""

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
    if cluster not in ("local", "ray") and not cluster.startswith("ray://"):
        raise ConfigError("There is no such cluster.", expected="local, ray or ray://host:port", found=repr(cluster))
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
            return unit.function(*unit.arguments)
    except Exception as error:
        raise named(unit.name, error) from error


def named(name: str, error: BaseException) -> RepromiaError:
    """An error that says what it happened to; of the same kind where it was raised on purpose."""
    if isinstance(error, RepromiaError):
        return type(error)(f"{name}: {error}")
    return RepromiaError(f"{name} failed.", found=said(error))


def said(error: BaseException) -> str:
    """Kind and first line of somebody else's error."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def _on_ray(units: Sequence[Unit], cluster: str, retries: int) -> Generator[tuple[Unit, Callable[[], Any]]]:
    if not units:
        return
    with _joined(cluster) as ray, _by_value(units):
        shared = _shared(ray, units)
        remote = ray.remote(_on_node)
        room = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        waiting, running = iter(units), dict[Any, Unit]()
        try:
            while True:
                for unit in islice(waiting, room - len(running)):
                    sent = [shared.get(id(one), one) for one in (unit.function, *unit.arguments)]
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
        raise ConfigError(
            f"A node of the cluster has another version of {', '.join(other)}.",
            expected=", ".join(versions[name] for name in other),
            found=", ".join(here[name] for name in other),
            hint="install the same versions on every node",
        )
    with one_thread():
        return function(*arguments)


@cache
def _versions() -> dict[str, str]:
    found = {"repromia": code_digest()}
    for name in ("numpy", "torch", "scikit-learn"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


def _result(ray: Any, unit: Unit, ready: Any) -> Any:
    try:
        found = ray.get(ready)
    except ray.exceptions.RayTaskError as error:
        raise named(unit.name, getattr(error, "cause", None) or error) from error
    except ray.exceptions.RayError as error:
        raise RepromiaError(
            f"{unit.name} could not be finished: its workers died.",
            found=said(error),
            hint="give the workers more memory, or start fewer of them; what is finished was stored",
        ) from error
    # copied, as arrays that Ray hands out are read-only and keep its memory occupied
    return type(found)(**{one.name: np.array(getattr(found, one.name)) for one in fields(found)})


def _shared(ray: Any, units: Sequence[Unit]) -> dict[int, Any]:
    """What several units take, sent once: by identity."""
    taken = [one for unit in units for one in (unit.function, *unit.arguments) if not isinstance(one, SMALL)]
    count = Counter(id(one) for one in taken)
    try:
        return {place: ray.put(one) for place, one in {id(one): one for one in taken}.items() if count[place] > 1}
    except Exception as error:
        raise ConfigError(
            "The work cannot be sent to other processes.",
            found=said(error),
            hint="open files, locks and devices inside the function, not around it",
        ) from error


@contextmanager
def _by_value(units: Sequence[Unit]) -> Iterator[None]:
    """Functions of modules that are not installed travel with their code: nodes need not have the user's files."""
    from ray import cloudpickle

    modules = {_own_module(one) for unit in units for one in (unit.function, *unit.arguments)} - {None}
    added = [one for one in modules if one.__name__ not in cloudpickle.list_registry_pickle_by_value()]
    for one in added:
        cloudpickle.register_pickle_by_value(one)
    try:
        yield
    finally:
        for one in added:
            cloudpickle.unregister_pickle_by_value(one)


def _own_module(value: Any) -> Any:
    while isinstance(value, partial):
        value = value.func
    module = sys.modules.get(str(getattr(value, "__module__", None)))
    return module if module is not None and is_own(module) else None


def is_own(module: ModuleType) -> bool:
    """Whether a module is the user's: neither installed nor a part of repromia or of Python."""
    file = getattr(module, "__file__", None)
    if file is None or module.__name__ == "__main__" or module.__name__.split(".")[0] == "repromia":
        return False
    paths = sysconfig.get_paths()
    return not any(Path(file).is_relative_to(paths[name]) for name in ("stdlib", "platstdlib", "purelib", "platlib"))


@contextmanager
def _joined(cluster: str) -> Iterator[Any]:
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "Ray is not installed.", expected=f"Ray, for --cluster {cluster}", hint="pip install 'repromia[cluster]'"
        ) from error
    ours = not ray.is_initialized()
    if ours:
        _join(ray, cluster)
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()


def _join(ray: Any, cluster: str) -> None:
    """Join the cluster, or start one on this machine where none was named and none runs."""
    address = os.environ.get("RAY_ADDRESS", "") if cluster == "ray" else cluster
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # announcements of changes in Ray
        address = address or _running_here()
        if not address:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
            ray.init("local", num_cpus=_processors(), include_dashboard=False, **quiet)
            return
        try:
            _knock(address)
            ray.init(address, **quiet)
        except Exception as error:
            raise ConfigError(
                f"The Ray cluster at {address} cannot be joined.",
                found=said(error),
                hint="start it with `ray start --head`; ray:// addresses need `pip install 'ray[client]'` and name "
                "the client server's port, 10001",
            ) from error


def _running_here() -> str:
    """Address of the cluster that `ray start` left running on this machine, or nothing."""
    from ray._private.utils import read_ray_address

    with suppress(Exception):  # no file, or that of a cluster that is gone
        address = str(read_ray_address() or "")
        _knock(address)
        return address
    return ""


def _knock(address: str) -> None:
    """Raises OSError where nobody listens: Ray would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
