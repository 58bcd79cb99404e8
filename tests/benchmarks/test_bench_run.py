"""`repromia bench` end to end: real models on small real likenesses of the data."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from repromia.benchmarks import registry
from repromia.benchmarks.command import Options, bench_command
from repromia.benchmarks.page import markdown
from repromia.benchmarks.tables import Bench, BenchTable, central_rows, measured_with
from repromia.benchmarks.texts import stand_in_records
from repromia.errors import ConfigError, RepromiaError
from test_cluster import two_workers  # noqa: F401 — a fixture

QUICK = ("loss", "reference", "probe_bank:programs=band/width=2")
FEW = {
    "cora-gcn": ("loss", "rmia", "probe_bank"),
    "fashion_mnist-classifier": ("loss", "rmia", "lira_offline"),
    "fashion_mnist-ddpm": ("sima:t=100", "shift_contrast:t=100"),
}
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"


def bench(out: Path, *names: str, code: int = 0, **options: object) -> Bench:
    """Run, and read what was written."""
    asked = replace(Options(names, preset="smoke", seeds=1, out=out), **options)  # type: ignore[arg-type]
    said = StringIO()
    assert bench_command(asked, Console(file=said)) == code, said.getvalue()
    return Bench.model_validate_json((out / "bench.json").read_bytes())


def figures(table: BenchTable) -> list[object]:
    """Everything that was measured, without how long it took."""
    return [one.model_copy(update={"seconds": 0.0, "model": "", "folder": ""}) for one in table.cells]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one finished seed of WikiMIA's likeness."""
    folder = tmp_path_factory.mktemp("bench")
    bench(folder, "wikimia-64", attacks=QUICK)
    return folder


def test_a_language_benchmark_is_measured_and_written(out: Path) -> None:
    found = Bench.model_validate_json((out / "bench.json").read_bytes())
    (table,) = found.tables
    (cell,) = table.cells
    assert found.status == "complete"
    assert table.stand_in
    assert cell.rows[0].kind == "blind"
    kinds = [one.kind for one in cell.rows]
    assert kinds == sorted(kinds, key=["blind", "passive", "reference", "head", "reprogrammed"].index)
    rows = {one.name: one for one in cell.rows}
    loss = rows["loss"].auc
    assert loss
    assert loss.low > 0.6  # the likeness's own model has seen its members six times
    assert rows["loss"].null_auc
    assert abs(rows["loss"].null_auc.estimate - 0.5) < 0.12
    assert {one.role for one in cell.gains} == {"best_passive", "same_supervision"}
    assert found.versions["repromia"]


def test_the_pages_show_ours_beside_published_figures(out: Path) -> None:
    text = (out / "bench.md").read_text()
    attacks = text.split("**Attacks**")[1].split("**Paired")[0].strip().splitlines()
    assert attacks[2].startswith("| blind:")
    assert "Measured on a small likeness of the data" in text
    assert "| bag of words, no model | WikiMIA | 0.990 | 0.947 at 5 % FPR | Das et al. 2024" in text
    assert "only the claims are shown" in text  # not drawn by lot, and no real data
    assert "+0.0525" in text
    page = (out / "bench.html").read_text()
    assert page.count("<table>") == text.count("| --- |\n") == 4
    assert "<script" not in page


def test_tables_say_where_cells_were_measured_not_where_they_were_printed(out: Path) -> None:
    found = Bench.model_validate_json((out / "bench.json").read_bytes())
    (table,) = found.tables
    (cell,) = table.cells
    assert cell.device == "cpu"
    assert found.versions == cell.versions
    assert f"torch {cell.versions['torch']}" in (out / "bench.md").read_text()
    other = cell.model_copy(update={"device": "cuda:0", "versions": {**cell.versions, "torch": "9.9"}})
    tables = (table.model_copy(update={"cells": (cell, other)}),)
    mixed = found.model_copy(update={"tables": tables, "versions": measured_with(tables)})
    assert mixed.versions == {**cell.versions, "torch": f"{cell.versions['torch']}, 9.9"}
    assert "Measured on cpu, cuda:0 with" in markdown(mixed)


def test_cells_that_are_there_are_not_done_again(out: Path) -> None:
    (kept,) = (out / "cells").glob("*.json")
    before, first = kept.stat().st_mtime_ns, bench(out, "wikimia-64", attacks=QUICK)
    both = bench(out, "wikimia-64", attacks=QUICK, seeds=2)
    assert kept.stat().st_mtime_ns == before
    assert len(list((out / "cells").glob("*.json"))) == 2
    assert both.tables[0].cells[0] == first.tables[0].cells[0]
    assert both.tables[0].cells[1].rows != both.tables[0].cells[0].rows
    kept.write_bytes(b"damaged")
    again = bench(out, "wikimia-64", attacks=QUICK)
    assert figures(again.tables[0])[0] == figures(first.tables[0])[0]


DEAR = ("ddpm", "gcn")  # their audits are tested elsewhere, and these in `make test-all`


@pytest.mark.parametrize(
    "name",
    [pytest.param(one, marks=[pytest.mark.slow] if any(part in one for part in DEAR) else []) for one in FEW],
)
def test_a_benchmark_of_every_modality_is_measured(name: str, tmp_path: Path) -> None:
    (table,) = bench(tmp_path, name, attacks=FEW[name]).tables
    (cell,) = table.cells
    assert cell.status == "measured"
    assert cell.rows[0].kind == "blind"
    assert {"blind", "passive", "reprogrammed" if "ddpm" in name else "reference"} <= {one.kind for one in cell.rows}
    assert all(one.auc for one in cell.rows)
    assert cell.null_status == "measured"
    assert not central_rows([table])  # a likeness is no suite
    real = central_rows([table.model_copy(update={"stand_in": False})])
    assert bool(real) == ("probe_bank" in FEW[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", registry())
def test_every_benchmark_is_measured_at_smoke(name: str, tmp_path: Path) -> None:
    found = bench(tmp_path, name)
    assert found.status == "complete"
    assert found.tables[0].cells[0].rows[0].kind == "blind"


def test_the_few_records_of_wikimia_256_are_shared_out_so_that_all_roles_have_some(out: Path, tmp_path: Path) -> None:
    members, others = stand_in_records(51)[0], stand_in_records(82)[0][51:]
    rows = [{"input": one, "label": int(side == 0)} for side, texts in enumerate((members, others)) for one in texts]
    file = tmp_path / "wikimia" / "wikimia_256.jsonl"
    file.parent.mkdir()
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = str(out / "stand-in" / "models" / "base")
    found = bench(
        tmp_path / "out", "wikimia-256", preset="laptop", data=str(tmp_path), model=model, attacks=("loss", "recall")
    )
    (cell,) = found.tables[0].cells
    assert (cell.eval_members, cell.eval_nonmembers) == (17, 11)
    assert "33 % fit, 33 % select, 34 % eval" in " ".join(found.tables[0].steps)


def test_an_attack_that_fails_is_a_red_row_and_is_tried_again(tmp_path: Path) -> None:
    found = bench(tmp_path, "wikimia-64", attacks=("loss", "reprogram:program=nowhere.safetensors"), code=1)
    rows = {one.name: one for one in found.tables[0].cells[0].rows}
    assert found.status == "complete_with_failures"
    assert rows["loss"].auc
    assert "nowhere.safetensors" in rows["reprogram:program=nowhere.safetensors"].reason
    assert not list((tmp_path / "cells").glob("*.json"))
    assert "Could not be measured: wikimia-64, seed 0" in (tmp_path / "bench.md").read_text()
    assert "class=failed" in (tmp_path / "bench.html").read_text()


def test_wrong_use_is_said_before_anything_is_done(tmp_path: Path) -> None:
    for options, told in (
        (Options(("wikimia-64",), preset="smoke", seeds=0, out=tmp_path), "--seeds 1 or more"),
        (Options(("wikimia-64",), preset="smoke"), "add --out DIR"),
        (Options(("nothing",), out=tmp_path), "run `repromia bench --list`"),
        (Options(("wikimia-64",), preset="smoke", attacks=("los",), out=tmp_path), "did you mean 'loss'"),
    ):
        with pytest.raises(RepromiaError, match=told):
            bench_command(options, Console(file=StringIO()))
    assert not list(tmp_path.iterdir())


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    registry()["wikimia-64"].stand_in(tmp_path)
    with pytest.raises(ConfigError, match="stories260k") as raised:
        bench(tmp_path / "out", "wikimia-64", preset="laptop", data=str(tmp_path))
    assert "--model with a folder or a hub id" in str(raised.value)


def test_broken_data_is_a_failed_cell_that_says_where(tmp_path: Path) -> None:
    file = tmp_path / "arxivmia" / "arxivmia_dev.jsonl.gz"
    file.parent.mkdir()
    file.write_bytes(b"no gzip")
    (tmp_path / "stories260k").mkdir()
    found = bench(tmp_path / "out", "arxivmia", preset="laptop", data=str(tmp_path), code=1)
    (cell,) = found.tables[0].cells
    assert cell.status == "failed"
    assert "arxivmia, seed 0: " in cell.reason
    assert "arxivmia_dev.jsonl.gz" in cell.reason
    assert "FAILED" in (tmp_path / "out" / "bench.md").read_text()


def test_another_package_brings_a_benchmark_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    code = DOCUMENT.read_text().split("```python\n")[1].split("```")[0]
    (tmp_path / "letters_benchmark.py").write_text(code)
    about = tmp_path / "letters_benchmark-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: letters-benchmark\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[repromia.benchmarks]\nletters = letters_benchmark:LETTERS\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry.cache_clear()
    request.addfinalizer(registry.cache_clear)
    request.addfinalizer(lambda: sys.modules.pop("letters_benchmark", None))
    found = bench(tmp_path / "out", "letters", attacks=("loss",))
    assert found.tables[0].title == "Letters of our archive"
    assert found.status == "complete"


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    whole = bench(tmp_path / "whole", "wikimia-64", attacks=("loss",), seeds=3)
    asked = ("wikimia-64", "--preset=smoke", "--attacks=loss", "--seeds=3", f"--out={tmp_path / 'cut'}")
    process = subprocess.Popen([sys.executable, "-c", "from repromia.cli import main; main()", "bench", *asked])
    cells = tmp_path / "cut" / "cells"
    while not list(cells.glob("*.json")):
        assert process.poll() is None
        time.sleep(0.1)
    process.kill()
    process.wait()
    kept = {one: one.stat().st_mtime_ns for one in cells.glob("*.json")}
    assert len(kept) < 3
    assert not (tmp_path / "cut" / "bench.json").exists()
    again = bench(tmp_path / "cut", "wikimia-64", attacks=("loss",), seeds=3)
    assert {one: one.stat().st_mtime_ns for one in kept} == kept
    assert figures(again.tables[0]) == figures(whole.tables[0])


@pytest.mark.slow
def test_ray_gives_the_same_tables(tmp_path: Path, two_workers: object) -> None:  # noqa: F811
    here = bench(tmp_path / "here", "wikimia-64", "cora-gcn", attacks=("loss",), seeds=2)
    there = bench(tmp_path / "there", "wikimia-64", "cora-gcn", attacks=("loss",), seeds=2, cluster="ray")
    for one, other in zip(here.tables, there.tables, strict=True):
        assert figures(one) == figures(other)
    assert json.loads((tmp_path / "there" / "bench.json").read_text())["status"] == "complete"
