"""An audit's folder: what is written into it, and read back."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repromia.records import Picture, Records, as_text
from repromia.result import AuditResult
from repromia.store import file_name, saving, write_atomic

if TYPE_CHECKING:
    from repromia.pipeline import Audit
    from repromia.report import Excerpt

EXCERPT = 300


def write_audit(done: Audit, folder: Path, *, redact: bool) -> None:
    """scores.parquet, programs/, report.html, and result.json last: where it is, the rest is."""
    import numpy as np

    from repromia.programs.saved import save_program
    from repromia.report import RocPoints, Spread, render_html
    from repromia.transfer import save_heads

    for name, keys in (("programs", {"kind"}), ("heads", {"weights", "columns"})):
        with saving(folder / name):  # of another audit in this folder: they would be carried over with these
            _clear(folder / name, keys)
    learned_on = [at for at, role in enumerate(done.roles) if role != "eval"]
    with saving(folder / "programs"):
        for name, program in done.programs.items():
            save_program(program, folder / "programs" / f"{file_name(name)}.safetensors")
    with saving(folder / "heads"):
        save_heads(done.heads, done.records.take(learned_on), folder)
    write_atomic(folder / "scores.parquet", _scores_parquet(done))
    if done.unlabelled is not None:
        own = {"id": done.unlabelled.records.ids, "group": done.unlabelled.records.groups}
        write_atomic(folder / "unlabelled.parquet", _parquet({**own, **done.unlabelled.scores}))
    excerpts = {} if redact else _excerpts(done.records, {one.id for one in done.result.exposed})
    curves = {name: RocPoints(curve.fpr, curve.tpr) for name, curve in done.curves.items()}
    known, at_eval = done.scores.get(done.result.headline), np.array([role == "eval" for role in done.roles])
    spread = None if known is None else Spread(known[at_eval & done.member], known[at_eval & ~done.member])
    page = render_html(done.result, curves=curves, excerpts=excerpts, spread=spread)
    write_atomic(folder / "report.html", page.encode())
    write_atomic(folder / "result.json", done.result.model_dump_json(indent=2).encode())


def _clear(folder: Path, own: set[str]) -> None:
    """Remove what an earlier audit wrote, known by these keys, and nothing else: the folder may be the user's."""
    for about in folder.glob("*.json"):
        try:
            known = json.loads(about.read_text(encoding="utf-8"))
        except ValueError:
            continue
        if isinstance(known, dict) and known.get("format") == 1 and own <= set(known):
            about.with_suffix(".safetensors").unlink(missing_ok=True)
            about.unlink()


def _scores_parquet(done: Audit) -> bytes:
    known = {"id": done.records.ids, "role": done.roles, "member": done.member, "group": done.records.groups}
    return _parquet({**known, **done.scores})


def _parquet(columns: dict[str, Any]) -> bytes:
    import polars

    buffer = io.BytesIO()
    polars.DataFrame(columns).write_parquet(buffer)
    return buffer.getvalue()


def _excerpts(records: Records, wanted: set[str]) -> dict[str, Excerpt]:
    from repromia.report import Excerpt
    from repromia.report.thumbnails import data_uri

    named = zip(records.ids, records.contents, strict=True)
    return {
        name: Excerpt(as_text(content)[:EXCERPT], data_uri(content) if isinstance(content, Picture) else "")
        for name, content in named
        if name in wanted
    }


def audit_in(folder: Path) -> str:
    """Key of the audit whose result is in the folder; empty where there is none."""
    try:
        return AuditResult.model_validate_json((folder / "result.json").read_bytes()).key
    except (OSError, ValueError):
        return ""


def finished_audit(folder: Path, key: str) -> AuditResult | None:
    """The result of a complete audit with this key in the folder, or None."""
    try:
        result = AuditResult.model_validate_json((folder / "result.json").read_bytes())
    except (OSError, ValueError):
        return None
    complete = (folder / "report.html").is_file() and (folder / "scores.parquet").is_file()
    return result if result.key == key and complete and result.status == "complete" else None


def rewrite_report(result: AuditResult, folder: Path, records: Records, *, redact: bool) -> AuditResult:
    """The report of the finished audit in the folder with record texts, or (redact) without; and its result again."""
    from repromia.compare_folders import read_run
    from repromia.report.command import page_of

    result = result.model_copy(update={"config": {**result.config, "redact": redact}})
    excerpts = {} if redact else _excerpts(records, {one.id for one in result.exposed})
    page = page_of(replace(read_run(folder, folder.name), result=result), excerpts)
    write_atomic(folder / "report.html", page.encode())
    write_atomic(folder / "result.json", result.model_dump_json(indent=2).encode())
    return result


def read_audit(folder: str | Path) -> AuditResult:
    """A finished audit of a folder, with its curves. Raises StoreError."""
    from repromia.compare_folders import curves_of, read_run

    run = read_run(Path(folder), Path(folder).name)
    return run.result.with_curves(curves_of(run))
