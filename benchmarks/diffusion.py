"""Audit the targets that `benchmarks.diffusion_targets` trained, each with the next two seeds' as null models.

    python -m benchmarks.diffusion --targets /tmp/targets --names cifar10-0 cifar10-1 cifar10-2 --out /tmp/audits

A target without two others beside it on the command line is audited without a null model. Audits that were finished
are read back. Prints a Markdown table: AUC and TPR at 1 % FPR with intervals, and paired gains.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from repromia.config import AuditConfig
from repromia.progress import Silent
from repromia.result import AuditResult, Gain
from repromia.run import audit_to_folder

PASSIVE = ("naive", "secmi_stat", "pia", "pian", "sima", "pfami", "reference")
PAPER = "reprogram:recipe=paper:where=state:steps=10"
OURS = ("shift_contrast", "shift_contrast:t=30+80", "probe_bank", "reprogram:steps=10", PAPER)


def audit(targets: Path, names: list[str], at: int, weights: str, out: Path, attacks: tuple[str, ...]) -> AuditResult:
    """One target's audit; its null models are the next two of the list."""
    folder = targets / names[at]
    others = [targets / names[(at + step) % len(names)] / weights for step in (1, 2)] if len(names) > 2 else []
    config = AuditConfig(
        model=str(folder / weights),
        reference=str(others[0]) if others else "",
        null_reference=str(others[1]) if others else "",
        members=folder / "members.npz",
        nonmembers=folder / "nonmembers.npz",
        out=out / f"{names[at]}-{weights}",
        attacks=tuple(one for one in attacks if others or one != "reference"),
        fprs=(0.05, 0.01),
        program_permutations=1,
        batch_images=256,
    )
    return audit_to_folder(config, Silent())


def table(results: dict[str, AuditResult]) -> str:
    """Attacks down, targets across."""
    rows = list(dict.fromkeys(row.name for one in results.values() for row in one.attacks))
    lines = ["| | " + " | ".join(results) + " |", "|---" * (len(results) + 1) + "|"]
    lines += [f"| {row} | " + " | ".join(_figures(one, row) for one in results.values()) + " |" for row in rows]
    for role in ("best_passive", "same_supervision", "identity", "null_target"):
        found = {row: [_gain(one, row, role) for one in results.values()] for row in rows}
        lines += [
            f"| {row} - {role} | " + " | ".join(map(_shown, gains)) + " |" for row, gains in found.items() if any(gains)
        ]
    return "\n".join(lines)


def _figures(result: AuditResult, name: str) -> str:
    row = next((one for one in result.attacks if one.name == name), None)
    if row is None or row.auc is None:
        return "" if row is None else "failed"
    tpr = next((one.tpr for one in row.tpr_at_fpr if one.fpr == 0.01), None)  # None: too few records
    null = next((one.auc for one in result.null_target.rows if one.name == name), None)
    shown = f"{row.auc.estimate:.3f}"
    shown += f" / {tpr:.3f}" if tpr is not None else ""
    return shown + (f" ({null.estimate:.3f})" if null else "")


def _gain(result: AuditResult, name: str, role: str) -> Gain | None:
    return next((one for one in result.gains if one.attack == name and one.role == role), None)


def _shown(gain: Gain | None) -> str:
    if gain is None:
        return ""
    tpr = next((one for fpr, one in gain.tpr_at_fpr if fpr == 0.01), None)
    area = gain.auc
    shown = f"{area.estimate:+.3f} [{area.low:+.3f}, {area.high:+.3f}]"
    return shown + (f"; {tpr.estimate:+.3f} [{tpr.low:+.3f}, {tpr.high:+.3f}]" if tpr else "")


def main() -> None:
    """Audit and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", type=Path, required=True)
    parser.add_argument("--names", nargs="+", required=True)
    parser.add_argument("--only", nargs="*", default=[], help="audit these names only; the others are null models")
    parser.add_argument("--weights", choices=("model", "model-ema"), default="model")
    parser.add_argument("--attacks", nargs="*", default=[*PASSIVE, *OURS])
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    results = {
        name: audit(given.targets, given.names, at, given.weights, given.out, tuple(given.attacks))
        for at, name in enumerate(given.names)
        if not given.only or name in given.only
    }
    print(table(results))
    for name, one in results.items():
        print(f"\n{name}: joint null p {one.null_target.joint_p}")
        for control in one.permuted:
            print(f"  permuted {control.name}: {control.mean:+.3f} [{control.low:+.3f}, {control.high:+.3f}]")
        for finding in one.findings:
            print(f"  {finding.sentence}")


if __name__ == "__main__":
    main()
