"""Views of all records of an audit: what a target is asked first, and where it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from repromia.attacks import Chosen
from repromia.config import Settings
from repromia.errors import AttackError
from repromia.evaluate import Judge, all_records
from repromia.parts import Workers
from repromia.programs import Binding, Identity, Target
from repromia.programs.registry import plan_for
from repromia.records import Records, joined
from repromia.scoring import named_programs, programs_asked
from repromia.signals import Signals
from repromia.store import Store
from repromia.targets.diffusion import DiffusionModel
from repromia.views import Cost, Views

if TYPE_CHECKING:
    from repromia.progress import Progress
    from repromia.views import ShadowModels


@dataclass
class Where:
    """What several views share: storage, progress, costs, and signals in memory."""

    store: Store
    progress: Progress
    shadows: ShadowModels | None = None
    costs: list[Cost] = field(default_factory=list)
    memory: dict[str, tuple[Signals, ...]] = field(default_factory=dict)
    samples: dict[str, Any] = field(default_factory=dict)  # what models wrote by themselves, by model
    unlabelled: Records | None = None
    workers: Workers = field(default_factory=Workers)


def views_of(target: Target, reference: Target | None, judge: Judge, settings: Settings, where: Where) -> Views:
    """Views of all records by a target, stored and counted in `where`. Raises TargetError for a target that needs
    captions where no record has one."""
    records = joined(all_records(judge.roles), where.unlabelled)
    for one in (target, reference):
        if isinstance(one, DiffusionModel):
            one.check_records(records.contents)
    roles = judge.roles
    binding = Binding(target, roles.fit, roles.select, settings.seed, where.progress, longest=0, memory=where.samples)
    views = Views(
        {"target": target}, records, binding, where.store, where.costs, where.memory, where.shadows, where.workers
    )
    views.measure_longest()
    if reference is not None:
        views.add_reference(reference)
    return views


def ask_first(chosen: Sequence[Chosen], views: Views) -> None:
    """A target that cannot answer at all ends the audit here; what several attacks can share is asked together."""
    if views.modality == "language":
        views.ask("target", Identity())
        if views.workers.cluster == "local":
            return  # nothing is shared, and nobody else waits for work
    else:
        views.ask("target", views.program("identity", {"t": "0"}))
    for of in views.targets:
        views.ask_together(of, programs_asked(chosen, views, of))


def repaired_copy(
    reference: Target, chosen: Sequence[Chosen], judge: Judge, settings: Settings, where: Where
) -> tuple[Target | None, str]:
    """A noised and repaired copy: the null target's reference where no second one was given, or why there is none.

    Made as the attacks themselves make one, and once for both; where none does, it would be dear and unasked.
    """
    from repromia.programs.weights import NoiseAndRepair

    named = [spec for one in chosen for spec in named_programs(one) if spec.split("/")[0] == "noise_and_repair"]
    if not named:
        return None, "or noise_and_repair among the attacks" if reference.modality == "language" else ""
    try:
        plan = plan_for(named[0], {})
        assert isinstance(plan, NoiseAndRepair)  # noqa: S101 — by its name
        return plan.copy_of(views_of(reference, None, judge, settings, where).binding)[0], ""
    except (AttackError, RuntimeError, MemoryError) as error:
        return None, f"(none could be made: {(str(error) or type(error).__name__).splitlines()[0]})"
