"""The commands of docs/evidence.md, run as printed, in this order, on a small real model trained here."""

from __future__ import annotations

import copy
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from benchmarks.unlearning import unlearn
from repromia.cli import main
from repromia.demo.language import paragraphs
from repromia.targets.load import quiet
from repromia.training import train
from small import SmallModels

DOCS = Path(__file__).resolve().parents[1] / "docs"
TEXT = (DOCS / "evidence.md").read_text(encoding="utf-8")
COMMANDS = [shlex.split(one) for one in re.findall(r"^repromia (.*)$", TEXT, flags=re.MULTILINE)]
QUICK = ["--attacks", "loss,min_k,reference", "--fprs", "0.05", "--bootstrap", "200", "--no-controls"]


def run(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert isinstance(left.value.code, int)
    return left.value.code


def write(path: Path, texts: list[str]) -> None:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def read(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text().splitlines()]


def test_the_commands_run_as_printed(
    models: SmallModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Members are told with AUC about .8: `found` and `used` are sure. What ten steps of unlearning leave is open."""
    monkeypatch.chdir(tmp_path)
    split, audit, exposure, used, forgotten, compare = COMMANDS
    pool = paragraphs(10, 30)
    unseen = [pool[row] for row in np.random.default_rng(1).permutation(len(pool))[1200:1680]]  # by the base
    write(Path("all.jsonl"), unseen)
    assert run(split) == 0
    members, heldout = read(Path("drawn/members.jsonl")), read(Path("drawn/nonmembers.jsonl"))
    tuned = copy.deepcopy(models.base.model).requires_grad_(True)
    train(tuned, models.base.encoder, members, epochs=8, learning_rate=2e-3, batch=16)
    away = copy.deepcopy(tuned)
    half = len(members) // 2
    unlearn(away, models.base.encoder, members[:half], members[half:], way="negative_preference", steps=10, rate=1e-3)
    for name, model in (("base", models.base.model), ("finetuned", tuned), ("unlearned", away)):
        with quiet():
            model.save_pretrained(name)
            models.base.tokenizer.save_pretrained(name)

    assert run([*audit, *QUICK]) == 0
    result = json.loads(Path("audit/result.json").read_text())
    assert result["findings"][0]["code"] == "found"
    assert result["epsilon"]["bounds"][0]["epsilon"] > 0
    assert run(exposure) == 0
    assert Path("exposed.csv").read_text().count("\n") > 100

    write(Path("suspect.jsonl"), members)
    write(Path("heldout.jsonl"), heldout)
    assert run([*used, *QUICK]) == 0
    assert json.loads(Path("used/dataset_inference.json").read_text())["outcome"] == "used"
    for name, texts in (("forget", members[:half]), ("retained", members[half:]), ("never_seen", heldout)):
        write(Path(f"{name}.jsonl"), texts)
    assert run([*forgotten, *QUICK]) in (0, 1)  # 1: the attack has too little power for the default margin
    assert json.loads(Path("forgotten/unlearning.json").read_text())["n_forget"] > 100
    again = dict(zip(audit[1::2], audit[2::2], strict=True)) | {"--model": "./unlearned", "--out": "after/"}
    assert run(["audit", *(part for flag in again.items() for part in flag), *QUICK]) == 0
    capsys.readouterr()
    assert run(compare) == 0
    assert "after" in capsys.readouterr().out


def test_every_linked_file_exists() -> None:
    for name in ("evidence.md", "findings.md"):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", (DOCS / name).read_text(encoding="utf-8")):
            assert (DOCS / target).is_file(), target
