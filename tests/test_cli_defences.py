"""Whole audits of models behind defences, by the real command."""

from __future__ import annotations

from pathlib import Path

import pytest

from test_cli import audit_arguments, result_in
from test_cli import on_disk as texts_on_disk  # noqa: F401 — a fixture
from test_cli import repromia as command
from test_cli_classifier import arguments, on_disk  # noqa: F401 — a fixture


def test_a_defended_classifier_and_its_shadows_are_audited(on_disk: Path) -> None:  # noqa: F811
    defences = ("--defence", "temperature:t=3", "--defence", "rounding:digits=3")
    done = command(*arguments("behind", {"--attacks": "loss,rmia,correctness"}), *defences, folder=on_disk)
    assert done.returncode == 0, done.stderr + done.stdout
    plain = command(
        *arguments("plain", {"--attacks": "loss,correctness", "--shadow-training": "", "--shadow-models": ""}),
        folder=on_disk,
    )
    assert plain.returncode == 0, plain.stderr
    behind, before = result_in(on_disk / "behind"), result_in(on_disk / "plain")
    assert behind.target["defences"] == ["temperature:t=3.0", "rounding:digits=3"]
    assert behind.config["defence"] == ["temperature:t=3", "rounding:digits=3"]
    assert behind.null_target.status == "measured"
    areas = [{row.name: row.auc.estimate for row in one.attacks if row.auc} for one in (behind, before)]
    assert areas[0]["correctness"] == areas[1]["correctness"]
    assert areas[0]["loss"] != areas[1]["loss"]
    assert areas[0]["loss"] > 0.7  # it knows its members by heart, and three digits still tell


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
