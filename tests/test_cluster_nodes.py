"""Several nodes: units run on all of them, and one that goes away in the middle changes nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repromia.cluster import Unit, run_units
from repromia.progress import Silent, Step
from repromia.signals import ReferenceSignals
from repromia.store import Store, digest

COUNT = 8


@pytest.fixture
def two_nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head of one processor and a second node of one, on this machine."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)  # on the head, which stays
    cluster.second = cluster.add_node(num_cpus=1)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def drawn(seed: int, log: str) -> ReferenceSignals:
    """Numbers of this seed; the node in `log`."""
    import ray

    node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else "here"
    time.sleep(0.5 if ray.is_initialized() else 0)  # so that no node is done with all before the other has begun
    with Path(log).open("a", encoding="utf-8") as file:
        file.write(f"{node} {seed}\n")
    value = np.random.default_rng(seed).normal(size=(1, 3, 1))
    return ReferenceSignals(np.zeros((1, 3), dtype=bool), value, value, value, np.zeros(value.shape, dtype=int))


def work(log: Path) -> list[Unit]:
    return [Unit(digest("drawn", at), drawn, (at, str(log)), f"unit {at}") for at in range(COUNT)]


def nodes_in(log: Path) -> set[str]:
    return {line.split()[0] for line in log.read_text().splitlines()}


class Removing(Silent):
    """Takes a node away when a number of units are done."""

    def __init__(self, cluster: Any, after: int) -> None:
        self.cluster, self.after = cluster, after

    @contextmanager
    def step(self, name: str, total: float | None) -> Iterator[Step]:
        yield self

    def advance(self, amount: float = 1) -> None:
        self.after -= 1
        if self.after == 0:
            self.cluster.remove_node(self.cluster.second, allow_graceful=False)


@pytest.mark.slow  # two nodes of one address: Ray at times takes the driver for one that went with the second
def test_nodes_share_the_work_and_one_that_is_lost_changes_nothing(two_nodes: Any, tmp_path: Path) -> None:
    here = run_units(work(tmp_path / "here"), store=Store(None), progress=Silent())
    both = run_units(work(tmp_path / "both"), cluster="ray", store=Store(None), progress=Silent())
    assert len(nodes_in(tmp_path / "both")) == 2
    lost = run_units(work(tmp_path / "lost"), cluster="ray", store=Store(None), progress=Removing(two_nodes, 3))
    for one, *others in zip(here, both, lost, strict=True):
        assert all(other.logprob.tobytes() == one.logprob.tobytes() for other in others)
