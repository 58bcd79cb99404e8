"""Is a model that forgot told from one that did not, and from one that was pushed too far? On a real language model.

    python -m benchmarks.unlearning --seeds 0 1 --out /tmp/unlearning

Each seed shuffles AG News into forget, retained and never-seen texts, `SIZE` each, and fine-tunes stories260k on forget
and retained ("untouched") and on retained alone ("retrained"). The others start from "untouched" and unlearn, with
retained texts beside: gradient ascent (Jang et al. 2023, arXiv 2210.01504; with the retained texts Yao et al. 2023,
arXiv 2310.10683) and negative preference optimisation (Zhang et al. 2024, arXiv 2404.05868). `repromia unlearning` is
asked about each. Models and audits that are there are used again. One core: about five minutes a seed.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from benchmarks.dataset_inference import BASE, written
from benchmarks.targets import _news, _save
from repromia.set_config import ForgetConfig
from repromia.targets.load import LoadOptions, load_language_model
from repromia.targets.tokens import Encoder
from repromia.training import train
from repromia.unlearning_command import FILE, UnlearningAnswer, unlearning_command

SIZE = 800
MARGIN = 0.1  # the default of .05 needs twice as many texts
EPOCHS = 4
BETA = 0.1  # of negative preference: small is close to gradient ascent
Way = Literal["ascent", "negative_preference"]


def unlearn(
    model: Any,
    encoder: Encoder,
    forget: Sequence[str],
    retained: Sequence[str],
    *,
    way: Way,
    steps: int,
    rate: float,
    seed: int = 0,
    batch: int = 16,
) -> None:
    """Fine-tune in place away from `forget`, and on `retained` as in training; one batch of each a step."""
    before = copy.deepcopy(model).eval()
    optimiser = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=rate, weight_decay=0.0)
    generator = np.random.default_rng(seed)
    drawn = [[one.ids for one in encoder.encode(list(texts))] for texts in (forget, retained)]
    model.train()
    for _ in range(steps):
        away, kept = (
            [torch.from_numpy(ids[row]) for row in generator.choice(len(ids), batch, replace=False)] for ids in drawn
        )
        known, count = log_probability(model, away)
        if way == "ascent":
            loss = known.sum() / count.sum()
        else:
            with torch.no_grad():
                first, _ = log_probability(before, away)
            loss = -2 / BETA * torch.nn.functional.logsigmoid(-BETA * (known - first)).mean()
        known, count = log_probability(model, kept)
        (loss - known.sum() / count.sum()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
    model.eval()


def log_probability(model: Any, texts: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Log-probability of each text in nats, (text), and its number of predicted tokens, (text)."""
    ids = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
    labels = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=-100)[:, 1:]
    each = torch.nn.functional.cross_entropy(
        model(input_ids=ids).logits[:, :-1].transpose(1, 2), labels, ignore_index=-100, reduction="none"
    )
    return -each.sum(dim=1), (labels != -100).sum(dim=1)


# name -> way, steps and rate of unlearning; fixed before the first run, after trials on the model of the tests.
UNLEARNED: dict[str, tuple[Way, int, float]] = {
    "ascent": ("ascent", 100, 1e-3),
    "negative_preference": ("negative_preference", 100, 1e-3),
}


def prepare(seed: int, out: Path) -> tuple[str, ...]:
    """Texts and models of one seed; the names of the models."""
    news = _news()
    order = np.random.default_rng(seed).permutation(len(news))
    names = ("forget", "retained", "never_seen")
    texts = {name: [news[row] for row in order[at * SIZE : (at + 1) * SIZE]] for at, name in enumerate(names)}
    out.mkdir(parents=True, exist_ok=True)
    for name in names:
        written(out / f"{name}.jsonl", texts[name])
    first = {"untouched": texts["forget"] + texts["retained"], "retrained": texts["retained"]}
    for name, kept in first.items():
        if not (out / name / "model.safetensors").is_file():
            target = load_language_model(str(BASE), LoadOptions())
            target.model.requires_grad_(True)
            train(target.model, target.encoder, kept, epochs=EPOCHS, learning_rate=1e-3, batch=16, seed=seed)
            _save(target.model, target.tokenizer, out / name)
    for name, (way, steps, rate) in UNLEARNED.items():
        if not (out / name / "model.safetensors").is_file():
            target = load_language_model(str(out / "untouched"), LoadOptions())
            target.model.requires_grad_(True)
            own = (texts["forget"], texts["retained"])
            unlearn(target.model, target.encoder, *own, way=way, steps=steps, rate=rate, seed=seed)
            _save(target.model, target.tokenizer, out / name)
    return (*first, *UNLEARNED)


def asked(name: str, out: Path, seed: int) -> UnlearningAnswer:
    """What `repromia unlearning` says about one model."""
    config = ForgetConfig(
        model=str(out / name),
        reference=str(BASE),
        forget=out / "forget.jsonl",
        never_seen=out / "never_seen.jsonl",
        retained=out / "retained.jsonl",
        out=out / f"{name}-asked",
        text="text",
        attacks=("loss", "min_k", "reference"),
        controls=False,
        margin=MARGIN,
        seed=seed,
    )
    unlearning_command(config, Console(quiet=True))
    return UnlearningAnswer.model_validate_json((config.out / FILE).read_bytes())


def line(seed: int, name: str, found: UnlearningAnswer) -> str:
    """One row of the table."""
    forget, retained = (f"{one.estimate:.3f} [{one.low:.3f}, {one.high:.3f}]" for one in (found.forget, found.retained))
    others = ", ".join(f"{one.attack} {one.auc.estimate:.3f}" for one in found.attacks if one.attack != found.attack)
    return f"| {seed} | {name} | {found.outcome} | {found.attack} | {forget} | {retained} | {others} |"


def main() -> None:
    """Every seed by itself: they share records and must not be pooled."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    print("| seed | model | outcome | attack | AUC forget : never seen | AUC retained : never seen | other attacks |")
    print("|---|---|---|---|---|---|---|")
    for seed in given.seeds:
        folder = given.out / f"seed{seed}"
        for name in prepare(seed, folder):
            print(line(seed, name, asked(name, folder, seed)), flush=True)


if __name__ == "__main__":
    main()
