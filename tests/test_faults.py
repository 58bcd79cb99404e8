"""An audit that is killed with SIGKILL at random moments and begun again ends as if nothing had happened."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from benchmarks.faults import endure
from small import small_models

ATTACKS = "loss,zlib,reference,probe_bank:programs=band/width=2+lower_case+noise_and_repair/steps=2"
RECORDS = 110  # of each side


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The audit of a small language model on disk."""
    folder, models = tmp_path_factory.mktemp("files"), small_models()
    for name, model in (("leaky", models.leaky), ("base", models.base)):
        model.model.save_pretrained(folder / name)
        model.tokenizer.save_pretrained(folder / name)
    for name, texts in (("members", models.members), ("nonmembers", models.nonmembers)):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts[:RECORDS])
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return {
        "--model": folder / "leaky",
        "--reference": folder / "base",
        "--members": folder / "members.jsonl",
        "--nonmembers": folder / "nonmembers.jsonl",
        "--attacks": ATTACKS,
        "--fprs": "0.05",
        "--bootstrap": "200",
        "--max-tokens": "64",
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
