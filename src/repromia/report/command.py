"""`repromia report`: the report of a finished audit, written again in another form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from repromia.compare_folders import Run, curves_of, read_run
from repromia.errors import ConfigError, StoreError
from repromia.progress import watched
from repromia.report import Excerpt, RocPoints, Spread, render_html
from repromia.report.markdown import render_card, render_markdown
from repromia.store import write_atomic

Form = Literal["html", "md", "card", "pdf"]
NAMES: Final[dict[Form, str]] = {
    "html": "report-without-records.html",
    "md": "report.md",
    "card": "model-card.md",
    "pdf": "report.pdf",
}

KEPT = ("result.json", "scores.parquet", "events.jsonl")


def report_command(folder: Path, *, form: Form = "md", out: Path | None = None) -> int:
    """Write the report of the audit in `folder`; 0. Raises StoreError for a folder that holds none, ConfigError where
    a PDF cannot be made."""
    from rich.console import Console

    path = out or folder / NAMES[form]
    if path.name in KEPT and path.parent.resolve() == folder.resolve():
        raise ConfigError(
            f"{path.name} of the audit would be written over.",
            expected="a file of its own",
            found=str(path),
            hint="choose another --out",
        )
    with watched().step("writing the report", None):
        write_atomic(path, report_bytes(folder, form))
    Console().print(f"Report: {path}", soft_wrap=True, highlight=False, markup=False)
    return 0


def report_bytes(folder: Path, form: Form) -> bytes:
    """The report in a form. HTML has no record texts: they are not in the folder; a PDF is the audit's own page."""
    run = read_run(folder, folder.name)
    if form == "md":
        return render_markdown(run.result).encode()
    if form == "card":
        return render_card(run.result).encode()
    if form == "pdf":
        return _pdf(folder)
    return page_of(run, {}).encode()


def page_of(run: Run, excerpts: Mapping[str, Excerpt]) -> str:
    """The HTML report of a finished audit, with these records in it."""
    sides = run.in_eval & run.member, run.in_eval & ~run.member
    curves = {name: RocPoints(curve.fpr, curve.tpr) for name, curve in curves_of(run).items()}
    headline = run.scores.get(run.result.headline)
    known = headline is not None and run.result.headline in curves
    spread = Spread(*(headline[side] for side in sides)) if headline is not None and known else None
    return render_html(run.result, curves=curves, excerpts=excerpts, spread=spread)


def _pdf(folder: Path) -> bytes:
    try:
        page = (folder / "report.html").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{str(folder)!r} holds no report.html to print.", found=str(error)) from error
    try:
        from weasyprint import HTML
        from weasyprint.urls import URLFetcher
    except (ImportError, OSError) as error:  # OSError: the library is there, and pango is not
        raise ConfigError(
            "A PDF needs the package weasyprint and the system library pango.",
            found=str(error).splitlines()[0],
            hint="pip install 'repromia[pdf]' and pango of your system (apt install libpango-1.0-0 libpangoft2-1.0-0), "
            "or open report.html in a browser and print it",
        ) from error

    kept = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    drawn: bytes = HTML(string=_with_colours(kept), url_fetcher=URLFetcher(allowed_protocols=("data",))).write_pdf()
    return drawn


def _with_colours(page: str) -> str:
    """Colours of the printed page in place of CSS variables, which SVG attributes may not name in a PDF."""
    printed = re.search(r"@media print \{ :root \{(.*?)\}", page, flags=re.DOTALL)
    for name, colour in re.findall(r"(--[\w-]+): (#[0-9a-f]+)", printed[1] if printed else ""):
        page = page.replace(f'"var({name})"', f'"{colour}"').replace(f"var({name})", colour)
    return page.replace("currentColor", "#000")
