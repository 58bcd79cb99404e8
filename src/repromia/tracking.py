"""`--track`: figures, settings and report of a finished audit into an experiment tracker the user already has."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from repromia.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from repromia.result import AuditResult

EXPERIMENT: Final = "repromia"
LONGEST: Final = 500  # characters of a setting, as MLflow servers have allowed longest


def check_tracker(name: str) -> None:
    """Raises ConfigError where the tracker is not installed: before an audit, not after it."""
    if name == "mlflow" and find_spec("mlflow") is None:
        raise ConfigError(
            "--track mlflow needs the package mlflow, which is not installed.", hint="pip install 'repromia[tracking]'"
        )


def track(result: AuditResult, folder: Path) -> None:
    """The audit in `folder` as a run of MLflow's experiment "repromia"; one that is there already is left alone.

    It goes where MLflow is told to (MLFLOW_TRACKING_URI, else mlflow.db here). No text and no score of a record does:
    result and report, as Markdown and as a page, go without single records. Raises StoreError.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when it is imported
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        client = MlflowClient()
        known = client.get_experiment_by_name(EXPERIMENT)
        experiment = known.experiment_id if known else client.create_experiment(EXPERIMENT)
        same = f"tags.`repromia.key` = '{result.key}' and tags.`repromia.created` = '{result.created}'"
        if not client.search_runs([experiment], f"{same} and status = 'FINISHED'"):
            _log(client, experiment, result, folder)
    except (MlflowException, OSError) as error:
        raise StoreError(
            f"The audit in {str(folder)!r} is finished, but could not be tracked.",
            found=str(error).splitlines()[0],
            hint="see MLFLOW_TRACKING_URI; the same command then tracks it without measuring again",
        ) from error


def _log(client: Any, experiment: str, result: AuditResult, folder: Path) -> None:
    from mlflow.entities import Metric, Param, RunTag

    from repromia.compare_folders import read_run
    from repromia.report.command import NAMES, page_of
    from repromia.report.markdown import render_markdown

    tags = {"key": result.key, "created": result.created, "status": result.status}
    tags |= {"headline": result.headline, "found": result.findings[0].code}
    run = client.create_run(experiment, run_name=folder.resolve().name).info
    client.log_batch(
        run.run_id,
        metrics=[Metric(name, value, run.start_time, 0) for name, value in figures_of(result).items()],
        params=[Param(name, str(value)[:LONGEST]) for name, value in result.config.items() if value not in ("", None)],
        tags=[RunTag(f"repromia.{name}", value) for name, value in tags.items()],
    )
    shown = result.model_copy(update={"exposed": ()})  # single records and their scores stay here
    files = {
        "result.json": shown.model_dump_json(indent=2),
        NAMES["md"]: render_markdown(shown),
        NAMES["html"]: page_of(replace(read_run(folder, folder.name), result=shown), {}),
    }
    with TemporaryDirectory() as made:
        for name, text in files.items():
            (Path(made) / name).write_text(text, encoding="utf-8")
            client.log_artifact(run.run_id, str(Path(made) / name))
    client.set_terminated(run.run_id)


def figures_of(result: AuditResult) -> dict[str, float]:
    """Every measured figure by attack.figure, such as `min_k.auc`, `min_k.auc_low`, `min_k.tpr_at_0.01`.

    Attacks with options lose what a tracker does not take: `min_k:k=0.1` is `min_k:k_0.1`.
    """
    found: dict[str, float] = {"seconds": result.seconds}
    nulls = {row.name: row.auc for row in result.null_target.rows}
    for row in (*result.attacks, *(one.fitted for one in result.blind)):
        if row.auc is None:
            continue
        own = {"auc": row.auc.estimate, "auc_low": row.auc.low, "auc_high": row.auc.high}
        if (null := nulls.get(row.name)) is not None:
            own["null_auc"] = null.estimate
        own |= {f"tpr_at_{one.fpr:g}": one.tpr for one in row.tpr_at_fpr if one.tpr is not None}
        name = re.sub(r"[^\w.:/-]", "_", row.name)
        found |= {f"{name}.{figure}": value for figure, value in own.items()}
    return found
