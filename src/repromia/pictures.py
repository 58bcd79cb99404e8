"""From images to labelled records, refusing what cannot be audited.

A source is a folder of image files (captions from metadata.jsonl or metadata.csv with a field `file_name`, or from
a .txt beside each image), an .npz file, or a table or dataset with a field of images. Every image is decoded once
here; of files only the path is kept.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from repromia.errors import RecordsError
from repromia.picture_tables import FILE, holds_pictures, image_rows_of_objects, read_image_rows
from repromia.picture_values import image_value, picture_of
from repromia.readers import fields_of, has_field, labels_of, names_of, require_field, shown_names
from repromia.records import LabelledRecords, Picture, Records
from repromia.rows import Table

__all__ = ["holds_pictures", "pictures_from_objects", "read_labelled_pictures", "read_pictures"]

CAPTION_NAMES = ("caption", "text", "prompt")
FOLDER = "folder"  # a caption field: of image files, the name of the folder that each lies in
OnSkipped = Callable[[Sequence[str]], None]
_Source = tuple[Table, str, Path | None]  # rows, the field of images, where relative paths in it begin


class _Options(NamedTuple):
    caption: str | None
    group: str | None
    skip_unreadable: bool
    on_skipped: OnSkipped | None
    label: str | None = None


def read_pictures(
    members: str | Path,
    nonmembers: str | Path,
    *,
    image: str | None = None,
    caption: str | None = None,
    group: str | None = None,
    skip_unreadable: bool = False,
    on_skipped: OnSkipped | None = None,
) -> LabelledRecords:
    """Members and non-members from two sources. Members come first, in order of the source (folders: of the path).

    image, caption, group: fields; the first two are found by themselves where only one can be meant. Ids come from
    a field `id`, are m: and n: with the path in a folder, else m0, m1, … and n0, n1, …. on_skipped: told the names
    of what `skip_unreadable` left out, if anything.

    Raises RecordsError, without captions, for anything that cannot be read or audited.
    """
    options = _Options(caption, group, skip_unreadable, on_skipped)
    return _join(
        (*read_image_rows(members, image), _base(members)),
        (*read_image_rows(nonmembers, image), _base(nonmembers)),
        options,
    )


def pictures_from_objects(
    members: object,
    nonmembers: object,
    *,
    image: str | None = None,
    caption: str | None = None,
    group: str | None = None,
    skip_unreadable: bool = False,
    on_skipped: OnSkipped | None = None,
) -> LabelledRecords:
    """`read_pictures` for arrays (N, H, W or N, H, W, C; uint8 or floats in [0, 1]), lists and datasets.

    Lists hold PIL images, paths, arrays (H, W or H, W, C), encoded bytes, or dicts with one of these.
    """
    options = _Options(caption, group, skip_unreadable, on_skipped)
    return _join(
        (*image_rows_of_objects("members", members, image), None),
        (*image_rows_of_objects("nonmembers", nonmembers, image), None),
        options,
    )


def read_labelled_pictures(
    data: str | Path,
    *,
    label: str,
    image: str | None = None,
    caption: str | None = None,
    group: str | None = None,
    skip_unreadable: bool = False,
    on_skipped: OnSkipped | None = None,
) -> LabelledRecords:
    """Pictures of both sides from one source; the field `label` says which are members (see `read_labelled`).

    Of a folder the label stands in its metadata. Ids as in `read_pictures`, without the prefix of a side; else r0,
    r1, …. Raises RecordsError.
    """
    table, field = read_image_rows(data, image)
    member = labels_of(table, label)
    options = _Options(caption, group, skip_unreadable, on_skipped, label)
    records, kept = _records((table, field, _base(data)), "r", options)
    return _checked(records, member[kept])


def _base(source: str | Path) -> Path:
    """Where relative paths in a table begin."""
    return Path(source).parent if Path(source).is_file() else Path()


def _join(members: _Source, nonmembers: _Source, options: _Options) -> LabelledRecords:
    for side, (table, _, _) in (("members", members), ("non-members", nonmembers)):
        if not table.rows:
            raise RecordsError(f"{table.source}: no records", expected=f"at least one of the {side}", found="none")
    first, second = (_records(one, prefix, options)[0] for one, prefix in ((members, "m"), (nonmembers, "n")))
    both = Records(first.ids + second.ids, first.contents + second.contents, first.groups + second.groups)
    return _checked(both, np.arange(len(both)) < len(first))


def _records(source: _Source, prefix: str, options: _Options) -> tuple[Records, list[int]]:
    """The records of one source, and the rows they come from."""
    table, field, base = source
    ids = names_of_images(table, prefix)
    groups = ids if options.group is None else names_of(table, options.group)
    captions = _captions(table, field, options)
    pictures: dict[int, Picture] = {}
    missing, unreadable = [], []
    for row, (values, caption) in enumerate(zip(table.rows, captions, strict=True)):
        value = image_value(values.get(field), base, f"{table.source}, {_name(table, row)}")
        if value is None:
            missing.append(row)
            continue
        try:
            pictures[row] = picture_of(value, caption)
        except (OSError, ValueError):  # ValueError: no path at all
            unreadable.append(row)
    if missing:
        raise RecordsError(
            f"{table.source}: {field!r} holds no image in {table.where(missing)}",
            expected="an encoded image, a path, an array or a PIL image",
            hint="repair or drop these rows",
        )
    _deal_with(table, unreadable, options)
    kept = list(pictures)
    records = Records(tuple(ids[row] for row in kept), tuple(pictures.values()), tuple(groups[row] for row in kept))
    return records, kept


def names_of_images(table: Table, prefix: str) -> tuple[str, ...]:
    """The ids of a table's records; prefix: m, n or r, of the side."""
    if not has_field(table, "id"):
        return tuple(f"{prefix}{row}" for row in range(len(table.rows)))
    names = names_of(table, "id")
    return tuple(f"{prefix}:{name}" for name in names) if table.unit == FILE and prefix != "r" else names


def _name(table: Table, row: int) -> str:
    return str(table.rows[row]["id"]) if table.unit == FILE else f"{table.unit} {table.places[row]}"


def _named(table: Table, rows: Sequence[int]) -> str:
    return ", ".join(_name(table, row) for row in rows[:5]) + (", …" if len(rows) > 5 else "")


def _deal_with(table: Table, unreadable: Sequence[int], options: _Options) -> None:
    if not unreadable:
        return
    if not options.skip_unreadable or len(unreadable) == len(table.rows):
        raise RecordsError(
            f"{table.source}: {len(unreadable)} of {len(table.rows)} images cannot be read",
            expected="complete image files of an ordinary size",
            found=_named(table, unreadable),
            hint="repair them" + ("" if options.skip_unreadable else ", or leave them out with --skip-unreadable"),
        )
    if options.on_skipped:
        options.on_skipped([_name(table, row) for row in unreadable])


def _captions(table: Table, field: str, options: _Options) -> list[str]:
    """A caption for each row: of the named field, else of the only field that could be one, else none at all."""
    name = options.caption
    if name is not None:
        if table.unit != FILE:
            require_field(table, name, "caption or class")
        elif name != FOLDER:
            hint = f"name one of the fields found, or {FOLDER}: the name of the folder that each image lies in"
            require_field(table, name, "caption or class", hint)
    else:
        aside = {field, options.label, options.group, "id"}
        found = [one for one in fields_of(table) if one.lower() in CAPTION_NAMES and one not in aside]
        if len(found) > 1:
            raise RecordsError(
                f"{table.source}: more than one field could be the caption",
                expected=f"one of {', '.join(CAPTION_NAMES)}",
                found=shown_names(found),
                hint="name it with caption=… (--caption)",
            )
        name = found[0] if found else None
    if name is None:
        return [""] * len(table.rows)
    values = [row.get(name) for row in table.rows] if name != FOLDER or has_field(table, name) else _folders(table)
    wrong = [row for row, value in enumerate(values) if not _is_caption(value)]
    if wrong:
        raise RecordsError(
            f"{table.source}: {len(wrong)} of {len(values)} images have no caption, others have",
            expected="a string for every image (an empty one is allowed), or the number of its class",
            found=_named(table, wrong),
            hint="add the captions or drop these images",
        )
    return [str(value) for value in values]


def _folders(table: Table) -> list[str | None]:
    """The folder that each file lies in, which may be its class; none for files of the source itself."""
    return [Path(str(row["id"])).parent.name or None for row in table.rows]


def _is_caption(value: object) -> bool:
    if isinstance(value, int):
        return not isinstance(value, bool)
    return isinstance(value, str) and re.search("[\ud800-\udfff]", value) is None


def _checked(records: Records, member: Bool[np.ndarray, " record"]) -> LabelledRecords:
    repeated = [name for name, count in Counter(records.ids).items() if count > 1]
    if repeated:
        raise RecordsError(
            "record ids are not unique",
            expected="one id per record, over members and non-members together",
            found=f"{len(repeated)} repeated, such as {', '.join(repeated[:3])}",
            hint="make the field `id` unique or leave it out",
        )
    labelled = LabelledRecords(records, member)
    for name, side in (("members", labelled.members()), ("non-members", labelled.nonmembers())):
        if not len(side):
            raise RecordsError(f"no {name} are left", expected="images of both sides that can be read", found="none")
        if len(side) > 1 and len({one.digest for one in side.contents if isinstance(one, Picture)}) == 1:
            raise RecordsError(
                f"all {len(side)} {name} are the same picture",
                expected="different pictures",
                found="one distinct picture",
                hint="check that the right field is read as the image",
            )
    return labelled
