"""False alarms and power of what is concluded from scores: sets, unlearning, single records, slices, comparisons.

Run as `python -m benchmarks.evidence_coverage [simulations]` (default 1,000: 20 minutes, one core). Scores are
normal with equal variance (or Cauchy, where said), so AUCs of the population are known. One table, printed as Markdown.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from scipy.stats import norm

from benchmarks.coverage import shift_for
from repromia.areas import area_and_tpr, beyond_chance
from repromia.bootstrap import Bootstrap
from repromia.compare import _outcome, _Paired
from repromia.compare_folders import Shared
from repromia.dataset_inference import permutation_p_value, units_of
from repromia.dataset_sequence import sequential_evidence
from repromia.exposure import RotatedScores, exposure, rotate
from repromia.intervals import delong, delong_difference, tpr_figures
from repromia.result import AttackResult, Gain, NullRow, NullTarget
from repromia.slices import slices
from repromia.unlearning import SetScores, unlearning_check
from repromia.verdict import Evidence, verdict

Generator = np.random.Generator


def line(what: str, nominal: str, values: list[float]) -> None:
    """One row: the mean over simulations and its standard error."""
    found = np.array(values, dtype=np.float64)
    error = found.std(ddof=1) / np.sqrt(found.size)
    print(f"| {what} | {nominal} | {found.mean():.3f} ± {error:.3f} | {found.size} |", flush=True)


def repeat(simulations: int, seed: int, once: Callable[[Generator], float]) -> list[float]:
    """The same experiment on fresh draws of one stream."""
    generator = np.random.default_rng(seed)
    return [float(once(generator)) for _ in range(simulations)]


def set_alarm(generator: Generator, *, size: int, shift: float, kind: str) -> float:
    """Whether a set of `size` is called used at .05 against as many held-out records."""
    suspect = np.arange(2 * size) < size
    groups = None
    scores = generator.normal(size=2 * size)
    if kind.startswith("cauchy"):
        scores = generator.standard_cauchy(2 * size)
    if kind.startswith("groups"):
        groups = [str(row // 5) for row in range(2 * size)]
        scores = np.sqrt(0.5) * (scores + np.repeat(generator.normal(size=2 * size // 5), 5))
    if kind.startswith("few"):  # 5 % of the suspects stand out far, the others not at all
        scores += 3 * (suspect & (generator.random(2 * size) < 0.05))
    units = units_of(scores + shift * suspect, suspect, groups)
    if kind.endswith("ranks"):
        units = units._replace(values=np.argsort(np.argsort(units.values)).astype(np.float64))
    return permutation_p_value(units, permutations=999, generator=generator) <= 0.05


def looked_at_often(generator: Generator) -> float:
    """The mistake: the plain p-value after every 20 of 400 suspect records, stopping at .05."""
    suspect, heldout = generator.normal(size=400), generator.normal(size=400)
    for count in range(20, 401, 20):
        scores = np.concatenate([suspect[:count], heldout])
        units = units_of(scores, np.arange(scores.size) < count, None)
        if permutation_p_value(units, permutations=199, generator=generator) <= 0.05:
            return 1
    return 0


def game(generator: Generator, *, shift: float, few: bool = False, count: int = 400) -> float:
    """Whether the e-value reaches 20 within `count` suspects, against 400 held-out records."""
    suspect = generator.normal(size=count) + shift * (generator.random(count) < 0.05 if few else 1)
    found = sequential_evidence(suspect, generator.normal(size=400), seed=int(generator.integers(2**31)))
    return found.crossed_at is not None


def set_rows(simulations: int) -> None:
    """Dataset inference."""
    for kind in ("normal", "normal ranks", "cauchy", "cauchy ranks", "groups of 5"):
        once = lambda g, kind=kind: set_alarm(g, size=200, shift=0.0, kind=kind)  # noqa: E731
        line(f"unused set called used, {kind}, 200 + 200", "≤ .05", repeat(simulations, 1, once))
    for auc, size in ((0.55, 200), (0.55, 500), (0.52, 1000)):
        for kind in ("normal", "normal ranks"):
            once = lambda g, a=auc, n=size, k=kind: set_alarm(g, size=n, shift=shift_for(a), kind=k)  # noqa: E731
            line(f"power, AUC {auc}, {size} + {size}, {kind}", "", repeat(simulations // 2, 2, once))
    for kind in ("cauchy", "cauchy ranks"):
        once = lambda g, k=kind: set_alarm(g, size=200, shift=0.5, kind=k)  # noqa: E731
        line(f"power, median .5 higher, 200 + 200, {kind}", "", repeat(simulations // 2, 15, once))
    for kind in ("few", "few ranks"):
        once = lambda g, k=kind: set_alarm(g, size=500, shift=0, kind=k)  # noqa: E731
        line(f"power, 5 % of records 3 sd higher (AUC .524), 500 + 500, {kind}", "", repeat(simulations // 2, 3, once))
    line(
        "unused set, plain p-value looked at 20 times",
        "(.05 would be right)",
        repeat(simulations // 2, 4, looked_at_often),
    )
    line("unused set, e-value watched over 400", "≤ .05", repeat(simulations, 5, lambda g: game(g, shift=0)))
    for auc in (0.55, 0.6):
        once = lambda g, a=auc: game(g, shift=shift_for(a))  # noqa: E731
        line(f"e-value finds AUC {auc} within 400, 400 held out", "", repeat(simulations // 2, 6, once))
    once = lambda g: game(g, shift=3, few=True)  # noqa: E731
    line("e-value finds 5 % of records 3 sd higher within 400", "", repeat(simulations // 2, 7, once))


def unlearned(generator: Generator, *, auc: float, size: int, groups: bool = False, power: float = 0.75) -> str:
    """The outcome for forget records of this AUC against never-seen ones."""
    sets = []
    for name, mean in (("a", shift_for(auc)), ("b", 0.0), ("c", shift_for(power))):
        scores = generator.normal(size=size)
        if groups:
            scores = np.sqrt(0.5) * (scores + np.repeat(generator.normal(size=size // 5), 5))
        sets.append(SetScores(scores + mean, tuple(f"{name}{row // 5}" for row in range(size)) if groups else None))
    return unlearning_check(*sets).outcome


def unlearning_rows(simulations: int) -> None:
    """Every outcome that would be wrong, and the right one."""
    cases = (
        (0.5, 500, False, 0.75, ("still_remembered", "over_unlearned", "forgotten")),
        (0.5, 1500, False, 0.75, ("still_remembered", "over_unlearned", "forgotten")),
        (0.5, 1500, True, 0.75, ("still_remembered", "over_unlearned", "forgotten")),
        (0.55, 1500, False, 0.75, ("forgotten", "still_remembered")),
        (0.45, 1500, False, 0.75, ("forgotten", "over_unlearned")),
        (0.5, 1500, False, 0.5, ("forgotten", "could_not_be_measured")),
        (0.5, 1500, False, 0.55, ("forgotten", "could_not_be_measured")),
    )
    nominal = {"still_remembered": "≤ .0275", "over_unlearned": "≤ .025", "forgotten": "≤ .025"}
    right = {0.5: "forgotten", 0.55: "still_remembered", 0.45: "over_unlearned"}
    for auc, size, groups, power, shown in cases:
        outcomes = repeat_words(simulations // 3 if groups else simulations, 8, auc, size, groups, power)
        for one in shown:
            wrong = one != right[auc] or power < 0.75
            said = nominal.get(one, "") if wrong and one != "could_not_be_measured" else ""
            tied = ", groups of 5" if groups else ""
            what = f"unlearning: {one}, true AUC {auc}, retained {power}, {size} a set{tied}"
            line(what, said, [outcome == one for outcome in outcomes])


def repeat_words(simulations: int, seed: int, auc: float, size: int, groups: bool, power: float) -> list[str]:
    """Outcomes of fresh draws."""
    generator = np.random.default_rng(seed)
    return [unlearned(generator, auc=auc, size=size, groups=groups, power=power) for _ in range(simulations)]


def exposure_rows(simulations: int) -> None:
    """Single records: p-values, false names, what rotation changes."""
    member = np.arange(1000) < 500
    groups = [str(row // 5) for row in range(1000)]

    def share(generator: Generator, level: float, tied: bool) -> float:
        scores = generator.normal(size=1000) + (np.repeat(generator.normal(size=200), 5) if tied else 0)
        return float((exposure(scores, member, groups if tied else None).p_value[member] <= level).mean())

    for level in (0.01, 0.05):
        for tied in (False, True):
            once = lambda g, at=level, t=tied: share(g, at, t)  # noqa: E731
            line(
                f"members' p-values ≤ {level}, nothing kept{', groups of 5' * tied}",
                f"≤ {level}",
                repeat(simulations, 9, once),
            )

    def false_names(generator: Generator, count: int, lift: float, tied: bool) -> float:
        scores = generator.normal(size=1000)
        scores[:count] += lift
        named = exposure(scores, member, groups if tied else None).named(0.1)
        return float((named >= count).mean()) if named.size else 0.0

    for count, lift in ((0, 0.0), (25, 3.0), (100, 3.0)):
        once = lambda g, c=count, by=lift: false_names(g, c, by, False)  # noqa: E731
        line(
            f"false share of the named at 10 %, {count} of 500 members {lift:g} sd higher",
            "≤ .1",
            repeat(simulations, 10, once),
        )
    line(
        "members named, rotated over 6 fitted audits, p ≤ .05, nothing kept",
        "≤ .05",
        repeat(simulations // 5, 11, rotation),
    )


def rotation(generator: Generator) -> float:
    """Six audits of 300 + 300 unused records; each learns a head from 8 noise features on 20 % of them."""
    member = np.arange(600) < 300
    features = generator.normal(size=(600, 8))
    audits = []
    for _ in range(6):
        fit = generator.random(600) < 0.2
        weights = features[fit & member].mean(axis=0) - features[fit & ~member].mean(axis=0)
        audits.append(RotatedScores(tuple(f"{row:03d}" for row in range(600)), features @ weights, member, ~fit))
    found = rotate(audits)
    return float((exposure(found.scores, found.member).p_value[found.member] <= 0.05).mean())


def slice_rows(simulations: int) -> None:
    """Flags of slices that are alike, and of one that is not."""

    def flagged(generator: Generator, count: int, size: int, auc: float, lift: float, tied: bool) -> float:
        member = np.arange(size) < size // 2
        kind = generator.integers(count, size=size)
        scores = generator.normal(size=size) + shift_for(auc) * member
        groups = None
        if tied:
            kind = np.repeat(kind[: size // 5], 5)
            scores += np.repeat(generator.normal(size=size // 5), 5)
            groups = [str(row // 5) for row in range(size)]
        scores += lift * (member & (kind == 0))
        found = slices(scores, member, {"kind": kind}, groups)
        if lift:
            return any(one.more_exposed and one.value == "0" for one in found)
        return any(one.more_exposed or one.less_exposed for one in found)

    cases = ((4, 1000, 0.64), (12, 1200, 0.64), (12, 4000, 0.64), (12, 480, 0.85), (12, 720, 0.9), (4, 400, 0.98))
    for count, size, auc, tied in (*((*case, False) for case in cases), (4, 2000, 0.64, True), (4, 2000, 0.95, True)):
        once = lambda g, c=count, n=size, a=auc, t=tied: flagged(g, c, n, a, 0.0, t)  # noqa: E731
        what = f"any of {count} like slices flagged, AUC {auc}, {size} records{', groups of 5' * tied}"
        line(what, "≤ .05", repeat(simulations // 4, 12, once))
    line(
        "one of 4 slices .5 sd more exposed is flagged, AUC .64, 1000 records",
        "",
        repeat(simulations // 4, 13, lambda g: flagged(g, 4, 1000, 0.64, 0.5, False)),
    )


def group_rows(simulations: int) -> None:
    """Limits of AUC and TPR where groups are resampled, correlation .5: how often the truth lies beyond them."""
    for count, size in ((10, 20), (30, 10), (100, 5)):
        for auc in (0.5, 0.7, 0.9, 0.97):
            generator = np.random.default_rng(17)
            groups = np.repeat(np.arange(2 * count), size)
            member, names = groups < count, [str(one) for one in groups]
            truths = {"AUC": auc, "TPR at 5 % FPR": float(norm.sf(norm.isf(0.05) - shift_for(auc)))}
            beyond: dict[str, list[list[float]]] = {name: [[], []] for name in truths}
            for _ in range(simulations // 4):
                own = generator.normal(size=groups.size) + generator.normal(size=2 * count)[groups]
                scores = np.sqrt(0.5) * own + shift_for(auc) * member
                area, tpr = area_and_tpr(scores, member, names, fpr=0.05)
                assert tpr.low is not None
                assert tpr.high is not None
                for name, low, high in (("AUC", area.low, area.high), ("TPR at 5 % FPR", tpr.low, tpr.high)):
                    beyond[name][0].append(low > truths[name])
                    beyond[name][1].append(high < truths[name])
            for name, sides in beyond.items():
                for side, values in zip(("below", "above"), sides, strict=True):
                    what = f"truth {side} the 95 % interval of {name}, AUC {auc}, {count} groups of {size} a side"
                    line(what, "≤ .025", values)


def compare_rows(simulations: int) -> None:
    """Two runs on 500 + 500 shared records, scores correlated .7."""
    member = np.arange(1000) < 500
    for first, second, wrong in (
        (0.5, 0.5, 1),
        (0.65, 0.65, 1),
        (0.65, 0.35, 1),
        (0.65, 0.6, 0),
        (0.6, 0.5, 0),
        (0.6, 0.3, 0),
    ):
        generator = np.random.default_rng(14)
        outcomes = []
        for _ in range(simulations):
            shared = np.sqrt(0.7) * generator.normal(size=1000)
            scores = tuple(
                {"loss": shared + np.sqrt(0.3) * generator.normal(size=1000) + shift_for(auc) * member}
                for auc in (first, second)
            )
            paired = _Paired(Shared((), (), member, None, scores), (), Bootstrap(member, repeats=2))
            signs = tuple(1 if paired.area((at, "loss")).estimate >= 0.5 else -1 for at in (1, 0))
            outcomes.append(_outcome(paired, (1, "loss"), (0, "loss"), signs=(signs[0], signs[1]), level=0.95))
        for one in ("less", "more"):
            said = "≤ .025" if wrong else ""
            line(
                f"compare: run said to give away {one}, AUC {first} → {second}",
                said,
                [outcome == one for outcome in outcomes],
            )


def sentence_rows(simulations: int) -> None:
    """What an audit says first of records that no model saw: few groups, and a shift that no blind baseline sees."""

    def of_groups(generator: Generator, count: int, size: int, tie: float) -> float:
        groups = np.repeat(np.arange(2 * count), size)
        own = np.sqrt(1 - tie) * generator.normal(size=groups.size)
        scores = np.sqrt(tie) * generator.normal(size=2 * count)[groups] + own
        member, names = groups < count, [str(one) for one in groups]
        found = [area_and_tpr(scores, member, names, fpr=fpr) for fpr in (0.05, 0.01)]
        half = int(member.sum())
        return found[0][0].low > 0.5 or any(beyond_chance(tpr, half, half) for _, tpr in found)

    for count, size, tie in ((10, 10, 0.5), (15, 20, 0.5), (35, 20, 0.5), (100, 5, 0.5)):
        once = lambda g, c=count, n=size, t=tie: of_groups(g, c, n, t)  # noqa: E731
        what = f"found, {count} groups of {size} a side, correlation {tie:g}"
        line(what, "≤ .033", repeat(simulations // 2, 15, once))

    def beside_null(generator: Generator, auc: float, lot: bool) -> float:
        member = np.arange(600) < 300
        common = np.sqrt(0.5) * generator.normal(size=600)
        target, null = (common + np.sqrt(0.5) * generator.normal(size=600) + shift_for(auc) * member for _ in range(2))
        row = AttackResult(
            name="loss",
            attack="loss",
            kind="passive",
            access="",
            citation="",
            auc=delong(target, member),
            tpr_at_fpr=tuple(tpr_figures(target, member, fpr) for fpr in (0.05, 0.01)),
            n_members=300,
            n_nonmembers=300,
        )
        gain = Gain(attack="loss", over="null", role="null_target", auc=delong_difference(target, null, member))
        rows = (NullRow(name="loss", status="measured", auc=delong(null, member)),)
        table = NullTarget(status="measured", rows=rows)
        return verdict(Evidence(row, (row,), (), (gain,), table, by_lot=lot)).code == "found"

    for auc, lot in ((0.5, False), (0.5, True), (0.53, False), (0.55, False)):
        once = lambda g, a=auc, b=lot: beside_null(g, a, b)  # noqa: E731
        what = f"found, 300 + 300, any model has AUC {auc:g} on the records{', drawn by lot' * lot}"
        line(what, "≤ .033", repeat(simulations, 16, once))


def main() -> None:
    """The whole table."""
    simulations = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    assert abs(norm.cdf(shift_for(0.55) / np.sqrt(2)) - 0.55) < 1e-9
    print("| what | stated | measured | simulations |\n|---|---|---|---|")
    compare_rows(simulations)
    set_rows(simulations)
    unlearning_rows(simulations)
    exposure_rows(simulations)
    slice_rows(simulations)
    group_rows(simulations)
    sentence_rows(simulations)


if __name__ == "__main__":
    main()
