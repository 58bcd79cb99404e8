"""`repromia audit --dry-run`: what an audit would ask of the model, and about how long that takes."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from repromia.categories import read_categories
from repromia.choosing import check_headline, chosen_attacks
from repromia.config import AuditConfig, Settings
from repromia.controls import check_masks
from repromia.duplicates import remove_duplicates
from repromia.errors import RepromiaError
from repromia.models import load_models, shadow_models
from repromia.programs import Binding
from repromia.progress import EVERYTHING, Progress, Shown, watched
from repromia.randomised import drawn_by_lot, whole_units
from repromia.report.words import duration
from repromia.roles import Roles, assign_roles
from repromia.scoring import programs_asked
from repromia.sources import read_records
from repromia.store import Store
from repromia.transfer import load_heads
from repromia.views import Views

if TYPE_CHECKING:
    from repromia.attacks import Chosen
    from repromia.programs import Target
    from repromia.views import ShadowModels

SAMPLES = (8, 24)  # records that are asked about: what a call costs, and what a record adds to it


@dataclass(frozen=True)
class Rehearsal:
    """What an audit would do. passes: of the target, a record; seconds: of all fixed programs over all records."""

    target: str
    sizes: dict[str, int]
    excluded: int
    attacks: tuple[Chosen, ...]
    programs: int
    passes: float
    seconds: float
    learning: tuple[str, ...]
    permutations: int
    shadows: int


def rehearse(config: AuditConfig, progress: Progress) -> Rehearsal:
    """Read the records, load the models, ask the target about a few. Raises RepromiaError as the audit would."""
    settings = config.settings()
    labelled = read_records(config)
    read_categories(config, labelled.records)
    kept, duplicates = remove_duplicates(labelled, threshold=settings.near_duplicates)
    kept, units = whole_units(drawn_by_lot(settings.manifest, labelled), labelled, kept)
    roles = assign_roles(kept, fit=settings.fit, select=settings.select, seed=settings.seed, units=units)
    models = load_models(config, kept, progress)
    shadows = shadow_models(config, models[0], kept.records)
    if shadows is not None:
        shadows.check(kept.records)
        check_masks(shadows.saw(kept.records), kept.member)
    carried = load_heads(Path(settings.transfer_from)) if settings.transfer_from else []
    chosen = chosen_attacks(settings, carried, models, shadows)
    check_headline(chosen, carried, settings, models[0].modality)
    counts = [_asked(models, shadows, chosen, roles, count, settings, progress) for count in (4, *SAMPLES)]
    (few, many), each = SAMPLES, max(counts[2].seconds - counts[1].seconds, 0.0)  # the first call warms up
    slope = each / (many - few)
    seconds = max(counts[2].seconds - slope * many, 0.0) + slope * len(kept)
    return Rehearsal(
        target=str(models[0].describe().get("name", config.model)),
        sizes={"fit": len(roles.fit), "select": len(roles.select), "eval": len(roles.eval)},
        excluded=len(duplicates.excluded),
        attacks=tuple(chosen),
        programs=counts[-1].programs,
        passes=counts[-1].passes,
        seconds=seconds,
        learning=tuple(one.name for one in chosen if one.attack.kind == "reprogrammed" and one.attack.bank is None),
        permutations=settings.program_permutations,
        shadows=config.shadow_models if config.shadow_training else 0,
    )


class _Asked(NamedTuple):
    """Fixed programs, passes of the target a record, and seconds for all of the records that were asked about."""

    programs: int
    passes: float
    seconds: float


def _asked(
    models: tuple[Target, Target | None, Target | None],
    shadows: ShadowModels | None,
    chosen: Sequence[Chosen],
    roles: Roles,
    count: int,
    settings: Settings,
    progress: Progress,
) -> _Asked:
    """The fixed programs asked about the first `count` records of eval, whose labels nobody opens."""
    target, reference, _ = models
    binding = Binding(target, roles.fit, roles.select, settings.seed, progress, longest=0)
    views = Views({"target": target}, roles.eval.take(range(count)), binding, Store(None), shadows=shadows)
    views.measure_longest()
    if reference is not None:
        views.add_reference(reference)
    programs = programs_asked(chosen, views, "target")
    began = time.perf_counter()
    if views.modality != "language":
        with suppress(RepromiaError):  # a failed row of the audit, which says why
            views.ask_together("target", programs)
    for program in programs:
        with suppress(RepromiaError):
            views.ask("target", program)
    passes = sum(cost.passes for cost in views.costs if cost.of == "target")
    return _Asked(len(programs), float(passes), time.perf_counter() - began)


def dry_run_command(config: AuditConfig, shown: Shown = EVERYTHING) -> int:
    """Print what the audit would do; 0."""
    from rich.console import Console
    from rich.text import Text

    found, console = rehearse(config, watched(quiet=shown.quiet)), Console()
    if shown.as_json:
        sys.stdout.write(json.dumps(asdict(found) | {"attacks": [one.name for one in found.attacks]}, indent=2) + "\n")
        return 0
    for line in lines_of(found):
        console.print(Text(line))
    return 0


def _counted(count: float, what: str) -> str:
    many = "es" if what.endswith("s") else "s"
    return f"{count:g} {what}{'' if count == 1 else many}"


def lines_of(found: Rehearsal) -> list[str]:
    """The rehearsal in words."""
    records = sum(found.sizes.values())
    sizes = ", ".join(f"{count:,} {role}" for role, count in found.sizes.items())
    lines = [
        f"Target: {found.target}",
        f"Records: {records:,} ({sizes}); {found.excluded:,} left out as duplicates.",
        f"Attacks ({len(found.attacks)}): {', '.join(one.name for one in found.attacks)}",
        f"The target is asked in {_counted(found.programs, 'fixed way')}: {_counted(found.passes, 'forward pass')} a "
        f"record, {found.passes * records:,.0f} in all, about {duration(found.seconds)} at the speed of the first few.",
    ]
    if found.learning:
        again = f"; what is learned from labels {found.permutations} times more, on permuted ones"
        lines.append(f"Not in that time: making of {', '.join(found.learning)}{again if found.permutations else ''}.")
    if found.shadows:
        lines.append(f"Not in that time: training {found.shadows} shadow models.")
    lines.append("Not in that time: references, the null target, blind baselines and intervals. Nothing was written.")
    return lines
