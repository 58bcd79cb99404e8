"""Kinds of records that an audit's headline attack is measured on one by one: by length, by class, by any field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np

from repromia.config import AuditConfig
from repromia.errors import ConfigError, RecordsError
from repromia.evaluate import Judge
from repromia.picture_tables import read_image_rows
from repromia.pictures import names_of_images
from repromia.readers import has_field, names_of, require_field
from repromia.records import Chat, Completion, Example, Picture, Records, as_text, class_of
from repromia.result import SliceFigures
from repromia.rows import Table, read_rows
from repromia.signals import Scores
from repromia.slices import bands, slices

MOST = 100  # values of a field: beyond, hardly any slice has enough records, and the field may be the record itself
BANDED = 20  # numbers of more values than this are cut into bands
NONE = "(none)"
LENGTH, CLASS = "characters", "class"

Categories = Mapping[str, Mapping[str, str]]  # field -> id -> value


def read_categories(config: AuditConfig, records: Records) -> Categories:
    """Values of the fields to slice by, of every record. Numbers of many values are cut into bands.

    Raises RecordsError where a table lacks a field; ConfigError where there is no table, or a field has more than
    `MOST` values.
    """
    if not config.slice:
        return {}
    if config.graph:
        raise ConfigError(
            "Nodes cannot be sliced by a field.", found="--graph", hint="leave out --slice: classes are sliced anyway"
        )
    taken = sorted({LENGTH, CLASS} & set(config.slice))
    if taken:
        raise ConfigError(
            f"{taken[0]!r} is the name of a slicing that every audit makes.",
            expected="another field",
            hint="leave it out, or rename the field",
        )
    pictures = isinstance(records.contents[0], Picture)
    sources = ((config.data, "r"),) if config.data else ((str(config.members), "m"), (str(config.nonmembers), "n"))
    tables = [_named_rows(path, prefix, config.image, pictures=pictures) for path, prefix in sources]
    return {field: _values(field, tables) for field in config.slice}


def _named_rows(path: str, prefix: str, image: str, *, pictures: bool) -> tuple[Table, tuple[str, ...]]:
    """The rows of a source and the ids that their records have in an audit."""
    if pictures:
        table = read_image_rows(path, image or None)[0]
        return table, names_of_images(table, prefix)
    table = read_rows(path)
    numbered = tuple(f"{prefix}{row}" for row in range(len(table.rows)))
    return table, names_of(table, "id") if has_field(table, "id") else numbered


def _values(field: str, tables: Sequence[tuple[Table, tuple[str, ...]]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for table, names in tables:
        require_field(table, field, "slice", "name one of the fields found, in the files of both sides")
        read = (row.get(field) for row in table.rows)
        found |= zip(names, (NONE if one is None or one == "" else str(one) for one in read), strict=True)
    distinct = set(found.values())
    if len(distinct) > BANDED and all(map(_is_number, distinct)):
        return dict(zip(found, bands(np.array([float(one) for one in found.values()])), strict=True))
    if len(distinct) > MOST:
        raise ConfigError(
            f"The field {field!r} cannot be sliced by: it has too many values.",
            expected=f"at most {MOST} different values, or numbers in every record",
            found=f"{len(distinct)} values",
            hint="name a field of few kinds, such as language or source",
        )
    return found


def _is_number(value: str) -> bool:
    try:
        return bool(np.isfinite(float(value)))
    except ValueError:
        return False


def slice_figures(
    headline: str, scores: Scores | None, judge: Judge, given: Categories, *, classes: bool = True
) -> tuple[SliceFigures, ...]:
    """The headline attack on every kind of eval records: those given, bands of length, classes.

    scores: of all records; None where the headline could not be measured. classes: whether what stands beside a
    picture is its class. Most exposed first, untested last.
    """
    if scores is None:
        return ()
    measured = judge.roles.eval
    kinds = own_categories(measured, classes=classes) | {
        field: [_known(values, name, field) for name in measured.ids] for field, values in given.items()
    }
    kinds = {name: values for name, values in kinds.items() if len(set(values)) > 1}
    groups = measured.groups if judge.grouped else None
    found = slices(scores[judge.eval_rows], judge.member, kinds, groups, seed=judge.seed)
    return tuple(SliceFigures.model_validate({"attack": headline, **asdict(one)}) for one in found)


def _known(values: Mapping[str, str], name: str, field: str) -> str:
    if name not in values:
        raise RecordsError(
            f"the field {field!r} is not known of every audited record",
            expected="the tables that the records were read from",
            found="a record of another id",
            hint="read records and slices from the same files",
        )
    return values[name]


def own_categories(records: Records, *, classes: bool = True) -> dict[str, list[str]]:
    """What records say of themselves: their length in characters (texts) and their class.

    classes: False where they name none, as pictures that generative models are asked for: captions are personal, and
    values of a slice stand in results.
    """
    found: dict[str, list[str]] = {}
    if all(isinstance(one, str | Chat | Completion | Example) for one in records.contents):
        texts = (one.text if isinstance(one, Example) else as_text(one) for one in records.contents)
        found[LENGTH] = bands(np.array([float(len(text)) for text in texts]))
    named = [class_of(one) for one in records.contents] if classes else []
    if named and all(named) and len(set(named)) <= MOST:
        found[CLASS] = named
    return found
