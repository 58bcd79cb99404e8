"""The same audit several times with other roles, so that every record is measured by what never saw its label."""

from __future__ import annotations

from rich.console import Console

from repromia.config import AuditConfig
from repromia.exposure_runs import exposure_command
from repromia.progress import EVERYTHING, Shown, watched
from repromia.run import audit_command, audit_to_folder
from repromia.tracking import track

TABLE = "exposure.csv"


def rotated_command(config: AuditConfig, console: Console | None = None, shown: Shown = EVERYTHING) -> int:
    """The audit in config.out, those with the next seeds in rotation-1, rotation-2, … below it, and exposure.csv.

    Each is an audit of its own and resumes by itself. 0: all measured; 1: some attack failed in some audit.
    """
    code = audit_command(config, console, shown)
    console = console or Console(quiet=shown.quiet or shown.as_json)
    folders = [config.out]
    for number in range(1, config.rotations):
        other = config.model_copy(
            update={"seed": config.seed + number, "out": config.out / f"rotation-{number}", "rotations": 1}
        )
        result = audit_to_folder(other, watched(quiet=shown.quiet))
        if shown.tracker:
            track(result, other.out)
        code = max(code, 0 if result.status == "complete" else 1)
        folders.append(other.out)
    exposure_command(folders, out=config.out / TABLE, console=console)
    return code
