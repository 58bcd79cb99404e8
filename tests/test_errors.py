"""Errors as blocks and on one line."""

from __future__ import annotations

from repromia.errors import AttackError, one_line
from repromia.findings import other_findings
from repromia.result import Duplicates, NullTarget, RecordsSummary, RoleSizes
from test_report import row


def test_one_line_keeps_what_was_expected() -> None:
    block = str(AttackError("No.", expected="0 to 9", found="12", hint="write 3"))
    assert block.count("\n") == 3
    assert one_line(block) == "No. (expected: 0 to 9; found: 12; to do: write 3)"
    assert one_line("RuntimeError: bad\n  File somewhere\nagain") == "RuntimeError: bad"
    assert one_line("") == ""


def test_the_warning_of_a_failed_row_says_what_was_expected() -> None:
    reason = str(AttackError("A timestep lies outside.", expected="0 to 49"))
    failed = row("naive", "passive", 0.5, status="failed", reason=reason)
    sizes = RoleSizes(fit=(0, 0), select=(0, 0), eval=(0, 0))
    records = RecordsSummary(
        n_members=0, n_nonmembers=0, grouped=False, roles=sizes, duplicates=Duplicates(), digest=""
    )
    null = NullTarget(status="not_available")
    (warning, *_) = other_findings([failed], (), (), null, (), records)
    assert warning.sentence == "'naive' could not be measured: A timestep lies outside. (expected: 0 to 49)"
