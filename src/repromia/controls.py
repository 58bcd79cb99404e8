"""Controls that every audit runs: what would come out if there were nothing to find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b

import numpy as np
from jaxtyping import Bool
from scipy.stats import mannwhitneyu
from scipy.stats import t as student

from repromia.attacks import Chosen
from repromia.blind import baselines_for, cross_validated_auc, fit_blind
from repromia.bootstrap import percentile
from repromia.errors import AttackError, RecordsError
from repromia.evaluate import Judge, permuted
from repromia.intervals import joint_null_test
from repromia.metrics import auc
from repromia.progress import Progress, Silent, each
from repromia.records import LabelledRecords
from repromia.result import AttackResult, BlindResult, NullRow, NullTarget, Permuted
from repromia.scoring import Scored, identity_scores, run_attack
from repromia.signals import Scores
from repromia.supervision import Supervised, supervised_rows
from repromia.views import Views


def blind_results(
    labelled: LabelledRecords, judge: Judge, seed: int, *, captions: bool = True, progress: Progress | None = None
) -> tuple[tuple[BlindResult, ...], dict[str, Scores]]:
    """Every blind baseline, cross-validated over all records and fitted on fit; and the latter's scores.

    captions: whether the model is told them; what it is not told cannot be what it gives away.
    """
    results, scores = [], {}
    names = [one for one in baselines_for(labelled.records) if captions or one != "captions"]
    for name in each(progress or Silent(), "blind baselines", names):
        scorer = fit_blind(judge.roles.fit, name, seed=seed)
        row = f"blind:{name}"
        roles = judge.roles
        scores[row] = np.concatenate([scorer(part) for part in (roles.fit.records, roles.select.records, roles.eval)])
        fitted = AttackResult(
            name=row, attack=name, kind="blind", access="nothing", needs=("labels",), citation="this project"
        ).model_copy(update=judge.figures(row, scores[row]))
        crossed = cross_validated_auc(labelled, name, seed=seed)
        results.append(BlindResult(name=name, cross_validated_auc=crossed, fitted=fitted))
    return tuple(results), scores


def check_masks(saw: Bool[np.ndarray, "model record"], member: Bool[np.ndarray, " record"]) -> None:
    """Raises RecordsError where shadow models were drawn together with the target, each record into half of all of
    them: how many of the others saw a record then tells whether the target did, and scores that are made from their
    answers say so, whatever the target remembers.

    Refused where members and non-members differ in the share of models that saw them by 5 points or more (designs of
    up to 21 models; with more the effect was below the noise of 2,000 records), beyond chance at p < 0.0001.
    """
    count = saw.sum(axis=0)
    inside, outside = count[member], count[~member]
    apart = float(inside.mean() - outside.mean())
    if abs(apart) < 0.05 * len(saw) or len(set(count.tolist())) < 2 or mannwhitneyu(inside, outside).pvalue >= 1e-4:
        return
    raise RecordsError(
        "Which records the shadow models saw tells who is a member.",
        expected="models trained on parts drawn independently of what the target was trained on",
        found=f"members were seen by {inside.mean():.2f} of {len(saw)} models on average, non-members by "
        f"{outside.mean():.2f}",
        hint="train shadow models on halves of their own, each record by a coin (--shadow-training does), or take more "
        "than 21 of the design",
    )


def null_target(
    chosen: Sequence[Chosen], views: Views, judge: Judge, *, name: str, reference: str, repaired: bool = False
) -> tuple[NullTarget, dict[str, Scores]]:
    """The attacks asked of a model that cannot have seen the records (learned ones learn again, on it)."""
    asked = [one for one in chosen if "reference" not in one.attack.needs or views.has_reference]
    progress = views.binding.progress
    scored = [run_attack(one, views) for one in each(progress, "attacks on the null target", asked)]
    with progress.step("fitting heads on the null target", None):
        heads = supervised_rows(scored, judge.roles.fit, seed=judge.seed)
    found = [(one.chosen.name, one) for one in scored if one.bank is None] + [(one.name, one.scored) for one in heads]
    scores = {row: one.scores for row, one in found if one.scores is not None}
    rows = [_null_row(row, one, judge) for row, one in each(progress, "intervals on the null target", found)]
    rows += [
        NullRow(name=one.name, status="not_available", reason=_no_second(reference))
        for one in chosen
        if one not in asked
    ]
    table = NullTarget(
        status="measured",
        target=name,
        reference=reference if "reference" in views.targets else "",
        rows=tuple(rows),
        repaired=repaired and "reference" in views.targets,
        joint_p=_joint(judge, scores),
    )
    return table, scores


def _no_second(reason: str) -> str:
    return f"no second reference: the null target cannot be compared with itself (--null-reference) {reason}".strip()


def _null_row(name: str, scored: Scored, judge: Judge) -> NullRow:
    if scored.scores is None:
        return NullRow(name=name, status="failed", reason=scored.reason)
    area, _ = judge.auc(null_name(name), scored.scores[judge.eval_rows])
    return NullRow(name=name, status="measured", auc=area)


def null_name(name: str) -> str:
    """How the scores of an attack on the null target are called."""
    return f"{name} on the null target"


def _joint(judge: Judge, scores: dict[str, Scores]) -> float | None:
    """P-value of "every attack's AUC on the null target is .5", all at once."""
    if not scores:
        return None
    areas = np.array([auc(one[judge.eval_rows], judge.member) for one in scores.values()])
    resampled = np.stack([judge.statistics(null_name(name), one[judge.eval_rows]).auc for name, one in scores.items()])
    return joint_null_test(areas, resampled, groups=judge.least_groups)


def permuted_head(
    head: Supervised, judge: Judge, *, repeats: int, seed: int, progress: Progress | None = None
) -> Permuted:
    """The head refitted on permuted fit labels: its mean eval AUC must be .5 (99 % interval over permutations)."""
    rows = judge.fit_rows[head.usable]
    fit = judge.roles.fit.take(rows)
    own = int.from_bytes(
        blake2b(head.name.encode(), digest_size=8).digest()
    )  # heads that shared draws would fail together
    generator = np.random.default_rng([seed, 50, own])
    areas = [
        auc(head.learn(permuted(fit, generator).member)[judge.eval_rows], judge.member)
        for _ in each(progress or Silent(), f"permuted labels: {head.name}", range(repeats))
    ]
    mean, error = float(np.mean(areas)), float(np.std(areas, ddof=1) / np.sqrt(repeats))
    reach = float(student.ppf(0.995, repeats - 1)) * error
    return Permuted(
        name=head.name,
        compared_with=0.5,
        repeats=repeats,
        mean=mean,
        low=mean - reach,
        high=mean + reach,
        passed=mean - reach <= 0.5 <= mean + reach,
    )


def permuted_program(chosen: Chosen, views: Views, judge: Judge, *, repeats: int) -> Permuted | None:
    """The program learned again on permuted labels: no gain over the identity (95 % paired interval).

    That is for programs that may keep the identity; what learns freely (kind head) must average .5. None where the
    attack cannot be run: its own row says why.
    """
    if chosen.attack.kind == "head":
        return _permuted_learner(chosen, views, judge, repeats=repeats)
    try:
        baseline = identity_scores(chosen, views, judge.eval_rows)
    except AttackError:
        return None
    base = judge.statistics(f"identity of {chosen.name}", baseline)
    gains, resampled = [], []
    for repeat in range(repeats):
        scores = _learned_again(chosen, views, judge, repeat)
        if scores is None:
            return None
        gains.append(auc(scores, judge.member) - auc(baseline, judge.member))
        resampled.append(judge.statistics(f"permuted {repeat} {chosen.name}", scores).auc - base.auc)
    if not gains:
        return None
    interval = judge.of_groups(percentile(np.mean(resampled, axis=0), float(np.mean(gains))))
    return Permuted(
        name=chosen.name,
        compared_with=0.0,
        repeats=repeats,
        mean=interval.estimate,
        low=interval.low,
        high=interval.high,
        passed=interval.low <= 0,
    )


def _permuted_learner(chosen: Chosen, views: Views, judge: Judge, *, repeats: int) -> Permuted | None:
    """Learned on permuted labels and on the same labels turned round, in pairs: the mean AUC must be .5.

    Whatever direction permuted labels happen to point in, their opposite points the other way; what stays is learned
    from something else. The interval is as wide as that of a single AUC (95 %).
    """
    areas, widths, pairs = [], [], (repeats + 1) // 2
    for repeat, turned in ((repeat, turned) for repeat in range(pairs) for turned in (False, True)):
        scores = _learned_again(chosen, views, judge, repeat, turned=turned)
        if scores is None:
            return None
        area, _ = judge.auc(f"permuted {repeat} {turned} {chosen.name}", scores)
        areas.append(area.estimate)
        widths.append((area.high - area.low) / 2)
    if not areas:
        return None
    mean, reach = float(np.mean(areas)), float(np.mean(widths))
    return Permuted(
        name=chosen.name,
        compared_with=0.5,
        repeats=len(areas),
        mean=mean,
        low=mean - reach,
        high=mean + reach,
        passed=mean - reach <= 0.5 <= mean + reach,
    )


def _learned_again(chosen: Chosen, views: Views, judge: Judge, repeat: int, *, turned: bool = False) -> Scores | None:
    """Eval scores of the attack learned on permuted labels, or on their opposite; None where it fails."""
    generator = np.random.default_rng([views.binding.seed, 60, repeat])
    fit, select = (permuted(one, generator) for one in (views.binding.fit, views.binding.select))
    if turned:
        fit, select = (replace(one, member=~one.member) for one in (fit, select))
    binding = replace(views.binding, fit=fit, select=select)
    again = Views(views.targets, views.records, binding, views.store, views.costs, views.memory, workers=views.workers)
    return run_attack(chosen, again, judge.eval_rows).scores
