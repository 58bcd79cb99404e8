"""The full attack table on a real fine-tune: stories260k on a random half of AG News, audited with the other half.

    python -m benchmarks.ag_news --seeds 0 1 2 --out runs/ag_news

Members and non-members are drawn from one pool by lot, so nothing but the model can tell them apart. The recipe
(epochs, learning rate, sizes) was fixed on seed 100; the seeds reported were not looked at before.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path

import numpy as np

from repromia.config import AuditConfig
from repromia.demo.language import Files
from repromia.progress import Silent
from repromia.result import AuditResult, Estimate
from repromia.run import audit_to_folder
from repromia.targets.load import LoadOptions, load_language_model, quiet
from repromia.training import train

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
PER_CLASS = 1430  # leaves 1,000 + 1,000 for eval after fit (.2) and select (.1)
EPOCHS, LEARNING_RATE, BATCH = 4, 1e-3, 16
ATTACKS = ("passive", "reprogram", "reprogram:recipe=paper")


def prepare(folder: Path, seed: int) -> Files:
    """Draw members by lot and fine-tune on them."""
    files = Files(SHARED / "stories260k", folder / "finetuned", folder / "members.jsonl", folder / "nonmembers.jsonl")
    with gzip.open(SHARED / "ag_news" / "ag_news.jsonl.gz", "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]
    order = np.random.default_rng(seed).permutation(len(texts))
    halves = [[texts[row] for row in order[at : at + PER_CLASS]] for at in (0, PER_CLASS)]
    folder.mkdir(parents=True, exist_ok=True)
    for path, part in zip((files.members, files.nonmembers), halves, strict=True):
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in part), encoding="utf-8")
    if not (files.finetuned / "model.safetensors").is_file():
        target = load_language_model(str(files.base), LoadOptions())
        target.model.requires_grad_(True)
        loss = train(
            target.model, target.encoder, halves[0], epochs=EPOCHS, learning_rate=LEARNING_RATE, batch=BATCH, seed=seed
        )
        print(f"seed {seed}: training loss {loss:.3f} nats", flush=True)
        with quiet():
            target.model.save_pretrained(files.finetuned)
            target.tokenizer.save_pretrained(files.finetuned)
    return files


def run_seed(out: Path, seed: int, attacks: tuple[str, ...]) -> AuditResult:
    """Prepare and audit one seed; resumes."""
    folder = out / f"seed{seed}"
    files = prepare(folder, seed)
    config = AuditConfig(
        model=str(files.finetuned),
        reference=str(files.base),
        members=files.members,
        nonmembers=files.nonmembers,
        out=folder / "audit",
        attacks=attacks,
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
    parser.add_argument("--out", type=Path, default=Path("runs/ag_news"))
    parser.add_argument("--attacks", nargs="+", default=list(ATTACKS))
    given = parser.parse_args()
    for seed in given.seeds:
        print(f"== seed {seed}")
        show(run_seed(given.out, seed, tuple(given.attacks)))


if __name__ == "__main__":
    main()
