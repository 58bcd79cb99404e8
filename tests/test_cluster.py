"""The same work here and on a real Ray cluster of two workers."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import repromia
from graph_models import LABELS, graph
from repromia.cluster import Unit, one_thread, run_units
from repromia.errors import ClusterError, ConfigError, RepromiaError, TargetError
from repromia.programs.graph_samples import WithAndWithout
from repromia.progress import Silent
from repromia.records import Node, Records
from repromia.signals import ReferenceGains, ReferenceSignals
from repromia.store import Store, digest
from test_shadows import digits, network, regression, shadows

RECORDS = 200_000  # as many bytes as Ray keeps outside its messages


@pytest.fixture(scope="module")
def two_workers() -> Iterator[Any]:
    """A cluster that the tests started, and that stays."""
    ray = pytest.importorskip("ray")
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield ray
    ray.shutdown()


def drawn(seed: int, scale: np.ndarray, log: str) -> ReferenceSignals:
    """Sums of products, whose last bits depend on the order of threads; a line in `log` each time."""
    with Path(log).open("a", encoding="utf-8") as file:
        file.write(f"{seed}\n")
    numbers = torch.from_numpy(np.random.default_rng(seed).random((300, 300)).astype(np.float32))
    value = float((numbers @ numbers).sum())
    logprob = (-value * scale)[None, :, None]
    saw, first = np.zeros((1, len(scale)), dtype=bool), np.zeros(logprob.shape, dtype=int)
    return ReferenceSignals(saw, logprob, logprob, logprob, first)


def work(log: Path, function: Any = drawn, count: int = 6) -> list[Unit]:
    scale = np.linspace(0, 1, RECORDS // 8)
    return [Unit(digest(function.__name__, at), function, (at, scale, str(log)), f"unit {at}") for at in range(count)]


def run(units: list[Unit], cluster: str, folder: Path | None = None) -> list[Any]:
    return run_units(units, cluster=cluster, store=Store(folder), progress=Silent())


def test_finished_units_are_not_done_again(tmp_path: Path) -> None:
    log = tmp_path / "log"
    units = work(log)
    first = run(units[:4], "local", tmp_path / "run")
    again = run(units, "local", tmp_path / "run")
    assert log.read_text().split() == list("012345")
    assert all((one.logprob == other.logprob).all() for one, other in zip(first, again[:4], strict=True))
    (stored,) = (tmp_path / "run" / "parts").glob(f"{units[2].key}*")
    stored.write_bytes(b"damaged")
    run([units[5], units[2]], "local", tmp_path / "run")
    assert log.read_text().split()[6:] == ["2"]


def test_results_are_in_the_order_of_the_units_and_a_key_is_done_once(tmp_path: Path) -> None:
    units = work(tmp_path / "log", count=3)
    found = run([units[2], units[0], units[2]], "local")
    assert (tmp_path / "log").read_text().split() == ["2", "0"]
    assert found[0] is found[2]
    assert not run([], "local")


def broken(seed: int, scale: np.ndarray, log: str) -> ReferenceSignals:
    if seed == 3:
        raise ZeroDivisionError("of nothing")
    return drawn(seed, scale, log)


def test_a_unit_that_raises_ends_the_run_by_its_name_and_what_was_done_is_kept(tmp_path: Path) -> None:
    units = work(tmp_path / "log", broken)
    with pytest.raises(RepromiaError, match=r"unit 3 failed\.\n.*ZeroDivisionError: of nothing") as caught:
        run(units, "local", tmp_path / "run")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    run([one for one in units if one.name != "unit 3"], "local", tmp_path / "run")
    assert (tmp_path / "log").read_text().split() == list("01245")


def test_unknown_clusters_are_refused() -> None:
    with pytest.raises(ConfigError, match="no such cluster"):
        run([], "slurm")


def test_without_ray_it_is_said_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'repromia\[cluster\]'"):
        run(work(tmp_path / "log"), "ray")


def test_a_cluster_that_does_not_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    for cluster in ("ray", "ray://127.0.0.1:9"):
        with pytest.raises(ConfigError, match=r"127\.0\.0\.1:9 cannot be joined"):
            run(work(tmp_path / "log"), cluster)


def test_one_thread_is_used_and_given_back() -> None:
    before = (torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS"), os.environ.get("MKL_NUM_THREADS"))
    torch.set_num_threads(2)
    with one_thread():
        assert (torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]) == (1, "1")
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before[0])
    assert (os.environ.get("OMP_NUM_THREADS"), os.environ.get("MKL_NUM_THREADS")) == before[1:]


def test_workers_give_the_same_figures_bit_for_bit(two_workers: Any, tmp_path: Path) -> None:
    here = run(work(tmp_path / "log"), "local")
    there = run(work(tmp_path / "there"), "ray", tmp_path / "run")
    for one, other in zip(here, there, strict=True):
        assert one.logprob.tobytes() == other.logprob.tobytes()
        assert other.logprob.flags.writeable
    run(work(tmp_path / "there"), "ray", tmp_path / "run")
    assert sorted((tmp_path / "there").read_text().split()) == list("012345")
    assert two_workers.is_initialized()


@pytest.mark.parametrize("train", [regression, network])
def test_shadow_models_are_the_same_on_a_cluster(two_workers: Any, train: Any) -> None:
    here, there = (
        shadows(train, cluster=cluster).signals(digits(), Store(None), Silent()) for cluster in ("local", "ray")
    )
    for name in ("inside", "logprob", "other"):
        one, other = getattr(here, name), getattr(there, name)
        assert one.dtype == other.dtype
        assert one.tobytes() == other.tobytes()


def graph_network(records: Records, seed: int) -> torch.nn.Module:
    """Ten epochs on the subgraph of these nodes."""
    from torch_geometric.nn import GCN

    nodes = [one for one in records.contents if isinstance(one, Node)]
    rows, wanted = (torch.tensor([int(getattr(one, name)) for one in nodes]) for name in ("number", "label"))
    inner = nodes[0].graph.induced(rows.numpy())
    model = GCN(64, 16, 2, 10)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(10):
        answers = model(torch.from_numpy(inner.features), torch.from_numpy(inner.edges))
        loss = torch.nn.functional.cross_entropy(answers[rows], wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model


def test_shadow_models_of_a_graph_are_the_same_on_a_cluster(two_workers: Any) -> None:
    """What LiRA and RMIA read of them, and what G-BASE does."""
    given = {"x": graph().features, "edge_index": graph().edges, "y": np.array(LABELS)}
    records = repromia.load_nodes(given, range(60), range(60, 120))
    target = repromia.classifier(graph_network(records.records, 0), records)
    sides: list[list[ReferenceSignals | ReferenceGains]] = []
    for cluster in ("local", "ray"):
        made = repromia.shadow_models(graph_network, target, records, count=4, cluster=cluster)
        told = made.signals(records.records, Store(None), Silent())
        sides.append([told, made.gains(records.records, Store(None), Silent(), WithAndWithout(draws=2))])
    for here, there in zip(*sides, strict=True):
        for one in fields(here):
            assert getattr(here, one.name).tobytes() == getattr(there, one.name).tobytes()
    assert sides[0][0].inside.sum(axis=0).tolist() == [2] * 120


def dying(seed: int, scale: np.ndarray, log: str) -> ReferenceSignals:
    marker = Path(f"{log}.{seed}")
    if seed == 2 and not marker.exists():
        marker.touch()
        os._exit(1)
    return drawn(seed, scale, log)


def test_a_unit_whose_worker_dies_starts_again(two_workers: Any, tmp_path: Path) -> None:
    there = run(work(tmp_path / "log", dying), "ray")
    assert (tmp_path / "log.2").exists()
    here = run(work(tmp_path / "log", drawn), "local")
    assert all(one.logprob.tobytes() == other.logprob.tobytes() for one, other in zip(here, there, strict=True))


def always_dying(seed: int, scale: np.ndarray, log: str) -> ReferenceSignals:
    os._exit(1)


def test_a_unit_whose_workers_always_die_is_named(two_workers: Any, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="unit 0 could not be finished") as caught:
        run_units(work(tmp_path, always_dying, 1), cluster="ray", store=Store(None), progress=Silent(), retries=0)
    assert isinstance(caught.value.__cause__, two_workers.exceptions.WorkerCrashedError)


def test_a_unit_that_raises_on_a_worker_is_not_tried_again(two_workers: Any, tmp_path: Path) -> None:
    def failing(records: Any, seed: int) -> Any:
        with (tmp_path / "tries").open("a") as file:
            file.write(f"{seed}\n")
        raise ZeroDivisionError("of nothing")

    with pytest.raises(
        TargetError, match=r"Shadow model \d of 4: The training function failed.*\n.*of nothing"
    ) as told:
        shadows(failing, cluster="ray").signals(digits(), Store(None), Silent())
    assert isinstance(told.value.__cause__, two_workers.exceptions.RayTaskError)
    tries = (tmp_path / "tries").read_text().split()
    assert len(tries) == len(set(tries))
    with pytest.raises(RepromiaError, match=r"unit 3 failed\.\n.*ZeroDivisionError"):
        run(work(tmp_path / "log", broken), "ray")


def test_what_cannot_be_sent_is_said(two_workers: Any, tmp_path: Path) -> None:
    with (tmp_path / "open").open("w") as file:

        def holding(records: Any, seed: int) -> Any:
            return file

        with pytest.raises(ClusterError, match="cannot be sent"):
            shadows(holding, cluster="ray").signals(digits(), Store(None), Silent())
