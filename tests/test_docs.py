"""What the documents tell a user to run is run."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import repromia as repromia_package
from diffusion_models import SIZE, ddpm
from test_cli import FEW, QUICK, on_disk, repromia  # noqa: F401 — on_disk is a fixture

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_command_runs_as_printed(on_disk: Path) -> None:  # noqa: F811
    command, *_ = re.findall(r"^repromia (audit --model .*)$", README, flags=re.MULTILINE)
    done = repromia(*shlex.split(command), *QUICK, folder=on_disk)
    assert done.returncode == 0, done.stderr
    for name in ("report.html", "result.json", "scores.parquet"):
        assert (on_disk / "audit" / name).is_file()
        assert f"audit/{name}" in README


def test_the_readme_command_for_diffusion_models_runs_as_printed(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for side in ("train", "heldout"):
        (tmp_path / side).mkdir()
        for row in range(110):
            pixels = generator.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / side / f"{row}.png")
    ddpm().save_pretrained(tmp_path / "ddpm-pipeline")
    _, command, *_ = re.findall(r"^repromia (audit --model .*)$", README, flags=re.MULTILINE)
    assert f"repromia {command}" in (ROOT / "docs" / "diffusion.md").read_text(encoding="utf-8")
    done = repromia(*shlex.split(command), "--attacks=shift_contrast,sima", "--bootstrap=200", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "audit" / "report.html").is_file()


MYMODEL = """
import torch
from repromia.demo.classifier import build, train as full

def train(records, seed):
    import repromia.demo.classifier as demo
    demo.EPOCHS = 2
    return full(records, seed)
"""


def test_the_readme_command_for_classifiers_runs_as_printed(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from repromia.demo.classifier import build

    generator = np.random.default_rng(0)
    for side in ("train", "heldout"):
        for row in range(110):
            (tmp_path / side / str(row % 10)).mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / side / str(row % 10) / f"{row}.png")
    (tmp_path / "mymodel.py").write_text(MYMODEL)
    save_file(build().state_dict(), tmp_path / "model.safetensors")
    (command,) = re.findall(r"^repromia (audit --model .*--class-field.*)$", README, flags=re.MULTILINE)
    assert f"repromia {command}" in (ROOT / "docs" / "classifiers.md").read_text(encoding="utf-8")
    quick = ("--shadow-models=2", "--attacks=loss,rmia,lira_offline", "--bootstrap=200")
    done = repromia(*shlex.split(command), *quick, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "audit" / "report.html").is_file()


GRAPH_MODEL = """
from repromia.demo.graph import build, train as full

def train(records, seed):
    import repromia.demo.graph as demo
    demo.EPOCHS = 5
    return full(records, seed)
"""


def test_the_readme_command_for_graphs_runs_as_printed(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from repromia.demo.graph import build, digits_graph

    graph = digits_graph(0)
    masks = {"train_mask": graph.masks["members"], "test_mask": graph.masks["nonmembers"]}
    repromia_package.save_graph(replace(graph, masks=masks), tmp_path / "graph.npz")
    (tmp_path / "mymodel.py").write_text(GRAPH_MODEL)
    save_file(build().state_dict(), tmp_path / "model.safetensors")
    (command,) = re.findall(r"^repromia (audit --model .*--graph.*)$", README, flags=re.MULTILINE)
    assert f"repromia {command}" in (ROOT / "docs" / "graphs.md").read_text(encoding="utf-8")
    quick = ("--shadow-models=2", "--attacks=loss,rmia,hop_posteriors", "--bootstrap=200")
    done = repromia(*shlex.split(command), *quick, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "audit" / "report.html").is_file()


def test_a_dataset_of_torch_geometric_becomes_a_file_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "graphs.md").read_text("utf-8"), flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/graphs.md", "exec"), {})  # noqa: S102
    mask = np.load("graph.npz")["train_mask"]
    records = repromia_package.load_nodes("graph.npz", "train_mask", [node for node in range(34) if not mask[node]])
    assert len(records) == 34


def test_the_readme_python_runs_as_printed(
    on_disk: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    monkeypatch.chdir(on_disk)
    settings = f'out="from-python/", attacks="{FEW}", fprs=(0.05,), bootstrap=200)'
    quick = code.replace('out="audit/")', settings)
    assert quick != code
    exec(compile(quick, "README.md", "exec"), {})  # noqa: S102
    assert "AUC" in capsys.readouterr().out


def test_every_linked_file_exists() -> None:
    for name in ("README.md", "CONTRIBUTING.md", "docs/diffusion.md", "docs/classifiers.md", "docs/graphs.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
            assert (ROOT / name).parent.joinpath(target).is_file(), target


@pytest.mark.slow
def test_the_demo_ends_in_a_report(tmp_path: Path) -> None:
    """The whole offline demo: three to four minutes on two cores."""
    done = repromia("demo", "language", "--out", "demo", folder=tmp_path, timeout=1500)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "demo" / "audit" / "report.html").is_file()


@pytest.mark.slow
def test_the_diffusion_demo_ends_in_a_report(tmp_path: Path) -> None:
    """About two minutes on two cores."""
    done = repromia("demo", "diffusion", "--out", "demo", folder=tmp_path, timeout=1500)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "demo" / "audit" / "report.html").is_file()


@pytest.mark.slow
def test_the_classifier_demo_ends_in_a_report(tmp_path: Path) -> None:
    """About a minute and a half of one core."""
    done = repromia("demo", "classifier", "--out", "demo", folder=tmp_path, timeout=1500)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "demo" / "audit" / "report.html").is_file()


@pytest.mark.slow
def test_the_graph_demo_ends_in_a_report(tmp_path: Path) -> None:
    """Less than a minute of one core."""
    done = repromia("demo", "graph", "--out", "demo", folder=tmp_path, timeout=1500)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "demo" / "audit" / "report.html").is_file()


DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def commands_in(text: str) -> list[str]:
    """Whole `repromia …` command lines of code blocks, continued lines joined; those cut with … are no commands."""
    blocks = re.findall(r"^ *```(?:\w*)\n(.*?)^ *```", text, flags=re.MULTILINE | re.DOTALL)
    joined = "\n".join(blocks).replace("\\\n", " ")
    lines = [line.strip().removeprefix("$ ") for line in joined.splitlines()]
    return [line for line in lines if line.startswith("repromia ") and "…" not in line]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_of_documents_are_understood(document: Path) -> None:
    from repromia.cli import app

    for line in commands_in(document.read_text(encoding="utf-8")):
        words = shlex.split(line, comments=True)[1:]
        app.parse_args(words, exit_on_error=False, print_error=False)


def test_a_flag_that_is_not_there_would_be_found() -> None:
    from cyclopts import CycloptsError

    from repromia.cli import app

    (line,) = commands_in("```\nrepromia audit --model a --members b --nonmembers c --out d --no-such-flag 1\n```")
    with pytest.raises(CycloptsError, match="no-such-flag"):
        app.parse_args(shlex.split(line)[1:], exit_on_error=False, print_error=False)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_of_documents_lead_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" not in link:
            assert (document.parent / link).exists(), link


def test_every_section_of_the_report_is_explained() -> None:
    template = (ROOT / "src" / "repromia" / "report" / "template.html.j2").read_text(encoding="utf-8")
    reading = (ROOT / "docs" / "how-to-read-the-report.md").read_text(encoding="utf-8")
    headings = re.findall(r"<h2>([^<{]+)</h2>", template)
    assert len(headings) > 8
    assert [one for one in headings if f"**{one}" not in reading] == []
