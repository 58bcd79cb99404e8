"""Joining a Ray cluster, or starting one on this machine."""

from __future__ import annotations

import logging
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from repromia.errors import ConfigError, said


@contextmanager
def joined(cluster: str) -> Iterator[Any]:
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
            _take_token()
            ray.init(address, **quiet)
        except Exception as error:
            raise ConfigError(
                f"The Ray cluster at {address} cannot be joined.",
                found=said(error),
                hint="start it with `ray start --head`; ray:// addresses need `pip install 'ray[client]'` and name "
                "the client server's port, 10001",
            ) from error


def _take_token() -> None:
    """Clusters that `ray start` begins ask for this machine's token once it has one; Ray shows it only if told to, and
    else tries for minutes. RAY_AUTH_MODE, where it is set, decides."""
    with suppress(ImportError):
        from ray._private.authentication import authentication_token_setup as setup

        setup.logger.setLevel(logging.ERROR)
        setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


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
