"""What `--dry-run` says, against what the audit then does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from test_cli import audit_arguments, repromia, result_in
from test_cli import on_disk as on_disk
from test_cli_classifier import arguments as classifier_arguments
from test_cli_classifier import on_disk as classifier_on_disk

__all__ = ["classifier_on_disk", "on_disk"]


def test_counts_are_those_of_the_audit_and_nothing_is_written(on_disk: Path) -> None:
    quick = ["--attacks", "loss,lowercase,zlib", "--fprs", "0.05", "--bootstrap", "200"]
    rehearsed = repromia(*audit_arguments("rehearsed", *quick), "--dry-run", folder=on_disk)
    assert rehearsed.returncode == 0, rehearsed.stderr
    assert not (on_disk / "rehearsed").exists()
    said = " ".join(rehearsed.stdout.split())
    done = repromia(*audit_arguments("measured", *quick), folder=on_disk)
    assert done.returncode == 0, done.stderr
    result = result_in(on_disk / "measured")
    sizes = result.records.roles
    counts = ", ".join(f"{sum(getattr(sizes, role)):,} {role}" for role in ("fit", "select", "eval"))
    assert counts in said
    asked = [view for view in result.views if view["of"] == "target"]
    assert f"{sum(view['passes'] * view['records'] for view in asked):,} in all" in said
    assert f"in {len(asked)} fixed way" in said
    assert {row.name for row in result.attacks if row.kind != "head"} == set(
        re.search(r"Attacks \(\d+\): ([\w, ]+) The target", said)[1].split(", ")  # type: ignore[index]
    )


def test_learning_and_shadow_models_are_named_as_not_counted(classifier_on_disk: Path) -> None:
    given = classifier_arguments("rehearsed", {"--attacks": "loss,reprogram,rmia"})
    done = repromia(*given, "--dry-run", folder=classifier_on_disk)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "making of reprogram; what is learned from labels 2 times more, on permuted ones" in said
    assert re.search(r"training \d+ shadow models", said)
    assert not (classifier_on_disk / "rehearsed").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        ("--members", "nowhere.jsonl"),
        ("--headline", "nowhere", "--attacks", "loss"),
        ("--slice", "nowhere"),
        ("--transfer-from", "nowhere"),
    ],
)
def test_what_would_stop_the_audit_stops_the_rehearsal(on_disk: Path, wrong: tuple[str, ...]) -> None:
    done = repromia(*audit_arguments("rehearsed", *wrong), "--dry-run", folder=on_disk)
    assert done.returncode == 2
    assert "nowhere" in done.stderr
