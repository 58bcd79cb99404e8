"""What reference models cost, and what they find: one model, 4 and 16 shadow models, noised and repaired copies.

    python -m benchmarks.classifier_targets --data CIFAR --models 20 --out /tmp/many
    python -m benchmarks.classifier_targets --data CIFAR --models 8 --out /tmp/few
    python -m benchmarks.shadow_cost --data CIFAR --many /tmp/many --few /tmp/few --out /tmp/cost

The targets (0, 1, 2) of both folders are the same. "One" is a single reference, trained in the same way on half as many
images as the pool has, none of which is in it. Cost is counted in examples that go forward and back in training. Writes
cost.json, cost.md and cost.svg; audits that were finished are read back.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from safetensors.torch import load_file, save_file

import repromia
from benchmarks.classifier import audit as audit_of
from benchmarks.classifier_targets import RECORDS, TARGETS, colour
from repromia.benchmarks.networks import train
from repromia.programs.classifier_copies import NoiseAndRepair
from repromia.result import AuditResult

OFFLINE = ("rmia", "base", "watson", "lira_offline")
ONLINE = ("rmia_online", "lira", "bavaria")
COPIES = (1, 4, 16)
SHADOWS = (4, 16)
EPOCHS, BATCH = 30, 64


def reference(data: Path, path: Path) -> torch.nn.Module:
    """A network of the targets' recipe that saw half as many images as the pool has, all of them others."""
    model = colour()
    if not path.is_file():
        arrays = np.load(data)
        images = np.concatenate([arrays["x_train"], arrays["x_test"]])
        labels = np.concatenate([arrays["y_train"], arrays["y_test"]]).astype(np.int64)
        others = np.random.default_rng(20261).permutation(len(images))[RECORDS : RECORDS + RECORDS // 2]
        save_file(train(images[others], labels[others], seed=100, augment=False).state_dict(), path)
    model.load_state_dict(load_file(path))
    return model.eval()


def audits(models: dict[int, Path], alone: torch.nn.Module, seed: int, out: Path) -> dict[str, AuditResult]:
    """By the kind of references: "one", "copies", "4", "16"."""
    pool, masks = np.load(models[16] / "pool.npz"), np.load(models[16] / "masks.npz")
    own = masks["inside"][seed]
    sides = [(pool["images"][rows], pool["labels"][rows].astype(str)) for rows in (own, ~own)]
    records = repromia.load_records(*sides)
    module = colour()
    module.load_state_dict(load_file(models[16] / f"{seed:02d}.safetensors"))
    names = tuple(map(str, range(10)))
    target, other = (repromia.classifier(one, records, classes=names, batch=256) for one in (module.eval(), alone))
    quick = {"controls": False, "program_permutations": 0, "fprs": (0.01, 0.001)}
    specs = [f"{one}:reference=noise_and_repair/copies={count}" for one in OFFLINE for count in COPIES]
    found = {
        "one": repromia.audit(target, records, reference=other, attacks=OFFLINE, out=out / f"one-{seed}", **quick),
        "copies": repromia.audit(target, records, attacks=tuple(specs), out=out / f"copies-{seed}", **quick),
    }
    for count in SHADOWS:
        folder = out / f"shadows-{count}"
        found[str(count)] = audit_of(models[count], seed, count, "colour", folder, (*OFFLINE, *ONLINE), controls=False)
    return found


def points(found: dict[str, AuditResult]) -> list[dict[str, float | str]]:
    """One target's rows: attack, references, cost, AUC and TPR at 1 % and .1 % FPR."""
    trained = EPOCHS * (RECORDS // 2 // BATCH) * BATCH
    plan = NoiseAndRepair()
    rows: list[dict[str, float | str]] = []
    for kind, result in found.items():
        for row in result.attacks:
            copies = row.name.partition("copies=")[2]
            if row.auc is None or row.kind == "passive" or row.name.startswith("same_supervision"):
                continue
            if kind == "copies" and not copies:
                continue
            examples = int(copies) * plan.steps * plan.batch if copies else trained * int(kind.replace("one", "1"))
            tpr = {one.fpr: one.tpr for one in row.tpr_at_fpr}
            rows.append(
                {
                    "attack": row.name.split(":")[0],
                    "references": f"{copies} copies" if copies else f"{kind} trained",
                    "examples": examples,
                    "auc": row.auc.estimate,
                    "tpr": tpr[0.01] or 0.0,
                    "tpr_low": tpr[0.001] or 0.0,
                }
            )
    return rows


def table(rows: dict[int, list[dict[str, float | str]]]) -> str:
    """Attack by references; targets side by side."""
    lines = ["| references | examples | attack | AUC | TPR at 1 % | TPR at 0.1 % |", "|---" * 6 + "|"]
    first = sorted(rows[min(rows)], key=lambda one: (one["examples"], one["attack"]))
    for one in first:
        same = [
            next(row for row in rows[seed] if (row["attack"], row["references"]) == (one["attack"], one["references"]))
            for seed in sorted(rows)
        ]
        shown = [" ".join(f"{row[name]:.3f}" for row in same) for name in ("auc", "tpr", "tpr_low")]
        lines.append(f"| {one['references']} | {one['examples']:,} | {one['attack']} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def plot(rows: dict[int, list[dict[str, float | str]]], path: Path) -> None:
    """TPR at 1 % FPR against cost: each target a dot, their mean the line."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    attacks = (*OFFLINE, *ONLINE)
    for number, attack in enumerate(attacks):
        for marked, line, mark in (("copies", "--", "s"), ("trained", "-", "o")):
            own = [one for some in rows.values() for one in some if one["attack"] == attack]
            own = [one for one in own if marked in str(one["references"])]
            costs = sorted({one["examples"] for one in own})
            if not costs:
                continue
            values = [[one["tpr"] for one in own if one["examples"] == cost] for cost in costs]
            axes.plot(costs, [np.mean(one) for one in values], line, color=f"C{number}", label=f"{attack}, {marked}")
            for cost, some in zip(costs, values, strict=True):
                axes.plot([cost] * len(some), some, mark, color=f"C{number}", markersize=3)
    axes.set(xscale="log", xlabel="examples of training", ylabel="TPR at 1 % FPR")
    axes.legend(fontsize=7, ncols=2)
    axes.grid(alpha=0.3)
    figure.savefig(path)


def main() -> None:
    """Audit, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--many", type=Path, required=True)
    parser.add_argument("--few", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(TARGETS)))
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    alone = reference(given.data, given.out / "reference.safetensors")
    rows = {
        seed: points(audits({4: given.few, 16: given.many}, alone, seed, given.out)) for seed in sorted(given.seeds)
    }
    (given.out / "cost.json").write_text(json.dumps(rows, indent=1))
    (given.out / "cost.md").write_text(table(rows))
    plot(rows, given.out / "cost.svg")
    print(table(rows))


if __name__ == "__main__":
    main()
