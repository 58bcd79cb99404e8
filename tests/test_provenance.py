"""The key of an audit names everything that decides its result."""

from __future__ import annotations

from pathlib import Path

import pytest

from repromia.attacks import parse
from repromia.provenance import _named_files


@pytest.mark.parametrize("changed", ["program.safetensors", "program.json"])
def test_a_learned_program_is_both_of_its_files(changed: str, tmp_path: Path) -> None:
    for name in ("program.safetensors", "program.json"):
        (tmp_path / name).write_text("one")
    attack = parse(f"reprogram:program={tmp_path / 'program.safetensors'}", "diffusion")
    before = _named_files(attack)
    assert len(before) == 2
    (tmp_path / changed).write_text("other")
    assert len(set(before) & set(_named_files(attack))) == 1
