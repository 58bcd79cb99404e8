"""How figures and foreign text are written, the same in the report and on the terminal."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from typing import Final, NamedTuple

from repromia.report.vocabulary import vocabulary
from repromia.result import AttackResult, AuditResult, Estimate, Gain, Kind, TprAtFpr

WHICH_BOUND: Final = (
    "The bound to name is the first, of one training run: it holds whatever records do to each other. The others hold "
    "only as far as what they assume does, and each has its confidence alone: the largest of them has not."
)
KINDS: Final[tuple[Kind, ...]] = ("reprogrammed", "head", "reference", "passive", "blind")


KIND_WORDS: Final[dict[Kind, str]] = {
    "reprogrammed": "the model is asked under a changed question",
    "head": "same supervision: the same labelled records, without a program",
    "reference": "compared with {second}",
    "passive": "the model's ordinary answers only",
    "blind": "never sees the model",
}

GAIN_WORDS: Final[dict[str, str]] = {
    "best_passive": "best passive attack (chosen on select)",
    "same_supervision": "head with the same supervision",
    "blind": "blind baseline",
    "identity": "same attack without the program",
    "null_target": "same attack on the null target",
}


def kind_words(kind: Kind, modality: str) -> str:
    """What a kind of attack is."""
    return KIND_WORDS[kind].format(second=vocabulary(modality).second)


# Joiners are part of ordinary Persian, Hindi and emoji text; they hide nothing.
_JOINERS: Final = "\u200c\u200d"
_HIDDEN: Final = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")


class Cell(NamedTuple):
    """A table cell: the figure, and a remark that must be read with it."""

    text: str
    remark: str = ""
    measured: bool = True


def visible(text: str) -> str:
    """`text` with control, bidirectional and surrogate characters spelled out; newlines and tabs stay."""
    return "".join(_visible_character(character) for character in text)


def _visible_character(character: str) -> str:
    if character in "\n\t" or character in _JOINERS:
        return character
    if unicodedata.category(character) not in _HIDDEN:
        return character
    return f"⟨U+{ord(character):04X}⟩"  # not the pictures of U+2400: few fonts have them


def excerpt(text: str, *, length: int = 300) -> str:
    """The first `length` characters on one line, with nothing in them hidden."""
    cut = text[:length].replace("\r\n", "\n").replace("\n", " ↵ ").replace("\t", " ⇥ ")
    return visible(cut) + (" … (cut)" if len(text) > length else "")


def over_words(gain: Gain) -> str:
    """What a difference is over; names the row that the TPR is compared with where it is another."""
    rivals = [f"; TPR at {fpr_words(fpr)} FPR over {name}, the best there" for fpr, name in gain.over_at_fpr]
    return GAIN_WORDS[gain.role] + "".join(rivals)


def percent(share: float) -> str:
    """0.031 -> "3.1 %", 0.0004 -> "0.04 %"."""
    return f"{100 * share:.{_digits(share)}f} %"


def _digits(share: float) -> int:
    return 2 if 0 < abs(share) < 0.01 else 1


def fpr_words(fpr: float) -> str:
    """0.001 -> "0.1 %"."""
    return f"{100 * fpr:g} %"


def auc_words(estimate: Estimate) -> str:
    """ "0.621 [0.580, 0.662]"."""
    return f"{estimate.estimate:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def share_words(share: float, low: float | None, high: float | None) -> str:
    """ "3.1 % [1.2, 5.9]"."""
    if low is None or high is None:
        return percent(share)
    digits = _digits(share)
    return f"{percent(share)} [{100 * low:.{digits}f}, {100 * high:.{digits}f}]"


def gain_words(estimate: Estimate, *, points: bool = False) -> str:
    """ "+0.021 [-0.004, +0.046]"; with `points`, in percentage points."""
    if points:
        middle, low, high = (100 * figure for figure in (estimate.estimate, estimate.low, estimate.high))
        return f"{middle:+.1f} [{low:+.1f}, {high:+.1f}]"
    return f"{estimate.estimate:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"


def gain_reading(estimate: Estimate) -> str:
    """What the paired interval allows one to say."""
    if estimate.low > 0:
        return "higher"
    return "lower" if estimate.high < 0 else "not told apart"


def duration(seconds: float) -> str:
    """8.25 -> "8.2 s", 200 -> "3 min 20 s"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def moment(iso: str) -> str:
    """ "2026-11-23T13:00:00+00:00" -> "2026-11-23, 13:00 UTC"; other texts as they are."""
    try:
        found = datetime.fromisoformat(iso)
    except ValueError:
        return iso
    return f"{found.astimezone(UTC):%Y-%m-%d, %H:%M} UTC" if found.tzinfo else iso


def failure(status: str, reason: str) -> str:
    """Why there is no figure. Never empty."""
    begin = "not available" if status == "not_available" else "could not be measured"
    return f"{begin}: {reason.strip() or 'no reason was recorded'}"


def auc_cell(row: AttackResult) -> Cell:
    """The AUC of a row, or why there is none."""
    if row.status != "measured":
        return Cell(failure(row.status, row.reason), measured=False)
    if row.auc is None:
        return Cell(failure("failed", row.reason), measured=False)
    return Cell(auc_words(row.auc))


def first_fpr(row: AttackResult) -> float:
    """The false positive rate to speak of first: 1 % where it was measured, else the smallest that was, else 1 %."""
    measured = [one.fpr for one in row.tpr_at_fpr if one.tpr is not None]
    return 0.01 if 0.01 in measured else min(measured, default=0.01)


def tpr_cell(row: AttackResult, fpr: float) -> Cell:
    """The TPR of a row at one FPR, or why there is none."""
    if row.status != "measured":
        return Cell(failure(row.status, row.reason), measured=False)
    found = next((point for point in row.tpr_at_fpr if point.fpr == fpr), None)
    if found is None:
        return Cell("not asked for", measured=False)
    if found.status == "refused" or found.tpr is None:
        return Cell("refused", found.reason.strip() or "no reason was recorded", measured=False)
    return Cell(share_words(found.tpr, found.low, found.high), _tpr_remark(found))


def _tpr_remark(point: TprAtFpr) -> str:
    remarks = []
    if point.status == "coarse":
        remarks.append("coarse: " + (point.reason or "fewer than 3 false positives were allowed"))
    if point.smallest_visible is not None and point.tpr is not None and point.tpr < point.smallest_visible:
        remarks.append(f"below {percent(point.smallest_visible)}, the least that could be told from chance")
    return "; ".join(remarks)


def null_cell(result: AuditResult, name: str) -> Cell:
    """The AUC of the same attack on the null target, or why there is none."""
    null = result.null_target
    if null.status != "measured":
        return Cell("none", failure(null.status, null.reason), measured=False)
    found = next((row for row in null.rows if row.name == name), None)
    if found is None:
        return Cell("none", "not asked of the null target", measured=False)
    if found.status != "measured" or found.auc is None:
        return Cell("none", failure(found.status, found.reason), measured=False)
    return Cell(auc_words(found.auc))


def table_rows(result: AuditResult) -> tuple[AttackResult, ...]:
    """Every row, blind baselines included: by kind, then best on select first, unmeasured rows last."""
    names = {row.name for row in result.attacks}
    blind = (baseline.fitted for baseline in result.blind if baseline.fitted.name not in names)
    rows = (*result.attacks, *blind)
    return tuple(sorted(rows, key=lambda row: (KINDS.index(row.kind), -rank(row), row.name)))


def rank(row: AttackResult) -> float:
    """The AUC to sort by: that of select, else of eval, else -1."""
    if row.status != "measured":
        return -1.0
    if row.select_auc is not None:
        return row.select_auc
    return row.auc.estimate if row.auc is not None else -1.0


def headline_row(result: AuditResult) -> AttackResult | None:
    """The row of the headline attack; None where there is none."""
    return next((row for row in table_rows(result) if row.name == result.headline), None)


def all_fprs(result: AuditResult) -> tuple[float, ...]:
    """Every false positive rate that a row reports, largest first."""
    return tuple(sorted({point.fpr for row in table_rows(result) for point in row.tpr_at_fpr}, reverse=True))
