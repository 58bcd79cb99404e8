"""The records that `repromia split` draws from, and the made-up ones that it adds."""

from __future__ import annotations

from base64 import b32encode
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np

from repromia import class_records, readers
from repromia.duplicates import find_duplicates
from repromia.errors import ConfigError, RecordsError
from repromia.picture_tables import FILE, holds_pictures, read_image_rows
from repromia.picture_values import image_value, picture_of
from repromia.readers import fields_of, has_field, names_of
from repromia.records import Content, LabelledRecords, Records, content_digest
from repromia.rows import Table, read_rows

PLACEHOLDER = "{canary}"


@dataclass(frozen=True)
class SplitOptions:
    """How membership is drawn and how records are read.

    holdout: chance of being left out of training; group: field by which whole groups are drawn; text, class_field,
    image: as the audit will read the records (empty: found by itself, or none); canaries: number of made-up records,
    drawn like all others; canary_template: what each says, with a random string in place of {canary}. Raises
    ConfigError for what cannot be meant.
    """

    holdout: float = 0.5
    seed: int = 0
    group: str = ""
    text: str = ""
    class_field: str = ""
    image: str = ""
    canaries: int = 0
    canary_template: str = PLACEHOLDER

    def __post_init__(self) -> None:
        if not 0 < self.holdout < 1:
            raise ConfigError(
                "nothing can be drawn with this holdout",
                expected="a chance between 0 and 1 of being left out of training",
                found=repr(self.holdout),
                hint="--holdout 0.5, which every bound on epsilon allows",
            )
        if self.canaries < 0 or self.canary_template.count(PLACEHOLDER) != 1:
            raise ConfigError(
                "no canaries can be made",
                expected=f"a number of canaries, and a template that holds {PLACEHOLDER} once",
                found=f"{self.canaries} canaries, {PLACEHOLDER} {self.canary_template.count(PLACEHOLDER)} times",
            )
        if self.canaries and (self.class_field or self.image):
            raise ConfigError(
                "canaries can be made of plain texts only",
                expected="records of one text field",
                found="a class or an image field",
                hint="leave out --canaries",
            )


class Source(NamedTuple):
    """A table and what its rows hold. groups: of each row, where drawn by group; folder: of images, else None."""

    table: Table
    contents: tuple[Content, ...]
    groups: tuple[str, ...] | None
    folder: Path | None


def read_source(data: str, options: SplitOptions) -> Source:
    """The records, read as an audit with the same fields reads them."""
    text, group = options.text or None, options.group or None
    if options.image or (text is None and holds_pictures(data)):
        return _read_images(data, options)
    table = read_rows(data)
    if options.class_field:
        (records,) = class_records._records((table,), ("r",), options.class_field, text, group)
    else:
        records = readers._records(table, "r", text, group)
    return Source(table, records.contents, records.groups if group else None, None)


def _read_images(data: str, options: SplitOptions) -> Source:
    folder, parquet = Path(data).is_dir(), Path(data).suffix.lower() == ".parquet"
    if not folder and not parquet:
        raise RecordsError(
            f"{data}: images of this kind cannot be written to two sides",
            expected="a folder of image files, or a parquet file that holds them",
            hint="give the folder in which the image files lie",
        )
    table, field = read_image_rows(data, options.image or None)
    if folder and table.unit != FILE:
        raise RecordsError(f"{data}: a saved dataset of images", expected="a folder of image files, or a parquet file")
    base = Path() if folder else Path(data).parent  # a folder's rows hold whole paths
    contents, unreadable = [], []
    for row, values in enumerate(table.rows):
        value = image_value(values.get(field), base, table.source)
        try:
            if value is None:
                raise ValueError
            contents.append(picture_of(value))
        except (OSError, ValueError):
            unreadable.append(row)
    if unreadable:
        raise RecordsError(
            f"{table.source}: images cannot be read in {table.where(unreadable)}",
            expected="complete image files of an ordinary size",
            hint="repair or drop them",
        )
    groups = names_of(table, options.group) if options.group else None
    return Source(table, tuple(contents), groups, Path(data) if folder else None)


def _refuse_alike(canaries: Sequence[str]) -> None:
    """Raises RecordsError for canaries that an audit would leave out as near-duplicates of each other."""
    names = tuple(map(str, range(len(canaries))))
    labelled = LabelledRecords(Records(names, tuple(canaries), names), np.zeros(len(canaries), dtype=np.bool_))
    alike = len(np.unique(find_duplicates(labelled).near))
    if alike:
        raise RecordsError(
            "the canaries would be near-duplicates of each other, and no audit could measure them",
            expected=f"a template in which {PLACEHOLDER} (six words) is a good part of the text",
            found=f"{alike} of {len(canaries)} canaries like another one",
            hint="shorten the template to at most 15 words",
        )


def with_canaries(source: Source, options: SplitOptions) -> tuple[Source, range]:
    """The source with canaries at its end, and their positions. Raises RecordsError for records that are no texts."""
    count = len(source.contents)
    if not options.canaries:
        return source, range(0)
    table = source.table
    fields = [
        name
        for name in fields_of(table)
        if all(row.get(name) == content for row, content in zip(table.rows, source.contents, strict=True))
    ]
    if not all(isinstance(content, str) for content in source.contents) or not fields:
        raise RecordsError(
            f"{table.source}: canaries can be made of plain texts only",
            expected="records of one text field",
            hint="leave out --canaries",
        )
    names = [f"canary-{number:04}" for number in range(options.canaries)]
    key = f"{options.seed}\0{sorted(set(map(content_digest, source.contents)))}"
    texts = [options.canary_template.replace(PLACEHOLDER, _secret(key, name)) for name in names]
    if table.source.removesuffix(".gz").endswith(".txt") and any(
        "\n" in text or text != text.strip() for text in texts
    ):
        raise RecordsError(
            "the canary template does not fit into a .txt file", expected="one line that neither starts nor ends blank"
        )
    beside = [name for name in ("id", options.group) if name and has_field(table, name) and name != fields[0]]
    rows = tuple({fields[0]: text, **dict.fromkeys(beside, name)} for name, text in zip(names, texts, strict=True))
    places = tuple(range(table.places[-1] + 1, table.places[-1] + 1 + len(rows)))
    grown = Table(table.source, (*table.rows, *rows), (*table.places, *places), table.unit)
    groups = None if source.groups is None else (*source.groups, *names)
    contents = (*source.contents, *texts)
    if len(set(contents[count:]) - set(source.contents)) != len(names):
        raise RecordsError("a canary says what a record says", hint="choose another seed or template")
    _refuse_alike(texts)
    return Source(grown, contents, groups, None), range(count, len(contents))


def _secret(key: str, name: str) -> str:
    """120 random bits in 24 letters and digits; nobody else's text holds them by chance.

    key: seed and data. By the seed alone, a model trained on an earlier draw of other data would know them already.
    """
    bits = blake2b(f"repromia canary\0{key}\0{name}".encode(), digest_size=15).digest()
    letters = b32encode(bits).decode().lower()
    return "-".join(letters[at : at + 4] for at in range(0, len(letters), 4))
