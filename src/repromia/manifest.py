"""The draw that decided membership, as `repromia split` wrote it down, and whether audited records agree with it.

Each unit (a record, or a group) is left out of training if its coin, a number in [0, 1) made by hashing the seed and
the unit's name, is below `holdout`. A coin depends on nothing else: not on the order of the records, nor on which
others there are. Records of equal content are one unit. Nothing here is secret or signed: the manifest shows that
an audit measures what was drawn, to someone who trusts whoever drew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final, Literal

import numpy as np
from jaxtyping import Bool
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from repromia.errors import RecordsError
from repromia.records import LabelledRecords, content_digest

NAME = "manifest.json"
FORMAT: Final = 1


class Canary(BaseModel):
    """A made-up record. inserted: whether it is among the members. The text itself is only in the data."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: str
    digest: str
    inserted: bool


class Manifest(BaseModel):
    """What was drawn. members, nonmembers: digests of the contents of each side, each once, sorted.

    units: by digest, where membership was drawn per group, the name of the unit; otherwise the digest is the unit.
    records: how many each side holds, repeats counted. reading: the fields by which contents were read. files: digest
    of each file written.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: Literal[1] = FORMAT
    repromia: str
    seed: int
    holdout: float = Field(gt=0, lt=1)
    kind: Literal["record", "group"]
    source: str
    reading: dict[str, str]
    records: dict[str, int]
    members: tuple[str, ...] = Field(min_length=1)
    nonmembers: tuple[str, ...] = Field(min_length=1)
    units: dict[str, str]
    canaries: tuple[Canary, ...] = ()
    files: dict[str, str]

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        digests = [*self.members, *self.nonmembers]
        if len(set(digests)) != len(digests):
            raise ValueError("a record is listed twice")
        if set(self.units) != (set(digests) if self.kind == "group" else set()):
            raise ValueError("the units are not those of the records")
        return self

    def sides(self) -> dict[str, bool]:
        """Whether each content, by digest, is a member."""
        return dict.fromkeys(self.members, True) | dict.fromkeys(self.nonmembers, False)

    def unit(self, digest: str) -> str:
        """The unit whose coin decided this content."""
        return self.units.get(digest, digest)


@dataclass(frozen=True)
class Draw:
    """Membership of records as drawn. units: the unit of each record; equal units share one coin."""

    units: tuple[str, ...]
    member: Bool[np.ndarray, " record"]


@dataclass(frozen=True)
class DrawVerdict:
    """Whether the audited membership is what the manifest drew, and in words why (not).

    units: of each audited record, as `repromia.epsilon.by_group` takes them; planted: whether it is a canary; both
    empty where not randomised. complete: whether every drawn record is audited; a selection that looked at membership
    would spoil the coins. canaries: how many of them are audited.
    """

    randomised: bool
    reason: str
    complete: bool
    holdout: float
    kind: Literal["record", "group"]
    units: tuple[str, ...]
    canaries: int
    planted: tuple[bool, ...] = ()


def coin(seed: int, unit: str) -> float:
    """The coin of a unit, in [0, 1): the same for the same seed and unit, as good as independent for others."""
    hashed = blake2b(f"repromia split\0{seed}\0{unit}".encode(), digest_size=8).digest()
    return (int.from_bytes(hashed) >> 11) / 2**53


def draw(digests: Sequence[str], groups: Sequence[str] | None, seed: int, holdout: float) -> Draw:
    """One coin per content, or per group; groups that share a content become one unit.

    digests: of the contents, by record; groups: names by record, or None. The order of the records does not matter.
    """
    units = tuple(digests) if groups is None else _joined_groups(digests, groups)
    out = {unit: coin(seed, unit) < holdout for unit in set(units)}
    return Draw(units, np.array([not out[unit] for unit in units], dtype=np.bool_))


def _joined_groups(digests: Sequence[str], groups: Sequence[str]) -> tuple[str, ...]:
    """Unit of each record: the least of the hashed names of all groups that equal contents tie together."""
    names, group = np.unique(np.array([_hashed(name) for name in groups]), return_inverse=True)
    contents, content = np.unique(np.array(digests), return_inverse=True)
    size = len(names) + len(contents)
    ties = sparse.coo_array((np.ones(len(group), dtype=np.int8), (group, len(names) + content)), shape=(size, size))
    _, part = connected_components(ties, directed=False)
    least: dict[int, str] = {}
    for number, name in zip(part[: len(names)].tolist(), names.tolist(), strict=True):  # in rising order of names
        least.setdefault(number, name)
    return tuple(least[int(part[one])] for one in group)


def _hashed(name: str) -> str:
    return blake2b(f"group\0{name}".encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def read_manifest(path: str | Path) -> Manifest:
    """The manifest in this file, or in this folder. Raises RecordsError where there is none or it is damaged."""
    place = Path(path)
    place = place / NAME if place.is_dir() else place
    try:
        return Manifest.model_validate_json(place.read_bytes())
    except OSError as error:
        raise RecordsError(
            f"{place}: the manifest cannot be read",
            expected="a file written by `repromia split`",
            found=error.strerror or type(error).__name__,
        ) from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise RecordsError(
            f"{place}: not a manifest of `repromia split` (format {FORMAT})",
            found=f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}",
            hint="use the file as it was written, with the version of repromia that wrote it",
        ) from None


def check_manifest(path: str | Path, labelled: LabelledRecords) -> DrawVerdict:
    """Whether these records are on the sides that the manifest in a file or folder drew.

    Records are known by content, whatever they are called. Raises RecordsError as `read_manifest` does; whatever
    else is wrong is the verdict's reason.
    """
    return compare(read_manifest(path), labelled)


def compare(manifest: Manifest, labelled: LabelledRecords) -> DrawVerdict:
    """`check_manifest` for a manifest at hand."""
    digests = [content_digest(content) for content in labelled.records.contents]
    sides = manifest.sides()
    reason = _objection(manifest, digests, labelled.member)
    complete = set(digests) == set(sides)
    made_up = {one.digest for one in manifest.canaries}
    if not reason:
        left_out = "" if complete else f"; {len(set(sides) - set(digests))} drawn ones are not audited"
        agreed = f"all {len(digests)} records are on the side that was drawn with seed {manifest.seed}{left_out}"
    return DrawVerdict(
        randomised=not reason,
        reason=reason or agreed,
        complete=complete,
        holdout=manifest.holdout,
        kind=manifest.kind,
        units=() if reason else tuple(manifest.unit(digest) for digest in digests),
        canaries=len(made_up & set(digests)),
        planted=() if reason else tuple(digest in made_up for digest in digests),
    )


def _objection(manifest: Manifest, digests: Sequence[str], member: Bool[np.ndarray, " record"]) -> str:
    """Why this is not what was drawn; empty where it is."""
    sides = manifest.sides()
    wrong = sum(
        (coin(manifest.seed, manifest.unit(digest)) >= manifest.holdout) != side for digest, side in sides.items()
    )
    if wrong:
        return (
            f"the manifest was changed after the draw: seed {manifest.seed} and holdout {manifest.holdout:g} put "
            f"{wrong} of its {len(sides)} records on the other side"
        )
    unknown = sum(digest not in sides for digest in digests)
    if unknown:
        fields = ", ".join(f"{name} {value!r}" for name, value in manifest.reading.items() if value)
        return (
            f"{unknown} of {len(digests)} records are not in the manifest: they were changed or added since, or read "
            f"by other fields than at the draw ({fields or 'those found by themselves'})"
        )
    moved = sum(sides[digest] != bool(side) for digest, side in zip(digests, member, strict=True))
    return f"{moved} of {len(digests)} records are on the other side than was drawn" if moved else ""
