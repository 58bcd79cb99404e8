"""Two real audits compared, and comparisons whose answer is known."""

from __future__ import annotations

import json
import re
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
from rich.console import Console

import repromia
from repromia.compare import compare_command, compare_runs
from repromia.compare_page import render_comparison
from repromia.comparison import Comparison, Difference
from repromia.errors import ConfigError, RecordsError, StoreError
from repromia.metrics import auc
from repromia.result import AttackResult, AuditResult
from repromia.verdict import signed

COUNT = 300  # a side
SETTINGS: dict[str, Any] = {"attacks": ("loss", "confidence"), "fprs": (0.05,), "bootstrap": 200, "controls": False}


@pytest.fixture(scope="module")
def audits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half-random labels of digits, learned by heart by one forest and hardly by the other."""
    from sklearn.datasets import load_digits
    from sklearn.ensemble import RandomForestClassifier

    values, label = load_digits(return_X_y=True)
    generator = np.random.default_rng(0)
    rows = generator.permutation(len(values))[: 2 * COUNT]
    values, label = (
        values[rows],
        np.where(generator.random(2 * COUNT) < 0.3, generator.integers(10, size=2 * COUNT), label[rows]),
    )
    records = repromia.load_records((values[:COUNT], label[:COUNT]), (values[COUNT:], label[COUNT:]))
    out = tmp_path_factory.mktemp("audits")
    for name, leaf in (("overfitted", 1), ("regularised", 20)):
        forest = RandomForestClassifier(30, min_samples_leaf=leaf, random_state=0).fit(values[:COUNT], label[:COUNT])
        repromia.audit(repromia.classifier(forest, records), records, out=out / name, **SETTINGS)
    return out


def known(folder: Path, like: Path, columns: dict[str, np.ndarray], **changes: Any) -> Path:
    """An audit folder with these scores of 400 + 400 eval records (those of `like` in all else)."""
    result = AuditResult.model_validate_json((like / "result.json").read_bytes())
    row = result.attack("loss")
    size = len(next(iter(columns.values())))
    table = {"id": [f"r{at}" for at in range(size)], "role": ["eval"] * size, "member": np.arange(size) < size // 2}
    rows = tuple(row.model_copy(update={"name": name, "select_auc": 0.6}) for name in columns)
    result = result.model_copy(update={"attacks": rows, "headline": next(iter(columns)), "headline_rule": "named"})
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(result.model_copy(update=changes).model_dump_json())
    polars.DataFrame({**table, **columns}).write_parquet(folder / "scores.parquet")
    return folder


def normal(shift: float, seed: int, size: int = 800) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=size) + shift * (np.arange(size) < size // 2)


def only(found: Comparison) -> Difference:
    assert len(found.headlines) == 1
    return found.headlines[0]


def test_a_regularised_model_gives_away_less(audits: Path, tmp_path: Path) -> None:
    console = Console(file=StringIO(), width=200)
    folders = [audits / "overfitted", audits / "regularised"]
    assert compare_command(folders, out=tmp_path / "out", repeats=200, console=console) == 0
    found = Comparison.model_validate_json((tmp_path / "out" / "compare.json").read_bytes())
    assert {one.outcome for one in found.attacks} == {"less"}
    assert "regularised gives away less than overfitted: AUC of" in found.headlines[0].sentence
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert found.headlines[0].sentence[:60] in " ".join(printed.split())
    tables = [polars.read_parquet(folder / "scores.parquet") for folder in folders]
    for one in found.attacks:
        areas = [
            auc(t[one.attack].to_numpy(), t["member"].to_numpy())
            for t in (s.filter(s["role"] == "eval") for s in tables)
        ]
        assert one.auc.estimate == pytest.approx(areas[1] - areas[0])
    assert found.n_members == sum((tables[0]["role"] == "eval") & tables[0]["member"])


def test_an_audit_against_itself_is_identical(audits: Path) -> None:
    found = compare_runs([audits / "overfitted"] * 2, names=("a", "b"), repeats=50)
    assert {one.outcome for one in (*found.headlines, *found.attacks)} == {"identical"}
    assert all(one.auc.low == one.auc.high == 0 for one in found.attacks)


def test_fit_and_select_records_of_any_run_are_left_out(audits: Path, tmp_path: Path) -> None:
    base = audits / "overfitted"
    table = polars.read_parquet(base / "scores.parquet")
    hidden = table.filter(polars.col("role") == "eval")["id"][:40]
    other = tmp_path / "other"
    other.mkdir()
    (other / "result.json").write_bytes((base / "result.json").read_bytes())
    moved = polars.when(polars.col("id").is_in(hidden.implode())).then(polars.lit("fit")).otherwise(polars.col("role"))
    table.sample(fraction=1, shuffle=True, seed=0).with_columns(moved.alias("role")).write_parquet(
        other / "scores.parquet"
    )
    found = compare_runs([base, other], repeats=50)
    assert found.n_members + found.n_nonmembers == (table["role"] == "eval").sum() - 40
    assert {one.outcome for one in found.attacks} == {"identical"}  # matched by id, whatever the order


def test_nothing_is_claimed_where_nothing_differs(audits: Path, tmp_path: Path) -> None:
    """Nominal 95 %: two models of one AUC, 20 seeds of 400 + 400. More than 4 false claims: once in 390 runs."""
    claims = 0
    for seed in range(20):
        folders = [
            known(tmp_path / f"{seed}{name}", audits / "overfitted", {"loss": normal(0.4, 2 * seed + at)})
            for at, name in enumerate("ab")
        ]
        one = only(compare_runs(folders, repeats=50))
        claims += one.outcome != "not_shown"
    assert claims <= 4
    assert one.smallest_visible == pytest.approx(0.078, abs=0.005)  # (1.96 + .84) standard errors of .028
    assert (
        f"the smallest that such a sample shows in four of five cases is about {one.smallest_visible:.3f}"
        in one.sentence
    )


def test_over_unlearning_is_a_leak_and_no_improvement(audits: Path, tmp_path: Path) -> None:
    before = known(tmp_path / "before", audits / "overfitted", {"loss": normal(0.6, 1)})
    after = known(tmp_path / "after", audits / "overfitted", {"loss": normal(-0.9, 2)})
    one = only(compare_runs([before, after], repeats=50))
    assert one.auc.high < -0.3
    assert one.outcome == "more"
    assert "after gives away more than before" in one.sentence
    assert "unlearning that went too far" in one.sentence
    alike = known(tmp_path / "alike", audits / "overfitted", {"loss": normal(-0.6, 3)})
    assert only(compare_runs([before, alike], repeats=50)).outcome == "not_shown"
    healed = known(tmp_path / "healed", audits / "overfitted", {"loss": normal(0.0, 4)})
    assert only(compare_runs([alike, healed], repeats=50)).outcome == "less"


def test_a_few_records_more_at_few_false_alarms_are_told(audits: Path, tmp_path: Path) -> None:
    plain, tail = normal(0.2, 1), normal(0.2, 1)
    tail[:60] += 6 * (np.arange(60) > 0)
    tail[60:400] -= 0.25
    folders = [known(tmp_path / n, audits / "overfitted", {"loss": s}) for n, s in (("a", plain), ("b", tail))]
    one = only(compare_runs(folders, repeats=500))
    assert one.tpr_at_fpr[0].difference.low > 0
    assert "more members" in one.sentence


def test_groups_widen_the_interval_and_must_be_known(audits: Path, tmp_path: Path) -> None:
    shared = np.repeat(np.random.default_rng(5).normal(size=80), 10)
    columns = [{"loss": shared + normal(shift, seed)} for shift, seed in ((0.5, 1), (0.3, 2))]
    records = AuditResult.model_validate_json((audits / "overfitted" / "result.json").read_bytes()).records
    grouped = {"records": records.model_copy(update={"grouped": True})}
    folders = [known(tmp_path / n, audits / "overfitted", c, **grouped) for n, c in zip("ab", columns, strict=True)]
    with pytest.raises(RecordsError, match="groups are not known"):
        compare_runs(folders)
    own = {f"r{at}": str(at // 10) for at in range(800)}
    tied = only(compare_runs(folders, groups=own, repeats=500))
    for folder in folders:
        table = polars.read_parquet(folder / "scores.parquet")
        table.with_columns(group=polars.Series(list(own.values()))).write_parquet(folder / "scores.parquet")
    kept = only(compare_runs(folders, repeats=500))
    assert (kept.auc.low, kept.auc.high) == pytest.approx((tied.auc.low, tied.auc.high), abs=0.02)
    assert "groups" in kept.auc.method


def test_what_one_run_lacks_is_said(audits: Path, tmp_path: Path) -> None:
    both = known(tmp_path / "a", audits / "overfitted", {"loss": normal(0.5, 1), "lira": normal(1, 2)})
    one = known(tmp_path / "b", audits / "overfitted", {"loss": normal(0.5, 1)})
    console = Console(file=StringIO(), width=200)
    assert compare_command([both, one], repeats=50, console=console) == 1
    assert "Not compared: lira (b: not asked for)" in console.file.getvalue()  # type: ignore[attr-defined]
    nothing = known(tmp_path / "c", audits / "overfitted", {"rmia": normal(0.5, 1)})
    assert compare_runs([both, nothing], repeats=50).attacks == ()
    render_comparison(compare_runs([both, nothing], repeats=50))


def test_three_runs_are_told_at_any_width(audits: Path, tmp_path: Path) -> None:
    shifts = {"a": 0.9, "b": 0.4, "c": 0.0}
    folders = [known(tmp_path / n, audits / "overfitted", {"loss": normal(s, 3)}) for n, s in shifts.items()]
    found = compare_runs(folders, repeats=50)
    assert [(one.run, one.outcome) for one in found.attacks] == [("b", "less"), ("c", "less")]
    assert found.attacks[0].comparisons == 2
    for width, tables in ((200, 1), (80, 2)):
        out = StringIO()
        compare_command(folders, repeats=50, console=Console(file=out, width=width))
        lines = out.getvalue().splitlines()
        assert sum(line.startswith(" Attack  ") for line in lines) == tables
        for one in found.attacks:
            figures = rf"{one.run_auc.estimate:.3f} .*{re.escape(signed(one.auc))} +.*less"
            assert any(re.search(figures, line) for line in lines)  # none is broken or cut


def test_unlike_records_are_refused(audits: Path, tmp_path: Path) -> None:
    base = known(tmp_path / "a", audits / "overfitted", {"loss": normal(0.5, 1)})
    table = polars.read_parquet(base / "scores.parquet")
    other = known(tmp_path / "b", audits / "overfitted", {"loss": normal(0.5, 1)})
    table.with_columns(member=~polars.col("member")).write_parquet(other / "scores.parquet")
    with pytest.raises(RecordsError, match="800 records are members in one run and non-members in 'b'"):
        compare_runs([base, other])
    table.with_columns(id=polars.concat_str(polars.lit("x"), "id")).write_parquet(other / "scores.parquet")
    with pytest.raises(RecordsError, match="too few eval records"):
        compare_runs([base, other])
    (other / "scores.parquet").write_bytes(b"no table")
    with pytest.raises(StoreError, match="holds no finished audit"):
        compare_runs([base, other])
    with pytest.raises(StoreError):
        compare_runs([base, tmp_path / "missing"])
    with pytest.raises(ConfigError):
        compare_runs([base])
    graph = known(tmp_path / "c", audits / "overfitted", {"loss": normal(0.5, 1)}, modality="graph")
    with pytest.raises(ConfigError, match="different kinds of model"):
        compare_runs([base, graph])
    with pytest.raises(ConfigError):
        compare_runs([base, base], names=("a", "a"))


def test_names_are_escaped_in_the_page(audits: Path, tmp_path: Path) -> None:
    nasty = "<script>alert(1)</script>"
    columns = {nasty: normal(0.5, 1)}
    folders = [known(tmp_path / n, audits / "overfitted", columns) for n in ("a", "b")]
    page = render_comparison(compare_runs(folders, names=(nasty, "[red]b[/red]"), repeats=50))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert page.count("<svg") == 1
    assert not re.search(r"(?:src|href)=", page)
    assert "prefers-color-scheme: dark" in page
    printed = Console(file=StringIO(), width=100)
    compare_command(folders, names=("a", "[red]b[/red]"), repeats=50, console=printed)
    assert "[red]b[/red]" in printed.file.getvalue()  # type: ignore[attr-defined]


def test_an_attack_that_failed_in_one_run_is_no_low_risk(audits: Path, tmp_path: Path) -> None:
    first = known(tmp_path / "a", audits / "overfitted", {"loss": normal(0.5, 1)})
    result = json.loads((first / "result.json").read_text())
    row = AttackResult.model_validate(result["attacks"][0])
    failed = row.model_copy(update={"status": "failed", "reason": "no memory"})
    second = known(tmp_path / "b", audits / "overfitted", {"loss": normal(0, 1)}, attacks=(failed,))
    found = compare_runs([first, second], repeats=50)
    assert found.headlines == found.attacks == ()
    assert [(one.attack, one.run, one.reason) for one in found.missing] == [("loss", "b", "no memory")]
