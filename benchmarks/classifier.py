"""Audit the classifiers that `benchmarks.classifier_targets` trained: three targets, each with the others as shadows.

    python -m benchmarks.classifier --models /tmp/cifar --build colour --out /tmp/audits --seeds 0 1 2

Audits that were finished are read back. The last model is kept aside as the null target.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from benchmarks.classifier_targets import TARGETS
from benchmarks.diffusion import table
from repromia.config import AuditConfig
from repromia.progress import Silent
from repromia.result import AuditResult
from repromia.run import audit_to_folder

ATTACKS = ("default", "rmia:reference=noise_and_repair/copies=16")


def audit(
    models: Path, seed: int, shadows: int, build: str, out: Path, attacks: tuple[str, ...], *, controls: bool = True
) -> AuditResult:
    """One target's audit. shadows: how many of the models that are no targets; one more is the null model."""
    folder = prepared(models, seed, shadows, out / f"{models.name}-{seed}-of-{shadows}")
    config = AuditConfig(
        model=f"benchmarks.classifier_targets:{build}",
        weights=str(models / f"{seed:02d}.safetensors"),
        members=folder / "members.npz",
        nonmembers=folder / "nonmembers.npz",
        class_field="label",
        shadow_folder=str(folder / "shadows"),
        out=folder / "audit",
        attacks=attacks,
        fprs=(0.01, 0.001),
        program_permutations=1,
        controls=controls,
        batch_images=256,
    )
    return audit_to_folder(config, Silent())


def prepared(models: Path, seed: int, shadows: int, folder: Path) -> Path:
    """members.npz, nonmembers.npz and shadows/ of one target."""
    pool, masks = np.load(models / "pool.npz"), np.load(models / "masks.npz")
    own = masks["inside"][seed]
    place = folder / "shadows"
    place.mkdir(parents=True, exist_ok=True)
    for name, rows in (("members", own), ("nonmembers", ~own)):
        if not (folder / f"{name}.npz").is_file():
            kept = {"images": pool["images"][rows], "labels": pool["labels"][rows], "ids": pool["ids"][rows]}
            np.savez(folder / f"{name}.npz", **kept)
    used = [*range(TARGETS, TARGETS + shadows), len(masks["inside"]) - 1]
    for number, model in enumerate(used):
        link = place / f"shadow{number:02d}.safetensors"
        if not link.exists():
            link.symlink_to((models / f"{model:02d}.safetensors").resolve())
    np.savez(place / "masks.npz", ids=masks["ids"], inside=masks["inside"][used])
    return folder


def main() -> None:
    """Audit and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--build", choices=("colour", "grey"), required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--shadows", type=int, default=15)
    parser.add_argument("--attacks", nargs="*", default=list(ATTACKS))
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    results = {
        f"seed {seed}": audit(given.models, seed, given.shadows, given.build, given.out, tuple(given.attacks))
        for seed in given.seeds
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
