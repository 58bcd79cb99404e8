"""The central table: gains over all targets, counted by hand."""

from __future__ import annotations

from repromia.benchmarks.central import CentralRow, rows_of, summaries
from repromia.benchmarks.figures import CLAIMS
from repromia.benchmarks.page import as_markdown, central_section
from repromia.result import Estimate, Gain


def estimate(value: float, half: float) -> Estimate:
    return Estimate(estimate=value, low=value - half, high=value + half, method="delong")


def gain(attack: str, value: float, role: str = "best_passive", fpr: float = 0.01) -> Gain:
    tpr = ((fpr, estimate(value / 2, 0.01)),)
    return Gain(attack=attack, over="loss", role=role, auc=estimate(value, 0.02), tpr_at_fpr=tpr)


def rows(suite: str, *values: float) -> list[CentralRow]:
    found: list[CentralRow] = []
    for seed, value in enumerate(values):
        found += rows_of([gain("reprogram", value)], {"reprogram"}, benchmark=suite, modality="language", seed=seed)
    return found


def test_only_gains_of_programs_over_their_two_rivals_count() -> None:
    gains = [
        gain("reprogram:steps=2", 0.1),
        gain("reprogram:steps=2", 0.1, "identity"),
        gain("reprogram:steps=2", 0.2, "same_supervision", fpr=0.05),
        gain("wbc", 0.3),
    ]
    found = rows_of(gains, {"reprogram:steps=2"}, benchmark="news", modality="language", seed=1)
    assert [(one.role, one.auc.estimate, one.tpr is None) for one in found] == [
        ("best_passive", 0.1, False),
        ("same_supervision", 0.2, True),
    ]


def test_intervals_above_across_and_below_nothing_are_counted() -> None:
    (one,) = summaries([*rows("news", 0.1, 0.01), *rows("pages", -0.16)])
    assert one.targets == 3
    assert abs(one.auc - (0.1 + 0.01 - 0.16) / 3) < 1e-12
    assert one.auc_signs == (1, 1, 1)
    assert one.tpr is not None
    assert abs(one.tpr - one.auc / 2) < 1e-12
    assert one.tpr_signs == (1, 1, 1)


def test_the_table_stands_beside_the_papers_claims() -> None:
    text = as_markdown([central_section([*rows("news", 0.1, 0.01), *rows("pages", -0.16)], CLAIMS)])
    assert "| language | reprogram | best passive | 3 | -0.017 | 1, 1, 1 |" in text
    assert "| news | reprogram | best passive | +0.100 [+0.080, +0.120]; +0.010 [-0.010, +0.030] |" in text
    assert "| language | best passive | +0.0525 | +0.1068 | Huang" in text
    assert "| diffusion | best passive | +0.0370 | +0.1240 | Huang" in text
