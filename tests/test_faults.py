"""An audit that is killed with SIGKILL at random moments and begun again ends as if nothing had happened."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import polars
import pytest
import skops.io
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier

from benchmarks.faults import endure


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The audit of a forest on real rows, all on disk."""
    folder, data = tmp_path_factory.mktemp("files"), load_breast_cancer()
    order = np.random.default_rng(0).permutation(len(data.target))
    sides = {"members": order[:150], "nonmembers": order[150:300]}
    for name, side in sides.items():
        rows = {f"feature{at}": data.data[side, at] for at in range(8)}
        polars.DataFrame({**rows, "class": data.target[side]}).write_parquet(folder / f"{name}.parquet")
    trained = sides["members"]
    forest = RandomForestClassifier(n_estimators=5, random_state=0).fit(data.data[trained, :8], data.target[trained])
    skops.io.dump(forest, folder / "forest.skops")
    return {
        "--model": folder / "forest.skops",
        "--members": folder / "members.parquet",
        "--nonmembers": folder / "nonmembers.parquet",
        "--class-field": "class",
        "--attacks": "loss,entropy",
        "--fprs": "0.05",
        "--bootstrap": "200",
    }


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("kills", [4, pytest.param(50, marks=pytest.mark.slow)])
def test_kills_change_nothing(
    flags: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kills: int
) -> None:
    monkeypatch.chdir(tmp_path)
    outcomes = []
    for killed, found in endure(flags, tmp_path, kills=kills):
        print(f"{time.ctime()} finished after {killed} kills: {found or 'the same'}")  # noqa: T201 — shown by pytest -s
        outcomes.append(found)
    assert outcomes
    assert not any(outcomes)
    assert killed == kills
    assert not list(tmp_path.rglob("*.tmp"))
