"""Finished audits read together: who is exposed."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
from rich.console import Console

from repromia.errors import ConfigError, RecordsError, StoreError
from repromia.exposure_runs import exposure_command, exposure_of_runs
from repromia.result import AuditResult
from test_cli import QUICK, audit_arguments, on_disk, repromia, result_in  # noqa: F401 — on_disk is a fixture
from test_compare import audits  # noqa: F401 — a fixture

COUNT = 400


def run_of(folder: Path, like: Path, shift: float, seed: int, **changes: Any) -> Path:
    """An audit of 800 records of which 70 % are in eval; the first 100 members score `shift` sd higher."""
    generator = np.random.default_rng(seed)
    fixed = np.random.default_rng(99).normal(size=2 * COUNT) + shift * (np.arange(2 * COUNT) < 100)
    table = {
        "id": [f"r{at}" for at in range(2 * COUNT)],
        "role": np.where(generator.random(2 * COUNT) < 0.7, "eval", "fit").tolist(),
        "member": np.arange(2 * COUNT) < COUNT,
        "loss": fixed + 0.1 * generator.normal(size=2 * COUNT),
        "other": -fixed,
    }
    result = AuditResult.model_validate_json((like / "result.json").read_bytes())
    result = result.model_copy(update={"headline": "loss", **changes})
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(result.model_dump_json())
    polars.DataFrame(table).write_parquet(folder / "scores.parquet")
    return folder


@pytest.fixture
def rotated(audits: Path, tmp_path: Path) -> list[Path]:  # noqa: F811
    return [run_of(tmp_path / f"run{seed}", audits / "overfitted", 4.0, seed) for seed in range(6)]


def test_rotated_audits_rank_all_members_and_name_the_exposed_ones(rotated: list[Path], tmp_path: Path) -> None:
    """100 of 400 members score 4 sd higher: nearly all are named, and 10 % of the names may be wrong."""
    found = exposure_of_runs(rotated)
    assert len(found.rotated.ids) + len(found.rotated.never) == 2 * COUNT
    assert len(found.rotated.never) < 10  # .3 ** 6 of 800 is .6
    named = {int(found.rotated.ids[row][1:]) for row in found.found.named(0.1)}
    true = sum(one < 100 for one in named)
    assert true >= 90
    assert len(named) - true <= 25  # .1 of 100 expected at most; five standard deviations
    assert found.sentences[0].startswith(f"{len(named)} of ")
    assert "of 6 audits" in found.sentences[1]
    console = Console(file=StringIO(), width=200)
    assert exposure_command(rotated, out=tmp_path / "all.csv", console=console) == 0
    table = polars.read_csv(tmp_path / "all.csv")
    assert table.columns[:6] == ["id", "member", "score", "p_value", "q_value", "expected_false_alarms"]
    assert table["p_value"].is_sorted()
    assert table.height == len(found.rotated.ids)
    assert found.sentences[0] in console.file.getvalue()  # type: ignore[attr-defined]
    exposure_command(rotated, out=tmp_path / "all.parquet", console=console)
    assert polars.read_parquet(tmp_path / "all.parquet").height == table.height


def test_where_nothing_is_kept_hardly_anybody_is_named(audits: Path, tmp_path: Path) -> None:  # noqa: F811
    """Null scores: any name at all in at most 10 % of such tables."""
    runs = [run_of(tmp_path / f"null{seed}", audits / "overfitted", 0.0, seed) for seed in range(6)]
    found = exposure_of_runs(runs)
    assert not found.found.named(0.1).size
    assert "No single member can be named" in found.sentences[0]


def test_one_audit_ranks_its_eval_records_and_says_so(rotated: list[Path]) -> None:
    found = exposure_of_runs(rotated[:1])
    in_eval = int((polars.read_parquet(rotated[0] / "scores.parquet")["role"] == "eval").sum())
    assert len(found.rotated.ids) == in_eval
    assert f"Only the {in_eval} eval records" in found.sentences[1]


def test_the_attack_is_each_headline_or_the_one_named(audits: Path, rotated: list[Path], tmp_path: Path) -> None:  # noqa: F811
    assert exposure_of_runs(rotated).attacks == ("loss",) * 6
    assert not exposure_of_runs(rotated, attack="other").found.named(0.1).size  # the sign is reversed
    mixed = run_of(tmp_path / "mixed", audits / "overfitted", 4.0, 77, headline="other")
    assert exposure_of_runs([rotated[0], mixed]).attacks == ("loss", "other")
    with pytest.raises(ConfigError, match="has no scores of 'min_k'"):
        exposure_of_runs(rotated, attack="min_k")


def test_doubts_of_an_audit_are_handed_on(audits: Path, tmp_path: Path) -> None:  # noqa: F811
    result = AuditResult.model_validate_json((audits / "overfitted" / "result.json").read_bytes())
    doubt = result.findings[0].model_copy(update={"code": "not_attributable", "sentence": "The data gives it away."})
    one = run_of(tmp_path / "one", audits / "overfitted", 4.0, 0, findings=(doubt,))
    assert exposure_of_runs([one]).sentences[-1].endswith("may not be the model's doing. The data gives it away.")


def test_audits_that_do_not_fit_together_are_refused(audits: Path, rotated: list[Path], tmp_path: Path) -> None:  # noqa: F811
    like = audits / "overfitted"
    with pytest.raises(RecordsError, match="another model"):
        exposure_of_runs([rotated[0], run_of(tmp_path / "a", like, 4.0, 8, target={"fingerprint": "other"})])
    summary = AuditResult.model_validate_json((like / "result.json").read_bytes()).records
    changed = run_of(tmp_path / "b", like, 4.0, 9, records=summary.model_copy(update={"digest": "other"}))
    with pytest.raises(RecordsError, match="other records"):
        exposure_of_runs([rotated[0], changed])
    with pytest.raises(ConfigError, match="exactly the same records"):
        exposure_of_runs([rotated[0], run_of(tmp_path / "c", like, 4.0, 0)])
    with pytest.raises(ConfigError, match="no share"):
        exposure_of_runs(rotated, rate=10)
    with pytest.raises(ConfigError, match="no audit"):
        exposure_of_runs([])
    with pytest.raises(StoreError):
        exposure_of_runs([tmp_path / "nowhere"])
    grouped = summary.model_copy(update={"grouped": True})
    with pytest.raises(RecordsError, match="groups are not known"):
        exposure_of_runs([run_of(tmp_path / "d", like, 4.0, 0, records=grouped)])


@pytest.mark.slow
def test_rotations_from_the_command_line(on_disk: Path) -> None:  # noqa: F811
    """A real model, three seeds; then the same folders read by hand give the same table, and one alone its part."""
    arguments = audit_arguments("turned", *QUICK)
    done = repromia(*arguments, "--no-controls", "--rotations", "3", folder=on_disk)
    assert done.returncode == 0, done.stderr + done.stdout
    out = on_disk / "turned"
    assert result_in(out / "rotation-2").config["seed"] == 2
    table = polars.read_csv(out / "exposure.csv")
    members = table.filter(polars.col("member"))
    assert members.height > 0.9 * 120  # .3 ** 3 are in no eval role
    assert members["p_value"].median() < 0.3  # the model is leaky
    assert table.filter(~polars.col("member"))["expected_false_alarms"].is_null().all()
    again = repromia("exposure", "turned", "turned/rotation-1", "turned/rotation-2", "--out", "own.csv", folder=on_disk)
    assert again.returncode == 0, again.stderr
    assert (on_disk / "own.csv").read_text() == (out / "exposure.csv").read_text()
    wrong = repromia("exposure", "turned", "turned", "--out", "own.csv", folder=on_disk)
    assert wrong.returncode == 2
    assert "exactly the same records" in " ".join(wrong.stderr.split())
    wrong = repromia("exposure", "turned", "--out", "own.txt", folder=on_disk)
    assert wrong.returncode == 2
    assert ".csv or .parquet" in " ".join(wrong.stderr.split())
