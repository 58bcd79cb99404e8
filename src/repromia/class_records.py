"""From rows with a class to labelled records: texts, the numbers of a table, or images."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repromia.errors import RecordsError
from repromia.picture_tables import holds_pictures
from repromia.picture_values import uint8_images
from repromia.pictures import pictures_from_objects, read_labelled_pictures, read_pictures
from repromia.readers import TEXT_NAMES, fields_of, has_field, labels_of, names_of, require_field, shown_names
from repromia.records import Content, Example, LabelledRecords, Records, TableRow
from repromia.rows import Table, read_rows, rows_of_objects


def read_class_records(
    members: str | Path,
    nonmembers: str | Path,
    *,
    class_field: str,
    text: str | None = None,
    group: str | None = None,
    aside: Sequence[str] = (),
) -> LabelledRecords:
    """Members and non-members with their classes, from two sources (formats: `repromia.rows`, `repromia.pictures`).

    class_field: the field of the class, a string or a whole number; of a folder of images, `folder` is the name of the
    folder that each lies in. text: the field of the text; found by itself where one is called so or only one holds
    strings. Without a text, every other field but id, group and those in `aside` is a feature, and must hold numbers.
    Ids and order as in `repromia.readers.read_members`.

    Raises RecordsError, without record text, for anything that cannot be read or audited.
    """
    if text is None and (holds_pictures(members) or holds_pictures(nonmembers)):
        return read_pictures(members, nonmembers, caption=class_field, group=group)
    return _join((read_rows(members), read_rows(nonmembers)), class_field, text, group, aside)


def class_records_from_objects(
    members: object,
    nonmembers: object,
    *,
    class_field: str = "class",
    text: str | None = None,
    group: str | None = None,
) -> LabelledRecords:
    """`read_class_records` for lists of dicts, data frames of polars, and pairs (X, y).

    X: numbers (record, feature), images (record, height, width[, channel]) as uint8 or floats in [0, 1], or a list of
    strings; y: the classes. Of a data frame of numbers the names of its columns are kept.
    """
    names: tuple[str, ...] | None = None
    if isinstance(members, tuple) and isinstance(nonmembers, tuple):
        sides = _paired("members", members, class_field), _paired("nonmembers", nonmembers, class_field)
        if all(_is_images(one) for one in sides):
            return pictures_from_objects(*sides, image="image", caption=class_field)
        names = _column_names(members[0], nonmembers[0])
        members, nonmembers = sides
    elif text is None and (holds_pictures(members) or holds_pictures(nonmembers)):
        return pictures_from_objects(members, nonmembers, caption=class_field, group=group)
    tables = rows_of_objects("members", members), rows_of_objects("nonmembers", nonmembers)
    return _join(tables, class_field, text, group, names=names)


def read_labelled_class_records(
    data: str | Path,
    *,
    label: str,
    class_field: str,
    text: str | None = None,
    group: str | None = None,
    aside: Sequence[str] = (),
) -> LabelledRecords:
    """Records of both sides from one source; the field `label` says which are members (see `read_labelled`)."""
    if class_field == label:
        raise RecordsError(
            "the class and the membership are one field",
            expected="different fields",
            found=repr(label),
            hint="--label says who is a member, --class-field what the classifier was to predict",
        )
    if text is None and holds_pictures(data):
        return read_labelled_pictures(data, label=label, caption=class_field, group=group)
    table = read_rows(data)
    member = labels_of(table, label)
    (records,) = _records((table,), ("r",), class_field, text, group, (label, *aside))
    return _checked(records, member)


def class_name(value: object) -> str:
    """A class as it is called: whole numbers alike, however they are held."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _join(
    tables: Sequence[Table],
    class_field: str,
    text: str | None,
    group: str | None,
    aside: Sequence[str] = (),
    *,
    names: tuple[str, ...] | None = None,
) -> LabelledRecords:
    for side, table in zip(("members", "non-members"), tables, strict=True):
        if not table.rows:
            raise RecordsError(f"{table.source}: no records", expected=f"at least one of the {side}", found="none")
    first, second = _records(tables, ("m", "n"), class_field, text, group, aside, names=names)
    both = Records(first.ids + second.ids, first.contents + second.contents, first.groups + second.groups)
    return _checked(both, np.arange(len(both)) < len(first))


def _records(
    tables: Sequence[Table],
    prefixes: Sequence[str],
    class_field: str,
    text: str | None,
    group: str | None,
    aside: Sequence[str] = (),
    *,
    names: tuple[str, ...] | None = None,
) -> list[Records]:
    """The records of every table, all read by the same fields. names: of features, where fields are not called so."""
    for table in tables:
        require_field(table, class_field, "class")
        if text is not None:
            require_field(table, text, "text")
    others = {"id", class_field, group, *aside} - {text}
    columns = [[name for name in fields_of(table) if name not in others] for table in tables]
    field = text or _text_field(tables[0], columns[0])
    if field is None and any(set(one) != set(columns[0]) for one in columns):
        differing = set(columns[0]) ^ set(columns[-1])
        raise RecordsError(
            f"{tables[-1].source}: other features than {tables[0].source}",
            expected="the same fields on both sides",
            found=f"only on one: {shown_names(sorted(differing))}",
            hint="drop these fields",
        )
    found = []
    for table, prefix in zip(tables, prefixes, strict=True):
        classes = _classes(table, class_field)
        contents: list[Content]
        if field is not None:
            require_field(table, field, "text")
            contents = [Example(one, name) for one, name in zip(_texts(table, field), classes, strict=True)]
        else:
            rows = _numbers(table, columns[0]).tolist()
            features = tuple(columns[0]) if names is None else names
            contents = [TableRow(tuple(row), name, features) for row, name in zip(rows, classes, strict=True)]
        ids = (
            names_of(table, "id") if has_field(table, "id") else tuple(f"{prefix}{row}" for row in range(len(classes)))
        )
        found.append(Records(ids, tuple(contents), ids if group is None else names_of(table, group)))
    return found


def _text_field(table: Table, columns: Sequence[str]) -> str | None:
    """The field of the text; None for a table of numbers. Raises RecordsError where neither is clear."""
    words = [name for name in columns if _holds(table, name, str) and not _all_numbers(table, name)]
    named = [name for name in words if name.lower() in TEXT_NAMES]
    if len(named) == 1:
        return named[0]
    if not words:
        return None
    if not named and len(words) == 1 and len(columns) == 1:
        return words[0]
    several = len(named) > 1
    raise RecordsError(
        f"{table.source}: " + ("more than one field could be the text" if several else "some features are no numbers"),
        expected=f"one of {', '.join(TEXT_NAMES)}" if several else "numbers in every field but id, group and class",
        found=shown_names(named or words),
        hint="name the text with text=… (--text)" + ("" if several else "; or drop or encode these fields"),
    )


def _holds(table: Table, name: str, kind: type) -> bool:
    values = [row[name] for row in table.rows if row.get(name) is not None]
    return bool(values) and all(isinstance(value, kind) for value in values)


def _all_numbers(table: Table, name: str) -> bool:
    return all(_number(row.get(name)) is not None for row in table.rows if row.get(name) not in (None, ""))


def _number(value: object) -> float | None:
    """Of a number, or of a string that is one (csv)."""
    if isinstance(value, int | float | np.integer | np.floating | np.bool_):
        try:
            return float(value)
        except OverflowError:  # whole numbers of JSON have no end
            return float("inf")
    if isinstance(value, str):
        try:
            return float(value) if "_" not in value else None
        except ValueError:
            return None
    return None


def _numbers(table: Table, columns: Sequence[str]) -> np.ndarray:
    if not columns:
        raise RecordsError(
            f"{table.source}: there are no features",
            expected="a text, or fields of numbers beside id, group and class",
            found=shown_names(fields_of(table)),
        )
    read = [[_number(row.get(name)) for row in table.rows] for name in columns]
    for name, values in zip(columns, read, strict=True):
        wrong = [row for row, value in enumerate(values) if value is None]
        if wrong:
            held = [table.rows[row].get(name) for row in wrong]
            kinds = Counter("missing" if one in (None, "") else type(one).__name__ for one in held)
            raise RecordsError(
                f"{table.source}: the feature {shown_names([name])} holds no number in {table.where(wrong)}",
                expected="a number in every row",
                found=", ".join(f"{count} × {kind}" for kind, count in kinds.most_common(5)),
                hint="fill in or drop these rows, or drop the field",
            )
    numbers = np.array(read, dtype=np.float64).T
    broken = np.flatnonzero(~np.isfinite(numbers).all(axis=1))
    if len(broken):
        names = [name for name, one in zip(columns, numbers.T, strict=True) if not np.isfinite(one).all()]
        raise RecordsError(
            f"{table.source}: NaN or infinite numbers in {table.where(broken.tolist())}",
            expected="finite numbers",
            found=f"in {shown_names(names)}",
            hint="fill in or drop these rows",
        )
    return numbers


def _texts(table: Table, field: str) -> list[str]:
    values = [row.get(field) for row in table.rows]
    wrong = [
        row
        for row, value in enumerate(values)
        if not isinstance(value, str) or not value.strip() or re.search("[\ud800-\udfff]", value)
    ]
    if wrong:
        raise RecordsError(
            f"{table.source}: {field!r} holds no text in {table.where(wrong)}",
            expected="a string that is not blank and valid Unicode, in every row",
            hint="repair or drop these rows",
        )
    return [str(value) for value in values]


def _classes(table: Table, field: str) -> list[str]:
    values = [row.get(field) for row in table.rows]
    wrong = [row for row, value in enumerate(values) if not _is_class(value)]
    if wrong:
        raise RecordsError(
            f"{table.source}: {field!r} names no class in {table.where(wrong)}",
            expected="a string or a whole number in every row",
            hint="fill in or drop these rows",
        )
    return [class_name(value) for value in values]


def _is_class(value: object) -> bool:
    if isinstance(value, str):
        return bool(value.strip()) and re.search("[\ud800-\udfff]", value) is None
    return isinstance(value, int | np.integer) or (isinstance(value, float) and value.is_integer())


def _paired(source: str, pair: tuple[Any, ...], class_field: str) -> list[dict[str, Any]]:
    """Rows of (X, y)."""
    if len(pair) != 2 or len(pair[0]) != len(pair[1]):
        raise RecordsError(
            f"{source}: no pair of records and classes",
            expected="(X, y), as many of one as of the other",
            found=" and ".join(str(len(one)) for one in pair) if len(pair) == 2 else f"{len(pair)} parts",
        )
    classes = np.asarray(pair[1])
    if classes.ndim != 1:
        raise RecordsError(f"{source}: not one class a record", expected="one dimension", found=str(classes.ndim))
    names: list[Any] = list(classes.tolist())
    given = pair[0]
    if isinstance(given, list | tuple) and given and all(isinstance(one, str) for one in given):
        return [{"text": one, class_field: name} for one, name in zip(given, names, strict=True)]
    try:
        values = np.asarray(given)
        values = values.astype(np.float64) if values.dtype.kind == "O" else values
    except (ValueError, TypeError):
        values = np.empty(())
    if values.dtype.kind in "UT" and values.ndim == 1:
        return [{"text": str(one), class_field: name} for one, name in zip(values, names, strict=True)]
    if values.ndim == 2 and values.dtype.kind in "fiub":
        columns = [f"x{at}" for at in range(values.shape[1])]
        numbers: Any = values.tolist()
        return [
            dict(zip(columns, row, strict=True)) | {class_field: name} for row, name in zip(numbers, names, strict=True)
        ]
    if values.ndim in (3, 4):
        images = uint8_images(values, source)
        return [{"image": one, class_field: name} for one, name in zip(images, names, strict=True)]
    raise RecordsError(
        f"{source}: X cannot be read",
        expected="numbers (record, feature), images (record, height, width[, channel]), or a list of strings",
        found=f"shape {values.shape}, dtype {values.dtype}" if values.ndim else type(given).__name__,
    )


def _column_names(members: Any, nonmembers: Any) -> tuple[str, ...]:
    """Of the columns of two data frames; none for arrays. Raises RecordsError where one differs from the other."""
    first, second = (tuple(map(str, getattr(one, "columns", ()))) for one in (members, nonmembers))
    if first and second and first != second:
        raise RecordsError(
            "nonmembers: other columns than members",
            expected="the same columns in the same order",
            found=shown_names(sorted(set(first) ^ set(second))) if set(first) != set(second) else "another order",
            hint="choose the columns of both frames by name",
        )
    return first if first == second and len(set(first)) == len(first) else ()


def _is_images(rows: Sequence[Mapping[str, Any]]) -> bool:
    return bool(rows) and "image" in rows[0]


def _checked(records: Records, member: np.ndarray) -> LabelledRecords:
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
        if len(side) > 1 and len(set(side.contents)) == 1:
            raise RecordsError(
                f"all {len(side)} {name} are the same",
                expected="different records",
                found="one distinct record",
                hint="check that the right fields are read",
            )
    if len({one.label for one in records.contents if isinstance(one, Example | TableRow)}) == 1:
        raise RecordsError(
            "all records are of one class",
            expected="at least two classes",
            found="one",
            hint="check that the class field is the right one",
        )
    return labelled
