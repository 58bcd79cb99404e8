"""Is a set that was used found, and one that was not left alone? Repeated draws on a real language model.

    python -m benchmarks.dataset_inference --draws 50 --out /tmp/sets

Each draw shuffles AG News, fine-tunes all weights of stories260k for `EPOCHS` epochs on the first `LARGEST` texts
("used"), and asks `repromia dataset-inference` about "used" and about the next `LARGEST`, which nobody was trained on
("unused"), each against as many of a third part; the attacks that use no labels also about the first texts of each.
Then WikiMIA, whose sides differ by date: to be refused. Finished draws are kept in draws.jsonl and not made again.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.targets import SHARED, _news, _save
from repromia.dataset_command import answer_of
from repromia.dataset_inference import blind_check, dataset_inference
from repromia.intervals import clopper_pearson
from repromia.result import Estimate
from repromia.set_audit import audit_sets
from repromia.set_config import SuspectConfig
from repromia.targets.load import LoadOptions, load_language_model
from repromia.training import train

BASE = SHARED / "stories260k"
EPOCHS = 2
LARGEST = 200
SIZES = (50, 100, LARGEST)
CHOSEN = "chosen on select"
NAMED = ("min_k", "reference")  # use no labels: beforehand, on all records
Row = dict[str, Any]
WIKIMIA = ("wikimia/wikimia_32", "wikimia/wikimia_64", "wikimia/wikimia_128")


def asked(
    model: Path, suspect: Path, heldout: Path, out: Path, *, seed: int, sizes: Sequence[int] = (LARGEST,)
) -> Iterator[Row]:
    """Outcomes by the attack that select chose, on eval records, and by each of `NAMED` on the first of each set."""
    config = SuspectConfig(
        model=str(model),
        reference=str(BASE),
        suspect=suspect,
        heldout=heldout,
        out=out,
        text="text",
        attacks=("loss", *NAMED),
        controls=False,
        bootstrap=200,
        fprs=(0.05,),
        seed=seed,
    )
    audit = audit_sets(config)
    row = audit.headline
    assert row is not None
    chosen = answer_of(audit, row, config)
    yield {
        "attack": CHOSEN,
        "size": LARGEST,
        "outcome": chosen.outcome,
        "p": chosen.p_value,
        "blind": _auc(chosen.blind),
    }
    member = audit.labelled.member
    place = np.where(member, np.cumsum(member), np.cumsum(~member))  # within its set, from 1
    for size in sizes:
        rows = np.flatnonzero(place <= size)
        blind = audit.blind if size == LARGEST else blind_check(audit.labelled.take(rows.tolist()), seed=seed)
        for name in NAMED:
            found = dataset_inference(audit.scores(name)[rows], member[rows], blind=blind, seed=seed)
            yield {"attack": name, "size": size, "outcome": found.outcome, "p": found.p_value, "blind": _auc(blind)}


def _auc(one: Estimate) -> float:
    return round(one.estimate, 4)


def draw(seed: int, out: Path) -> Iterator[Row]:
    """One fine-tune, and the questions about it."""
    news = _news()
    order = np.random.default_rng(seed).permutation(len(news))
    parts = [[news[row] for row in order[at * LARGEST : (at + 1) * LARGEST]] for at in range(3)]
    model = out / f"draw{seed}" / "model"
    if not (model / "model.safetensors").is_file():
        target = load_language_model(str(BASE), LoadOptions())
        target.model.requires_grad_(True)
        train(target.model, target.encoder, parts[0], epochs=EPOCHS, learning_rate=1e-3, batch=16, seed=seed)
        _save(target.model, target.tokenizer, model)
    files = {name: out / f"draw{seed}" / f"{name}.jsonl" for name in ("used", "unused", "heldout")}
    for path, texts in zip(files.values(), parts, strict=True):
        written(path, texts)
    for name in ("used", "unused"):
        folder = out / f"draw{seed}" / name
        for answer in asked(model, files[name], files["heldout"], folder, seed=seed, sizes=SIZES):
            yield {"draw": seed, "set": name, **answer}


def written(path: Path, texts: Sequence[str]) -> Path:
    """A jsonl file of texts."""
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def wikimia(name: str, out: Path) -> str:
    """What is said about the members of WikiMIA against its later non-members, to a model that saw neither of them."""
    with gzip.open(SHARED / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    out = out / Path(name).name
    out.mkdir(parents=True, exist_ok=True)
    sides = [
        written(out / f"{label}.jsonl", [row["input"] for row in rows if row["label"] == label]) for label in (1, 0)
    ]
    answers = list(asked(out.parent / "draw0" / "model", *sides, out / "asked", seed=0))
    outcomes = ", ".join(f"{one['attack']}: {one['outcome']}" for one in answers)
    return f"| {name} | {len(rows)} | {outcomes} | {answers[0]['blind']:.3f} |"


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Shares of draws with 95 % intervals (Clopper-Pearson), used sets beside unused ones."""
    yield "| attack | records a set | used: found | used: refused | unused: called used | unused: refused | draws |"
    yield "|---|---|---|---|---|---|---|"
    for attack in (CHOSEN, *NAMED):
        for size in SIZES if attack in NAMED else (LARGEST,):
            cells = []
            for name in ("used", "unused"):
                own = [
                    row["outcome"] for row in rows if (row["attack"], row["size"], row["set"]) == (attack, size, name)
                ]
                cells += [share(own.count("used"), len(own)), share(own.count("shifted"), len(own))]
            yield f"| {attack} | {size} | {' | '.join(cells)} | {len(own)} |"


def share(count: int, total: int) -> str:
    """A share with its interval."""
    found = clopper_pearson(count, total)
    return f"{found.estimate:.2f} [{found.low:.2f}, {found.high:.2f}]"


def main() -> None:
    """Every draw counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=50)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    kept = given.out / "draws.jsonl"
    rows = [json.loads(line) for line in kept.read_text().splitlines()] if kept.is_file() else []
    for seed in sorted(set(range(given.draws)) - {row["draw"] for row in rows}):
        new = list(draw(seed, given.out))
        with kept.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in new)
        rows += new
    print("\n".join(table(rows)), flush=True)
    print("\n| WikiMIA | records | outcome | blind baseline AUC |\n|---|---|---|---|")
    for name in WIKIMIA:
        print(wikimia(name, given.out), flush=True)


if __name__ == "__main__":
    main()
