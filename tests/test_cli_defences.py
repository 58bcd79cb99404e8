"""Whole audits of models behind defences, by the real command."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from repromia.programs.feature_prompt import FeaturePrompt
from repromia.programs.overlay import Overlay
from repromia.programs.saved import save_program
from repromia.transfer import saved_programs
from test_cli import audit_arguments, result_in
from test_cli import on_disk as texts_on_disk  # noqa: F401 — a fixture
from test_cli import repromia as command
from test_cli_classifier import QUICK, arguments, on_disk  # noqa: F401 — a fixture

DOCUMENT = (Path(__file__).resolve().parents[1] / "docs" / "defences.md").read_text(encoding="utf-8")


def test_the_commands_of_the_document_run_as_printed(on_disk: Path) -> None:  # noqa: F811
    audit, compare = re.findall(r"^repromia ((?:audit|compare) .*)$", DOCUMENT, flags=re.MULTILINE)
    shutil.copy(on_disk / "mine.py", on_disk / "mymodel.py")
    head = "probe_bank:programs=flip"
    attacks = {"--attacks": f"loss,correctness,{head},reprogram:steps=15", "--program-permutations": "0"}
    plain = command(*arguments("audit", attacks | {"--shadow-training": "", "--shadow-models": ""}), folder=on_disk)
    assert plain.returncode == 0, plain.stderr
    more = ("--attacks", "loss,correctness,rmia", "--shadow-training", "mine:train", "--shadow-models", "2")
    quick = [part for flag in QUICK.items() for part in flag]
    carried = ("--transfer-from", "audit")
    done = command(*shlex.split(audit), *more, *quick, *carried, folder=on_disk)
    assert done.returncode == 0, done.stderr + done.stdout
    behind, before = result_in(on_disk / "audit-defended"), result_in(on_disk / "audit")
    assert behind.target["defences"] == ["temperature:t=5.0", "rounding:digits=2"]
    assert behind.config["defence"] == ["temperature:t=5", "rounding:digits=2"]
    assert behind.null_target.status == "measured"
    areas = [{row.name: row.auc.estimate for row in one.attacks if row.auc} for one in (behind, before)]
    assert areas[0]["correctness"] == areas[1]["correctness"]
    assert areas[0]["loss"] != areas[1]["loss"]
    assert areas[0]["loss"] > 0.7  # it knows its members by heart, and two digits still tell
    assert f"{head}:transferred" in areas[0]
    learned = list((on_disk / "audit" / "programs").glob("*.json"))
    assert len(learned) == sum(":program=" in name for name in areas[0])
    compared = command(*shlex.split(compare), folder=on_disk)
    assert compared.returncode == 1, compared.stderr  # rmia is in one of the runs alone, which is told
    assert "correctness" in compared.stdout


def test_programs_of_classifiers_are_carried_over_by_what_they_were_learned_for(tmp_path: Path) -> None:
    learned = {"recipe": "paper"}
    overlay, prompt = (tmp_path / name / "programs" / "one.safetensors" for name in ("images", "nodes"))
    save_program(Overlay(np.ones((1, 8, 8), np.float32), "additive", 16.0, "labels", learned), overlay)
    save_program(FeaturePrompt(np.ones((1, 1, 4), np.float32), 0.5, learned), prompt)
    (image,) = saved_programs(tmp_path / "images", "classifier")
    (node,) = saved_programs(tmp_path / "nodes", "graph")
    asked = {"where": "additive", "answers": "labels", "recipe": "paper", "program": str(overlay)}
    assert {name: image.options[name] for name in asked} == asked
    assert node.attack.modality == "graph"
    assert (node.options["recipe"], node.options["program"]) == ("paper", str(prompt))


@pytest.mark.slow
def test_behind_label_only_the_attacks_on_labels_are_chosen(on_disk: Path) -> None:  # noqa: F811
    given = arguments("labels", {"--attacks": "default", "--shadow-training": "", "--shadow-models": ""})
    done = command(*given, "--defence", "label_only", "--program-permutations", "0", folder=on_disk)
    assert done.returncode == 0, done.stderr + done.stdout
    names = {row.name for row in result_in(on_disk / "labels").attacks}
    assert {"correctness", "noise_votes"} <= names
    assert not names & {"loss", "rmia:reference=noise_and_repair"}
    refused = command(*arguments("refused"), "--defence", "label_only", folder=on_disk)
    assert refused.returncode == 2
    assert "label_only tells none" in refused.stderr


@pytest.mark.slow
def test_behind_rounding_a_language_model_tells_log_probabilities_alone(texts_on_disk: Path) -> None:  # noqa: F811
    options = ("--attacks", "passive,reprogram:steps=2", "--fprs", "0.05", "--bootstrap", "200")
    given = audit_arguments("behind", *options, "--program-permutations", "0", "--defence", "rounding:digits=1")
    done = command(*given, folder=texts_on_disk)
    assert done.returncode == 0, done.stderr + done.stdout
    result = result_in(texts_on_disk / "behind")
    names = {row.name for row in result.attacks}
    assert {"loss", "min_k", "reference", "reprogram:steps=2"} <= names
    assert not names & {"min_k_plus_plus", "gap_k", "surp", "ez_mia"}
    assert result.reference is not None
    assert result.reference["defences"] == ["rounding:digits=1"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--defence", "label_onyl"), "did you mean 'label_only'"),
        (("--defence", "smoothing"), "A language model cannot carry"),
        (("--endpoint", "http://localhost:1/v1", "--defence", "noise"), "--defence cannot go with --endpoint"),
    ],
)
def test_a_defence_that_cannot_be_is_refused(texts_on_disk: Path, more: tuple[str, ...], said: str) -> None:  # noqa: F811
    done = command(*audit_arguments("never", *more), folder=texts_on_disk)
    assert done.returncode != 0
    assert said in " ".join((done.stderr + done.stdout).split())
    assert not (texts_on_disk / "never" / "result.json").exists()
