"""An audit goes into a real MLflow store, whole and once, without any connection and without a record's text."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from repromia.cli import main
from repromia.result import AuditResult
from repromia.tracking import EXPERIMENT, figures_of
from test_cli import QUICK, audit_arguments
from test_cli import on_disk as on_disk

__all__ = ["on_disk"]
pytestmark = pytest.mark.filterwarnings("ignore:The ..noload.. loader:DeprecationWarning")  # MLflow in SQLAlchemy 2.1


def audit(*more: str) -> int:
    with pytest.raises(SystemExit) as left:
        main([*audit_arguments("tracked", *QUICK), "--quiet", "--track", "mlflow", *more])
    assert isinstance(left.value.code, int)
    return left.value.code


def test_an_audit_is_tracked_once(on_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(self: socket.socket, address: object) -> None:
        raise AssertionError(f"a connection to {address}")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.chdir(on_disk)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    assert audit() == audit() == 0
    from mlflow import MlflowClient  # after the command, which turns telemetry off

    client = MlflowClient()
    experiment = client.get_experiment_by_name(EXPERIMENT)
    (run,) = client.search_runs([experiment.experiment_id])
    result = AuditResult.model_validate_json(Path("tracked/result.json").read_bytes())
    assert run.info.status == "FINISHED"
    assert run.data.metrics == pytest.approx(figures_of(result))
    assert run.data.params["seed"] == "0"
    assert run.data.params["model"] == "finetuned"
    assert run.data.tags["repromia.found"] == result.findings[0].code
    kept = {
        one.path: Path(client.download_artifacts(run.info.run_id, one.path))
        for one in client.list_artifacts(run.info.run_id)
    }
    assert kept.keys() == {"result.json", "report.md", "report-without-records.html"}
    texts = [json.loads(line)["text"] for line in Path("train.jsonl").read_text().splitlines()]
    assert any(text[:40] in Path("tracked/report.html").read_text() for text in texts)
    assert result.exposed
    named = (
        [text[:40] for text in texts]
        + [f"{one.id}<" for one in result.exposed]
        + [f'"{one.id}"' for one in result.exposed]
    )
    assert not any(one in path.read_text() for path in kept.values() for one in named)


def test_a_store_that_cannot_be_reached_costs_no_result(
    on_disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(on_disk)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://")
    assert audit() == 2
    told = capsys.readouterr()
    assert "is finished, but could not be tracked" in told.err
    assert told.out.strip() == json.loads(Path("tracked/result.json").read_text())["findings"][0]["sentence"]


def test_without_mlflow_nothing_is_measured_first(on_disk: Path) -> None:
    code = "import sys; sys.modules['mlflow'] = None\nfrom repromia.cli import main; main()"
    arguments = [*audit_arguments("untracked", *QUICK), "--track", "mlflow"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=on_disk, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "pip install 'repromia[tracking]'" in done.stderr
    assert not (on_disk / "untracked").exists()


def test_figures_have_the_names_of_attacks_and_the_values_of_the_table(on_disk: Path) -> None:
    result = AuditResult.model_validate_json((on_disk / "tracked" / "result.json").read_bytes())
    figures = figures_of(result)
    for row in result.attacks:
        assert row.auc is not None
        name = row.name.replace("=", "_")
        assert figures[f"{name}.auc"] == row.auc.estimate
        assert figures[f"{name}.tpr_at_0.05"] == row.tpr_at_fpr[0].tpr
