"""Who is exposed: every record's place among records that were certainly not used, and which kinds of records stand
out.

A record's p-value is its conformal rank among non-members, (1 + non-members that score at least as high) / (1 +
non-members): if nothing of the record were left in the model, it would be at most t in a share of at most t of cases,
at any number of records and for any scores. Named members are those whose rate of false discoveries is controlled
(Benjamini & Hochberg 1995, which holds for such p-values: Bates, Candès, Lei, Romano & Sesia 2023, arXiv 2104.08279).
With groups every group of non-members has one vote (Lee, Barber & Willett 2023, arXiv 2306.06342), and the correction
is that of Benjamini & Yekutieli (2001), which needs nothing of the dependence.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy.stats import false_discovery_control, rankdata

from repromia.errors import ConfigError, RecordsError
from repromia.metrics import check_scores
from repromia.store import write_atomic


@dataclass(frozen=True)
class Exposure:
    """How far each record stands out among non-members, in the order given.

    p_value: of members against all non-members, of non-members against the others; records of the own group are left
    out. q_value: of members, the least rate of false discoveries at which the record is named; 1 for non-members, who
    are never named. expected_false_alarms: of members, how many of them would score at least as high if the model had
    kept nothing of any; NaN for non-members. grouped: whether some group holds several records. voters: non-members (or
    groups of them) that each have a vote.
    """

    scores: Float[np.ndarray, " record"]
    member: Bool[np.ndarray, " record"]
    p_value: Float[np.ndarray, " record"]
    q_value: Float[np.ndarray, " record"]
    expected_false_alarms: Float[np.ndarray, " record"]
    grouped: bool
    voters: int

    def named(self, rate: float = 0.1) -> Int[np.ndarray, " named"]:
        """Rows of the members named when at most `rate` of the names are expected to be wrong, most exposed first."""
        rows = np.flatnonzero(self.member & (self.q_value <= rate))
        return rows[np.argsort(-self.scores[rows], kind="stable")]

    def sentence(self, rate: float = 0.1) -> str:
        """How many members can be named."""
        count, members = len(self.named(rate)), int(self.member.sum())
        nonmembers = int((~self.member).sum())
        if count:
            return (
                f"{count} of {members} members stand out among {nonmembers} non-members, of whom at most "
                f"{100 * rate:g} % are expected to be there by chance."
            )
        none = f"No single member can be named at {100 * rate:g} % false discoveries."
        dependent = float(np.sum(1 / np.arange(1, members + 1))) if self.grouped else 1.0
        least = int(np.ceil(members * dependent / (rate * (1 + self.voters)) - 1e-9))
        among = f"{self.voters} groups of non-members" if self.grouped else f"{nonmembers} non-members"
        if least > members:
            return f"{none} Nobody could be, whatever the model kept: {among} are too few for {members} members."
        return f"{none} With {among} that takes {least} of {members} members above all of them: fewer would go unseen."


def exposure(
    scores: Float[np.ndarray, " record"],
    member: Bool[np.ndarray, " record"],
    groups: Sequence[str] | None = None,
) -> Exposure:
    """The place of every record among the non-members (higher score = member).

    groups: records of one group are one observation. Raises RepromiaError as `check_scores` does; RecordsError when
    groups do not fit the records or no non-member lies outside some record's group.
    """
    check_scores(scores, member)
    names = np.arange(scores.size) if groups is None else np.asarray(groups, dtype=np.str_)
    if names.size != scores.size:
        raise RecordsError(
            "groups and records do not fit together",
            expected=f"{scores.size} groups, one a record",
            found=f"{names.size}",
            hint="pass the groups of the same records",
        )
    group = np.unique(names, return_inverse=True)[1].reshape(-1)
    p_values = _p_values(scores, member, group)
    grouped = int(group.max()) + 1 < group.size
    q_values, alarms = np.ones(scores.size), np.full(scores.size, np.nan)
    q_values[member] = false_discovery_control(p_values[member], method="by" if grouped else "bh")
    alarms[member] = p_values[member] * int(member.sum())
    voters = len(np.unique(group[~member]))
    return Exposure(scores, member, p_values, q_values, alarms, grouped, voters)


def _p_values(
    scores: Float[np.ndarray, " record"], member: Bool[np.ndarray, " record"], group: Int[np.ndarray, " record"]
) -> Float[np.ndarray, " record"]:
    """(1 + sum over other groups of the share of their non-members that score at least as high) / (1 + such groups)."""
    size = np.bincount(group[~member], minlength=int(group.max()) + 1)
    weight = 1 / size[group[~member]]
    order = np.argsort(-scores[~member], kind="stable")
    above = np.append(0.0, np.cumsum(weight[order]))
    reached = np.searchsorted(-scores[~member][order], -scores, side="right")
    votes = above[reached] - _own_votes(scores, member, group)
    voters = int(np.count_nonzero(size)) - (size[group] > 0)
    if not voters.all():
        raise RecordsError(
            "all non-members lie in one group with a record to be ranked among them",
            expected="non-members of at least two groups",
            found="one group",
            hint="give non-members of other groups",
        )
    # Rounding of 1/3 + 1/3 + 1/3 must not make a p-value smaller than it is.
    return np.minimum(1.0, (1 + np.maximum(votes, 0.0) * (1 + 1e-12)) / (1 + voters))


def _own_votes(
    scores: Float[np.ndarray, " record"], member: Bool[np.ndarray, " record"], group: Int[np.ndarray, " record"]
) -> Float[np.ndarray, " record"]:
    """The share of non-members of a record's own group that score at least as high, itself included."""
    votes = np.zeros(scores.size)
    order = np.argsort(group, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        outside = np.sort(scores[rows][~member[rows]])
        if outside.size:
            votes[rows] = 1 - np.searchsorted(outside, scores[rows], side="left") / outside.size
    return votes


@dataclass(frozen=True)
class RotatedScores:
    """One audit's scores. in_eval: records that fitted nothing and chose nothing there; only their scores are used."""

    ids: tuple[str, ...]
    scores: Float[np.ndarray, " record"]
    member: Bool[np.ndarray, " record"]
    in_eval: Bool[np.ndarray, " record"]


@dataclass(frozen=True)
class Rotated:
    """Scores of all records over several audits, in order of id. never: ids that were in no audit's eval role.

    scores: mean over audits of the record's rank within that audit's eval records, in (0, 1). times: number of audits
    behind it.
    """

    ids: tuple[str, ...]
    scores: Float[np.ndarray, " record"]
    member: Bool[np.ndarray, " record"]
    times: Int[np.ndarray, " record"]
    never: tuple[str, ...]


def rotate(audits: Sequence[RotatedScores]) -> Rotated:
    """One score for every record, from audits of the same records with other seeds and so with other roles.

    Each record counts only where it was in eval: no head that scored it had seen its label. Ranks within an audit's
    eval records make different heads comparable, and need no label. With the default shares (fit .2, select .1) each of
    K audits holds a record in eval with chance .7: 3 audits leave 3 %, 6 leave 1 in 1,000 (`never`). Heads of one audit
    are fitted on records that another audit ranks, so ranks are exchangeable only nearly; `docs/results/evidence.md`
    has measured false-alarm rates.

    Raises RecordsError when there is no audit, arrays do not fit together, scores are not numbers, an id repeats, or
    audits disagree on a membership.
    """
    total: dict[str, float] = {}
    times: dict[str, int] = {}
    labels: dict[str, bool] = {}
    for number, audit in enumerate(audits):
        _check_audit(audit, number)
        for name, label in zip(audit.ids, audit.member.tolist(), strict=True):
            if labels.setdefault(name, label) != label:
                raise _unfit(number, "a record that is a member here and a non-member in another audit")
        rows = np.flatnonzero(audit.in_eval)
        ranks = (rankdata(audit.scores[rows]) - 0.5) / max(1, rows.size)
        for row, rank in zip(rows.tolist(), ranks.tolist(), strict=True):
            name = audit.ids[row]
            total[name] = total.get(name, 0.0) + rank
            times[name] = times.get(name, 0) + 1
    if not total:
        raise RecordsError(
            "nothing to rotate", expected="audits with eval records", found=f"{len(audits)} audits without any"
        )
    ids = tuple(sorted(total))
    return Rotated(
        ids=ids,
        scores=np.array([total[name] / times[name] for name in ids]),
        member=np.array([labels[name] for name in ids]),
        times=np.array([times[name] for name in ids]),
        never=tuple(sorted(labels.keys() - total.keys())),
    )


def _check_audit(audit: RotatedScores, number: int) -> None:
    sizes = {len(audit.ids), audit.scores.size, audit.member.size, audit.in_eval.size}
    if len(sizes) > 1 or len(set(audit.ids)) < len(audit.ids):
        raise _unfit(number, "ids that repeat, or ids, scores, member and in_eval of different lengths")
    if not np.isfinite(audit.scores[audit.in_eval]).all():
        raise _unfit(number, "eval scores that are NaN or infinite")


def _unfit(number: int, found: str) -> RecordsError:
    return RecordsError(
        f"audit {number} cannot be combined with the others",
        expected="one finite score and one membership for each unique id, the same membership everywhere",
        found=found,
        hint="give audits of the same records that differ in their seed only",
    )


def exposure_table(
    found: Exposure,
    ids: Sequence[str],
    path: Path,
    columns: Mapping[str, Sequence[object] | Shaped[np.ndarray, " record"]] | None = None,
) -> None:
    """Write a row a record, most exposed first: .csv or .parquet, by the name of the file.

    columns: further columns, such as slices or `Rotated.times`. Ids are written as they are, and no record text.
    Raises ConfigError for another kind of file or a column name in use; RecordsError when lengths differ; StoreError.
    """
    import polars

    table: dict[str, object] = {
        "id": list(ids),
        "member": found.member,
        "score": found.scores,
        "p_value": found.p_value,
        "q_value": found.q_value,
        "expected_false_alarms": found.expected_false_alarms,
    }
    extra = {name: list(values) for name, values in (columns or {}).items()}
    if path.suffix not in (".csv", ".parquet"):
        raise ConfigError(
            "the table of exposed records cannot be written so",
            expected="a file named .csv or .parquet",
            found=repr(path.name),
        )
    if table.keys() & extra.keys():
        raise ConfigError(
            "the table of exposed records cannot be written so",
            expected="further columns of other names",
            found=", ".join(map(repr, extra)),
        )
    if {len(ids), *map(len, extra.values())} != {found.scores.size}:
        raise RecordsError("ids, columns and records differ in number", expected=f"{found.scores.size} of each")
    frame = polars.DataFrame({**table, **extra}).with_columns(polars.col("expected_false_alarms").fill_nan(None))
    frame = frame.sort(["p_value", "score", "id"], descending=[False, True, False])
    buffer = io.BytesIO()
    if path.suffix == ".csv":
        frame.write_csv(buffer)
    else:
        frame.write_parquet(buffer)
    write_atomic(path, buffer.getvalue())
