"""Commands and code of the pages, as printed, on small real models; flags behind them make them short."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import repromia
from repromia.attacks import registry
from repromia.cli import main
from repromia.demo.language import paragraphs
from repromia.result import AuditResult
from repromia.signals import from_token_arrays
from small import SmallModels
from targets.local_server import serving
from test_cli import QUICK
from test_cli import on_disk as on_disk
from test_docs import MYMODEL

__all__ = ["on_disk"]
ROOT = Path(__file__).resolve().parents[1]
SHORT = ["--attacks", "loss", "--fprs", "0.05", "--bootstrap", "200", "--no-controls", "--quiet"]


def page(name: str) -> str:
    return (ROOT / name if name.isupper() or name[0].isupper() else ROOT / "docs" / name).read_text(encoding="utf-8")


def commands(name: str) -> list[list[str]]:
    """Arguments of every `repromia` line of a page's blocks."""
    text = page(name).replace("\\\n", " ")
    blocks = re.findall(r"^ *```\w*\n(.*?)^ *```", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("repromia ")]


def block(name: str, beginning: str = "") -> str:
    """The page's Python block that begins so."""
    found = re.findall(r"```python\n(.*?)```", page(name), flags=re.DOTALL)
    (one,) = [text for text in found if text.startswith(beginning)]
    return str(one)


def run(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert isinstance(left.value.code, int)
    return left.value.code


def test_commands_of_start_and_language(on_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(on_disk)
    check, audit = commands("language.md")
    assert run(check) in (0, 1)
    assert run([*audit, *QUICK, "--quiet"]) == 0
    demo = Path("demo-audit")
    demo.mkdir()
    for old, new in (("train", "members"), ("heldout", "nonmembers")):
        shutil.copy(f"{old}.jsonl", demo / f"{new}.jsonl")
    for old in ("finetuned", "base", "audit"):
        (demo / old).symlink_to(on_disk / old)
    check, rehearsal, report, exposure = commands("start.md")
    assert run(check) in (0, 1)
    assert run([*rehearsal, "--attacks", "loss"]) == 0
    assert not Path("again").exists()
    assert run(report) == run(exposure) == 0
    assert (demo / "audit" / "report.md").is_file()
    assert Path("exposed.csv").is_file()


def test_the_endpoint_command_of_the_readme(
    models: SmallModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (command,) = [one for one in commands("README.md") if "--endpoint" in one]
    monkeypatch.chdir(tmp_path)
    pool = paragraphs(10, 20)
    for name, texts in (("train", pool[:110]), ("heldout", pool[110:220])):
        Path(f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    with serving(models.leaky, others={"my-base": models.base}) as server:
        command[command.index("--endpoint") + 1] = server.url
        command[command.index("--endpoint-context") + 1] = "256"  # what the small model reads
        # the tiny model repeats one word for ever, from which no shift can be told
        assert run([*command, "--no-endpoint-check", "--attacks", "loss,reference", *SHORT[2:]]) == 0
    result = AuditResult.model_validate_json(Path("audit/result.json").read_bytes())
    assert {row.name for row in result.attacks if row.status == "measured"} >= {"loss", "reference"}


def test_the_attack_of_contributing_is_the_one_of_the_package() -> None:
    from typing import Annotated

    from repromia import attacks
    from repromia.attacks import Ask, Plain, attack
    from repromia.signals import Scores, TokenSignals

    before = registry()["lowercase"]
    names: dict[str, Any] = {"attack": attack, "Annotated": Annotated, "Ask": Ask, "Plain": Plain}
    names |= {"Scores": Scores, "TokenSignals": TokenSignals}
    try:
        exec(compile(block("CONTRIBUTING.md"), "CONTRIBUTING.md", "exec"), names)  # noqa: S102
    finally:
        attacks._REGISTRY["language", "lowercase"] = before
    flat = {name: np.array([-1.0, -2, -4, -3, -3]) for name in ("logprob", "mean", "std", "top_logprob")}
    flat |= {name: np.arange(5) for name in ("token", "top_token", "rank")}
    plain, lowered = from_token_arrays([2, 3], flat), from_token_arrays([3, 2], flat)
    assert names["lowercase"](plain, lowered) == pytest.approx(before.function(plain, lowered))


def test_a_network_of_ones_own_becomes_a_target() -> None:
    names: dict[str, Any] = {"network": lambda x, t: 0.5 * x}
    exec(compile(block("diffusion.md"), "diffusion.md", "exec"), names)  # noqa: S102
    assert names["target"].describe()["name"] == "mine"


def test_the_python_of_classifiers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of two blobs; a network that knows 110 of them by heart."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    classes = np.arange(220) % 2
    rows = (generator.normal(size=(220, 8)) + 0.5 * classes[:, None]).astype(np.float32)

    def train(records: Any, seed: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        network = torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.ReLU(), torch.nn.Linear(64, 2))
        x = torch.tensor(np.array([one.values for one in records.contents], dtype=np.float32))
        y = torch.tensor([int(one.label) for one in records.contents])
        steps = torch.optim.Adam(network.parameters(), lr=0.05)
        for _ in range(60):
            steps.zero_grad()
            torch.nn.functional.cross_entropy(network(x), y).backward()
            steps.step()
        return network.eval()

    names: dict[str, Any] = {"train": train, "x_train": rows[:110], "y_train": classes[:110]}
    names |= {"x_heldout": rows[110:], "y_heldout": classes[110:]}
    labelled = repromia.load_records((rows[:110], classes[:110]), (rows[110:], classes[110:]))
    names["model"] = train(labelled.records.take(range(110)), 0)
    quick = 'out="audit/", attacks="loss,rmia", fprs=(0.05,), bootstrap=200, controls=False)'
    code = block("classifiers.md").replace("count=8", "count=2").replace('out="audit/")', quick)
    exec(compile(code, "classifiers.md", "exec"), names)  # noqa: S102
    assert {row.status for row in names["result"].attacks} == {"measured"}
    assert Path("audit/report.html").is_file()


def test_commands_of_dp_and_defences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool of digits is drawn, a network trained on one side, and audited bare and behind defences."""
    from safetensors.torch import save_file

    from repromia.demo import classifier

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(classifier, "EPOCHS", 2)
    monkeypatch.syspath_prepend(tmp_path)
    generator = np.random.default_rng(0)
    for row in range(330):
        folder = Path("pool") / str(row % 10)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / f"{row}.png")
    Path("mymodel.py").write_text(MYMODEL)
    split, audit = commands("dp.md")
    assert run(split) == 0
    members = repromia.load_records("drawn/members", "drawn/nonmembers", class_field="folder").records
    save_file(classifier.train(members.take(range(100)), 0).state_dict(), "model.safetensors")
    assert run([*audit, *SHORT]) == 0
    assert json.loads(Path("audit/result.json").read_text())["epsilon"] is not None
    Path("train").symlink_to("drawn/members")
    Path("heldout").symlink_to("drawn/nonmembers")
    defended, compare = commands("defences.md")
    assert run([*defended, *SHORT]) == 0
    told = AuditResult.model_validate_json(Path("audit-defended/result.json").read_bytes())
    assert "temperature" in json.dumps(told.target)
    assert run(compare) == 0


@pytest.mark.filterwarnings("ignore:Secure RNG", "ignore:Full backward hook", "ignore:Optimal order")
def test_private_training_as_printed(capsys: pytest.CaptureFixture[str]) -> None:
    from torch.utils.data import DataLoader, TensorDataset

    torch.manual_seed(0)
    model = torch.nn.Linear(4, 2)
    names: dict[str, Any] = {"torch": torch, "DataLoader": DataLoader, "model": model}
    names["members"] = TensorDataset(torch.randn(1024, 4), torch.arange(1024) % 2)
    names["optimiser"] = torch.optim.SGD(model.parameters(), lr=0.1)
    exec(compile(block("dp.md"), "dp.md", "exec"), names)  # noqa: S102
    assert 1.5 < float(capsys.readouterr().out.split()[-1]) <= 2.01  # of the 2 that were asked for


def test_benchmarks_are_listed_and_rehearsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    listing, _, _, rehearsal = commands("benchmarks.md")
    assert run(listing) == run(rehearsal) == 0
    told = capsys.readouterr().out
    assert "wikimia-64" in told
    assert "800,000 steps" in told
    assert not list(tmp_path.iterdir())
