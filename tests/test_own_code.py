"""What of the user's own code decides what is computed, and what of others' does not."""

from __future__ import annotations

import importlib
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from repromia.config import AuditConfig
from repromia.function_key import described
from repromia.models import load_model, shadow_models
from repromia.own_code import code_behind, code_named
from repromia.shadow_files import SavedShadows
from repromia.targets.classifiers import wrap_classifier
from repromia.targets.pipelines import wrap_callable
from test_shadows import digits

NET = """
import torch
import scaling

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(64, 10)

    def forward(self, rows):
        return FACTOR * scaling.scaled(self.layer(rows))

def build():
    return Net()
"""
SCALING = "def scaled(rows):\n    return rows * 2\n"


class Project:
    """A folder of the user's with a network, and the function that it scales with in another file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write(NET, SCALING)

    def write(self, net: str, scaling: str, factor: int = 1) -> None:
        (self.folder / "net.py").write_text(net.replace("FACTOR", str(factor)))
        (self.folder / "scaling.py").write_text(scaling)

    def model(self) -> Any:
        """Built as a new process would build it; always with the same weights."""
        for name in ("net", "scaling"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        sides = {name: Path(name) for name in ("members", "nonmembers", "out")}
        config = AuditConfig(model="net:build", weights="w.safetensors", device="cpu", **sides)  # type: ignore[arg-type]
        return load_model(config, "classifier", digits(), "net:build")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # files change within the second that it tells apart
    save_file({"layer.weight": torch.ones(10, 64), "layer.bias": torch.zeros(10)}, "w.safetensors")
    yield Project(tmp_path)
    for name in ("net", "scaling"):
        sys.modules.pop(name, None)


def test_the_code_of_a_network_is_part_of_its_fingerprint(project: Project) -> None:
    first = project.model().fingerprint
    assert project.model().fingerprint == first
    project.write(NET, SCALING, factor=3)
    second = project.model().fingerprint
    project.write(NET, SCALING.replace("2", "5"), factor=3)  # in a file that it imports
    assert len({first, second, project.model().fingerprint}) == 3
    project.write(NET, SCALING)
    assert project.model().fingerprint == first


def test_a_module_that_is_called_is_hashed_with_its_code(project: Project) -> None:
    class Denoiser(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = project.model().module

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return x

        def other(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return -x

    def mark(method: str = "forward") -> str:
        return wrap_callable(getattr(Denoiser(), method), shape=(1, 2, 2)).fingerprint

    first = mark()
    assert mark() == first != mark("other")
    project.write(NET, SCALING, factor=3)
    assert mark() != first


def test_saved_shadow_models_are_asked_again_by_other_code(project: Project, tmp_path: Path) -> None:
    records, folder = digits(), tmp_path / "shadows"
    folder.mkdir()
    for number in range(2):
        weights = {"layer.weight": torch.full((10, 64), float(number)), "layer.bias": torch.zeros(10)}
        save_file(weights, folder / f"net{number}.safetensors")
    inside = np.arange(2 * len(records)).reshape(2, -1) % 2 == 0
    np.savez(folder / "masks.npz", inside=inside, ids=np.array(records.ids))
    options: dict[str, Any] = {"device": "cpu", "shadow_folder": "shadows", "defence": ("temperature:t=2",)}
    config = AuditConfig(model="net:build", members=Path("m"), nonmembers=Path("n"), out=Path("o"), **options)

    def key() -> str:
        project.model()
        target = load_model(config, "classifier", records, "net:build")
        found = shadow_models(config, target, records)
        assert isinstance(found, SavedShadows)
        return found.key

    first = key()
    assert key() == first
    project.write(NET, SCALING.replace("2", "5"))
    assert key() != first


def test_functions_are_known_by_the_modules_that_they_import(project: Project) -> None:
    project.model()
    first, code = described(sys.modules["net"].build), code_named("net:build")
    project.write(NET, SCALING.replace("2", "5"))
    project.model()
    assert described(sys.modules["net"].build) != first
    assert code_named("net:build") != code
    assert code_named("w.safetensors") == code_named("absent:build") == ""


def test_parts_of_libraries_are_known_by_what_they_are() -> None:
    def mark(*layers: torch.nn.Module) -> str:
        torch.manual_seed(0)
        whole = torch.nn.Sequential(torch.nn.Linear(64, 10), *layers)
        return wrap_classifier(whole, records=digits()).fingerprint

    torch.manual_seed(0)
    kinds = [[torch.nn.ReLU()], [torch.nn.Tanh()], [torch.nn.LeakyReLU(0.1)], [torch.nn.LeakyReLU(0.3)]]
    marks = [mark(*one) for one in kinds]
    assert len({*marks}) == 4
    assert mark(torch.nn.ReLU()) == marks[0]
    assert code_behind([torch.nn.Linear, np.ndarray, dict, os.path.join]) == ""


def typed(source: str) -> type:
    """A class as a notebook has it: of __main__, without a file."""
    names: dict[str, Any] = {"torch": torch, "__name__": "__main__"}
    exec(source, names)  # noqa: S102
    found = names["Net"]
    assert isinstance(found, type)
    return found


CELL = """
FACTOR = 2
def scaled(rows):
    return FACTOR * rows
class Net(torch.nn.Module):
    def forward(self, rows):
        return scaled(rows) if rows.dtype not in {torch.float16, torch.int8} and "a" in {"a", "b", "c"} else rows
"""


def test_what_is_typed_at_a_prompt_is_known_by_what_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
    first = code_behind([typed(CELL)])
    assert first
    assert first == code_behind([typed(CELL)]) == code_behind([typed(CELL.replace("\n", "\n\n"))])
    changes = [("FACTOR = 2", "FACTOR = 3"), ("FACTOR *", "1 - FACTOR *"), ("else rows", "else -rows")]
    assert len({first, *(code_behind([typed(CELL.replace(*one))]) for one in changes)}) == 4


def test_a_network_is_known_by_what_its_class_encloses() -> None:
    def made(factor: float) -> type:
        class Net(torch.nn.Module):
            def forward(self, rows: torch.Tensor) -> torch.Tensor:
                return factor * rows

        return Net

    assert code_behind([made(1.0)]) == code_behind([made(1.0)]) != code_behind([made(2.0)])
