"""A full disk at any write, a clock that runs backwards and another locale change no figure."""

from __future__ import annotations

import errno
import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import run
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier

import repromia
from benchmarks.faults import differences
from repromia.class_records import class_records_from_objects
from repromia.errors import StoreError
from repromia.result import AuditResult

Audited = Callable[[Path], AuditResult]


@pytest.fixture(scope="module")
def audited() -> Audited:
    """An audit of a forest on real rows, into a folder."""
    data = load_breast_cancer()
    order = np.random.default_rng(0).permutation(len(data.target))
    inside, outside = order[:150], order[150:300]
    records = class_records_from_objects(*((data.data[side], data.target[side]) for side in (inside, outside)))
    forest = RandomForestClassifier(n_estimators=5, random_state=0).fit(data.data[inside], data.target[inside])
    target = repromia.classifier(forest, records)

    def audit(folder: Path) -> AuditResult:
        given: dict[str, Any] = {"attacks": "loss,entropy", "fprs": (0.05,), "bootstrap": 200, "out": folder}
        return repromia.audit(target, records, **given)

    return audit


@pytest.fixture(scope="module")
def calm(audited: Audited, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calm") / "run"
    audited(folder)
    return folder


def test_a_disk_that_is_full_at_any_write_loses_nothing(
    audited: Audited, calm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first write of all fails, then the second of the next try, and so on, until one goes through."""
    written, write_text = itertools.count(), Path.write_text
    fail_at = 0

    def full(original: Callable[..., Any]) -> Callable[..., Any]:
        def write(*given: Any, **options: Any) -> Any:
            if next(written) == fail_at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return original(*given, **options)

        return write

    monkeypatch.setattr(os, "fsync", full(os.fsync))
    monkeypatch.setattr(Path, "write_text", full(write_text))
    folder, failures = tmp_path / "run", 0
    while True:
        written = itertools.count()
        try:
            audited(folder)
            break
        except StoreError as error:
            assert "No space left" in str(error)  # noqa: PT017 — any number of times
            assert "what was stored so far is kept" in str(error)  # noqa: PT017
            failures += 1
            fail_at += 1
        assert not list(folder.rglob("*.tmp"))
        assert not (folder / "result.json").exists()
    assert failures >= 4  # what was written before is not written again
    assert differences(calm, folder) == []


def test_a_clock_that_runs_backwards_changes_no_figure(
    audited: Audited, calm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = itertools.count()
    monkeypatch.setattr(time, "time", lambda: 1.7e9 - 3600 * next(hours))
    audited(tmp_path / "run")
    assert next(hours) > 3
    assert differences(calm, tmp_path / "run") == []
    before = (tmp_path / "run" / "result.json").read_bytes()
    audited(tmp_path / "run")  # it is finished, whatever the clock says
    assert (tmp_path / "run" / "result.json").read_bytes() == before


SCRIPT = (
    "import sys; from repromia.cli import main; main(['split', 'data.jsonl', '--holdout', '0.5', '--out', sys.argv[1]])"
)
LOCALES = {
    "plain": {"LC_ALL": "C.UTF-8"},
    "C": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "TZ": "Pacific/Kiritimati"},
    "tr_TR": {"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8", "TZ": "America/St_Johns"},
}


def test_the_locale_changes_no_byte(tmp_path: Path) -> None:
    words = ("İstanbul", "ISIRGAN ışık", "ﬁnancial ß", "👩‍🚀", "naïve\u2028line", "Größe")
    rows = [{"text": f"{words[at % len(words)]} number {at}", "page": words[at % 3]} for at in range(60)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = {}
    for name, settings in LOCALES.items():
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG"))}
        done = run([sys.executable, "-c", SCRIPT, name], cwd=tmp_path, env={**kept, **settings}, capture_output=True)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        found[name] = {path.name: path.read_bytes() for path in files}
    assert len(found["plain"]) >= 3
    assert found["C"] == found["plain"]
    assert found["tr_TR"] == found["plain"]
