"""Plans by name, as attacks refer to them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from repromia.programs import Identity, Plan
from repromia.programs.edits import LowerCase, MaskedNeighbours, WordSwaps
from repromia.programs.learned_prompt import LearnedSoftPrompt
from repromia.programs.prefixes import MemberShots, NonmemberShots

PLANS: dict[str, type[Any]] = {
    "identity": Identity,
    "lower_case": LowerCase,
    "word_swaps": WordSwaps,
    "masked_neighbours": MaskedNeighbours,
    "nonmember_shots": NonmemberShots,
    "member_shots": MemberShots,
    "learned_soft_prompt": LearnedSoftPrompt,
}


def plan_for(name: str, options: dict[str, Any]) -> Plan:
    """The plan of this name with those of an attack's options that it knows."""
    kind = PLANS[name]
    known = {field.name for field in fields(kind)}
    plan: Plan = kind(**{key: value for key, value in options.items() if key in known})
    return plan
