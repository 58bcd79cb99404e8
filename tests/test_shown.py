"""How much a command says: progress for a person, one sentence, or data; and what the shell completes."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from repromia.attacks import registry
from repromia.cli import main
from repromia.config import AuditConfig
from repromia.progress import Step, each
from repromia.run import attacks_command, audit_to_folder
from test_cli import QUICK, REPROMIA, audit_arguments
from test_cli import on_disk as on_disk

__all__ = ["on_disk"]


def run(*arguments: str) -> int:
    """The command in this process."""
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
    assert isinstance(left.value.code, int)
    return left.value.code


@pytest.fixture
def shown(on_disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """Works beside a finished audit, ./shown; what --json printed."""
    monkeypatch.chdir(on_disk)
    assert run(*audit_arguments("shown", *QUICK), "--json") == 0
    return capsys.readouterr().out


def on_a_terminal(*arguments: str, folder: Path) -> tuple[str, str]:
    """What a command prints and what a person sees beside it, whose stderr is a terminal."""
    screen, behind = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(
        [*REPROMIA, *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=behind, text=True, env=environment
    )
    os.close(behind)
    seen = b""
    while True:
        try:
            seen += os.read(screen, 65536)
        except OSError:  # nobody writes any more
            break
    os.close(screen)
    printed, _ = process.communicate(timeout=60)
    return printed, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())


def test_json_is_the_result_and_nothing_else(shown: str) -> None:
    assert json.loads(shown) == json.loads(Path("shown/result.json").read_text())


def test_a_terminal_shows_what_is_done_and_how_long_it_takes_unless_it_is_quiet(on_disk: Path) -> None:
    printed, seen = on_a_terminal(*audit_arguments("watched", *QUICK), folder=on_disk)
    assert "Report: " in printed
    assert "loading models" not in printed
    for name in ("reading records", "loading models", "attacks on the null target", "permuted labels: same_"):
        assert name in seen
    assert re.search(r"permuted labels: same_.* \d+% \d+:\d\d:\d\d", seen)  # time left
    printed, seen = on_a_terminal(*audit_arguments("watched", *QUICK), "--quiet", folder=on_disk)
    first = json.loads((on_disk / "watched" / "result.json").read_text())["findings"][0]["sentence"]
    assert (printed, seen) == (first + "\n", "")


def test_every_part_of_an_audit_is_a_step(on_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Listener:
        def __init__(self) -> None:
            self.done: dict[str, float] = {}
            self.totals: dict[str, float | None] = {}

        @contextmanager
        def step(self, name: str, total: float | None) -> Iterator[Step]:
            self.totals[name], self.done[name], outer = total, 0.0, self

            class Bar:
                def advance(self, amount: float = 1) -> None:
                    outer.done[name] += amount

            yield Bar()

    monkeypatch.chdir(on_disk)
    heard = Listener()
    flags = dict(one.split("=") for one in ("model=finetuned", "reference=base", "out=heard"))
    sides = {"members": Path("train.jsonl"), "nonmembers": Path("heldout.jsonl")}
    config = AuditConfig(**flags, **sides, attacks=("loss", "min_k"), fprs=(0.05,), bootstrap=200)
    audit_to_folder(config, heard)
    parts = "looking for duplicates, attacks, fitting heads, intervals, blind baselines, kinds of records, "
    parts += "attacks on the null target, paired differences, permuted labels: same_supervision, writing the report"
    assert set(parts.split(", ")) <= heard.done.keys()
    assert {name: done for name, done in heard.done.items() if heard.totals[name] not in (None, done)} == {}


def test_items_come_in_order_and_count_when_they_are_done() -> None:
    done = 0.0

    class Counter:
        @contextmanager
        def step(self, name: str, total: float | None) -> Iterator[Step]:
            assert (name, total) == ("letters", 3)

            class Bar:
                def advance(self, amount: float = 1) -> None:
                    nonlocal done
                    done += amount

            yield Bar()

    seen = [(item, done) for item in each(Counter(), "letters", "abc")]
    assert seen == [("a", 0), ("b", 1), ("c", 2)]
    assert done == 3


def test_dry_run_as_data(shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*audit_arguments("unwritten", *QUICK), "--dry-run", "--json") == 0
    told, result = json.loads(capsys.readouterr().out), json.loads(shown)
    assert told["attacks"] == [row["name"] for row in result["attacks"] if row["kind"] != "head"]
    assert sum(told["sizes"].values()) == sum(sum(sides) for sides in result["records"]["roles"].values())
    assert not Path("unwritten").exists()


@pytest.mark.usefixtures("shown")
def test_check_as_data(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("check", "--members", "train.jsonl", "--nonmembers", "heldout.jsonl")
    code = run(*arguments, "--json")
    told = json.loads(capsys.readouterr().out)
    assert run(*arguments) == code == int(bool(told["separable"]))
    table = capsys.readouterr().out
    for name, area in told["blind"].items():
        assert re.search(rf"{name} .*{area['estimate']:.3f}", table)


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_the_shell_completes_commands_flags_and_choices(tmp_path: Path) -> None:
    environment = os.environ | {"HOME": str(tmp_path), "BASH_VERSION": "5"}
    installed = subprocess.run(
        [*REPROMIA, "--install-completion"], env=environment, capture_output=True, text=True, check=False
    )
    assert installed.returncode == 0, installed.stderr
    (script,) = tmp_path.rglob("repromia")
    asked = [("au",), ("audit", "--nonm"), ("audit", "--modality", ""), ("demo", "gr")]
    lines = [
        f"COMP_WORDS=(repromia {' '.join(repr(word) for word in words)}); COMP_CWORD={len(words)}; COMPREPLY=(); "
        '_repromia; echo "${COMPREPLY[@]}"'
        for words in asked
    ]
    told = subprocess.run(
        ["bash", "-c", "\n".join([f"source {script}", *lines])], capture_output=True, text=True, check=True
    )
    assert told.stdout.splitlines() == ["audit", "--nonmembers", "auto language diffusion classifier graph", "graph"]


def test_an_interrupt_is_one_line(on_disk: Path) -> None:
    process = subprocess.Popen(
        [*REPROMIA, *audit_arguments("stopped", *QUICK)], cwd=on_disk, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    until = time.monotonic() + 120
    while not (on_disk / "stopped" / "events.jsonl").is_file() and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert errors.decode() == "Interrupted. What was finished is kept: the same command goes on from there.\n"


@pytest.mark.parametrize("width", [60, 80, 160])
def test_attacks_are_listed_whole(width: int) -> None:
    out = StringIO()
    assert attacks_command("diffusion", as_json=False, console=Console(file=out, width=width)) == 0
    lines = out.getvalue().splitlines()
    assert lines[0].strip() == "Attacks on a diffusion model"
    assert max(len(line) for line in lines) <= width
    said = " ".join(out.getvalue().split())
    for one in registry("diffusion").values():
        facts = [f"source: {one.citation}", f"needs: {', '.join(one.needs) or 'nothing more'}"]
        assert all(" ".join(fact.split()) in said for fact in facts), one.name
        assert any(line.split()[:1] == [one.name] for line in lines)
    assert "min_k" not in said


def test_what_is_missing_is_named_without_what_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("audit", "--model", "a-private-name", "--members", "m", "--nonmembers", "n") == 2
    assert capsys.readouterr().err.strip() == "--out is required (repromia COMMAND --help explains it)"
    assert run("audit", "--model", "x", "--members", "m", "--out", "o") == 2
    assert capsys.readouterr().err.strip() == "--members and --nonmembers go together"
