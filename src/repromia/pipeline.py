"""The whole audit, top to bottom."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from repromia.attacks import Chosen
from repromia.audit_views import Where, ask_first, repaired_copy, views_of
from repromia.categories import Categories, slice_figures
from repromia.choosing import check_headline, chosen_attacks
from repromia.config import Settings
from repromia.controls import blind_results, check_masks, null_target, permuted_head, permuted_program
from repromia.duplicates import remove_duplicates
from repromia.errors import ConfigError, RecordsError, TargetError
from repromia.evaluate import Judge, all_records, best_on_select
from repromia.findings import other_findings, slice_findings
from repromia.gains import null_gains, paired_gains, probe_families
from repromia.metrics import RocCurve, roc_curve
from repromia.parts import Workers
from repromia.programs import Target, takes_captions
from repromia.progress import each
from repromia.provenance import versions
from repromia.randomised import canary_kinds, drawn_by_lot, epsilon_figures, whole_units
from repromia.records import LabelledRecords, Records, matched
from repromia.result import (
    AttackResult,
    AuditResult,
    Exposed,
    NullTarget,
    Permuted,
    RecordsSummary,
)
from repromia.roles import assign_roles, role_sizes
from repromia.scoring import Scored, run_attack
from repromia.signals import Scores
from repromia.store import Store
from repromia.supervision import Supervised, supervised_rows
from repromia.transfer import load_heads, transferred_rows
from repromia.verdict import Evidence, verdict
from repromia.views import Views

if TYPE_CHECKING:
    from repromia.programs.saved import Learned
    from repromia.progress import Progress
    from repromia.views import ShadowModels

EXPOSED = 20


@dataclass(frozen=True)
class Unlabelled:
    """Records of no role, asked and scored like those of eval: nothing was learned from them or measured on them."""

    records: Records
    scores: dict[str, Scores]


@dataclass
class Audit:
    """A finished audit: the result, every record's scores, exact ROC points and learned programs.

    records: all that were scored, in the order fit, select, eval; member: their labels, for the owner's files.
    unlabelled: further records and their scores.
    """

    result: AuditResult
    records: Records
    member: np.ndarray
    roles: tuple[str, ...]
    scores: dict[str, Scores]
    curves: dict[str, RocCurve]
    programs: dict[str, Learned] = field(default_factory=dict)
    heads: tuple[Supervised, ...] = ()
    unlabelled: Unlabelled | None = None


def run_audit(
    models: tuple[Target, Target | None, Target | None],
    labelled: LabelledRecords,
    settings: Settings,
    *,
    store: Store,
    progress: Progress,
    key: str = "",
    shadows: ShadowModels | None = None,
    categories: Categories | None = None,
    unlabelled: Records | None = None,
    workers: Workers | None = None,
) -> Audit:
    """Audit a target against labelled records.

    models: target, reference, second reference for the null target; shadows: of a classifier; categories: kinds of
    records to measure apart, beside length and class; unlabelled: further records to score; workers: who asks the
    models. Raises RepromiaError where
    nothing can be measured at all; an attack that fails is a failed row.
    """
    began = time.perf_counter()
    if settings.transfer_from and store.folder and Path(settings.transfer_from).resolve() == store.folder.resolve():
        raise ConfigError(  # its own heads take the place of those in its folder
            "Heads cannot be carried over from the folder that the audit is written to.",
            expected="the --out folder of another audit as --transfer-from",
            found=repr(settings.transfer_from),
            hint="choose another --out",
        )
    carried = load_heads(Path(settings.transfer_from)) if settings.transfer_from else []
    chosen = chosen_attacks(settings, carried, models, shadows)
    check_headline(chosen, carried, settings, models[0].modality)
    _check_references(models)
    drawn = drawn_by_lot(settings.manifest, labelled)
    with progress.step("looking for duplicates", None):
        kept, duplicates = remove_duplicates(labelled, threshold=settings.near_duplicates)
    kept, units = whole_units(drawn, labelled, kept)
    roles = assign_roles(kept, fit=settings.fit, select=settings.select, seed=settings.seed, units=units)
    judge = Judge(roles, settings.fprs, settings.bootstrap, settings.seed)
    summary = RecordsSummary(
        n_members=int(kept.member.sum()),
        n_nonmembers=int((~kept.member).sum()),
        grouped=kept.records.grouped,
        roles=role_sizes(roles),
        duplicates=duplicates,
        digest=kept.records.digest(),
    )
    store.event("roles", fit=len(roles.fit), select=len(roles.select), eval=len(roles.eval))
    if shadows is not None:
        shadows.check(kept.records)
        check_masks(shadows.saw(kept.records), kept.member)
    target, reference, null_reference = models
    _check_unlabelled(unlabelled, kept.records, shadows)
    where = Where(store, progress, shadows, unlabelled=unlabelled, workers=workers or Workers())
    views = views_of(target, reference, judge, settings, where)
    ask_first(chosen, views)

    scored, supervised = _ask_all(chosen, views, judge, settings)
    transferred = transferred_rows(carried, scored, judge.roles.eval)
    rows, scores = _attack_rows(scored, supervised, transferred, judge, progress)
    with progress.step("families of programs", None):
        families = probe_families(supervised, scored, scores, views, judge)
    captions = takes_captions(target)
    blind, blind_scores = blind_results(kept, judge, settings.seed, captions=captions, progress=progress)
    scores |= blind_scores
    headline = _headline(rows, settings)
    known = scores.get(headline.name) if headline else None
    named = headline.name if headline else ""
    alike = (*duplicates.repeated, *duplicates.excluded)
    epsilon = epsilon_figures(drawn, labelled, alike, judge, (named, known), settings.delta)
    with progress.step("kinds of records", None):
        kinds = canary_kinds(drawn, labelled) | dict(categories or {})
        classes = target.modality in ("classifier", "graph")
        sliced = slice_figures(named, known, judge, kinds, classes=classes)
    null, null_scores = _null(chosen, (reference, null_reference), where, judge, settings)
    rivals = {one.name: one.rival for one in supervised} | {name: rival for name, _, rival in transferred}
    with progress.step("paired differences", None):
        gains = tuple(paired_gains(rows, scores, chosen, views, judge, blind, headline, rivals))
        gains += null_gains(rows, scores, null_scores, judge, headline)
    permuted = tuple(_permuted(chosen, supervised, views, judge, settings))
    first = verdict(
        Evidence(headline, rows, blind, gains, null, matched(kept), by_lot=drawn is not None and drawn.randomised)
    )
    findings = (
        first,
        *slice_findings(sliced, first.code),
        *other_findings(rows, gains, blind, null, permuted, summary, named, families, epsilon),
    )
    result = AuditResult(
        status="complete" if rows and all(row.status != "failed" for row in rows) else "complete_with_failures",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        modality=target.modality,
        target=target.describe(),
        reference=_described(reference, shadows),
        records=summary,
        headline=named,
        headline_rule="named beforehand" if settings.headline else "best AUC on the select role",
        attacks=rows,
        gains=gains,
        families=families,
        blind=blind,
        null_target=null,
        permuted=permuted,
        epsilon=epsilon,
        findings=findings,
        exposed=_exposed(headline, scores, judge),
        exposed_by=named,
        slices=sliced,
        views=views.cost_table(),
        seconds=round(time.perf_counter() - began, 2),
        config=settings.model_dump(mode="json"),
        versions=versions(),
        key=key,
    )
    count = len(kept)
    return Audit(
        result,
        all_records(roles),
        np.concatenate([roles.fit.member, roles.select.member, judge.member]),
        ("fit",) * len(roles.fit) + ("select",) * len(roles.select) + ("eval",) * len(roles.eval),
        {name: one[:count] for name, one in scores.items()},
        {name: roc_curve(one[judge.eval_rows], judge.member) for name, one in scores.items()},
        views.learned(),
        tuple(supervised),
        _unlabelled(unlabelled, {row.name: scores[row.name][count:] for row in rows if row.name in scores}),
    )


def _unlabelled(records: Records | None, scores: dict[str, Scores]) -> Unlabelled | None:
    return None if records is None else Unlabelled(records, scores)


def _check_unlabelled(unlabelled: Records | None, labelled: Records, shadows: ShadowModels | None) -> None:
    if unlabelled is None:
        return
    if shadows is not None:
        # Shadow models hold half of the labelled records and none of these: their scores would not be comparable.
        raise ConfigError(
            "Records without labels cannot be scored with shadow models.",
            hint="leave out --shadow-training and --shadow-folder",
        )
    shared = set(unlabelled.ids) & set(labelled.ids)
    if shared or len(set(unlabelled.ids)) < len(unlabelled.ids):
        raise RecordsError(
            "records without labels have ids of others",
            expected="unique ids",
            found=f"{len(shared)} ids that labelled records have too" if shared else "ids that repeat",
            hint="make the field `id` unique or leave it out",
        )


def _described(reference: Target | None, shadows: ShadowModels | None) -> dict[str, Any] | None:
    if reference is not None:
        return reference.describe()
    return shadows.describe() if shadows is not None else None


def _ask_all(
    chosen: Sequence[Chosen], views: Views, judge: Judge, settings: Settings
) -> tuple[list[Scored], list[Supervised]]:
    """Every attack, and the heads on what came of them."""
    progress = views.binding.progress
    scored = [run_attack(one, views) for one in each(progress, "attacks", chosen)]
    with progress.step("fitting heads", None):
        return scored, supervised_rows(scored, judge.roles.fit, seed=settings.seed)


def _attack_rows(
    scored: Sequence[Scored],
    supervised: Sequence[Supervised],
    transferred: Sequence[tuple[str, Scored, str]],
    judge: Judge,
    progress: Progress,
) -> tuple[tuple[AttackResult, ...], dict[str, Scores]]:
    """A row an attack and a row a head, those carried over last."""
    found = [(one.chosen.name, one) for one in scored if one.bank is None]
    found += [(head.name, head.scored) for head in supervised]
    found += [(name, one) for name, one, _ in transferred]
    rows = tuple(judge.row(name, one) for name, one in each(progress, "intervals", found))
    return rows, {name: one.scores for name, one in found if one.scores is not None}


def _check_references(models: tuple[Target, Target | None, Target | None]) -> None:
    """A model compared with itself, or a target taken for its own null, would make any leak look like none."""
    prints = [one.fingerprint for one in models if one is not None]
    if len(set(prints)) < len(prints):
        raise TargetError(
            "The same model was given twice as target and reference.",
            expected="a reference that did not see the records, best the checkpoint before fine-tuning",
            found="equal weights",
            hint="name another --reference, or leave it out",
        )


def _headline(rows: Sequence[AttackResult], settings: Settings) -> AttackResult | None:
    if settings.headline:
        return next((row for row in rows if row.name == settings.headline), None)
    return best_on_select(rows)


_OF_NULL: Final = {"target": "null target", "reference": "reference of the null target"}


def _null(
    chosen: Sequence[Chosen],
    references: Sequence[Target | None],
    where: Where,
    judge: Judge,
    settings: Settings,
) -> tuple[NullTarget, dict[str, Scores]]:
    """The attacks on the reference, which did not see the records."""
    first, second = references
    if not settings.controls:
        return NullTarget(status="not_available", reason="controls were switched off"), {}
    if first is None and where.shadows is not None:
        first = where.shadows.null_model(all_records(judge.roles))
    if first is None:
        reason = "no reference model was given, so no model is known that cannot have seen the records"
        return NullTarget(status="not_available", reason=reason), {}
    missing, given = "", second is not None
    wanting = second is None and where.shadows is None and first.modality == "language"
    if wanting and any("reference" in one.attack.needs for one in chosen):
        second, missing = repaired_copy(first, chosen, judge, settings, where)
    before = len(where.costs)
    asked = views_of(first, second, judge, settings, where)
    if asked.modality != "language" or where.workers.cluster != "local":
        ask_first(chosen, asked)
    found = null_target(
        chosen, asked, judge, name=first.name, reference=second.name if second else missing, repaired=not given
    )
    where.costs[before:] = [replace(one, of=_OF_NULL.get(one.of, one.of)) for one in where.costs[before:]]
    return found


def _permuted(
    chosen: Sequence[Chosen], supervised: Sequence[Supervised], views: Views, judge: Judge, settings: Settings
) -> list[Permuted]:
    if not settings.controls:
        return []
    found: list[Permuted | None] = [
        permuted_head(
            head, judge, repeats=settings.head_permutations, seed=settings.seed, progress=views.binding.progress
        )
        for head in supervised
        if head.scored.scores is not None
    ]
    found += [
        permuted_program(one, views, judge, repeats=settings.program_permutations)
        for one in chosen
        if one.attack.kind in ("reprogrammed", "head")
        and "labels" in one.attack.needs
        and one.attack.bank is None
        and settings.program_permutations
        and not one.options.get("program")
    ]
    return [one for one in found if one is not None]


def _exposed(headline: AttackResult | None, scores: dict[str, Scores], judge: Judge) -> tuple[Exposed, ...]:
    """Eval members that stand out most, with the share of eval non-members that score at least as high."""
    if headline is None or headline.name not in scores:
        return ()
    own = scores[headline.name][judge.eval_rows]
    outside = np.sort(own[~judge.member])
    order = [row for row in np.argsort(-own, kind="stable") if judge.member[row]][:EXPOSED]
    return tuple(
        Exposed(
            id=judge.roles.eval.ids[row],
            score=float(own[row]),
            nonmember_share=float(1 - np.searchsorted(outside, own[row], side="left") / len(outside)),
        )
        for row in order
    )
