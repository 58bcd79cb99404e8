"""Who is exposed, read from finished audits: all members where the roles were rotated, else those of the eval role."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from repromia.compare_folders import Run, read_run
from repromia.errors import ConfigError, RecordsError
from repromia.exposure import Exposure, Rotated, RotatedScores, exposure, exposure_table, rotate
from repromia.verdict import DOUBTFUL

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class ExposedRecords:
    """The place of every record among the non-members.

    attacks: the attack whose scores were taken, run by run. sentences: what may be said, the first one first.
    """

    found: Exposure
    rotated: Rotated
    groups: tuple[str, ...] | None
    attacks: tuple[str, ...]
    sentences: tuple[str, ...]


def exposure_of_runs(folders: Sequence[Path], *, attack: str = "", rate: float = 0.1) -> ExposedRecords:
    """Every record that was in some audit's eval role, ranked among the non-members.

    folders: audits of the same model and records with other seeds, or one audit. attack: whose scores; empty: the
    headline of each audit, which chose it without its eval labels (ranks make different attacks comparable; the
    headline of one audit for all would have been chosen on records that the others measure). rate: share of false
    names allowed.

    Raises ConfigError for a rate outside (0, 1), an attack that a run has not, the same roles twice; RecordsError when
    runs differ in model or records; StoreError when a folder holds no finished audit.
    """
    if not 0 < rate < 1:
        raise ConfigError("the rate of false discoveries is no share", expected="above 0 and below 1", found=f"{rate}")
    if not folders:
        raise ConfigError("there is no audit to read", expected="at least one folder of a finished audit", found="none")
    runs = [read_run(folder, str(folder)) for folder in folders]
    _check_alike(runs)
    names = tuple(_attack(run, attack) for run in runs)
    scores = zip(runs, names, strict=True)
    rotated = rotate([RotatedScores(run.ids, run.scores[name], run.member, run.in_eval) for run, name in scores])
    groups = _groups(runs[0], rotated.ids)
    found = exposure(rotated.scores, rotated.member, groups)
    return ExposedRecords(found, rotated, groups, names, tuple(_sentences(found, rotated, runs, rate)))


def _check_alike(runs: Sequence[Run]) -> None:
    first = runs[0].result
    for run in runs[1:]:
        own = run.result
        if own.records.digest != first.records.digest:
            raise _unlike(run, "other records")
        if own.target.get("fingerprint", own.target) != first.target.get("fingerprint", first.target):
            raise _unlike(run, "another model")
    roles = {frozenset(name for name, measured in zip(run.ids, run.in_eval, strict=True) if measured) for run in runs}
    if len(roles) < len(runs):
        raise ConfigError(
            "two of these audits measured exactly the same records",
            expected="audits with other seeds, and so other roles",
            found=", ".join(f"{run.folder.name}: seed {run.result.config.get('seed')}" for run in runs),
            hint="audit again with another --seed, or give each audit once",
        )


def _unlike(run: Run, found: str) -> RecordsError:
    return RecordsError(
        f"the audit in {str(run.folder)!r} cannot be combined with the first one",
        expected="the same model and the same records, audited with another seed",
        found=found,
        hint="repromia audit … --rotations makes audits that fit together",
    )


def _attack(run: Run, asked: str) -> str:
    name = asked or run.result.headline
    if name not in run.scores:
        raise ConfigError(
            f"the audit in {str(run.folder)!r} has no scores of {name!r}",
            expected=", ".join(run.scores) or "an attack that was measured",
            hint="name one of these with --attack",
        )
    return name


def _groups(run: Run, ids: Sequence[str]) -> tuple[str, ...] | None:
    """Groups of these records; None where each is by itself. They are the same in all runs, as the digest is."""
    if not run.result.records.grouped:
        return None
    if run.groups is None:
        raise RecordsError(
            "records belong together in groups, and the groups are not known",
            expected="a column 'group' in scores.parquet",
            found="none",
            hint="audit again with this version, which keeps the groups",
        )
    known = dict(zip(run.ids, run.groups, strict=True))
    return tuple(known[name] for name in ids)


def _sentences(found: Exposure, rotated: Rotated, runs: Sequence[Run], rate: float) -> list[str]:
    said = [found.sentence(rate)]
    total = len(rotated.ids) + len(rotated.never)
    if len(runs) == 1:
        said.append(
            f"Only the {len(rotated.ids)} eval records of this one audit are ranked, of {total}: for all, audit with "
            "--rotations 6."
        )
    else:
        missing = f", and {len(rotated.never)} in none: these are not listed" if rotated.never else ""
        said.append(
            f"{len(rotated.ids)} of {total} records are ranked, each in {rotated.times.min()} to {rotated.times.max()} "
            f"of {len(runs)} audits{missing}."
        )
    doubtful = [run.result.findings[0] for run in runs if run.result.findings[:1]]
    doubtful = [one for one in doubtful if one.code in DOUBTFUL]
    if doubtful:
        said.append(f"Caution: this may not be the model's doing. {doubtful[0].sentence}")
    return said


def write_exposure(exposed: ExposedRecords, path: Path) -> None:
    """The table, most exposed first: see `repromia.exposure.exposure_table`. audits: number of audits behind a rank."""
    columns: dict[str, Sequence[object]] = {"audits": exposed.rotated.times.tolist()}
    if exposed.groups is not None:
        columns["group"] = exposed.groups
    exposure_table(exposed.found, exposed.rotated.ids, path, columns)


def exposure_command(
    folders: Sequence[Path], *, out: Path, attack: str = "", rate: float = 0.1, console: Console | None = None
) -> int:
    """Rank, write the table to `out`, and say how many can be named. 0: done."""
    from rich.console import Console
    from rich.text import Text

    exposed = exposure_of_runs(folders, attack=attack, rate=rate)
    write_exposure(exposed, out)
    console = console or Console()
    for sentence in exposed.sentences:
        console.print(Text(sentence))
    console.print(Text(f"By {', '.join(dict.fromkeys(exposed.attacks))}. Table: {out}"), soft_wrap=True)
    return 0
