"""Learning again from other random numbers: what is best on select is kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from repromia.errors import AttackError
from repromia.programs import Binding, Program

STRIDE = 10_007  # between the seeds of restarts, so that audits of neighbouring seeds share none


def best_of_restarts(plan: Any, binding: Binding) -> Any:
    """The plan bound `plan.restarts` times, the first time as if it were the only one; of what was learned the best on
    select, with all restarts among its details. They are spread over the audit's workers where it has some.

    Raises AttackError for fewer than one.
    """
    if plan.restarts < 1:
        raise AttackError("The option restarts is at least 1.", found=f"restarts={plan.restarts}")
    once = replace(plan, restarts=1)
    bindings = [replace(binding, seed=binding.seed + STRIDE * number) for number in range(plan.restarts)]
    spread = binding.spread
    found: list[Program] = spread(once, bindings) if spread is not None else [once.bind(one) for one in bindings]
    areas = [one.details["select_auc"] for one in found]
    best: Any = found[areas.index(max(areas))]
    details = {**best.details, "restarts": [_summary(one) for one in found]}
    if all("queries" in one.details for one in found):
        details["queries"] = sum(one.details["queries"] for one in found)
    return replace(best, learned=details)


def _summary(program: Program) -> dict[str, Any]:
    return {name: program.details[name] for name in ("select_auc", "queries") if name in program.details}
