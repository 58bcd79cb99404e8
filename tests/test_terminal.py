"""The terminal says the same as the report, in 80 columns, and never reads records as markup."""

from __future__ import annotations

from io import BytesIO, StringIO, TextIOWrapper

import pytest
from rich.console import Console

from repromia.result import AuditResult, Finding
from repromia.terminal import print_result
from test_report import ATTACKS, HEADLINE, HEADLINE_SENTENCE, a_result, failed, row


def printed(result: AuditResult, width: int = 80, *, color: bool = False) -> str:
    stream = StringIO()
    console = Console(file=stream, width=width, force_terminal=color, color_system="standard" if color else None)
    print_result(result, console, report_path="/tmp/a/very/long/" + "x" * 90 + "/report.html")  # noqa: S108
    return stream.getvalue()


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_has_everything_at_any_width(width: int) -> None:
    output = printed(a_result(), width)
    joined = " ".join(output.split())
    assert joined.startswith(HEADLINE_SENTENCE)
    assert "Warning: No null target was available." in joined
    assert "has another vocabulary" in joined
    assert output.rstrip().endswith("/report.html")


@pytest.mark.parametrize("width", [80, 120])
def test_table_fits(width: int) -> None:
    lines = printed(a_result(), width).splitlines()
    assert max(len(line) for line in lines if not line.startswith("Report:")) <= width
    for line in ATTACKS:
        assert any(line.name in printed_line for printed_line in lines)
    assert any("loss" in line and "0.561 [0.524, 0.598]" in line for line in lines)


def test_the_headline_is_told_at_a_rate_that_was_asked_for() -> None:
    (measured, *_) = row("loss", "passive", 0.6).tpr_at_fpr
    output = printed(a_result(attacks=(row("loss", "passive", 0.6, tpr_at_fpr=(measured,)),), headline="loss"), 120)
    assert "Headline attack loss: AUC 0.600 [0.563, 0.637]; TPR at 10 % FPR 21.0 % [17.0, 25.0]" in output


def test_failures_are_red() -> None:
    output = printed(a_result(), color=True)
    assert any("\x1b[31m" in line and "could not be measured" in line for line in output.splitlines())


def test_failed_headline_has_no_figure() -> None:
    findings = (Finding(code="failed", level="headline", sentence="The headline attack failed."),)
    attacks = (*ATTACKS[:2], failed(HEADLINE, "reprogrammed"))
    output = " ".join(printed(a_result(attacks=attacks, findings=findings)).split())
    assert f"Headline attack {HEADLINE} could not be measured: reference" in output


def test_nothing_is_read_as_markup_or_control() -> None:
    attacks = (row("[red]x[/nope]\x1b[2J", "passive", 0.5),)
    output = printed(a_result(attacks=attacks, headline="none"), 120)
    assert "[red]x[/nope]⟨U+001B⟩[2J" in output
    assert "\x1b" not in output


def test_plain_ascii_terminal() -> None:
    stream = TextIOWrapper(BytesIO(), encoding="ascii")
    findings = (Finding(code="x", level="headline", sentence="AUC ≥ 0.6 for “prefix”."),)
    print_result(a_result(findings=findings), Console(file=stream, width=80))
    stream.flush()
