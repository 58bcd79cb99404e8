"""Finished audits of one suite side by side, as docs/results/classifiers.md shows them.

    python -m benchmarks.classifier_table AUDIT [AUDIT …]

Each argument is a folder with a result.json, one a seed; in a cell the seeds follow each other.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from repromia.result import AttackResult, AuditResult, Estimate

OURS = ("reprogram", "probe_bank", "rmia:reference")
OVER = {"best_passive": "best passive", "same_supervision": "same supervision", "identity": "identity"}


def attacks(results: list[AuditResult]) -> str:
    """AUC, TPR at 1 % and 0.1 % FPR and the null target's AUC."""
    names = list(dict.fromkeys(row.name for one in results for row in one.attacks))
    lines = ["| attack | AUC | TPR at 1 % | TPR at 0.1 % | null AUC |", "|---" * 5 + "|"]
    for name in names:
        rows = [next((row for row in one.attacks if row.name == name), None) for one in results]
        nulls = [next((row.auc for row in one.null_target.rows if row.name == name), None) for one in results]
        area = [_auc(row.auc if row else None) for row in rows]
        tprs = [[_tpr(row, fpr) for row in rows] for fpr in (0.01, 0.001)]
        cells = (area, *tprs, [_auc(one) for one in nulls])
        lines.append(f"| {name} | " + " | ".join(" ".join(one) for one in cells) + " |")
    return "\n".join(lines)


def gains(results: list[AuditResult]) -> str:
    """Paired differences of what asks the model otherwise."""
    lines = ["| attack | over | AUC | TPR at 1 % FPR |", "|---" * 4 + "|"]
    wanted = dict.fromkeys((one.attack, one.role) for result in results for one in result.gains)
    for name, role in wanted:
        if role not in OVER or not name.startswith(OURS) or name.endswith("references=true"):
            continue
        found = [next((g for g in one.gains if (g.attack, g.role) == (name, role)), None) for one in results]
        area = "; ".join(_difference(one.auc if one else None) for one in found)
        tpr = "; ".join(_difference(dict(one.tpr_at_fpr).get(0.01) if one else None) for one in found)
        lines.append(f"| {name} | {OVER[role]} | {area} | {tpr} |")
    return "\n".join(lines)


def controls(results: list[AuditResult]) -> str:
    """Blind baselines, the joint null test and permuted labels."""
    blind: dict[str, list[str]] = {}
    for row in (row for one in results for row in one.blind):
        blind.setdefault(row.name, []).append(_auc(row.cross_validated_auc))
    lines = [f"* {name}: {' '.join(found)}" for name, found in blind.items()]
    lines.append("* joint null p: " + " ".join(f"{one.null_target.joint_p or float('nan'):.3f}" for one in results))
    for name in dict.fromkeys(one.name for result in results for one in result.permuted):
        found = [next((one for one in result.permuted if one.name == name), None) for result in results]
        shown = "; ".join(f"{one.mean:+.3f} [{one.low:+.3f}, {one.high:+.3f}]" if one else "–" for one in found)
        lines.append(f"* permuted labels, {name}: {shown}")
    return "\n".join(lines)


def _tpr(row: AttackResult | None, fpr: float) -> str:
    return (
        next((f"{one.tpr:.3f}" for one in row.tpr_at_fpr if one.fpr == fpr and one.tpr is not None), "–")
        if row
        else "–"
    )


def _auc(found: Estimate | None) -> str:
    return f"{found.estimate:.3f}" if found else "–"


def _difference(found: Estimate | None) -> str:
    return f"{found.estimate:+.3f} [{found.low:+.3f}, {found.high:+.3f}]" if found else "–"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audits", type=Path, nargs="+")
    given = parser.parse_args()
    results = [AuditResult.model_validate_json((one / "result.json").read_bytes()) for one in given.audits]
    sizes = ", ".join(" + ".join(map(str, one.records.roles.eval)) for one in results)
    print(f"eval: {sizes}\n\n{attacks(results)}\n\n{gains(results)}\n\n{controls(results)}")
    for one in results:
        print(f"\n{one.findings[0].sentence}")


if __name__ == "__main__":
    main()
