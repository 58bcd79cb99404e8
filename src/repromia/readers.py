"""From rows to labelled records, refusing what cannot be audited.

A row holds one of: a text field; `messages` (a list of {role, content}); `prompt` and `completion`.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from repromia.errors import RecordsError
from repromia.records import Chat, Completion, Content, LabelledRecords, Records, as_text
from repromia.rows import Table, read_rows, rows_of_objects

TEXT_NAMES = ("text", "input", "content", "document", "passage", "sentence")
_PAIR = "prompt+completion"
_SHAPES = {str: "texts", Chat: "messages", Completion: "prompt and completion"}
_LABELS = {
    "1": True,
    "1.0": True,  # as tables write a column that once had gaps
    "true": True,
    "member": True,
    "0": False,
    "0.0": False,
    "false": False,
    "nonmember": False,
    "non-member": False,
}


def read_members(
    members: str | Path, nonmembers: str | Path, *, text: str | None = None, group: str | None = None
) -> LabelledRecords:
    """Members and non-members from two sources (see `repromia.rows.read_rows` for the formats).

    text: the field that holds the record ("messages" and "prompt+completion" name the other two shapes);
    found by itself when only one field can be meant. group: the field that names a record's group. Ids come
    from a field `id`, else are m0, m1, … and n0, n1, …. Members come first, in file order.

    Raises RecordsError, without record text, for anything that cannot be read or audited.
    """
    return _join(read_rows(members), read_rows(nonmembers), text, group)


def from_objects(
    members: object, nonmembers: object, *, text: str | None = None, group: str | None = None
) -> LabelledRecords:
    """`read_members` for lists of strings or dicts, or polars DataFrames."""
    sides = rows_of_objects("members", members), rows_of_objects("nonmembers", nonmembers)
    return _join(*sides, text, group)


def read_labelled(
    path: str | Path, *, label: str, text: str | None = None, group: str | None = None
) -> LabelledRecords:
    """Records of both sides from one source; the field `label` says which are members.

    Labels: true/false, 1/0, member/nonmember/non-member (upper or lower case). Ids come from a field `id`,
    else are r0, r1, …. Order of the file. Raises RecordsError as `read_members` does.
    """
    table = read_rows(path)
    member = labels_of(table, label)
    return _labelled(_records(table, "r", text, group, skip=(label,)), member)


def _join(members: Table, nonmembers: Table, text: str | None, group: str | None) -> LabelledRecords:
    for side, table in (("members", members), ("non-members", nonmembers)):
        if not table.rows:
            raise RecordsError(f"{table.source}: no records", expected=f"at least one of the {side}", found="none")
    first, second = _records(members, "m", text, group), _records(nonmembers, "n", text, group)
    both = Records(first.ids + second.ids, first.contents + second.contents, first.groups + second.groups)
    return _labelled(both, np.arange(len(both)) < len(first))


def _labelled(records: Records, member: np.ndarray) -> LabelledRecords:
    _check_shapes(records, member)
    repeated = [name for name, count in Counter(records.ids).items() if count > 1]
    if repeated and len(repeated) == len(set(zip(records.ids, records.contents, strict=True))):
        raise RecordsError(
            "members and non-members are the same records",
            expected="records of which only one side was trained on",
            found=f"{len(repeated)} records, each of them twice",
            hint="check the two paths",
        )
    if repeated:
        raise RecordsError(
            "record ids are not unique",
            expected="one id per record, over members and non-members together",
            found=f"{len(repeated)} repeated, such as {', '.join(repeated[:3])}",
            hint="make the field `id` unique or leave it out",
        )
    labelled = LabelledRecords(records, member)
    for name, side in (
        ("members", labelled.members()),
        ("non-members", labelled.nonmembers()),
        ("records", records),
    ):
        if len(side) > 1 and len(set(side.texts())) == 1:
            raise RecordsError(
                f"all {len(side)} {name} have the same text",
                expected="different records",
                found="one distinct text",
                hint="check that the right field is read as the text",
            )
    return labelled


def _check_shapes(records: Records, member: np.ndarray) -> None:
    """Of a prompt and a completion the completion is scored, of a chat what the assistant said, of a text all: sides of
    different shapes would be told apart by the question."""
    shapes = [
        sorted({_SHAPES[type(one)] for one, side in zip(records.contents, member, strict=True) if side == wanted})
        for wanted in (True, False)
    ]
    if shapes[0] != shapes[1]:
        raise RecordsError(
            "members and non-members have different shapes, and would be scored on different parts of a record",
            expected="both as texts, both as messages, or both as prompt and completion",
            found=f"members: {' and '.join(shapes[0])}; non-members: {' and '.join(shapes[1])}",
            hint="write both sides in the shape that the model was trained on",
        )


def _records(table: Table, prefix: str, text: str | None, group: str | None, *, skip: Sequence[str] = ()) -> Records:
    aside = {"id", *skip} | ({group} if group else set())
    shape = _shape(table, text, aside)
    contents = _contents(table, shape)
    ids = names_of(table, "id") if has_field(table, "id") else tuple(f"{prefix}{row}" for row in range(len(contents)))
    return Records(ids, contents, ids if group is None else names_of(table, group))


def fields_of(table: Table) -> tuple[str, ...]:
    """The fields of all rows, in order of first appearance."""
    return tuple(dict.fromkeys(name for row in table.rows for name in row))


def has_field(table: Table, name: str) -> bool:
    """Whether any row has this field."""
    return any(name in row for row in table.rows)


def shown_names(names: Sequence[str]) -> str:
    """The names, for an error."""
    # The header of a file without one is its first record: show only what looks like a name.
    shown = [repr(name) if _is_name(name) else "(not a field name)" for name in names[:12]]
    return ", ".join(shown) + (", …" if len(names) > 12 else "") if shown else "none"


def _is_name(name: str) -> bool:
    return re.fullmatch(r"[\w.+-]{1,40}", name) is not None


def require_field(table: Table, name: str, what: str, hint: str = "name one of the fields found") -> None:
    """Raises RecordsError where no row has this field."""
    columns = fields_of(table)
    if name in columns:
        return
    near = difflib.get_close_matches(name, [column for column in columns if _is_name(column)], n=1)
    raise RecordsError(
        f"{table.source}: there is no {what} field {name!r}",
        expected=repr(name),
        found=shown_names(columns),
        hint=f"did you mean {near[0]!r}?" if near else hint,
    )


def _shape(table: Table, text: str | None, aside: set[str]) -> str:
    """The field to read, or `prompt+completion`."""
    if text is not None and (text != _PAIR or has_field(table, _PAIR)):
        require_field(table, text, "text")
        return text
    if text == _PAIR:
        require_field(table, "prompt", "text")
        require_field(table, "completion", "text")
        return _PAIR
    columns = [name for name in fields_of(table) if name not in aside]
    found = [name for name in columns if name.lower() in TEXT_NAMES or name == "messages"]
    found += [_PAIR] if {"prompt", "completion"} <= set(columns) else []
    if not found:
        found = [name for name in columns if _holds_strings(table, name)]
    if len(found) == 1 and (found[0] == _PAIR or _is_name(found[0])):
        return found[0]
    raise RecordsError(
        f"{table.source}: " + ("more than one field could be the text" if found[1:] else "no text field"),
        expected=f"one of {', '.join(TEXT_NAMES)}, messages, or prompt and completion",
        found=shown_names(found if found[1:] else columns),
        hint="name it with text=… (--text); a csv file needs a header line",
    )


def _holds_strings(table: Table, name: str) -> bool:
    values = [row[name] for row in table.rows if row.get(name) is not None]
    return bool(values) and all(isinstance(value, str) for value in values)


def _contents(table: Table, shape: str) -> tuple[Content, ...]:
    build: Callable[[object], Content | None] = _pair if shape == _PAIR else _single
    values = [row if shape == _PAIR else row.get(shape) for row in table.rows]
    built = [build(value) for value in values]
    wrong = [row for row, content in enumerate(built) if content is None]
    if wrong:
        kinds = Counter("missing or null" if values[row] is None else type(values[row]).__name__ for row in wrong)
        raise RecordsError(
            f"{table.source}: {shape!r} cannot be read in {table.where(wrong)}",
            expected="a string, a list of {role, content} strings, or a prompt and a completion",
            found=", ".join(f"{count} × {kind}" for kind, count in kinds.most_common(5)),
            hint="repair or drop these rows",
        )
    contents = tuple(content for content in built if content is not None)
    _refuse(table, shape, "empty or blank", [_is_blank(content) for content in contents])
    _refuse(table, shape, "not valid Unicode (lone surrogates)", [_is_broken(content) for content in contents])
    return contents


def _refuse(table: Table, shape: str, what: str, bad: Sequence[bool]) -> None:
    positions = [row for row, wrong in enumerate(bad) if wrong]
    if positions:
        raise RecordsError(
            f"{table.source}: {shape!r} is {what} in {table.where(positions)}",
            expected="text in every record",
            hint="repair or drop these rows",
        )


def _single(value: object) -> Content | None:
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        return None
    turns = []
    for turn in value:
        if not isinstance(turn, dict):
            return None
        role, content = turn.get("role"), turn.get("content")
        if not isinstance(role, str) or not isinstance(content, str):
            return None
        turns.append((role, content))
    return Chat(tuple(turns))


def _pair(row: object) -> Content | None:
    prompt = row.get("prompt") if isinstance(row, dict) else None
    completion = row.get("completion") if isinstance(row, dict) else None
    if isinstance(prompt, str) and isinstance(completion, str):
        return Completion(prompt, completion)
    return None


def _is_blank(content: Content) -> bool:
    # A prompt alone is nothing to score: the completion is what was trained on.
    text = content.completion if isinstance(content, Completion) else as_text(content)
    return not text.strip()


def _is_broken(content: Content) -> bool:
    roles = "".join(role for role, _ in content.turns) if isinstance(content, Chat) else ""
    return re.search("[\ud800-\udfff]", as_text(content) + roles) is not None


def names_of(table: Table, name: str) -> tuple[str, ...]:
    """Values of an id or group field, as strings."""
    require_field(table, name, "group")
    values = [row.get(name) for row in table.rows]
    wrong = [row for row, value in enumerate(values) if not _is_identifier(value)]
    if wrong:
        raise RecordsError(
            f"{table.source}: {name!r} does not name the record in {table.where(wrong)}",
            expected="a non-empty string or an integer in every row",
            hint="fill it in, or leave the field out",
        )
    return tuple(str(value) for value in values)


def _is_identifier(value: object) -> bool:
    if isinstance(value, str):
        return bool(value.strip()) and re.search("[\ud800-\udfff]", value) is None
    return isinstance(value, int) and not isinstance(value, bool)


def labels_of(table: Table, label: str) -> np.ndarray:
    """Membership by row. Raises RecordsError where it is not understood or has one class only."""
    require_field(table, label, "label")
    values = [row.get(label) for row in table.rows]
    read = [_LABELS.get(_plain(value)) for value in values]
    classes = {value for value in read if value is not None}
    if None in read or len(classes) < 2:
        wrong = [row for row, value in enumerate(read) if value is None]
        found = list(dict.fromkeys(_shown_label(value) for value in values))
        raise RecordsError(
            f"{table.source}: the label {label!r} "
            + (f"is not understood in {table.where(wrong)}" if wrong else "has one class only"),
            expected="both members (1, true, member) and non-members (0, false, nonmember)",
            found=", ".join(found[:5]) + (f", … ({len(found)} values)" if len(found) > 5 else ""),
            hint="write 1 and 0 or true and false, or name the field that holds them"
            if wrong
            else "add records of the other class",
        )
    return np.array(read, dtype=bool)


def _plain(value: object) -> str:
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value) if whole and isinstance(value, float) else value).strip().casefold()


def _shown_label(value: object) -> str:
    # The wrong field may hold texts, which an error must not repeat.
    return repr(value) if len(repr(value)) <= 24 else f"a {type(value).__name__} of {len(repr(value))} characters"
