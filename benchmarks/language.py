"""Attack tables on real fine-tunes, audited with the records that were kept aside.

    python -m benchmarks.language --target stories_ag_news --seeds 0 1 2 --out runs

Targets: benchmarks/targets.py. Recipes and presets were fixed on stories_ag_news at seed 100.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.targets import TARGETS
from repromia.config import AuditConfig
from repromia.progress import Silent
from repromia.result import AuditResult, Estimate
from repromia.run import audit_to_folder

ATTACKS = (
    "passive",
    "probe_bank",
    "probe_bank:preset=repair",
    "wbc:reference=noise_and_repair",
    "ez_mia:reference=noise_and_repair",
)


def run_seed(
    out: Path, target: str, seed: int, attacks: tuple[str, ...], *, transfer_from: str = "", controls: bool = True
) -> AuditResult:
    """Prepare and audit one seed; resumes."""
    folder = out / target / f"seed{seed}"
    files = TARGETS[target](folder, seed)
    config = AuditConfig(
        model=str(files.finetuned),
        reference="" if target.endswith("_lora") else str(files.base),
        members=files.members,
        nonmembers=files.nonmembers,
        out=folder / "audit",
        attacks=attacks,
        transfer_from=transfer_from,
        controls=controls,
        seed=seed,
    )
    return audit_to_folder(config, Silent())


def show(result: AuditResult) -> None:
    """The figures of one seed as text."""
    for finding in result.findings:
        print(f"[{finding.level}] {finding.sentence}")
    nulls = {row.name: row.auc for row in result.null_target.rows}
    for row in (*result.attacks, *(one.fitted for one in result.blind)):
        at = {one.fpr: one for one in row.tpr_at_fpr}
        low = at.get(0.01)
        tpr = f"{low.tpr:.3f} [{low.low:.3f}, {low.high:.3f}]" if low and low.tpr is not None else "-"
        print(f"{row.name:40s} {words(row.auc)}  {tpr}  null {words(nulls.get(row.name))}  {row.seconds:.0f} s")
    for gain in result.gains:
        if gain.role != "blind":
            tprs = ", ".join(f"{fpr:g}: {words(one, sign=True)}" for fpr, one in gain.tpr_at_fpr)
            print(f"gain {gain.attack} - {gain.over}: AUC {words(gain.auc, sign=True)}; TPR {tprs}")
    for one in result.families:
        gain = words(one.gain.auc, sign=True) if one.gain else "-"
        cost = f"{one.relative_tokens or 0:.1f} x tokens, {one.relative_seconds or 0:.1f} x seconds"
        print(f"family {one.attack} {one.family}: {gain}; {one.passes:g} passes, {cost} {one.could_not or ''}")
    for control in result.permuted:
        print(f"permuted {control.name}: {control.mean:.3f} [{control.low:.3f}, {control.high:.3f}] {control.repeats}x")
    joint = result.null_target.joint_p
    print(f"null joint p {joint:.3f}" if joint is not None else "no null", f"; {result.seconds:.0f} s", flush=True)


def words(one: Estimate | None, *, sign: bool = False) -> str:
    """An estimate with its interval."""
    shown = "+.3f" if sign else ".3f"
    return "-" if one is None else f"{one.estimate:{shown}} [{one.low:{shown}}, {one.high:{shown}}]"


def main() -> None:
    """Every seed by itself: they share records and must not be pooled."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--target", choices=sorted(TARGETS), default="stories_ag_news")
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--attacks", nargs="+", default=list(ATTACKS))
    parser.add_argument("--transfer-from", default="", help="audit of a shadow model")
    parser.add_argument("--no-controls", action="store_true")
    given = parser.parse_args()
    for seed in given.seeds:
        print(f"== {given.target} seed {seed}")
        controls = not given.no_controls
        show(
            run_seed(
                given.out,
                given.target,
                seed,
                tuple(given.attacks),
                transfer_from=given.transfer_from,
                controls=controls,
            )
        )


if __name__ == "__main__":
    main()
