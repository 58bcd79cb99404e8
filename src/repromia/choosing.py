"""Which attacks an audit runs on a target."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from repromia.attacks import Ask, Attack, Chosen, Modality, choose, parse
from repromia.config import Settings
from repromia.errors import AttackError
from repromia.programs import Target, has_weights, only_labels, takes_captions
from repromia.programs.registry import plan_for, plans
from repromia.supervision import SAME_SUPERVISION, WITH_REFERENCE
from repromia.transfer import SUFFIX, SavedHead, needed, saved_programs

if TYPE_CHECKING:
    from repromia.views import ShadowModels


def chosen_attacks(
    settings: Settings,
    carried: Sequence[SavedHead],
    models: tuple[Target, Target | None, Target | None],
    shadows: ShadowModels | None,
) -> list[Chosen]:
    """The attacks asked for, and those that heads and programs carried over need."""
    target = models[0]
    found = choose(
        settings.attacks,
        reference=models[1] is not None,
        weights=has_weights(target),
        modality=target.modality,
        captions=takes_captions(target),
        shadows=shadows is not None,
        labels_only=only_labels(target),
        copies=bool(getattr(target, "differentiable", False)),
        fits=lambda one: _fits(one, target),
    )
    chosen = {one.name: one for one in found}
    if settings.transfer_from:
        programs = saved_programs(Path(settings.transfer_from), target.modality)
        for one in (*needed(carried, target.modality), *programs):
            chosen.setdefault(one.name, one)
    return list(chosen.values())


def _fits(attack: Attack, target: Target) -> bool:
    """Whether the target can be asked in every way that the attack asks."""
    named = [mark.plan for mark, _ in attack.inputs.values() if isinstance(mark, Ask)]
    if not {*named} <= plans(target.modality).keys():  # an attack on other classifiers
        return False
    bound = [plan_for(one, {}, target.modality) for one in named]
    checks = [getattr(one, "applies", None) for one in bound]
    return all(check is None or check(target) for check in checks)


def check_headline(
    chosen: Sequence[Chosen], carried: Sequence[SavedHead], settings: Settings, modality: Modality
) -> None:
    """Raises AttackError where the headline that was named is not among what will be measured."""
    banks = [f"{one.name}:references=true" for one in chosen if one.attack.bank is not None]
    banks += [f"{one.name}{SUFFIX}" for one in carried]
    rows = [one.name for one in chosen] + banks + [SAME_SUPERVISION, WITH_REFERENCE]
    if settings.headline and settings.headline not in rows:
        parse(settings.headline, modality)  # says which name was meant, where there is no such attack
        raise AttackError(
            f"The headline attack {settings.headline!r} is not among the attacks.",
            expected=f"one of {', '.join(rows)}",
            hint="add it to --attacks",
        )
