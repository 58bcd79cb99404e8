"""GSA on a denoiser that learned its members by heart, and both learned baselines through the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffusion_models import picture, wrapped
from repromia.attacks import choose, parse, registry
from repromia.attacks.diffusion.gsa import statistics
from repromia.demo.denoiser import Recipe, train_denoiser
from repromia.metrics import auc
from repromia.programs import Binding
from repromia.progress import Silent
from repromia.records import LabelledRecords, Records
from repromia.scoring import run_attack
from repromia.signals import GradientSignals
from repromia.store import Store
from repromia.supervision import supervised_rows
from repromia.targets.diffusion import DiffusionModel
from repromia.targets.pipelines import quiet, wrap_callable
from repromia.transfer import load_heads, save_heads, transferred_rows
from repromia.views import Views

SIDE, FIT, SELECT, EVAL = 8, 48, 16, 100  # records of both classes
REPROMIA = [sys.executable, "-c", "from repromia.cli import main; main()"]
SPEC = "gsa:t=99+299+499"
# Four standard deviations of an AUC of 50 against 50 when nothing is there: 1 false alarm in 16,000 runs.
REACH = 4 * (101 / (12 * 50 * 50)) ** 0.5


def images(seed: int = 0) -> np.ndarray:
    """Blocks of grey: members have even places."""
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (FIT + SELECT + EVAL, SIDE, SIDE, 1), dtype=np.uint8)


@cache
def pipeline(learned: bool = True) -> Any:
    """Trained on the members until they stand out, or shortly on other images."""
    recipe = Recipe(steps=400 if learned else 20, batch=48, rate=4e-3, channels=(16, 32), ema=0)
    return train_denoiser(images(0 if learned else 9)[::2], recipe, seed=0)[0]


def views_of(target: DiffusionModel) -> tuple[Views, LabelledRecords]:
    contents = tuple(picture(one) for one in images())
    ids = tuple(f"p{row}" for row in range(len(contents)))
    whole = LabelledRecords(Records(ids, contents, ids), np.arange(len(ids)) % 2 == 0)
    fit, select = whole.take(range(FIT)), whole.take(range(FIT, FIT + SELECT))
    binding = Binding(target, fit, select, 0, Silent(), 0)
    return Views({"target": target}, whole.records, binding, Store(None)), whole.take(range(FIT + SELECT, len(ids)))


def measured(target: DiffusionModel, spec: str = SPEC) -> float:
    views, rest = views_of(target)
    found = run_attack(parse(spec, "diffusion"), views)
    assert not found.reason
    (row,) = supervised_rows([found], views.binding.fit, seed=0)
    assert row.scored.scores is not None
    assert row.scored.passes == 3
    return auc(row.scored.scores[-EVAL:], rest.member)


@pytest.mark.slow
def test_it_finds_members_and_only_where_there_are_any() -> None:
    assert measured(wrapped(pipeline())) > 0.5 + REACH
    assert abs(measured(wrapped(pipeline(False))) - 0.5) < REACH


def test_features_are_logarithms_of_the_tensors_that_move() -> None:
    norms = np.array([[1.0, 0.0, 1e-10, 2.0], [3.0, 0.0, 2e-10, 0.0]])
    one = GradientSignals(np.array([5]), norms)
    np.testing.assert_allclose(statistics({})(one, one, False), np.log([[1.0, 2.0], [3.0, 1e-30]]))


def test_it_is_asked_for_by_name_and_is_an_upper_bound() -> None:
    known = registry("diffusion")
    names = [one.name for one in choose(("default",), reference=False, modality="diffusion")]
    assert "gsa" not in names
    assert "secmi_nns" in names
    assert "upper bound" in known["gsa"].access
    assert "upper bound" in (known["gsa"].function.__doc__ or "")
    assert {known[name].kind for name in ("gsa", "secmi_nns")} == {"head"}
    assert not known["gsa"].free
    assert not known["secmi_nns"].free


def test_a_function_without_weights_is_a_failed_row() -> None:
    views, _ = views_of(wrap_callable(lambda x, t: 0.5 * x, shape=(1, SIDE, SIDE)))
    found = run_attack(parse(SPEC, "diffusion"), views)
    assert found.scores is None
    assert "shows none" in found.reason


def test_its_head_is_carried_over_from_a_shadow_model_and_stays_a_head(tmp_path: Path) -> None:
    views, _ = views_of(wrapped(pipeline()))
    found = run_attack(parse(SPEC, "diffusion"), views)
    rows = supervised_rows([found], views.binding.fit, seed=0)
    save_heads(rows, views.binding.fit.records, tmp_path)
    ((name, carried, _),) = transferred_rows(load_heads(tmp_path), [found], views.records.take(range(FIT, 100)))
    assert name == f"{SPEC}:transferred"
    assert carried.chosen.attack.kind == "head"
    np.testing.assert_allclose(carried.scores, rows[0].scored.scores)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("audit")
    with quiet():
        pipeline().save_pretrained(folder / "model")
        pipeline(False).save_pretrained(folder / "other")
    for at, name in enumerate(("members", "nonmembers")):
        np.savez(folder / f"{name}.npz", images=images()[at::2])
    flags = {
        "--model": "model",
        "--reference": "other",
        "--members": "members.npz",
        "--nonmembers": "nonmembers.npz",
        "--attacks": f"{SPEC},secmi_nns:t=20:epochs=3",
        "--select": "0.2",
        "--fprs": "0.05",
        "--bootstrap": "200",
        "--out": "out",
    }
    command = [*REPROMIA, "audit", *(part for flag in flags.items() for part in flag)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads((folder / "out" / "result.json").read_text(encoding="utf-8"))
    return found


def test_an_audit_measures_both_as_heads(audited: dict[str, Any]) -> None:
    rows = {row["attack"]: row for row in audited["attacks"]}
    assert set(rows) == {"gsa", "secmi_nns"}
    assert {row["status"] for row in rows.values()} == {"measured"}
    assert {row["kind"] for row in rows.values()} == {"head"}
    assert "upper bound" in rows["gsa"]["access"]
    assert rows["gsa"]["auc"]["estimate"] > 0.5 + REACH
    assert rows["secmi_nns"]["details"]["read"]["trace"]
    assert not [one for one in audited["findings"] if one["code"].startswith("reprogramming")]


def test_an_audit_learns_both_again_on_permuted_labels_and_on_the_null_target(audited: dict[str, Any]) -> None:
    permuted = {one["name"].split(":")[0]: one for one in audited["permuted"]}
    assert permuted["gsa"]["compared_with"] == 0.5
    assert permuted["secmi_nns"]["compared_with"] == 0.5
    assert permuted["secmi_nns"]["repeats"] == 2
    null = {row["name"].split(":")[0]: row for row in audited["null_target"]["rows"]}
    assert {name: row["status"] for name, row in null.items()} == {"gsa": "measured", "secmi_nns": "measured"}
    assert abs(null["gsa"]["auc"]["estimate"] - 0.5) < REACH
