"""What the commands do: read, audit, write, show."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from rich.console import Console

from repromia.config import AuditConfig, Settings
from repromia.errors import RepromiaError
from repromia.folders import audit_in, finished_audit, read_audit, rewrite_report, write_audit
from repromia.models import load_models, shadow_models, workers_of
from repromia.progress import EVERYTHING, Progress, Shown, Silent, watched
from repromia.records import LabelledRecords, Records, without_records
from repromia.result import AuditResult, Finding
from repromia.sources import read_records
from repromia.store import Store

if TYPE_CHECKING:
    from repromia.attacks import Modality
    from repromia.programs import Target
    from repromia.views import ShadowModels


def audit_command(config: AuditConfig, console: Console | None = None, shown: Shown = EVERYTHING) -> int:
    """Run or resume the audit in config.out. 0: all measured; 1: some attack failed."""
    from repromia.terminal import show_result
    from repromia.tracking import check_tracker, track

    check_tracker(shown.tracker)
    before = audit_in(config.out)
    result = audit_to_folder(config, watched(quiet=shown.quiet))
    if before not in ("", result.key) and not (shown.quiet or shown.as_json):
        (console or Console()).print(f"Another audit was in {config.out}: this one has taken its place.", markup=False)
    show_result(result, console or Console(), shown, report_path=config.out / "report.html")
    if shown.tracker:
        track(result, config.out)
    return 0 if result.status == "complete" else 1


def audit_to_folder(config: AuditConfig, progress: Progress, unlabelled: Records | None = None) -> AuditResult:
    """The result in config.out: read back when nothing has changed since, made (or finished) otherwise.

    unlabelled: further records, scored in the same way, whose scores are written to unlabelled.parquet.
    """
    skipped: list[str] = []
    with progress.step("reading records", None):
        from repromia.categories import read_categories
        from repromia.cluster import connected
        from repromia.pipeline import run_audit
        from repromia.provenance import audit_key

        labelled = read_records(config, skipped.extend)
        categories = read_categories(config, labelled.records)
    with _unquoted(labelled.records), Store(config.out).locked() as store:
        store.event("start", records=len(labelled), unreadable=len(skipped))
        models = load_models(config, labelled, progress)
        shadows = shadow_models(config, models[0], labelled.records)
        hashed = shadows.key if shadows else ""
        key = audit_key(models[0], models[1:], labelled, config.settings(), hashed, categories, unlabelled)
        finished = finished_audit(config.out, key)
        if finished is not None:
            store.event("already_finished")
            if finished.config.get("redact", False) == config.redact:
                return finished
            return rewrite_report(finished, config.out, labelled.records, redact=config.redact)
        with connected(config.cluster):
            done = run_audit(
                models,
                labelled,
                config.settings(),
                store=store,
                progress=progress,
                key=key,
                shadows=shadows,
                categories=categories,
                unlabelled=unlabelled,
                workers=workers_of(config, models, labelled),
            )
        if skipped:
            shown = ", ".join(skipped[:5]) + (", …" if len(skipped) > 5 else "")
            sentence = f"{len(skipped)} images could not be read and were left out: {shown}."
            missing = Finding(level="warning", code="unreadable", sentence=sentence)
            done.result = done.result.model_copy(update={"findings": (*done.result.findings, missing)})
        source = config.model_dump(mode="json", exclude=set(Settings.model_fields))
        done.result = done.result.model_copy(update={"config": {**source, **done.result.config}})
        with progress.step("writing the report", None):
            write_audit(done, config.out, redact=config.redact)
        store.event("finished", status=done.result.status)
    return done.result


def audit_objects(
    target: Target,
    labelled: LabelledRecords,
    *,
    reference: Target | None,
    null_reference: Target | None,
    settings: Settings,
    out: str | Path | None,
    shadows: ShadowModels | None = None,
    cluster: str = "local",
) -> AuditResult:
    """`repromia.audit`: the audit on objects already in memory, which workers of a cluster are sent."""
    from repromia.cluster import connected
    from repromia.parts import Workers
    from repromia.pipeline import run_audit
    from repromia.provenance import audit_key

    if reference is None and getattr(target, "has_adapter", False):
        reference = target.base()  # type: ignore[attr-defined]
    models = (target, reference, null_reference)
    for one in models:
        refresh = getattr(one, "refresh", None)
        if refresh is not None:
            refresh()
    folder = Path(out) if out is not None else None
    with _unquoted(labelled.records), Store(folder).locked() as store:
        key = audit_key(target, (reference, null_reference), labelled, settings, shadows.key if shadows else "")
        finished = finished_audit(folder, key) if folder else None
        if finished is not None and folder is not None:
            return read_audit(folder)
        with connected(cluster):
            done = run_audit(
                models,
                labelled,
                settings,
                store=store,
                progress=Silent(),
                key=key,
                shadows=shadows,
                workers=Workers(cluster),
            )
        if folder is not None:
            write_audit(done, folder, redact=False)
    return done.result.with_curves(done.curves)


@contextmanager
def _unquoted(records: Records) -> Iterator[None]:
    """Errors without what somebody else's error, told in them, repeats of a record."""
    try:
        yield
    except RepromiaError as error:
        said = without_records(str(error), records)
        if said == str(error):
            raise
        raise type(error)(said) from None
    except Exception as error:
        if without_records(str(error), records) == str(error):
            raise
        at = traceback.extract_tb(error.__traceback__)[-1]
        raise RepromiaError(
            "The audit ended in an error whose message repeats a record.",
            found=f"{type(error).__name__} in {Path(at.filename).name}, line {at.lineno}",
            hint="ask the model about the records by itself to see the whole message",
        ) from None


def attacks_command(modality: Modality | None = None, *, as_json: bool, console: Console | None = None) -> int:
    """The registry, or its attacks on one kind of model, as a list or as JSON."""
    from repromia.attacks import Modality, registry

    rows: list[dict[str, Any]] = [
        {
            "name": one.name,
            "model": one.modality,
            "kind": one.kind,
            "access": one.access,
            "needs": list(one.needs),
            "options": one.options,
            "default": one.default,
            "citation": one.citation,
            "about": (one.function.__doc__ or "").strip().splitlines()[0],
        }
        for kind in ((modality,) if modality else get_args(Modality))
        for one in registry(kind).values()
    ]
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
        return 0
    from repromia.terminal import print_attacks

    print_attacks(rows, console or Console())
    return 0
