"""Passive attacks and ReproMIA, learned before and after a defence was put up, against each defence.

    python -m benchmarks.defences classifier --out /tmp/defences

One target a kind of model, members and non-members drawn by lot from one pool. "Transferred": the program that was
learned on the undefended model, asked of the defended one. "Adaptive": learned against the defended model. Audits that
were finished are read back; prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import repromia
from benchmarks.targets import SHARED
from repromia.evaluate import best_on_select
from repromia.records import LabelledRecords
from repromia.result import AttackResult, AuditResult
from repromia.signals import ClassSignals, TokenSignals

SEED = 0
BY_CLASS = ("", "rounding:digits=2", "top_k:k=3", "temperature:t=5", "noise:scale=1", "smoothing", "label_only")
BY_TOKEN = ("", "rounding:digits=1", "top_k:k=20", "temperature:t=5", "noise:scale=1")
BY_NOISE = ("", "rounding:digits=1", "noise:scale=0.1", "smoothing:spread=0.1:copies=2")  # of what a denoiser predicts
BY_LABELS = "reprogram:answers=labels:per_class=100:steps=10"


@dataclass(frozen=True)
class Case:
    """A target and how it is audited. utility: its name, and what of an undefended or defended target's answers about
    the non-members it is."""

    target: Any
    records: LabelledRecords
    defences: tuple[str, ...]
    attacks: tuple[str, ...]
    learned: str
    utility: tuple[str, Callable[[Any], float]]


def classifier(out: Path, label_smoothing: float = 0.0) -> Case:
    """A small network on CIFAR-10, 1,500 members."""
    from benchmarks.classifier_targets import train

    arrays = np.load(SHARED / "cifar10" / "cifar10_12k_4k.npz")
    rows = np.random.default_rng(SEED).permutation(len(arrays["x_train"]))[:3000]
    images, label = arrays["x_train"][rows], arrays["y_train"][rows].astype(np.int64)
    model = train(images[:1500], label[:1500], seed=SEED, augment=False, label_smoothing=label_smoothing)
    records = repromia.load_records((images[:1500], label[:1500]), (images[1500:], label[1500:]))
    attacks = ("passive", "probe_bank", "reprogram:per_class=200")
    return Case(repromia.classifier(model, records), records, BY_CLASS, attacks, attacks[-1], ("accuracy", _accuracy))


def label_smoothing(out: Path) -> Case:
    """The same network on the same records, trained with label smoothing .1: to be set beside `classifier`, none."""
    return replace(classifier(out, 0.1), defences=("",))


def graph(out: Path) -> Case:
    """GraphSAGE on Cora, trained on a random half of the nodes."""
    from benchmarks.graphs import drawn
    from repromia.benchmarks.graph_networks import train
    from repromia.graph_files import read_graph
    from repromia.graph_records import node_records

    cora = read_graph(SHARED / "planetoid" / "cora.npz")
    records = node_records(cora, *drawn(cora.labels, SEED, 0, 0))
    model = train(records.members(), SEED, kind="sage", classes=len(set(cora.labels)))
    attacks = ("passive", "probe_bank", "reprogram")
    defences = tuple(one + (":spread=0.05" if one == "smoothing" else "") for one in BY_CLASS)
    return Case(repromia.classifier(model, records), records, defences, attacks, "reprogram", ("accuracy", _accuracy))


def language(out: Path) -> Case:
    """stories260k, all weights fine-tuned on 500 news texts for four epochs."""
    from benchmarks.targets import _drawn, _fine_tuned, _news

    files, members = _drawn(out / "target", SHARED / "stories260k", _news(), SEED, per_class=500)
    _fine_tuned(files, members, epochs=4, seed=SEED)
    records = repromia.load_records(str(files.members), str(files.nonmembers))
    learned = "reprogram:per_class=60:steps=8"
    attacks = ("loss", "zlib", "min_k", "lowercase", "probe_bank:preset=text_only", learned)
    target = repromia.language_model(str(files.finetuned))
    return Case(target, records, BY_TOKEN, attacks, learned, ("perplexity", _perplexity))


def diffusion(out: Path) -> Case:
    """A small denoiser of handwritten digits of 8 x 8 pixels, 300 members."""
    from repromia.demo.denoiser import Recipe, train_denoiser
    from repromia.demo.diffusion import handwritten_digits

    images = handwritten_digits()
    images = images[np.random.default_rng(SEED).permutation(len(images))]
    pipeline, _ = train_denoiser(images[:300], Recipe(1000, rate=2e-3, channels=(16, 32), ema=0.0), seed=SEED)
    records = repromia.load_records(images[:300], images[300:600])
    learned = "reprogram:steps=5:per_class=50"
    attacks = ("sima:t=30+80", "pia:t=100", "probe_bank:t=30+80", learned)
    target = repromia.diffusion_model(pipeline)
    return Case(target, records, BY_NOISE, attacks, learned, ("error", _error))


CASES: dict[str, Callable[[Path], Case]] = {
    one.__name__: one for one in (classifier, label_smoothing, graph, language, diffusion)
}


def audit(case: Case, defence: str, folder: Path, transferred: Path | None) -> AuditResult:
    """The audit of the target behind one defence (or none)."""
    labels = defence == "label_only"
    kind = case.target.modality
    attacks = tuple(one for one in case.attacks if not (labels and one == case.learned))
    if transferred is not None:
        learned = BY_LABELS if labels else case.learned
        options = learned.partition(":")[2].split(":") if kind == "classifier" and labels else []
        kept = [one for one in options if one.startswith("answers=")]
        attacks += (":".join(["reprogram", *kept, f"program={transferred}"]),)
    if kind == "classifier" and (labels or not defence):
        attacks += (BY_LABELS,)
    return repromia.audit(
        repromia.defended(case.target, *([defence] if defence else [])),
        case.records,
        attacks=attacks,
        fprs=(0.01,),
        controls=False,
        program_permutations=0,
        seed=SEED,
        out=folder / (defence.replace(":", "-") or "none"),
    )


def program_of(folder: Path, *, labels: bool = False) -> Path | None:
    """What was learned on the undefended model; None where nothing did better on select than the record itself."""
    for path in sorted((folder / "none" / "programs").glob("*.json")):
        answers = json.loads(path.read_text()).get("answers", "scores")
        if (answers == "labels") == labels:
            return path.with_suffix(".safetensors")
    return None


def line(result: AuditResult, case: Case, defence: str) -> str:
    """A row of the table."""
    rows = {row.name: row for row in result.attacks}
    learned = BY_LABELS if defence == "label_only" else case.learned
    carried = next((row for name, row in rows.items() if ":program=" in name), None)
    bank = next((row for name, row in rows.items() if name.startswith("probe_bank")), None)
    passive = best_on_select([row for row in result.attacks if row.kind == "passive"])
    with_name = f"{shown(passive)} ({passive.name})" if passive else "–"
    own = shown(rows.get(learned)) + (" †" if learned in rows and kept_identity(rows[learned]) else "")
    target = repromia.defended(case.target, *([defence] if defence else []))
    cells = [defence or "none", with_name, shown(carried) if defence else "", own]
    cells += [shown(bank), shown(rows.get("same_supervision")), f"{case.utility[1]((target, case.records)):.3g}"]
    return "| " + " | ".join(cells) + " |"


def kept_identity(row: AttackResult) -> bool:
    """Whether nothing that was learned did better on select than the unchanged record."""
    return '"kept": "identity"' in json.dumps(row.details)


def shown(row: AttackResult | None) -> str:
    """AUC with its interval, and TPR at 1 %."""
    if row is None or row.auc is None:
        return "–"
    tpr = row.tpr_at_fpr[0].tpr
    low = f"{100 * tpr:.1f} %" if tpr is not None else "–"
    return f"{row.auc.estimate:.3f} [{row.auc.low:.3f}, {row.auc.high:.3f}] / {low}"


def _answers(given: tuple[Any, LabelledRecords]) -> ClassSignals:
    target, records = given
    outside = records.nonmembers()
    batch = target.encode(outside.contents, outside.ids)
    found: ClassSignals = target.signals(batch.inputs, batch.label)
    return found


def _accuracy(given: tuple[Any, LabelledRecords]) -> float:
    found = _answers(given)
    return float((found.predicted == found.label).mean())


def _perplexity(given: tuple[Any, LabelledRecords]) -> float:
    target, records = given
    outside = records.nonmembers()
    found: TokenSignals = target.signals(target.encode(outside.contents, outside.ids))
    return float(np.exp(-found.logprob.mean()))


def _error(given: tuple[Any, LabelledRecords]) -> float:
    """Mean squared error of the predicted noise, every record at one timestep of the whole schedule."""
    target, records = given
    part = target.encode(records.nonmembers().contents)
    generator = torch.Generator().manual_seed(SEED)
    t = torch.randint(target.steps, (len(part),), generator=generator)
    noise = torch.randn(part.clean.shape, generator=generator)
    kept = target.alphas[t][:, None, None, None]
    noisy = (kept.sqrt() * part.clean + (1 - kept).sqrt() * noise).float()
    return float((target.noise(noisy, t, target.conditions(part)) - noise).square().mean())


def main() -> None:
    """Audit and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=sorted(CASES))
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    folder = given.out / given.kind
    case = CASES[given.kind](folder)
    heads = ("defence", "best passive (on select)", "ReproMIA transferred", "ReproMIA adaptive", "probe bank")
    print("| " + " | ".join((*heads, "same supervision", case.utility[0])) + " |\n" + "|---" * 7 + "|", flush=True)
    for defence in case.defences:
        began = time.perf_counter()
        learned = program_of(folder, labels=defence == "label_only") if defence else None
        result = audit(case, defence, folder, learned)
        print(line(result, case, defence), flush=True)
        failed = {row.name: row.reason for row in result.attacks if row.status != "measured"}
        print(f"<!-- {time.perf_counter() - began:.0f} s; failed: {failed or 'none'} -->", flush=True)


if __name__ == "__main__":
    main()
