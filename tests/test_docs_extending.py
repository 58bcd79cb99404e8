"""docs/extending.md does what it says: its files are written as they stand there, installed, and used."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import repromia
from repromia import attacks
from repromia.cli import main
from repromia.demo.language import paragraphs
from repromia.metrics import auc
from repromia.programs.registry import PLANS
from repromia.result import AuditResult
from test_cli import QUICK
from test_cli import on_disk as on_disk

__all__ = ["on_disk"]
PAGE = (Path(__file__).resolve().parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^```(?:python|toml)\n# (\S+)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL))
COMMANDS = [line.split()[1:] for line in re.findall(r"^repromia .*$", PAGE, flags=re.MULTILINE)]


def forget() -> None:
    """What a new process would not know."""
    attacks._import_all.cache_clear()
    attacks._REGISTRY.pop(("language", "tail"), None)
    PLANS.pop("backwards", None)
    for name in ("our_attacks", "our_programs", "our_target"):
        sys.modules.pop(name, None)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The page's modules as an installed package with the page's entry points, and gone afterwards."""
    groups: dict[str, dict[str, str]] = tomllib.loads(FILES["pyproject.toml"])["project"]["entry-points"]
    groups["repromia.attacks"] |= tomllib.loads(re.findall(r"`(programs = [^`]*)`", PAGE)[0])
    for name in ("our_attacks.py", "our_programs.py", "our_target.py"):
        (tmp_path / name).write_text(FILES[name])
    about = tmp_path / "ours-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: ours\nVersion: 1\n")
    lines = [f"[{group}]\n" + "".join(f"{a} = {b}\n" for a, b in own.items()) for group, own in groups.items()]
    (about / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    attacks._import_all.cache_clear()
    yield tmp_path
    forget()


def run(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert isinstance(left.value.code, int)
    return left.value.code


def scores(folder: str) -> Any:
    import polars

    return polars.read_parquet(Path(folder) / "scores.parquet")


def test_an_attack_and_a_program_of_other_packages_are_used(
    installed: Path, on_disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    listing, audit, bank = COMMANDS
    monkeypatch.chdir(on_disk)
    assert run([*listing, "--json"]) == 0
    assert '"name": "tail"' in capsys.readouterr().out
    for command in (audit, bank):
        assert run([*command, *QUICK[2:], "--no-controls", "--quiet"]) == 0
    result = AuditResult.model_validate_json(Path("audit/result.json").read_bytes())
    row = next(one for one in result.attacks if one.name == "tail:share=0.3")
    table = scores("audit").filter(role="eval")
    assert row.auc is not None
    assert row.auc.estimate == pytest.approx(auc(table[row.name].to_numpy(), table["member"].to_numpy()))

    told = AuditResult.model_validate_json(Path("audit-bank/result.json").read_bytes())
    assert {one.family for one in told.families} == {"edits", "backwards"}
    assert next(one for one in told.attacks if one.name.startswith("probe_bank")).status == "measured"


def test_a_finished_audit_notices_that_code_of_others_changed(
    installed: Path, on_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(on_disk)
    out = str(tmp_path / "again")
    _, audit, bank = ([*command[:-1], out, *QUICK[2:], "--no-controls", "--quiet"] for command in COMMANDS)

    def events(*changes: tuple[str, str, str]) -> list[str]:
        for name, old, new in changes:
            path = installed / name
            path.write_text(path.read_text().replace(old, new))
        forget()
        before = len(Path(out, "events.jsonl").read_text().splitlines())
        assert run(audit if changes[0][0] == "our_attacks.py" else bank) == 0
        return [json.loads(line)["event"] for line in Path(out, "events.jsonl").read_text().splitlines()[before:]]

    assert run(audit) == 0
    first = scores(out)["tail:share=0.3"].to_numpy()
    assert "already_finished" in events(("our_attacks.py", "", ""))
    assert "already_finished" not in events(("our_attacks.py", "return plain", "return 2 * plain"))
    assert scores(out)["tail:share=0.3"].to_numpy() == pytest.approx(2 * first)
    assert "already_finished" not in events(("our_programs.py", "", ""))  # the other command, for the first time
    assert "already_finished" in events(("our_programs.py", "", ""))
    assert "already_finished" not in events(("our_programs.py", "version: int = 1", "version: int = 2"))


def test_the_attack_is_the_mean_over_the_last_tokens(installed: Path) -> None:
    from repromia.signals import from_token_arrays

    registered = attacks.registry()["tail"]
    rows = [np.array([-1.0, -2, -3, -5]), np.array([-4.0]), np.array([-1.0, -3, -8])]
    flat = {name: np.concatenate(rows) for name in ("logprob", "mean", "std", "top_logprob")}
    flat |= {name: np.arange(8) for name in ("token", "top_token", "rank")}
    found = registered.function(from_token_arrays([4, 1, 3], flat), share=0.5)
    assert found == pytest.approx([-4, -4, -5.5])


def test_a_program_turns_the_last_words(installed: Path) -> None:
    assert attacks.registry()
    assert PLANS["backwards"](words=2)._turned("one two three four") == "one two four three"


def test_a_target_of_ones_own_is_audited(installed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = paragraphs(10, 30)
    texts = [pool[row] for row in np.random.default_rng(3).permutation(len(pool))[:480]]
    members, nonmembers, others = texts[:160], texts[160:320], texts[320:]
    given: dict[str, Any] = {"members": members, "nonmembers": nonmembers, "others": others}
    exec(compile(FILES["audit_it.py"], "audit_it.py", "exec"), given)  # noqa: S102
    result = given["result"]
    assert result.findings[0].sentence in capsys.readouterr().out
    assert result.findings[0].code == "found"
    assert {row.name: row.status for row in result.attacks if row.name in ("loss", "min_k", "reference")} == {
        "loss": "measured",
        "min_k": "measured",
        "reference": "measured",
    }
    triples = Counter(text[at : at + 3] for text in members for at in range(len(text) - 2))
    pairs = Counter(text[at : at + 2] for text in members for at in range(len(text) - 2))

    def loss(text: str) -> float:
        parts = [text[at : at + 3] for at in range(len(text) - 2)]
        return float(np.mean([np.log((triples[part] + 1) / (pairs[part[:2]] + 128)) for part in parts]))

    from our_target import Trigrams

    model = Trigrams(members)
    signals = model.signals(model.encode(nonmembers[:5]))
    assert signals.average(signals.logprob) == pytest.approx([loss(text) for text in nonmembers[:5]])
    assert repromia.load_records(members, nonmembers).records.contents[0] == members[0]
