"""The key of an audit names everything that decides its result."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from repromia.attacks import parse
from repromia.provenance import _named_files, _source_of


@pytest.mark.parametrize("changed", ["program.safetensors", "program.json"])
def test_a_learned_program_is_both_of_its_files(changed: str, tmp_path: Path) -> None:
    for name in ("program.safetensors", "program.json"):
        (tmp_path / name).write_text("one")
    attack = parse(f"reprogram:program={tmp_path / 'program.safetensors'}", "diffusion")
    before = _named_files(attack)
    assert len(before) == 2
    (tmp_path / changed).write_text("other")
    assert len(set(before) & set(_named_files(attack))) == 1


@pytest.mark.parametrize("changed", ["__init__.py", "attack.py", "inner/helper.py"])
def test_code_of_others_is_their_whole_package(changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("__init__.py", "inner/__init__.py", "inner/helper.py"):
        (tmp_path / "theirs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "theirs" / name).write_text("")
    (tmp_path / "theirs" / "attack.py").write_text("def score():\n    return 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    score = importlib.import_module("theirs.attack").score
    before = list(_source_of(score))
    assert len(before) == 4
    assert list(_source_of(score)) == before
    with (tmp_path / "theirs" / changed).open("a") as file:
        file.write("# other\n")
    assert len(set(before) & set(_source_of(score))) == 3
    for name in ("theirs.attack", "theirs"):
        sys.modules.pop(name)


def test_code_that_cannot_be_read_is_never_taken_for_unchanged() -> None:
    given: dict[str, Any] = {"__name__": "typed_in"}
    exec("def score():\n    return 1\n", given)  # noqa: S102
    assert list(_source_of(given["score"])) != list(_source_of(given["score"]))
