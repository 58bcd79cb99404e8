"""Restarts: other random numbers each, the best on select kept, nothing learned twice."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_class_prompt
import test_feature_prompt
import test_overlay
import test_perturbation

from repromia.errors import AttackError
from repromia.parts import Workers
from repromia.programs import Binding
from repromia.programs.learned_prompt import LearnedSoftPrompt
from repromia.programs.registry import plan_for
from repromia.programs.restarts import STRIDE
from repromia.progress import Silent
from repromia.records import LabelledRecords, Records
from repromia.restarts import Restarts
from repromia.store import Store, digest
from small import SmallModels

CASES: dict[str, tuple[str, dict[str, Any], Any]] = {
    "images": ("learned_overlay", {"steps": 2}, lambda: test_overlay.binding(test_overlay.target())),
    "images without gradients": (
        "learned_overlay",
        {"steps": 2, "where": "affine", "optimiser": "spsa", "budget": 3_000},
        lambda: test_overlay.binding(test_overlay.target()),
    ),
    "texts": (
        "learned_overlay",
        {"steps": 2},
        lambda: test_class_prompt.binding(test_class_prompt.target(module=test_class_prompt.leaky())),
    ),
    "graph": (
        "learned_feature_prompt",
        {"steps": 2},
        lambda: test_feature_prompt.binding(test_feature_prompt.target()),
    ),
    "diffusion": (
        "learned_perturbation",
        {"t": "20", "steps": 2},
        lambda: test_perturbation.binding_of(test_perturbation.target()),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_best_of_several_beginnings_is_kept(case: str) -> None:
    name, options, made = CASES[case]
    binding: Binding = made()
    modality = binding.target.modality
    alone: list[Any] = [
        plan_for(name, options, modality).bind(replace(binding, seed=binding.seed + STRIDE * at)) for at in range(3)
    ]
    found: Any = plan_for(name, {**options, "restarts": 3}, modality).bind(binding)
    areas = [one.details["select_auc"] for one in alone]
    assert [one["select_auc"] for one in found.details["restarts"]] == areas
    assert found.key == alone[int(np.argmax(areas))].key
    traces = [[step["select_auc"] for step in one.details["trace"]] for one in alone]
    assert traces[0][0] == traces[1][0] == traces[2][0]  # nothing changed
    assert traces[0] != traces[1] != traces[2]
    if "queries" in alone[0].details:
        assert found.details["queries"] == sum(one.details["queries"] for one in alone)
        assert max(one.details["queries"] for one in alone) <= options.get("budget", np.inf)
    with pytest.raises(AttackError, match="restarts is at least 1"):
        plan_for(name, {**options, "restarts": 0}, modality).bind(binding)


@dataclass(frozen=True)
class Counted:
    """A plan of the user's own, which counts how often something is learned."""

    log: str
    restarts: int = 1

    def bind(self, binding: Binding) -> Any:
        with Path(self.log).open("a", encoding="utf-8") as file:
            file.write(f"{binding.seed}\n")
        return LearnedSoftPrompt(length=3, steps=1).bind(binding)


def test_finished_restarts_are_read_back(models: SmallModels, tmp_path: Path) -> None:
    names = tuple(map(str, range(24)))
    records = Records(names, (*models.members[:12], *models.nonmembers[:12]), names)
    sides = LabelledRecords(records, np.repeat([True, False], 12))
    bindings = [Binding(models.leaky, sides, sides, seed, Silent(), 60) for seed in (0, 1, 2)]
    store = Store(tmp_path / "run")
    restarts = Restarts(store, Workers(), lambda plan, one: digest(repr(plan), one.seed))
    plan = Counted(str(tmp_path / "log"))
    first = restarts(plan, bindings[:2])
    later = Store(tmp_path / "run")
    again = replace(restarts, store=later)(plan, bindings)
    assert store.spent == 0 < later.spent
    assert (tmp_path / "log").read_text().split() == ["0", "1", "2"]
    assert [one.key for one in again[:2]] == [one.key for one in first]
    assert len({one.key for one in again}) == 3
