from __future__ import annotations

import copy
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier

import repromia
from repromia import randomised
from repromia.cli import main
from repromia.duplicates import remove_duplicates
from repromia.errors import RecordsError
from repromia.evaluate import Judge, all_records
from repromia.manifest import DrawVerdict
from repromia.randomised import epsilon_figures, whole_units
from repromia.records import LabelledRecords, Records
from repromia.result import AuditResult, EpsilonFigures
from repromia.roles import assign_roles
from repromia.split import SplitOptions, split
from repromia.training import train
from small import SmallModels


def _drawn(folder: Path, holdout: float = 0.5) -> LabelledRecords:
    """Rows of digits, drawn by lot."""
    digits = load_digits(return_X_y=True)
    columns = {f"pixel{at}": digits[0][:700, at] for at in range(64)}
    polars.DataFrame({**columns, "digit": digits[1][:700]}).write_csv(folder / "digits.csv")
    split(str(folder / "digits.csv"), folder / "drawn", SplitOptions(holdout, seed=3, class_field="digit"))
    drawn = folder / "drawn"
    return repromia.load_records(str(drawn / "members.csv"), str(drawn / "nonmembers.csv"), class_field="digit")


def _audited(records: LabelledRecords, manifest: Path) -> AuditResult:
    members = records.members().contents
    forest = RandomForestClassifier(20, bootstrap=False, random_state=0)
    forest.fit([one.values for one in members], [int(one.label) for one in members])  # type: ignore[union-attr]
    audit = partial(repromia.audit, repromia.classifier(forest, records), records)
    return audit(attacks=("loss",), headline="loss", fprs=(0.05,), bootstrap=200, manifest=str(manifest))


def test_an_audit_of_what_was_drawn_bounds_epsilon(tmp_path: Path) -> None:
    records = _drawn(tmp_path)
    found = _audited(records, tmp_path / "drawn").epsilon
    assert found.status == "measured"
    assert found.complete
    assert {one.name for one in found.bounds} == {"one_run", "rates", "gaussian_one_run", "gaussian_rates"}
    assert found.bounds[0].epsilon > 1  # a forest of unbounded trees knows its records by heart


def test_the_same_scores_of_others_bound_nothing(tmp_path: Path) -> None:
    records = _drawn(tmp_path)
    other = np.random.default_rng(5).permutation(records.member)
    found = _audited(LabelledRecords(records.records, other), tmp_path / "drawn")
    assert found.epsilon.status == "not_available"
    assert "other side" in found.epsilon.reason
    assert [one.code for one in found.findings].count("no_epsilon") == 1


@pytest.mark.parametrize("holdout", [0.3])
def test_coins_that_are_not_fair_bound_nothing(tmp_path: Path, holdout: float) -> None:
    found = _audited(_drawn(tmp_path, holdout), tmp_path / "drawn").epsilon
    assert found.status == "not_available"
    assert "0.3" in found.reason


def test_a_manifest_that_is_not_there_ends_the_audit_before_it_asks_anything(tmp_path: Path) -> None:
    records = _drawn(tmp_path)
    with pytest.raises(RecordsError, match="expected"):
        _audited(records, tmp_path / "nowhere")


def test_the_commands_draw_and_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`split`, and `compare` of a forest that knows its records by heart with one of stumps."""
    digits = load_digits(return_X_y=True)
    rows = {f"pixel{at}": digits[0][:700, at] for at in range(64)}
    polars.DataFrame({**rows, "digit": digits[1][:700]}).write_csv(tmp_path / "all.csv")
    drawn = tmp_path / "drawn"
    assert _exit(["split", str(tmp_path / "all.csv"), "--out", str(drawn), "--class-field", "digit"]) == 0
    files = str(drawn / "members.csv"), str(drawn / "nonmembers.csv")
    records = repromia.load_records(*files, class_field="digit")
    members = records.members().contents
    for name, depth in (("before", None), ("after", 1)):
        forest = RandomForestClassifier(20, max_depth=depth, bootstrap=False, random_state=0)
        forest.fit([one.values for one in members], [int(one.label) for one in members])  # type: ignore[union-attr]
        audit = partial(repromia.audit, repromia.classifier(forest, records), records, manifest=str(drawn))
        audit(attacks=("loss",), headline="loss", fprs=(0.05,), bootstrap=200, out=tmp_path / name)
    capsys.readouterr()
    compared = ["compare", str(tmp_path / "before"), str(tmp_path / "after"), "--out", str(tmp_path / "both")]
    assert _exit(compared) == 0
    assert "gives away less" in " ".join(capsys.readouterr().out.split())
    assert (tmp_path / "both" / "compare.html").is_file()


def _answered(twins: int, *, leave_out: bool) -> EpsilonFigures:
    """Randomised response of epsilon 1 about each of 600 single texts and of twins that differ in one word.

    A twin's score is the sum of both answers, as an attack on a model that saw both would have it.
    """
    generator = np.random.default_rng(2)
    words = [" ".join(map(str, generator.integers(0, 10**6, 12))) for _ in range(600 + twins)]
    texts = words + [f"{one} again" for one in words[600:]]
    own = np.r_[np.arange(600 + twins), np.arange(600, 600 + twins)]
    ids = tuple(f"r{row}" for row in range(len(texts)))
    member = generator.random(len(texts)) < 0.5
    labelled = LabelledRecords(Records(ids, tuple(texts), ids), member)
    kept, duplicates = remove_duplicates(labelled)
    answer = np.where(generator.random(len(texts)) < 1 / (1 + np.exp(-1)), member, ~member)
    score = dict(zip(ids, np.bincount(own, answer)[own] / np.bincount(own)[own], strict=True))
    drawn = DrawVerdict(True, "", True, 0.5, "record", ids, 0)
    kept, units = whole_units(drawn, labelled, kept)
    judge = Judge(assign_roles(kept, units=units), (0.1,), 200, 0)
    scores = np.array([score[one] for one in all_records(judge.roles).ids])
    alike = (*duplicates.repeated, *duplicates.excluded) if leave_out else ()
    return epsilon_figures(drawn, labelled, alike, judge, ("answers", scores), 0.0)


def test_what_remains_of_pairs_does_not_bound_the_epsilon_of_one_record() -> None:
    """Twins on one side have epsilon 2. Left in, they refute the true epsilon of 1."""
    assert _answered(1500, leave_out=False).bounds[0].epsilon > 1.1
    assert 0.3 < _answered(1500, leave_out=True).bounds[0].epsilon <= 1


def test_records_of_one_unit_of_the_draw_share_a_role() -> None:
    """Although the audit was not told of groups: else fit tells the membership of eval."""
    ids = tuple(f"r{row}" for row in range(900))
    units = tuple(f"u{row % 300}" for row in range(900))
    member = np.tile(np.random.default_rng(0).random(300) < 0.5, 3)
    labelled = LabelledRecords(Records(ids, ids, ids), member)
    kept, known = whole_units(DrawVerdict(True, "", True, 0.5, "group", units, 0), labelled, labelled.take(range(850)))
    assert known == units[:850]
    assert len(set(kept.records.groups)) == 300
    roles = assign_roles(kept, units=known)
    name = dict(zip(ids, units, strict=True))
    held = [{name[one] for one in part.ids} for part in (roles.fit.records, roles.select.records, roles.eval)]
    assert sum(map(len, held)) == 300


def test_units_that_share_a_near_copy_bound_no_epsilon(monkeypatch: pytest.MonkeyPatch) -> None:
    """They lie in one role where their coins fell alike, so that fit would tell some coins of eval."""
    generator = np.random.default_rng(4)
    texts = [" ".join(map(str, generator.integers(0, 10**6, 12))) for _ in range(1200)]
    units = tuple(f"u{row % 600}" for row in range(1200))  # documents of two passages
    texts[750:900] = [f"{one} again" for one in texts[600:750]]  # documents 150 to 299 share one with 0 to 149
    member = np.tile(generator.random(600) < 0.5, 2)
    ids = tuple(f"r{row}" for row in range(1200))
    labelled = LabelledRecords(Records(ids, tuple(texts), ids), member)
    kept, duplicates = remove_duplicates(labelled)
    drawn = DrawVerdict(True, "", True, 0.5, "group", units, 0)
    kept, known = whole_units(drawn, labelled, kept)
    judge = Judge(assign_roles(kept, units=known), (0.1,), 200, 0)
    seen: list[str] = []

    def bounds(select: Any, measured: Any, *, delta: float, groups: tuple[list[str], list[str]]) -> tuple[Any, ...]:
        seen.extend([*groups[0], *groups[1]])
        return ()

    monkeypatch.setattr(randomised, "epsilon_bounds", bounds)
    scores = generator.normal(size=len(kept))
    alike = (*duplicates.repeated, *duplicates.excluded)
    assert epsilon_figures(drawn, labelled, alike, judge, ("loss", scores), 0.0).status == "measured"
    assert {units[ids.index(one)] for one in alike} == {f"u{row}" for row in range(300)}
    assert {int(one.removeprefix("u")) for one in seen} <= set(range(300, 600))
    assert len(set(seen)) > 200


def test_canaries_are_measured_apart(models: SmallModels, tmp_path: Path) -> None:
    """A model trained on the drawn members: planted strings stand out. Only the manifest tells which they are."""
    pool = tmp_path / "pool.jsonl"
    pool.write_text("".join(json.dumps({"text": one}) + "\n" for one in [*models.members, *models.nonmembers]))
    manifest = split(pool, tmp_path / "drawn", SplitOptions(canaries=200, canary_template="The code is {canary}."))
    records = repromia.load_records(*(str(tmp_path / "drawn" / f"{one}.jsonl") for one in ("members", "nonmembers")))
    target = copy.deepcopy(models.base)
    target.model.requires_grad_(True)
    train(target.model, target.encoder, records.members().texts(), epochs=9, learning_rate=2e-3, batch=16)
    audit = partial(repromia.audit, target, records, attacks=("loss",), fprs=(0.05,), bootstrap=200, controls=False)
    found = audit(manifest=str(tmp_path / "drawn"))
    canaries = [one for one in found.slices if (one.name, one.value) == ("canary", "planted")]
    assert len(canaries) == 1
    assert canaries[0].auc is not None
    assert canaries[0].auc.low > 0.5
    inserted = sum(one.inserted for one in manifest.canaries)
    assert 10 < canaries[0].n_members < inserted  # those of eval
    assert found.epsilon.status == "measured"
    assert not [one for one in audit().slices if one.name == "canary"]


def _exit(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)
