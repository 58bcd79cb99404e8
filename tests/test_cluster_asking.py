"""Parts of the records asked by two real workers: the same answers as here, and nothing asked twice."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
import torch

import repromia
from diffusion_models import pictures, tiny
from repromia import parts as parts_module
from repromia.config import AuditConfig
from repromia.errors import AttackError, ClusterError, TargetError
from repromia.parts import Workers
from repromia.programs import Binding, Fixed, Target
from repromia.programs.learned_prompt import LearnedSoftPrompt
from repromia.programs.registry import plan_for
from repromia.programs.restarts import best_of_restarts
from repromia.progress import Silent
from repromia.records import LabelledRecords, Records, TableRow
from repromia.run import audit_to_folder
from repromia.signals import Signals
from repromia.store import Store
from repromia.targets.classifier_options import ClassifierOptions
from repromia.targets.classifiers import wrap_classifier
from repromia.targets.diffusion import DiffusionModel
from repromia.targets.load import quiet
from repromia.views import Views
from small import SmallModels

PARTS = 6


@pytest.fixture(scope="module", autouse=True)
def two_workers() -> Iterator[Any]:
    ray = pytest.importorskip("ray")
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield ray
    ray.shutdown()


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts_module, "PART_RECORDS", 10)
    monkeypatch.setattr(DiffusionModel, "part_records", 10)


@dataclass(frozen=True)
class Logged(Fixed):
    """A program of the user's own, which says who asked what, and may take its worker down once."""

    log: str
    plan: str
    dies: bool = False

    def ask(self, target: Target, records: Records) -> tuple[Signals, ...]:
        if self.dies and records.ids[0] == "20" and not Path(f"{self.log}.died").exists():
            Path(f"{self.log}.died").touch()
            os._exit(1)
        with Path(self.log).open("a", encoding="utf-8") as file:
            file.write(f"{os.getpid()} {id(target)} {records.ids[0]}\n")
        program: Any = plan_for(self.plan, {}, target.modality)
        return tuple(program.ask(target, records))


@pytest.fixture(params=["language", "diffusion"])
def case(request: pytest.FixtureRequest, models: SmallModels) -> tuple[Target, Records, str]:
    """A live model, sixty records, and a way to ask that is not the plainest."""
    names = tuple(map(str, range(10 * PARTS)))
    if request.param == "language":
        return replace(models.leaky, asked=0), Records(names, tuple(models.members[: 10 * PARTS]), names), "lower_case"
    return repromia.diffusion_model(tiny("ddpm")), Records(names, tuple(pictures(10 * PARTS)), names), "flip"


def views_of(target: Target, records: Records, folder: Path | None = None, cluster: str = "ray") -> Views:
    nobody = LabelledRecords(records.take([0, 1]), np.array([True, False]))
    binding = Binding(target, nobody, nobody, 0, Silent(), 0)
    return Views({"target": target}, records, binding, Store(folder), workers=Workers(cluster))


def same(first: tuple[Any, ...], second: tuple[Any, ...]) -> bool:
    names = [name for name, value in vars(first[0]).items() if isinstance(value, np.ndarray)]
    return len(first) == len(second) > 0 and all(
        getattr(one, name).tobytes() == getattr(other, name).tobytes()
        for one, other in zip(first, second, strict=True)
        for name in names
    )


def lines_of(log: Path) -> list[list[str]]:
    return [line.split() for line in log.read_text().splitlines()]


def test_workers_answer_bit_for_bit_and_are_never_asked_again(
    case: tuple[Target, Records, str], tmp_path: Path
) -> None:
    target, records, plan = case
    log = tmp_path / "log"
    here = views_of(target, records, cluster="local").ask("target", Logged(str(tmp_path / "here"), plan))
    program, before = Logged(str(log), plan), target.asked
    asking = views_of(target, records, tmp_path / "run")
    there = asking.ask("target", program)
    assert same(here, there)
    assert target.asked == before  # this process asked nothing
    workers = {(process, model) for process, model, _ in lines_of(log)}
    assert str(os.getpid()) not in {process for process, _ in workers}
    assert len(workers) == len({process for process, _ in workers}) <= 2  # one copy of the model in each
    assert sorted(first for *_, first in lines_of(log)) == sorted(str(10 * at) for at in range(PARTS))
    again = views_of(target, records, tmp_path / "run")
    assert same(here, again.ask("target", program))
    assert len(lines_of(log)) == PARTS
    assert again.costs == asking.costs  # what it took when it was asked
    assert same(here, views_of(target, records, tmp_path / "run", "local").ask("target", program))
    assert len(lines_of(log)) == PARTS


def test_a_part_whose_worker_dies_is_asked_again(case: tuple[Target, Records, str], tmp_path: Path) -> None:
    target, records, plan = case
    here = views_of(target, records, cluster="local").ask("target", Logged(str(tmp_path / "here"), plan))
    log = tmp_path / "log"
    there = views_of(target, records, tmp_path / "run").ask("target", Logged(str(log), plan, dies=True))
    assert Path(f"{log}.died").exists()
    assert same(here, there)
    assert {first for *_, first in lines_of(log)} == {str(10 * at) for at in range(PARTS)}


def test_what_was_finished_before_a_stop_is_kept(case: tuple[Target, Records, str], tmp_path: Path) -> None:
    target, records, plan = case
    log, program = tmp_path / "log", Logged(str(tmp_path / "log"), plan)
    views_of(target, records.take(range(30)), tmp_path / "run").ask("target", program)
    there = views_of(target, records, tmp_path / "run").ask("target", program)
    assert sorted(first for *_, first in lines_of(log)) == sorted(str(10 * at) for at in range(PARTS))
    assert same(views_of(target, records, cluster="local").ask("target", Logged(str(tmp_path / "here"), plan)), there)


@dataclass(frozen=True)
class Watched:
    """A plan that says who learned, and may take its worker down once."""

    log: str
    dies: bool = False
    restarts: int = 1
    program: str = ""

    def bind(self, binding: Binding) -> Any:
        if self.restarts > 1:
            return best_of_restarts(self, binding)
        if self.dies and binding.seed and not Path(f"{self.log}.died").exists():
            Path(f"{self.log}.died").touch()
            os._exit(1)
        with Path(self.log).open("a", encoding="utf-8") as file:
            file.write(f"{os.getpid()} {id(binding.target)} {binding.seed}\n")
        return LearnedSoftPrompt(length=3, steps=2).bind(binding)


@pytest.mark.parametrize("dies", [False, True])
def test_restarts_are_learned_by_workers_bit_for_bit(dies: bool, models: SmallModels, tmp_path: Path) -> None:
    names = tuple(map(str, range(48)))
    records = Records(names, (*models.members[:24], *models.nonmembers[:24]), names)
    fit, select = (
        LabelledRecords(records.take(rows), np.repeat([True, False], 12))
        for rows in ([*range(12), *range(24, 36)], [*range(12, 24), *range(36, 48)])
    )
    found = []
    for cluster in ("local", "ray", "ray"):
        views = views_of(models.leaky, records, tmp_path / cluster, cluster)
        views.binding = Binding(models.leaky, fit, select, 0, Silent(), 60)
        found.append(views._bind(Watched(str(tmp_path / f"{cluster}.log"), dies and cluster == "ray", restarts=3)))
    here, there, again = found
    assert here.key == there.key == again.key
    assert here.details == there.details == again.details
    lines = lines_of(tmp_path / "ray.log")
    assert sorted(seed for *_, seed in lines) == ["0", "10007", "20014"]
    assert str(os.getpid()) not in {process for process, *_ in lines}
    assert Path(tmp_path / "ray.log.died").exists() == dies


@dataclass(frozen=True)
class Unable(Fixed):
    """Fails on one part."""

    def ask(self, target: Target, records: Records) -> tuple[Signals, ...]:
        if records.ids[0] == "30":
            raise AttackError("It cannot be asked.")
        return tuple(plan_for("identity", {"t": "0"}, target.modality).ask(target, records))  # type: ignore[attr-defined]


def test_of_several_programs_one_that_fails_is_left_out(case: tuple[Target, Records, str], tmp_path: Path) -> None:
    target, records, plan = case
    views = views_of(target, records, tmp_path / "run")
    program = Logged(str(tmp_path / "log"), plan)
    views.ask_together("target", [Unable(), program])
    assert [one.program for one in views.costs] == ["Logged"]
    assert len(lines_of(tmp_path / "log")) == PARTS
    with pytest.raises(AttackError, match="It cannot be asked"):
        views.ask("target", Unable())


class Wide(torch.nn.Module):
    """Of a module that no worker can import."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def test_a_live_classifier_of_the_users_own_class_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=(40, 4))
    names = tuple(map(str, range(40)))
    records = Records(names, tuple(TableRow(tuple(map(float, one)), "1") for one in values), names)
    monkeypatch.setattr("repromia.targets.classifier.Classifier.part_records", 10)
    found = []
    for cluster in ("local", "ray"):
        target = wrap_classifier(Wide(), records=records, options=ClassifierOptions())
        views = views_of(target, records, cluster=cluster)
        found.append(views.ask("target", Logged(str(tmp_path / cluster), "augmented")))
        assert target.describe()["classes"] == 3
    assert same(*found)
    asked = {process for process, *_ in lines_of(tmp_path / "ray")}
    assert asked - {str(os.getpid())}  # this process counted the classes


@pytest.fixture(scope="module")
def on_disk(models: SmallModels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("user")
    for name, one in (("finetuned", models.leaky), ("base", models.base)):
        with quiet():
            one.model.save_pretrained(folder / name)
            one.tokenizer.save_pretrained(folder / name)
    for name, texts in (("train", models.members), ("heldout", models.nonmembers)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts[:100]))
    return folder


ATTACKS = ("loss", "min_k", "lowercase", "reference", "reprogram:length=4:steps=1:restarts=2")


def test_an_audit_from_files_is_the_same_on_workers(on_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(on_disk)
    tables, results = [], []
    for cluster in ("local", "ray"):
        config = AuditConfig(
            model="finetuned",
            reference="base",
            members=Path("train.jsonl"),
            nonmembers=Path("heldout.jsonl"),
            attacks=ATTACKS,
            bootstrap=200,
            program_permutations=0,
            cluster=cluster,
            max_tokens=64,
            out=on_disk / cluster,
        )
        results.append(audit_to_folder(config, Silent()))
        tables.append(polars.read_parquet(on_disk / cluster / "scores.parquet"))
    assert tables[0].equals(tables[1])
    assert results[0].status == results[1].status == "complete"
    assert [one.auc for one in results[0].attacks] == [one.auc for one in results[1].attacks]
    assert sum(one["tokens"] for one in results[0].views) == sum(one["tokens"] for one in results[1].views)


def test_workers_refuse_another_model_under_the_same_name(models: SmallModels, tmp_path: Path) -> None:
    names = tuple(map(str, range(20)))
    views = views_of(models.leaky, Records(names, tuple(models.members[:20]), names))
    other = models.base
    views.workers = Workers("ray", {models.leaky.fingerprint: lambda: other})
    with pytest.raises(ClusterError, match="another model under the name"):
        views.ask("target", Logged(str(tmp_path / "log"), "lower_case"))


def test_what_a_model_on_a_worker_raises_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=(40, 4))
    names = tuple(map(str, range(40)))
    records = Records(names, tuple(TableRow(tuple(map(float, one)), "1") for one in values), names)
    monkeypatch.setattr("repromia.targets.classifier.Classifier.part_records", 10)
    options = ClassifierOptions(classes=("0", "1", "2"), answer="probabilities")
    target = wrap_classifier(Wide(), records=records, options=options)
    with pytest.raises(TargetError, match="said to answer with probabilities"):
        views_of(target, records).ask("target", Logged(str(tmp_path / "log"), "augmented"))
