"""Train with differential privacy (Opacus) and without, on members drawn by `repromia split`, and audit each model.

    python -m benchmarks.dp_training classifier --out /tmp/dp

The lower bound on epsilon that the audit finds stands beside the epsilon of Opacus' accountant, which must be larger.
Writes pool/ (or pool.jsonl), drawn/, a model and an audit for each epsilon; what is there is used again. docs/dp.md
has the same steps one by one.
"""

from __future__ import annotations

import argparse
import json
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.targets import SHARED
from repromia.config import AuditConfig
from repromia.progress import Silent
from repromia.result import AuditResult
from repromia.run import audit_to_folder
from repromia.sources import read_records
from repromia.split import SplitOptions, split

DELTA = 1e-5
EPSILONS = (math.inf, 8.0, 2.0)
LONGEST = 128  # tokens of a text


@dataclass(frozen=True)
class Recipe:
    """How long and how fast; clip: largest gradient of a record, where training is private."""

    epochs: int
    batch: int
    rate: float
    clip: float = 1.0


def train(
    model: nn.Module,
    records: TensorDataset,
    losses: Callable[[nn.Module, Sequence[Tensor]], Tensor],
    recipe: Recipe,
    *,
    epsilon: float,
    seed: int,
) -> float:
    """Train in place with Adam; with a finite epsilon by DP-SGD. Returns the accountant's epsilon at `DELTA`.

    losses: one number a record, that depends on this record alone: what is clipped is its gradient. A mean over
    all tokens of a batch would not do.
    """
    torch.manual_seed(seed)
    model.train()
    optimiser: Any = torch.optim.Adam([one for one in model.parameters() if one.requires_grad], lr=recipe.rate)
    batches: Any = DataLoader(records, batch_size=recipe.batch, shuffle=True)
    engine = None
    asked = model
    if math.isfinite(epsilon):
        from opacus import PrivacyEngine

        with _known_warnings():
            engine = PrivacyEngine(accountant="prv")
            asked, optimiser, batches = engine.make_private_with_epsilon(
                module=model,
                optimizer=optimiser,
                data_loader=batches,  # sampled anew: each record is in a batch by a coin of its own
                target_epsilon=epsilon,
                target_delta=DELTA,
                epochs=recipe.epochs,
                max_grad_norm=recipe.clip,
            )
    for _ in range(recipe.epochs):
        for batch in batches:
            optimiser.zero_grad()
            if len(batch[0]):
                with _known_warnings():
                    losses(asked, batch).mean().backward()
            optimiser.step()
    model.eval()
    if engine is None:
        return math.inf
    with _known_warnings():
        spent = float(engine.get_epsilon(DELTA))
    asked.remove_hooks()
    return spent


@contextmanager
def _known_warnings() -> Iterator[None]:
    """Without what Opacus says of every training."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Secure RNG turned off")  # noise from /dev/urandom is for production
        warnings.filterwarnings("ignore", "Optimal order is the largest alpha")  # only sizes the accountant's grid
        warnings.filterwarnings("ignore", "Full backward hook is firing")  # the first layer's input has no gradient
        yield


def image_losses(model: nn.Module, batch: Sequence[Tensor]) -> Tensor:
    """Cross entropy of every image."""
    return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")


def text_losses(model: nn.Module, batch: Sequence[Tensor]) -> Tensor:
    """Mean cross entropy of every text's own tokens."""
    ids, counted = batch
    logits = model(input_ids=ids).logits[:, :-1]
    each = nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
    return (each * counted[:, 1:]).sum(1) / counted[:, 1:].sum(1)


def image_pool(folder: Path, count: int, seed: int) -> None:
    """Fashion-MNIST images in a folder a class."""
    from PIL import Image

    arrays = np.load(SHARED / "fashion_mnist" / "fashion_mnist_12k_4k.npz")
    for row in np.random.default_rng(seed).permutation(len(arrays["x_train"]))[:count]:
        place = folder / str(int(arrays["y_train"][row]))
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(arrays["x_train"][row].squeeze()).save(place / f"{row:05d}.png")


def pixels_in(folder: Path) -> TensorDataset:
    """Images of a folder a class, in [0, 1], and their classes."""
    from PIL import Image

    files = sorted(folder.glob("*/*.png"))
    images = np.stack([np.asarray(Image.open(one)) for one in files])
    labels = torch.tensor([int(one.parent.name) for one in files])
    return TensorDataset(torch.from_numpy(images).float()[:, None] / 255, labels)


def tokens_in(path: Path, encoder: Any) -> TensorDataset:
    """Token ids of a file of texts, padded, and which are tokens."""
    texts = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]
    sequences = [one.ids[:LONGEST] for one in encoder.encode(texts)]
    ids = torch.zeros(len(texts), max(map(len, sequences)), dtype=torch.long)
    counted = torch.zeros(ids.shape)
    for row, one in enumerate(sequences):
        ids[row, : len(one)], counted[row, : len(one)] = torch.from_numpy(one), 1.0
    return TensorDataset(ids, counted)


def image_classifier(drawn: Path, place: Path, recipe: Recipe, *, epsilon: float, seed: int) -> float:
    """A small network, trained from scratch on drawn/members, saved as place/model.safetensors."""
    from safetensors.torch import save_file

    from benchmarks.classifier_targets import grey

    torch.manual_seed(seed)
    model = grey()
    spent = train(model, pixels_in(drawn / "members"), image_losses, recipe, epsilon=epsilon, seed=seed)
    save_file(model.state_dict(), place / "model.safetensors")
    return spent


def text_model(drawn: Path, place: Path, recipe: Recipe, *, epsilon: float, seed: int) -> float:
    """stories260k with a LoRA adapter on every linear layer; the adapter alone is trained, and saved in place/."""
    from peft import LoraConfig, get_peft_model

    from repromia.targets.load import LoadOptions, load_language_model, quiet

    target = load_language_model(str(SHARED / "stories260k"), LoadOptions())
    torch.manual_seed(seed)
    with quiet():
        model = get_peft_model(target.model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))
    model.enable_input_require_grads()  # else a hook of Opacus does not see the gradient of the first layer's answer
    records = tokens_in(drawn / "members.jsonl", target.encoder)
    spent = train(model, records, text_losses, recipe, epsilon=epsilon, seed=seed)
    with quiet():
        model.save_pretrained(place)
    return spent


def audited(kind: str, drawn: Path, place: Path, seed: int) -> AuditResult:
    """The audit of what was trained into `place`."""
    given: dict[str, Any]
    if kind == "classifier":
        sides = drawn / "members", drawn / "nonmembers"
        build, weights = "benchmarks.classifier_targets:grey", str(place / "model.safetensors")
        given = {"model": build, "weights": weights, "class_field": "folder", "attacks": ("default",)}
    else:
        sides = drawn / "members.jsonl", drawn / "nonmembers.jsonl"
        attacks = ("loss", "min_k", "min_k_plus_plus", "reference", "ez_mia", "probe_bank:programs=lower_case")
        given = {"model": str(place), "base": str(SHARED / "stories260k"), "attacks": attacks}
    config = AuditConfig(
        members=sides[0],
        nonmembers=sides[1],
        manifest=str(drawn),
        delta=DELTA,
        controls=False,
        program_permutations=0,
        fprs=(0.01,),
        seed=seed,
        out=place / "audit",
        **given,
    )
    return audit_to_folder(config, Silent())


def utility(kind: str, drawn: Path, place: Path) -> float:
    """Accuracy, or perplexity, on the records that were left out."""
    if kind == "classifier":
        from safetensors.torch import load_file

        from benchmarks.classifier_targets import grey

        model = grey()
        model.load_state_dict(load_file(place / "model.safetensors"))
        images, labels = pixels_in(drawn / "nonmembers").tensors
        with torch.no_grad():
            return float((model(images).argmax(1) == labels).float().mean())
    from repromia.targets.load import LoadOptions, load_language_model

    target = load_language_model(str(place), LoadOptions(base=str(SHARED / "stories260k")))
    config = AuditConfig(model="", members=drawn / "members.jsonl", nonmembers=drawn / "nonmembers.jsonl", out=place)
    outside = read_records(config).nonmembers()
    return float(np.exp(-target.signals(target.encode(outside.contents, outside.ids)).logprob.mean()))


KINDS: dict[str, tuple[Callable[..., float], Recipe, Recipe]] = {  # without privacy, and with
    "classifier": (image_classifier, Recipe(30, 64, 2e-3), Recipe(30, 256, 2e-3)),
    "language": (text_model, Recipe(8, 16, 5e-3), Recipe(8, 256, 5e-3)),
}


def main() -> None:
    """Draw, train, audit and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("--records", type=int, default=4000)
    parser.add_argument("--epsilons", type=float, nargs="+", default=EPSILONS, help="inf: without privacy")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    folder = given.out / f"{given.kind}-{given.seed}"
    drawn = _drawn(given.kind, folder, given.records, given.seed)
    make, plain, private = KINDS[given.kind]
    names = ("one_run", "rates", "gaussian_one_run", "gaussian_rates")
    measure = "accuracy" if given.kind == "classifier" else "perplexity"
    print(f"| accountant | {measure} | headline | AUC | " + " | ".join(names) + " |\n" + "|---" * 8 + "|", flush=True)
    for epsilon in given.epsilons:
        place = folder / f"epsilon-{epsilon:g}"
        done = place / "training.json"
        if not done.is_file():
            place.mkdir(parents=True, exist_ok=True)
            recipe = private if math.isfinite(epsilon) else plain
            spent = make(drawn, place, recipe, epsilon=epsilon, seed=given.seed)
            done.write_text(json.dumps({"epsilon": spent if math.isfinite(spent) else None, "delta": DELTA}))
        spent = json.loads(done.read_text())["epsilon"] or math.inf
        result = audited(given.kind, drawn, place, given.seed)
        print(line(result, spent, utility(given.kind, drawn, place), names), flush=True)


def line(result: AuditResult, spent: float, useful: float, names: Sequence[str]) -> str:
    """A row of the table; (!) where a bound is above the accountant's epsilon."""
    row = next(one for one in result.attacks if one.name == result.headline)
    assert row.auc is not None
    bounds = {one.name: one.epsilon for one in result.epsilon.bounds}
    assert result.epsilon.status == "measured", result.epsilon.reason
    shown = [f"{bounds[one]:.2f}" + (" (!)" if bounds[one] > spent else "") for one in names]
    area = f"{row.auc.estimate:.3f} [{row.auc.low:.3f}, {row.auc.high:.3f}]"
    head = "none" if math.isinf(spent) else f"{spent:.2f}"
    return f"| {head} | {useful:.3g} | {row.name} | {area} | " + " | ".join(shown) + " |"


def _drawn(kind: str, folder: Path, count: int, seed: int) -> Path:
    drawn, pool = folder / "drawn", folder / ("pool" if kind == "classifier" else "pool.jsonl")
    if (drawn / "manifest.json").is_file():
        return drawn
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "classifier":
        image_pool(pool, count, seed)
        split(pool, drawn, SplitOptions(seed=seed, class_field="folder"))
        return drawn
    from benchmarks.targets import _news

    texts = _news()
    rows = np.random.default_rng(seed).permutation(len(texts))[:count]
    pool.write_text("".join(json.dumps({"text": texts[row]}) + "\n" for row in rows), encoding="utf-8")
    split(pool, drawn, SplitOptions(seed=seed))
    return drawn


if __name__ == "__main__":
    main()
