"""Finished audits read back, and the records that all of them measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int
from pydantic import ValidationError

from repromia.errors import RecordsError, StoreError
from repromia.metrics import RocCurve, roc_curve
from repromia.result import AuditResult

if TYPE_CHECKING:
    import polars

LEAST = 10  # members and non-members, and groups of each, as in every role of an audit
NOT_SCORES = ("id", "role", "member", "group")


@dataclass(frozen=True)
class Run:
    """One audit folder. scores: a column an attack, for all records; groups: None where the file has no such column."""

    name: str
    folder: Path
    result: AuditResult
    ids: tuple[str, ...]
    in_eval: Bool[np.ndarray, " record"]
    member: Bool[np.ndarray, " record"]
    groups: tuple[str, ...] | None
    scores: dict[str, Float[np.ndarray, " record"]]


@dataclass(frozen=True)
class Shared:
    """The eval records common to all runs, in order of id, and every run's scores of them (run by run, by attack)."""

    runs: tuple[Run, ...]
    ids: tuple[str, ...]
    member: Bool[np.ndarray, " shared"]
    groups: tuple[str, ...] | None
    scores: tuple[dict[str, Float[np.ndarray, " shared"]], ...]


def read_run(folder: Path, name: str) -> Run:
    """The result and scores of an audit folder. Raises StoreError where they are missing, damaged or do not agree."""
    import polars

    try:
        result = AuditResult.model_validate_json((folder / "result.json").read_bytes())
        table = polars.read_parquet((folder / "scores.parquet").read_bytes())  # a path may look like a pattern
    except (OSError, ValidationError, polars.exceptions.PolarsError) as error:
        found = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
        raise _unreadable(folder, found) from error
    objection = _objection(table)
    if objection:
        raise _unreadable(folder, objection)
    columns = [one for one in table.columns if one not in NOT_SCORES]
    return Run(
        name=name,
        folder=folder,
        result=result,
        ids=tuple(map(str, table["id"].to_list())),
        in_eval=(table["role"] == "eval").to_numpy(),
        member=table["member"].to_numpy(),
        groups=tuple(map(str, table["group"].to_list())) if "group" in table.columns else None,
        scores={one: table[one].cast(polars.Float64).fill_null(float("nan")).to_numpy() for one in columns},
    )


def _objection(table: polars.DataFrame) -> str:
    """Why this is no table of scores; empty where it is."""
    import polars

    missing = sorted({"id", "role", "member"} - set(table.columns))
    if missing:
        return f"no columns {', '.join(missing)}"
    known = {"role": polars.String, "member": polars.Boolean}
    if any(table[name].dtype != kind for name, kind in known.items()):
        return "roles that are not words, or labels that are not bool"
    if any(table[name].null_count() for name in ("id", "role", "member")):
        return "records without id, role or label"
    if not (table["id"].dtype == polars.String or table["id"].dtype.is_integer()):
        return "ids that are neither words nor numbers"
    if table["id"].n_unique() < table.height:
        return "ids that repeat"
    if any(not table[one].dtype.is_numeric() for one in table.columns if one not in NOT_SCORES):
        return "scores that are not numbers"
    return ""


def curves_of(run: Run) -> dict[str, RocCurve]:
    """Exact curves over the eval role of every attack whose eval scores are complete, by its name."""
    member = run.member[run.in_eval]
    measured = {name: scores[run.in_eval] for name, scores in run.scores.items()}
    if member.all() or not member.any():
        return {}
    return {name: roc_curve(scores, member) for name, scores in measured.items() if np.isfinite(scores).all()}


def _unreadable(folder: Path, found: str) -> StoreError:
    return StoreError(
        f"{str(folder)!r} holds no finished audit that this version can read.",
        expected="result.json and scores.parquet as `repromia audit --out` writes them",
        found=found,
        hint="run the same audit again: it goes on where it stopped, or is made anew",
    )


def share(runs: Sequence[Run], groups: Mapping[str, str] | None = None) -> Shared:
    """The records that were in the eval role of every run.

    groups: of each id, for grouped audits whose scores.parquet has no column `group`. Records tied by any run are
    tied here. Raises RecordsError when a record is a member in one run and not in another, when fewer than `LEAST`
    members or non-members (or groups of them) are shared, or when records are grouped and nobody says how.
    """
    labels: dict[str, bool] = {}
    for run in runs:
        conflicts = sum(
            labels.setdefault(name, label) != label for name, label in zip(run.ids, run.member.tolist(), strict=True)
        )
        if conflicts:
            raise RecordsError(
                f"{conflicts} records are members in one run and non-members in {run.name!r}",
                expected="the same records with the same membership in all runs",
                found="other labels under the same ids",
                hint="compare audits of one set of records: only the model, or how it was asked, may differ",
            )
    measured = (set(np.asarray(run.ids)[run.in_eval].tolist()) for run in runs)
    ids = tuple(sorted(set.intersection(*measured)))
    member = np.array([labels[name] for name in ids], dtype=np.bool_)
    tied = _groups(runs, ids, groups)
    names = np.asarray(ids if tied is None else tied)
    fewest = [len(np.unique(names[side])) for side in (member, ~member)]
    if min(fewest) < LEAST:
        raise RecordsError(
            "too few eval records are common to all runs",
            expected=f"at least {LEAST} independent members and non-members",
            found=f"{len(ids)} records, {fewest[0]} independent members and {fewest[1]} non-members",
            hint="audit the same records with the same seed, so that the same ones are measured",
        )
    return Shared(tuple(runs), ids, member, tied, tuple(_of(run, ids) for run in runs))


def _of(run: Run, ids: Sequence[str]) -> dict[str, Float[np.ndarray, " shared"]]:
    rows = _rows(run, ids)
    return {name: scores[rows] for name, scores in run.scores.items()}


def _rows(run: Run, ids: Sequence[str]) -> Int[np.ndarray, " shared"]:
    where = {name: row for row, name in enumerate(run.ids)}
    return np.array([where[name] for name in ids], dtype=np.int64)


def _groups(runs: Sequence[Run], ids: Sequence[str], given: Mapping[str, str] | None) -> tuple[str, ...] | None:
    """Groups of the shared records: tied by what is given, or by any run; None where each is by itself."""
    if not ids or (given is None and not any(run.result.records.grouped for run in runs)):
        return None
    if given is not None:
        if any(name not in given for name in ids):
            raise _ungrouped("records without a group among those given")
        return tuple(given[name] for name in ids)
    unknown = [run.name for run in runs if run.result.records.grouped and run.groups is None]
    if unknown:
        raise _ungrouped(f"no column 'group' in scores.parquet of {', '.join(map(repr, unknown))}")
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    columns, offset = [], len(ids)
    for run in runs:
        if run.groups is not None:
            own = np.asarray(run.groups)[_rows(run, ids)]
            group = np.unique(own, return_inverse=True)[1].reshape(-1)
            columns.append(group + offset)
            offset += int(group.max()) + 1
    ends = np.concatenate(columns)
    starts = np.tile(np.arange(len(ids)), len(columns))
    graph = coo_array((np.ones(ends.size), (starts, ends)), shape=(offset, offset))
    parts = connected_components(graph, directed=False)[1]
    return tuple(str(part) for part in parts[: len(ids)].tolist())


def _ungrouped(found: str) -> RecordsError:
    return RecordsError(
        "records of these runs belong together in groups, and the groups are not known",
        expected="the group of each record: without it every interval would be too narrow",
        found=found,
        hint="audit again with this version, which keeps the groups, or pass groups={id: group} to compare_runs",
    )
