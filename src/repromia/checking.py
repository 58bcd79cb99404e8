"""`repromia check`: do the records give it away, without any model?"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from repromia.config import AuditConfig
from repromia.progress import each, watched
from repromia.result import Estimate
from repromia.sources import read_records
from repromia.verdict import above

if TYPE_CHECKING:
    from rich.table import Table


def check_command(
    members: Path | None,
    nonmembers: Path | None,
    *,
    data: str,
    label: str,
    text: str,
    group: str,
    seed: int,
    image: str = "",
    caption: str = "",
    skip_unreadable: bool = False,
    as_json: bool = False,
    console: Console | None = None,
) -> int:
    """The blind baselines alone. 0: they find nothing; 1: the data gives it away."""
    from repromia.blind import baselines_for, cross_validated_auc
    from repromia.duplicates import remove_duplicates

    config = AuditConfig(
        model="",
        out=Path("."),
        members=members,
        nonmembers=nonmembers,
        data=data,
        label=label,
        text=text,
        group=group,
        image=image,
        caption=caption,
        skip_unreadable=skip_unreadable,
        seed=seed,
    )
    console = console or Console()
    skipped: list[str] = []
    progress = watched()
    with progress.step("reading records, looking for duplicates", None):
        kept, duplicates = remove_duplicates(read_records(config, skipped.extend))
    names = baselines_for(kept.records)
    found = {name: cross_validated_auc(kept, name, seed=seed) for name in each(progress, "blind baselines", names)}
    separable = [name for name, area in found.items() if above(area, len(found))]
    across = duplicates.exact_across + duplicates.near_across
    if as_json:
        areas = {name: area.model_dump() for name, area in found.items()}
        told = {"records": len(kept), "unreadable": len(skipped), "on_both_sides": across, "separable": separable}
        sys.stdout.write(json.dumps({"blind": areas, **told}, indent=2) + "\n")
        return 1 if separable else 0
    console.print(_blind_table(found))
    if skipped:
        console.print(f"{len(skipped)} images could not be read and were left out.")
    if across:
        console.print(f"{across} records occur on both sides (exactly or nearly) and were left out.")
    if separable:
        console.print(
            f"The data gives it away: {', '.join(separable)} above chance without any model. An attack on these "
            "records cannot tell memory from data shift; draw members and non-members from one pool by lot."
        )
        return 1
    console.print(f"No blind baseline is above chance on {len(kept)} records.")
    return 0


def _blind_table(found: dict[str, Estimate]) -> Table:
    from rich.table import Table

    table = Table(title="Do the records alone tell members from non-members?")
    for heading in ("blind baseline", "AUC", "95 % interval"):
        table.add_column(heading)
    for name, area in found.items():
        table.add_row(name, f"{area.estimate:.3f}", f"{area.low:.3f} to {area.high:.3f}")
    return table
