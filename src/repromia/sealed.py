"""Labels of the eval role: only what measures may open them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool


class SealedLabels:
    """Membership of the eval records.

    Programs, heads, attacks and targets may not import this module (`import-linter` keeps it so), and accept
    only `LabelledRecords` or plain `Records`: they have no way to ask.
    """

    __slots__ = ("_member",)

    def __init__(self, member: Bool[np.ndarray, " record"]) -> None:
        self._member = member.copy()
        self._member.flags.writeable = False

    def __len__(self) -> int:
        return len(self._member)

    def __repr__(self) -> str:
        return f"SealedLabels({len(self)} records)"

    def open_to_measure(self) -> Bool[np.ndarray, " record"]:
        """The labels, read-only, for metrics and controls alone."""
        return self._member
