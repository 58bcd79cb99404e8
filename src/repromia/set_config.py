"""The configurations of questions about whole sets: an audit's, with the sets in place of members and non-members."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from pydantic import Field, model_validator

from repromia.config import AuditConfig

_Hidden = Parameter(parse=False)


class _SetConfig(AuditConfig):
    """Without the flags that say who is a member, and without those of questions of single records."""

    members: Annotated[Path | None, _Hidden] = None
    nonmembers: Annotated[Path | None, _Hidden] = None
    data: Annotated[str, _Hidden] = ""
    label: Annotated[str, _Hidden] = ""
    manifest: Annotated[str, _Hidden] = ""
    rotations: Annotated[int, _Hidden] = 1
    slice: Annotated[tuple[str, ...], _Hidden] = ()

    def audit_config(self) -> AuditConfig:
        """The audit that scores the records, in the folder `audit` of the result."""
        kept = {name: getattr(self, name) for name in AuditConfig.model_fields}
        return AuditConfig(**(kept | {"out": self.out / "audit"}))


def flags_of(config: type[_SetConfig]) -> tuple[str, ...]:
    """Names of the settings that a user may give."""
    return tuple(name for name, one in config.model_fields.items() if _Hidden not in one.metadata)


class SuspectConfig(_SetConfig):
    """Was this set used? Suspect records stand where an audit has members, held-out ones for non-members."""

    suspect: Path = Field(description="Records of the set in question.")
    heldout: Path = Field(description="Records of the same source that were certainly not used.")
    alpha: float = Field(
        0.05, ge=0.001, lt=0.5, description="Chance of a false alarm that is allowed; 9,999 permutations show .001."
    )
    statistic: Literal["mean", "ranks"] = Field(
        "mean", description="mean: stronger where few records stand out far; ranks: where scores have heavy tails."
    )
    sequential: bool = Field(
        False,
        description="Stay valid while suspect records come in, at whatever moment one stops; needs a --headline that "
        "uses no labels, such as min_k.",
    )

    @model_validator(mode="before")
    @classmethod
    def _sides(cls, given: object) -> object:
        return (
            given | {"members": given.get("suspect"), "nonmembers": given.get("heldout")}
            if isinstance(given, dict)
            else given
        )


class ForgetConfig(_SetConfig):
    """Was this set forgotten? Retained records stand where an audit has members, never-seen ones for non-members."""

    forget: Path = Field(description="Records that the model was made to forget.")
    never_seen: Path = Field(description="Records of the same source that it was never trained on.")
    retained: Path = Field(description="Records of the same source that it was trained on and kept.")
    margin: float = Field(
        0.05, gt=0, lt=0.5, description="Distance of AUC from .5 that still counts as forgotten, on either side."
    )

    @model_validator(mode="before")
    @classmethod
    def _sides(cls, given: object) -> object:
        return (
            given | {"members": given.get("retained"), "nonmembers": given.get("never_seen")}
            if isinstance(given, dict)
            else given
        )
