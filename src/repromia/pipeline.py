"""The whole audit, top to bottom."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from repromia._version import __version__
from repromia.attacks import Chosen, choose, parse
from repromia.config import Settings
from repromia.controls import blind_results, joint_null, null_target, permuted_head, permuted_program
from repromia.duplicates import remove_duplicates
from repromia.errors import AttackError
from repromia.evaluate import Judge, all_records, best_on_select
from repromia.findings import headline_finding, other_findings
from repromia.metrics import RocCurve, roc_curve
from repromia.programs import Binding, Identity
from repromia.records import LabelledRecords, Records
from repromia.result import (
    AttackResult,
    AuditResult,
    BlindResult,
    Exposed,
    Gain,
    NullRow,
    NullTarget,
    Permuted,
    RecordsSummary,
)
from repromia.roles import assign_roles, role_sizes
from repromia.scoring import Scored, identity_scores, run_attack
from repromia.signals import Scores
from repromia.store import Store, code_digest, digest
from repromia.supervision import SAME_SUPERVISION, Supervised, same_supervision
from repromia.views import Views

if TYPE_CHECKING:
    from repromia.programs.soft_prompt import SoftPrompt
    from repromia.progress import Progress
    from repromia.targets.language import LanguageModel

EXPOSED = 20


@dataclass
class Audit:
    """A finished audit: the result, every record's scores, exact ROC points and learned programs.

    records: all that were scored, in the order fit, select, eval; member: their labels, for the owner's files.
    """

    result: AuditResult
    records: Records
    member: np.ndarray
    roles: tuple[str, ...]
    scores: dict[str, Scores]
    curves: dict[str, RocCurve]
    programs: dict[str, SoftPrompt] = field(default_factory=dict)


@dataclass
class _Models:
    target: LanguageModel
    reference: LanguageModel | None
    null_reference: LanguageModel | None


def run_audit(
    models: tuple[LanguageModel, LanguageModel | None, LanguageModel | None],
    labelled: LabelledRecords,
    settings: Settings,
    *,
    store: Store,
    progress: Progress,
    key: str = "",
) -> Audit:
    """Audit a target against labelled records.

    models: target, reference, second reference for the null target. Raises RepromiaError where nothing can be
    measured at all; an attack that fails is a failed row.
    """
    began = time.perf_counter()
    chosen = choose(settings.attacks, reference=models[1] is not None)
    if settings.headline:
        parse(settings.headline)
    kept, duplicates = remove_duplicates(labelled, threshold=settings.near_duplicates)
    roles = assign_roles(kept, fit=settings.fit, select=settings.select, seed=settings.seed)
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
    target, reference, null_reference = models
    views = _views(target, reference, judge, settings, store, progress)
    views.ask("target", Identity())  # a target that cannot answer at all ends the audit here

    rows, scores, supervised = _attack_rows(chosen, views, judge, settings)
    blind, blind_scores = blind_results(kept, judge, settings.seed)
    scores |= blind_scores
    headline = _headline(rows, settings)
    gains = tuple(_gains(rows, scores, chosen, views, judge, blind, headline))
    null = _null(chosen, _Models(target, reference, null_reference), views, judge, settings)
    permuted = tuple(_permuted(chosen, supervised, views, judge, settings))
    findings = (
        headline_finding(headline, blind, gains),
        *other_findings(rows, gains, blind, null, permuted, summary),
    )
    result = AuditResult(
        status="complete_with_failures" if any(row.status == "failed" for row in rows) else "complete",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        modality="language",
        target=target.describe(),
        reference=reference.describe() if reference else None,
        records=summary,
        headline=headline.name if headline else "",
        headline_rule="named beforehand" if settings.headline else "best AUC on the select role",
        attacks=rows,
        gains=gains,
        blind=blind,
        null_target=null,
        permuted=permuted,
        findings=findings,
        exposed=_exposed(headline, scores, judge),
        exposed_by=headline.name if headline else "",
        views=views.cost_table(),
        seconds=round(time.perf_counter() - began, 2),
        config=settings.model_dump(mode="json"),
        versions=versions(),
        key=key,
    )
    return Audit(
        result,
        views.records,
        np.concatenate([roles.fit.member, roles.select.member, judge.member]),
        ("fit",) * len(roles.fit) + ("select",) * len(roles.select) + ("eval",) * len(roles.eval),
        scores,
        {name: roc_curve(one[judge.eval_rows], judge.member) for name, one in scores.items()},
        views.soft_prompts(),
    )


def audit_key(
    target: LanguageModel,
    others: Sequence[LanguageModel | None],
    labelled: LabelledRecords,
    settings: Settings,
) -> str:
    """Hash of everything that decides the result: the same key, the same audit."""
    return digest(
        "audit",
        code_digest(),
        [one.fingerprint if one else "" for one in (target, *others)],
        labelled.records.digest(),
        labelled.member.tolist(),
        settings.model_dump(mode="json"),
    )


def versions() -> dict[str, str]:
    """Versions of what the figures depend on."""
    found = {"repromia": __version__, "python": platform.python_version()}
    for name in ("torch", "transformers", "peft", "numpy", "scipy", "scikit-learn"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _views(
    target: LanguageModel,
    reference: LanguageModel | None,
    judge: Judge,
    settings: Settings,
    store: Store,
    progress: Progress,
    memory: dict[str, Any] | None = None,
) -> Views:
    records = all_records(judge.roles)
    longest = max(len(one.ids) for one in target.encode(records.contents, records.ids))
    binding = Binding(target, judge.roles.fit, judge.roles.select, settings.seed, progress, longest)
    views = Views({"target": target}, records, binding, store, memory={} if memory is None else memory)
    if reference is not None:
        from repromia.targets.language import check_same_tokens

        check_same_tokens(target, reference, records.contents)
        views.targets["reference"] = reference
    return views


def _attack_rows(
    chosen: Sequence[Chosen], views: Views, judge: Judge, settings: Settings
) -> tuple[tuple[AttackResult, ...], dict[str, Scores], list[Supervised]]:
    """A row an attack, and the same-supervision heads on what is passive among them."""
    scored = [run_attack(one, views) for one in chosen]
    rows = [judge.row(one.chosen.name, one) for one in scored]
    scores = {one.chosen.name: one.scores for one in scored if one.scores is not None}
    supervised = same_supervision(scored, judge.roles.fit, seed=settings.seed)
    for head in supervised:
        rows.append(judge.row(head.name, head.scored))
        if head.scored.scores is not None:
            scores[head.name] = head.scored.scores
    return tuple(rows), scores, supervised


def _headline(rows: Sequence[AttackResult], settings: Settings) -> AttackResult | None:
    if settings.headline:
        return next((row for row in rows if row.name == settings.headline), None) or _not_run(settings)
    return best_on_select(rows)


def _not_run(settings: Settings) -> AttackResult:
    raise AttackError(
        f"The headline attack {settings.headline!r} is not among the attacks.",
        expected=f"one of {', '.join(settings.attacks)}",
        hint="add it to --attacks",
    )


def _gains(
    rows: Sequence[AttackResult],
    scores: dict[str, Scores],
    chosen: Sequence[Chosen],
    views: Views,
    judge: Judge,
    blind: Sequence[BlindResult],
    headline: AttackResult | None,
) -> list[Gain]:
    """Paired differences: reprogrammed over its fair rivals, the headline over every blind baseline."""
    gains: list[Gain] = []
    passive = best_on_select([row for row in rows if row.kind == "passive"])
    specs = {one.name: one for one in chosen}
    for row in rows:
        if row.name not in scores:
            continue
        own = (row.name, scores[row.name])
        if row.kind == "reprogrammed":
            if passive is not None:
                gains.append(judge.gain("best_passive", own, (passive.name, scores[passive.name])))
            if SAME_SUPERVISION in scores:
                gains.append(judge.gain("same_supervision", own, (SAME_SUPERVISION, scores[SAME_SUPERVISION])))
            same = identity_scores(specs[row.name], views)
            gains.append(judge.gain("identity", own, (f"identity of {row.name}", same)))
        if headline is not None and row.name == headline.name:
            gains += [judge.gain("blind", own, (one.fitted.name, scores[one.fitted.name])) for one in blind]
        elif blind:
            best = max(blind, key=lambda one: one.cross_validated_auc.estimate).fitted.name
            gains.append(judge.gain("blind", own, (best, scores[best])))
    return gains


def _null(chosen: Sequence[Chosen], models: _Models, views: Views, judge: Judge, settings: Settings) -> NullTarget:
    """The attacks on the reference, which did not see the records."""
    if not settings.controls:
        return NullTarget(status="not_available", reason="controls were switched off")
    if models.reference is None:
        return NullTarget(
            status="not_available",
            reason="no reference model was given, so no model is known that cannot have seen the records",
        )
    binding = views.binding
    asked = _views(
        models.reference, models.null_reference, judge, settings, views.store, binding.progress, views.memory
    )
    name = models.null_reference.name if models.null_reference else ""
    table, scores = null_target(chosen, asked, judge, models.reference.name, name)
    scored = [Scored(one, scores.get(one.name), used=_used(one, asked)) for one in chosen if one.name in scores]
    extra: list[NullRow] = []
    from repromia.controls import null_row

    for head in same_supervision(scored, judge.roles.fit, seed=settings.seed):
        extra.append(null_row(head.name, head.scored, judge))
        if head.scored.scores is not None:
            scores[head.name] = head.scored.scores
    return table.model_copy(update={"rows": (*table.rows, *extra), "joint_p": joint_null(judge, scores)})


def _used(chosen: Chosen, views: Views) -> frozenset[str]:
    return run_attack(chosen, views).used


def _permuted(
    chosen: Sequence[Chosen], supervised: Sequence[Supervised], views: Views, judge: Judge, settings: Settings
) -> list[Permuted]:
    if not settings.controls:
        return []
    found: list[Permuted | None] = [
        permuted_head(
            head.name,
            head.features,
            head.usable,
            judge,
            repeats=settings.head_permutations,
            seed=settings.seed,
        )
        for head in supervised
        if head.scored.scores is not None
    ]
    found += [
        permuted_program(one, views, judge, repeats=settings.program_permutations)
        for one in chosen
        if one.attack.kind == "reprogrammed" and settings.program_permutations and not one.options.get("program")
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
