"""Two or more audits of the same records: does one model give away less than the other?

Before and after a defence, unlearning, or a new checkpoint. Every difference is paired: same eval records, same
resamples. What is given away is the distance of AUC from .5, on whichever side: a model whose members look stranger
than strangers (unlearning that went too far) tells them apart as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import norm

from repromia.areas import group_area
from repromia.bootstrap import Bootstrap, BootstrapStatistics, percentile, widened
from repromia.compare_folders import Run, Shared, read_run, share
from repromia.comparison import Comparison, Difference, Missing, Outcome, Reading, RunSummary, TprDifference, sentence
from repromia.errors import ConfigError, one_line
from repromia.intervals import delong, delong_difference, tpr_interval
from repromia.metrics import auc, tpr_at_fpr
from repromia.progress import Progress, Silent, each, watched
from repromia.result import Estimate
from repromia.store import write_atomic
from repromia.verdict import DOUBTFUL

if TYPE_CHECKING:
    from rich.console import Console

LEVEL = 0.05  # of all comparisons of one reading together (Bonferroni)
POWER = 0.8


@dataclass
class _Paired:
    """Figures of score columns on the shared records; the same resamples for all of them."""

    shared: Shared
    fprs: tuple[float, ...]
    bootstrap: Bootstrap

    def __post_init__(self) -> None:
        self.member: Bool[np.ndarray, " shared"] = self.shared.member
        self._resampled: dict[tuple[int, str], BootstrapStatistics] = {}

    def resampled(self, key: tuple[int, str]) -> BootstrapStatistics:
        if key not in self._resampled:
            self._resampled[key] = self.bootstrap.statistics(self.scores(key), self.fprs)
        return self._resampled[key]

    def scores(self, key: tuple[int, str]) -> Float[np.ndarray, " shared"]:
        return self.shared.scores[key[0]][key[1]]

    def area(self, key: tuple[int, str], level: float = 0.95) -> Estimate:
        """AUC of one attack in one run."""
        if not self.bootstrap.grouped:
            return delong(self.scores(key), self.member, level)
        return group_area(self.bootstrap, self.scores(key), self.resampled(key), level)

    def difference(
        self, run: tuple[int, str], base: tuple[int, str], *, signs: tuple[int, int] = (1, 1), level: float = 0.95
    ) -> Estimate:
        """AUC of run minus that of base, each with its scores turned where its sign is -1."""
        first, second = signs[0] * self.scores(run), signs[1] * self.scores(base)
        if not self.bootstrap.grouped:
            return delong_difference(first, second, self.member, level)
        value = auc(first, self.member) - auc(second, self.member)
        ours, theirs = (
            one.auc if sign > 0 else 1 - one.auc
            for one, sign in zip((self.resampled(run), self.resampled(base)), signs, strict=True)
        )
        found = percentile(ours - theirs, value, level, "paired percentile bootstrap of groups")
        if found.low < found.high or np.array_equal(first, second):
            return widened(found, self.bootstrap.least, (-1.0, 1.0), level)
        # No resample moves: as wide as the two figures by themselves allow.
        reach = sum((one.high - one.low) / 2 for one in (self.area(run, level), self.area(base, level)))
        limits = {"low": max(-1.0, value - reach), "high": min(1.0, value + reach)}
        return Estimate(estimate=value, **limits, method="sum of both intervals, as no resample moves")

    def tpr(self, at: int, run: tuple[int, str], base: tuple[int, str]) -> TprDifference:
        """TPR at the FPR of this number, in both, and the difference."""
        fpr, ours, theirs = self.fprs[at], self.scores(run), self.scores(base)
        first, second = tpr_at_fpr(ours, self.member, fpr), tpr_at_fpr(theirs, self.member, fpr)
        resampled = self.resampled(run).tpr[at] - self.resampled(base).tpr[at]
        found = percentile(resampled, first - second, method="paired percentile bootstrap")
        if self.bootstrap.grouped:
            found = widened(found, self.bootstrap.least, (-1.0, 1.0))
        if found.low == found.high and not np.array_equal(ours, theirs):
            one, other = (tpr_interval(scores, self.member, fpr, level=0.975) for scores in (ours, theirs))
            limits = {"low": one.low - other.high, "high": one.high - other.low}
            found = Estimate(estimate=first - second, **limits, method="difference of 97.5 % intervals")
        return TprDifference(fpr=fpr, baseline=second, run=first, difference=found)


def compare_runs(
    folders: Sequence[Path],
    *,
    names: Sequence[str] = (),
    groups: Mapping[str, str] | None = None,
    repeats: int = 2000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Comparison:
    """Finished audit folders compared on the eval records that all of them measured; the first is the baseline.

    names: of the runs, else those of their folders. groups: see `repromia.compare_folders.share`. Raises ConfigError
    with fewer than two runs or repeated names; StoreError and RecordsError as reading and sharing do.
    """
    named = tuple(names) or _names(folders)
    if len(folders) < 2 or len(named) != len(folders) or len(set(named)) < len(named):
        raise ConfigError(
            "nothing to compare",
            expected="at least two audit folders, each under a name of its own",
            found=f"{len(folders)} folder{'s' if len(folders) != 1 else ''}"
            + (f" for {len(named)} names: {', '.join(map(repr, named))}" if len(folders) > 1 else ""),
        )
    runs = [read_run(folder, name) for folder, name in zip(folders, named, strict=True)]
    kinds = {run.result.modality: run.name for run in runs}
    if len(kinds) > 1:
        raise ConfigError(
            "These audits are of different kinds of model.",
            expected="one kind, and the same records",
            found=", ".join(f"{name}: {kind}" for kind, name in kinds.items()),
        )
    shared = share(runs, groups)
    asked = ({one.fpr for row in run.result.attacks for one in row.tpr_at_fpr} for run in shared.runs)
    nonmembers = int((~shared.member).sum())
    fprs = tuple(fpr for fpr in sorted(set.intersection(*asked)) if fpr * nonmembers >= 1)
    paired = _Paired(shared, fprs, Bootstrap(shared.member, shared.groups, repeats=repeats, seed=seed))
    headlines, attacks, missing = _pairs(shared)
    return Comparison(
        runs=tuple(map(_summary, shared.runs)),
        n_members=int(shared.member.sum()),
        n_nonmembers=nonmembers,
        grouped=paired.bootstrap.grouped,
        fprs=fprs,
        headlines=tuple(_difference(paired, *one, tests=len(headlines)) for one in headlines),
        attacks=tuple(
            _difference(paired, *one, tests=len(attacks))
            for one in each(progress or Silent(), "comparing attacks", attacks)
        ),
        missing=missing,
        notes=tuple(_notes(shared)),
    )


def _names(folders: Sequence[Path]) -> tuple[str, ...]:
    """Of before/audit and after/audit: before and after."""
    parts = [folder.resolve().parts for folder in folders]
    while all(parts) and len({one[-1] for one in parts}) == 1:
        parts = [one[:-1] for one in parts]
    short = tuple(one[-1] if one else "" for one in parts)
    return short if len(set(short)) == len(short) else tuple(map(str, folders))


_Pair = tuple[Reading, tuple[int, str], tuple[int, str]]  # reading, (run, attack), (baseline, attack)


def _pairs(shared: Shared) -> tuple[list[_Pair], list[_Pair], tuple[Missing, ...]]:
    """What is compared with what, and what cannot be."""
    first = shared.runs[0].result
    scored = {row.name: row.select_auc for row in first.attacks if row.select_auc is not None}
    riskiest = min(scored, key=lambda name: (-(scored[name] or 0.0), name), default="")
    headlines: list[_Pair] = []
    attacks: list[_Pair] = []
    missing: list[Missing] = []
    usable = [_usable(run, scores) for run, scores in zip(shared.runs, shared.scores, strict=True)]
    names = list(dict.fromkeys(row.name for run in shared.runs for row in run.result.attacks))
    for name in names:
        missing += [Missing(attack=name, run=run.name, reason=found) for run, found in _failures(shared, usable, name)]
    for at in range(1, len(shared.runs)):
        both = [name for name in names if name in usable[0] and name in usable[at]]
        attacks += [("attack", (at, name), (0, name)) for name in both]
        if riskiest in both:
            headlines.append(("highest_risk", (at, riskiest), (0, riskiest)))
        own, base = shared.runs[at].result.headline, first.headline
        if own in usable[at] and base in usable[0] and not (own == base == riskiest):
            headlines.append(("own_headline", (at, own), (0, base)))
    return headlines, attacks, tuple(missing)


def _usable(run: Run, scores: dict[str, Float[np.ndarray, " shared"]]) -> set[str]:
    measured = (row.name for row in run.result.attacks if row.status == "measured" and row.name in scores)
    return {name for name in measured if np.isfinite(scores[name]).all()}


def _failures(shared: Shared, usable: Sequence[set[str]], name: str) -> Iterator[tuple[Run, str]]:
    for run, own in zip(shared.runs, usable, strict=True):
        if name not in own:
            row = next((one for one in run.result.attacks if one.name == name), None)
            given = "not asked for" if row is None else one_line(row.reason) or "has no scores of every record"
            yield run, given


def _difference(
    paired: _Paired, reading: Reading, run: tuple[int, str], base: tuple[int, str], *, tests: int
) -> Difference:
    level = 1 - LEVEL / tests
    ours, theirs = paired.area(run), paired.area(base)
    signs = tuple(1 if one.estimate >= 0.5 else -1 for one in (ours, theirs))
    found = paired.difference(run, base)
    error = (found.high - found.low) / (2 * float(norm.isf(0.025)))
    plain = Difference(
        reading=reading,
        baseline=paired.shared.runs[base[0]].name,
        run=paired.shared.runs[run[0]].name,
        baseline_attack=base[1],
        attack=run[1],
        baseline_auc=theirs,
        run_auc=ours,
        auc=found,
        leak=paired.difference(run, base, signs=(signs[0], signs[1])),
        tpr_at_fpr=tuple(paired.tpr(at, run, base) for at in range(len(paired.fprs))),
        outcome=_outcome(paired, run, base, signs=(signs[0], signs[1]), level=level),
        comparisons=tests,
        smallest_visible=min(1.0, error * float(norm.isf((1 - level) / 2) + norm.isf(1 - POWER))),
        sentence="",
    )
    return plain.model_copy(update={"sentence": sentence(plain)})


def _outcome(
    paired: _Paired, run: tuple[int, str], base: tuple[int, str], *, signs: tuple[int, int], level: float
) -> Outcome:
    """Less: whichever way the run's scores are read, they tell less than the baseline's in its own direction."""
    if np.array_equal(paired.scores(run), paired.scores(base)):
        return "identical"
    less = (paired.difference(run, base, signs=(sign, signs[1]), level=level).high < 0 for sign in (1, -1))
    more = (paired.difference(run, base, signs=(signs[0], sign), level=level).low > 0 for sign in (1, -1))
    if all(less):
        return "less"
    return "more" if all(more) else "not_shown"


def _summary(run: Run) -> RunSummary:
    first = run.result.findings[0] if run.result.findings else None
    return RunSummary(
        name=run.name,
        folder=str(run.folder),
        headline=run.result.headline,
        finding_code=first.code if first else "",
        finding=first.sentence if first else "",
        created=run.result.created,
        records_digest=run.result.records.digest,
    )


def _notes(shared: Shared) -> Iterator[str]:
    """What to keep in mind when reading the differences."""
    for run in shared.runs:
        first = run.result.findings[0] if run.result.findings else None
        if first is not None and first.code in DOUBTFUL:
            yield f"{run.name} by itself: {first.sentence}"
    if len({run.result.records.digest for run in shared.runs}) > 1:
        yield (
            "The runs were given different records (or the same in other groups); they are compared on those with the "
            "same id. "
            "Where ids are row numbers, make sure that they number the same rows."
        )
    if len({run.result.versions.get("repromia", "") for run in shared.runs}) > 1:
        yield "The runs were made with different versions of repromia."
    yield (
        "Differences are between these models on these records. Another training run with the same recipe gives other "
        "figures; attacks that learn were fitted in each run by themselves."
    )


def compare_command(
    folders: Sequence[Path],
    *,
    out: Path | None = None,
    names: Sequence[str] = (),
    repeats: int = 2000,
    seed: int = 0,
    console: Console | None = None,
) -> int:
    """Compare, print, and write compare.json and compare.html to `out`. 0: all compared; 1: some attack was not."""
    from rich.console import Console

    from repromia.compare_page import print_comparison, render_comparison

    found = compare_runs(folders, names=names, repeats=repeats, seed=seed, progress=watched())
    if out is not None:
        write_atomic(out / "compare.html", render_comparison(found).encode())
        write_atomic(out / "compare.json", found.model_dump_json(indent=2).encode())
    print_comparison(found, console or Console(), page=out / "compare.html" if out else None)
    return 1 if found.missing else 0
