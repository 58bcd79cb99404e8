"""What a run of benchmarks found, as data: the versioned schema of `bench.json`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from repromia.benchmarks.benchmark import Benchmark, Published
from repromia.benchmarks.cells import Finished
from repromia.benchmarks.central import CENTRAL, FPR, ROLES, CentralRow, rows_of
from repromia.benchmarks.figures import CLAIMS, Claim
from repromia.benchmarks.files import FoundFile
from repromia.result import AttackResult, AuditResult, Estimate, Figures, Gain, TprAtFpr

SCHEMA_VERSION = 1
ORDER = ("blind", "passive", "reference", "head", "reprogrammed")


class BenchRow(Figures):
    """An attack in one cell. null_auc: of the same attack on the null target."""

    name: str
    attack: str
    kind: str
    status: str
    reason: str = ""
    auc: Estimate | None = None
    tpr: TprAtFpr | None = None  # at 1 % FPR
    null_auc: Estimate | None = None


class BenchCell(Figures):
    """One target and seed. rows: the best blind baseline first."""

    seed: int
    status: Literal["measured", "failed"]
    reason: str = ""
    model: str = ""
    rows: tuple[BenchRow, ...] = ()
    gains: tuple[Gain, ...] = ()
    headline: str = ""
    sentence: str = ""  # the audit's own first finding
    eval_members: int = 0
    eval_nonmembers: int = 0
    null_status: str = ""
    null_reason: str = ""
    null_joint_p: float | None = None
    seconds: float = 0.0
    folder: str = ""
    device: str = ""
    versions: dict[str, str] = Field(default_factory=dict)  # of where it was measured, not of where tables are made


class BenchTable(Figures):
    """A benchmark, what is known of it, and its cells: seeds side by side, never pooled."""

    name: str
    title: str
    modality: str
    iid: bool
    stand_in: bool  # measured on a likeness of the data, not on the data
    source: str
    licence: str
    protocol: str
    target: str
    against: tuple[str, ...]
    published: tuple[Published, ...]
    files: tuple[FoundFile, ...]
    steps: tuple[str, ...]
    cells: tuple[BenchCell, ...]


class Bench(Figures):
    """Everything a run found. claims: what ReproMIA claims for its gain over the best passive attack, in points.

    versions: of what the cells were measured with; several where they differ.
    """

    schema_version: int = SCHEMA_VERSION
    created: str
    command: str
    preset: str
    status: Literal["complete", "complete_with_failures"]
    tables: tuple[BenchTable, ...]
    central: tuple[CentralRow, ...]
    claims: tuple[Claim, ...] = CLAIMS
    versions: dict[str, str]


def cell_of(seed: int, model: str, finished: Finished, folder: str) -> BenchCell:
    """A cell's rows and gains from its audit."""
    result = finished.result
    if result is None:
        return BenchCell(seed=seed, status="failed", reason=finished.reason, model=model, folder=folder)
    nulls = {row.name: row.auc for row in result.null_target.rows}
    sizes = result.records.roles.eval
    return BenchCell(
        seed=seed,
        status="measured",
        model=str(result.target.get("name", model)),
        rows=tuple(_row(one, nulls.get(one.name)) for one in ordered(result)),
        gains=tuple(one for one in result.gains if one.role in ROLES),
        headline=result.headline,
        sentence=result.findings[0].sentence if result.findings else "",
        eval_members=sizes[0],
        eval_nonmembers=sizes[1],
        null_status=result.null_target.status,
        null_reason=result.null_target.reason,
        null_joint_p=result.null_target.joint_p,
        seconds=finished.seconds,
        folder=folder,
        device=str(result.target.get("device", "")),
        versions=result.versions,
    )


def measured_with(tables: Sequence[BenchTable]) -> dict[str, str]:
    """Versions of what all measured cells ran with, several in order where cells of other machines were taken on."""
    found: dict[str, dict[str, None]] = {}
    for cell in (one for table in tables for one in table.cells):
        for name, number in cell.versions.items():
            found.setdefault(name, {})[number] = None
    return {name: ", ".join(numbers) for name, numbers in found.items()}


def ordered(result: AuditResult) -> list[AttackResult]:
    """Blind baselines, the best first, then passive attacks, references, heads and reprogrammed ones."""
    blind = sorted(result.blind, key=lambda one: -one.cross_validated_auc.estimate)
    rows = [*(one.fitted for one in blind), *result.attacks]
    return sorted(rows, key=lambda one: ORDER.index(one.kind))


def _row(one: AttackResult, null: Estimate | None) -> BenchRow:
    tpr = next((at for at in one.tpr_at_fpr if at.fpr == FPR), None)
    facts = one.model_dump(include={"name", "attack", "kind", "status", "reason"})
    return BenchRow(**facts, auc=one.auc, tpr=tpr, null_auc=null)


def table_of(
    benchmark: Benchmark,
    cells: Sequence[BenchCell],
    *,
    stand_in: bool,
    files: tuple[FoundFile, ...],
    steps: tuple[str, ...],
) -> BenchTable:
    """A benchmark's table."""
    names = ("name", "title", "modality", "iid", "source", "licence", "protocol", "target", "against", "published")
    about = {name: getattr(benchmark, name) for name in names}
    return BenchTable(**about, stand_in=stand_in, files=files, steps=steps, cells=tuple(cells))


def central_rows(tables: Sequence[BenchTable]) -> tuple[CentralRow, ...]:
    """Paired gains over all i.i.d. suites; likenesses of the data are no suites."""
    found: list[CentralRow] = []
    for table in (one for one in tables if one.iid and not one.stand_in):
        for cell in table.cells:
            central = {row.name for row in cell.rows if row.attack in CENTRAL}
            found += rows_of(cell.gains, central, benchmark=table.name, modality=table.modality, seed=cell.seed)
    return tuple(found)


def failures(tables: Sequence[BenchTable]) -> list[str]:
    """What could not be measured, and why: cells and attacks."""
    lines = []
    for table in tables:
        for cell in table.cells:
            place = f"{table.name}, seed {cell.seed}"
            lines += [cell.reason] if cell.status == "failed" else []
            lines += [f"{place}: {row.name}: {row.reason}" for row in cell.rows if row.status == "failed"]
    return lines
