"""`repromia split`: who is to be trained on is drawn by lot, before training, so that an audit measures the model.

Each record (or group) is left out with chance `holdout`, independently: the sides have no fixed sizes. Records of
equal content share a coin. See `repromia.manifest` for the coins and for checking records against the draw.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool

from repromia._version import __version__
from repromia.errors import RecordsError, StoreError
from repromia.manifest import NAME, Canary, Draw, Manifest, compare, draw
from repromia.records import LabelledRecords, Records, content_digest
from repromia.split_files import copy_images, file_digests, format_of, write_rows
from repromia.split_source import PLACEHOLDER, Source, SplitOptions, read_source, with_canaries
from repromia.store import write_atomic

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["SplitOptions", "sides_of", "split", "split_command"]


def split_command(
    data: str,
    *,
    out: Path,
    holdout: float = 0.5,
    seed: int = 0,
    group: str = "",
    text: str = "",
    class_field: str = "",
    image: str = "",
    canaries: int = 0,
    canary_template: str = PLACEHOLDER,
    console: Console | None = None,
) -> int:
    """Draw, write and show numbers, never records. 0 when all is written; RepromiaError otherwise."""
    from rich.console import Console
    from rich.table import Table as Shown
    from rich.text import Text

    console = console or Console()
    options = SplitOptions(holdout, seed, group, text, class_field, image, canaries, canary_template)
    manifest = split(data, out, options)
    shown = Shown(title="Drawn by lot")
    for heading in ("", "records", "different", "canaries"):
        shown.add_column(heading)
    for name, digests, inside in (("members", manifest.members, True), ("nonmembers", manifest.nonmembers, False)):
        planted = sum(one.inserted == inside for one in manifest.canaries)
        shown.add_row(name, f"{manifest.records[name]:,}", f"{len(digests):,}", f"{planted:,}")
    console.print(shown)
    names = [f"{out / name}" for name in sides_of(data, out)]
    console.print(
        Text(
            f"Each {manifest.kind} was left out with chance {holdout:g}, seed {seed}. Train on {names[0]} and on "
            f"nothing of {names[1]}, then audit both with --members and --nonmembers; keep {out / NAME} beside them."
        ),
        soft_wrap=True,
    )
    return 0


def sides_of(data: str, out: Path) -> tuple[str, str]:
    """Names of the members' and the non-members' file in `out`; folders if `data` is a folder of images."""
    ending = "" if (out / "members").is_dir() else format_of(data)
    return f"members{ending}", f"nonmembers{ending}"


def split(data: str | Path, out: Path, options: SplitOptions) -> Manifest:
    """Draw membership of the records in `data` and write both sides and, last, the manifest into `out`.

    What was written is read back and compared with the draw before the manifest is. Nothing is left in `out` on
    failure. Raises RecordsError, without record text, for data that cannot be read, where one side stays empty and
    where reading back gives other records; StoreError where `out` holds anything or cannot be written.
    """
    data = str(data)
    source = read_source(data, options)
    source, canaries = with_canaries(source, options)
    digests = [content_digest(content) for content in source.contents]
    drawn = draw(digests, source.groups, options.seed, options.holdout)
    _refuse_empty_side(drawn, options)
    with _empty_folder(out):
        _write_sides(data, out, source, drawn.member)
        manifest = _manifest(data, options, drawn, digests, [digests[row] for row in canaries])
        _read_back(data, out, options, manifest)
        manifest = manifest.model_copy(update={"files": file_digests(out)})
        write_atomic(out / NAME, manifest.model_dump_json(indent=1).encode())
    return manifest


def _refuse_empty_side(drawn: Draw, options: SplitOptions) -> None:
    if drawn.member.all() or not drawn.member.any():
        raise RecordsError(
            "one side of the split stays empty",
            expected="records on both sides",
            found=f"{len(set(drawn.units))} units drawn with holdout {options.holdout:g}, all on one side",
            hint="give more records or groups, or a holdout nearer to 0.5",
        )


@contextmanager
def _empty_folder(out: Path) -> Iterator[None]:
    """A folder that was empty before and, after a failure, is again as it was. Raises StoreError."""
    existed = out.is_dir()
    if out.exists() and (not existed or any(out.iterdir())):
        raise StoreError(
            f"{str(out)!r} is not an empty folder.",
            expected="a folder that is empty or not there yet: a draw is never written over another",
            hint="choose another --out",
        )
    try:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"Cannot make {str(out)!r}.", found=error.strerror or type(error).__name__) from error
        yield
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        if existed:
            out.mkdir(exist_ok=True)
        raise


def _write_sides(data: str, out: Path, source: Source, member: Bool[np.ndarray, " record"]) -> None:
    for name, chosen in (("members", member), ("nonmembers", ~member)):
        rows = np.flatnonzero(chosen).tolist()
        if source.folder is not None:
            copy_images(out / name, source.folder, source.table, rows)
        else:
            write_rows(out / f"{name}{format_of(data)}", source.table, rows, data)


def _manifest(
    data: str, options: SplitOptions, drawn: Draw, digests: Sequence[str], canaries: Sequence[str]
) -> Manifest:
    inside = {digest: bool(side) for digest, side in zip(digests, drawn.member, strict=True)}
    reading = {"text": options.text, "class_field": options.class_field, "image": options.image, "group": options.group}
    return Manifest(
        repromia=__version__,
        seed=options.seed,
        holdout=options.holdout,
        kind="group" if options.group else "record",
        source=Path(data).name,
        reading=reading,
        records={"members": int(drawn.member.sum()), "nonmembers": int((~drawn.member).sum())},
        members=tuple(sorted(digest for digest, side in inside.items() if side)),
        nonmembers=tuple(sorted(digest for digest, side in inside.items() if not side)),
        units=dict(sorted(zip(digests, drawn.units, strict=True))) if options.group else {},
        canaries=tuple(
            Canary(id=f"canary-{number:04}", digest=digest, inserted=inside[digest])
            for number, digest in enumerate(canaries)
        ),
        files={},
    )


def _read_back(data: str, out: Path, options: SplitOptions, manifest: Manifest) -> None:
    """Raises RecordsError unless what lies in `out` is what was drawn."""
    sides = [read_source(str(out / name), options).contents for name in sides_of(data, out)]
    contents = (*sides[0], *sides[1])
    ids = tuple(map(str, range(len(contents))))
    labelled = LabelledRecords(Records(ids, contents, ids), np.arange(len(contents)) < len(sides[0]))
    verdict = compare(manifest, labelled)
    if not verdict.randomised or not verdict.complete:
        raise RecordsError(
            "what was written reads differently from what was drawn",
            expected="the same records on the sides that were drawn",
            found=verdict.reason,
            hint="name the fields to read (--text, --image), or give the data as .jsonl",
        )
