"""Heads and programs learned on a shadow model, carried over to a target whose labels they never saw."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from repromia.config import Settings
from repromia.errors import ConfigError
from repromia.folders import write_audit
from repromia.pipeline import Audit, run_audit
from repromia.progress import Silent
from repromia.records import LabelledRecords, Records
from repromia.store import Store
from repromia.targets.language import LanguageModel
from repromia.transfer import load_heads
from small import SmallModels

BANK = "probe_bank:programs=band/width=1+skipped_layers"


def labelled(members: list[str], nonmembers: list[str]) -> LabelledRecords:
    texts = (*members, *nonmembers)
    ids = tuple(f"r{row}" for row in range(len(texts)))
    return LabelledRecords(Records(ids, texts, ids), np.arange(len(texts)) < len(members))


def audited(target: LanguageModel, records: LabelledRecords, *, transfer_from: str = "") -> Audit:
    settings = Settings(
        attacks=("loss", BANK),
        bootstrap=200,
        fit=0.4,
        select=0.2,
        controls=False,
        transfer_from=transfer_from,
        fprs=(0.1,),
    )
    return run_audit((target, None, None), records, settings, store=Store(None), progress=Silent())


@pytest.fixture(scope="module")
def shadow(models: SmallModels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An audit on one half of the records; the leaky model stands for its own shadow."""
    folder = tmp_path_factory.mktemp("shadow")
    write_audit(audited(models.leaky, labelled(models.members[:60], models.nonmembers[:60])), folder, redact=True)
    return folder


def test_a_head_carried_over_scores_without_the_labels_of_the_target(models: SmallModels, shadow: Path) -> None:
    records = labelled(models.members[60:], models.nonmembers[60:])
    done = audited(models.leaky, records, transfer_from=str(shadow))
    row = done.result.attack(f"{BANK}:transferred")
    assert row.auc is not None
    assert row.auc.low > 0.5
    assert row.needs == ("shadow model",)
    (gain,) = [one for one in done.result.gains if one.attack == row.name and one.role == "same_supervision"]
    assert gain.over == "same_supervision:transferred"
    # turning every label round changes no score of it, and every score of a head fitted here
    turned = LabelledRecords(records.records, ~records.member)
    again = audited(models.leaky, turned, transfer_from=str(shadow))
    assert again.records == done.records
    assert again.scores[row.name].tolist() == done.scores[row.name].tolist()
    assert again.scores[BANK].tolist() != done.scores[BANK].tolist()


def test_the_head_on_disk_is_the_head_that_was_fitted(models: SmallModels, shadow: Path) -> None:
    """By hand: standardise, cut at 1.5, weigh, add up."""
    about = json.loads(next((shadow / "heads").glob("probe_bank*.json")).read_text())
    saved = next(one for one in load_heads(shadow) if one.bank)
    features = np.random.default_rng(0).normal(size=(7, len(about["columns"])))
    cut = np.clip((features - np.array(about["centre"])) / np.array(about["spread"]), -1.5, 1.5)
    expected = cut @ np.array(about["weights"]) + about["intercept"]
    np.testing.assert_allclose(saved.head(features), expected, rtol=1e-12)
    assert saved.columns[: len(saved.attacks)] == saved.attacks


def test_a_head_learned_on_records_that_are_measured_is_a_failed_row(models: SmallModels, shadow: Path) -> None:
    records = labelled(models.members[30:90], models.nonmembers[30:90])
    row = audited(models.leaky, records, transfer_from=str(shadow)).result.attack(f"{BANK}:transferred")
    assert row.status == "failed"
    assert "learned on" in row.reason


def test_other_features_than_the_shadow_models_are_a_failed_row(
    models: SmallModels, shadow: Path, tmp_path: Path
) -> None:
    path = next((shadow / "heads").glob("probe_bank*.json"))
    about = json.loads(path.read_text())
    about["columns"][-1] = "band/width=9 0"
    (tmp_path / "heads").mkdir()
    (tmp_path / "heads" / path.name).write_text(json.dumps(about))
    records = labelled(models.members[60:], models.nonmembers[60:])
    row = audited(models.leaky, records, transfer_from=str(tmp_path)).result.attack(f"{BANK}:transferred")
    assert row.status == "failed"
    assert "band/width=9 0" in row.reason


@pytest.mark.parametrize("damage", ["none", "truncated", "nan", "short"])
def test_a_run_without_a_readable_head_is_refused(damage: str, shadow: Path, tmp_path: Path) -> None:
    if damage != "none":
        text = next((shadow / "heads").glob("probe_bank*.json")).read_text()
        about = json.loads(text)
        if damage == "nan":
            about["weights"][0] = float("nan")
        if damage == "short":
            about["weights"] = about["weights"][1:]
        (tmp_path / "heads").mkdir()
        (tmp_path / "heads" / "one.json").write_text(text[:100] if damage == "truncated" else json.dumps(about))
    with pytest.raises(ConfigError, match="head"):
        load_heads(tmp_path)
