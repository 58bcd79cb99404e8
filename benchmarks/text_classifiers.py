"""Audit small BERTs that classify news: 2,000 members, 2,000 others, and a reference trained on 1,000 more.

    python -m benchmarks.text_classifiers --data ../shared/data/ag_news/ag_news.jsonl.gz --out /tmp/texts --seeds 0 1 2

Every seed draws the three parts anew from 5,000 items and trains both models; the reference is the null target too.
Audits that were finished are read back.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

import repromia
from benchmarks.diffusion import table
from repromia.result import AuditResult
from repromia.rows import read_rows

ATTACKS = (
    *("loss", "scaled_logit", "entropy", "margin", "correctness", "qmia", "base", "rmia"),
    *("probe_bank", "reprogram", "reprogram:recipe=paper"),
)
CLASSES = 4
LENGTH = 96


def tokenizer(texts: list[str]) -> Any:
    """Word pieces, learned on these texts."""
    from tokenizers import BertWordPieceTokenizer
    from tokenizers.processors import BertProcessing
    from transformers import PreTrainedTokenizerFast

    pieces = BertWordPieceTokenizer()
    pieces.train_from_iterator(texts, vocab_size=4000, show_progress=False)
    ends = [(one, pieces.token_to_id(one)) for one in ("[SEP]", "[CLS]")]
    pieces._tokenizer.post_processor = BertProcessing(*ends)
    named = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=pieces._tokenizer, model_max_length=LENGTH, **named)


@torch.enable_grad()
def train(words: Any, texts: list[str], labels: list[int], seed: int, epochs: int = 10) -> torch.nn.Module:
    """A BERT of two layers and 0.4 million weights, with dropout, by AdamW."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=LENGTH,
        pad_token_id=words.pad_token_id,
        num_labels=CLASSES,
    )
    model = BertForSequenceClassification(config).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(texts)).split(32):
            given = words([texts[row] for row in rows], truncation=True, padding=True, return_tensors="pt")
            optimiser.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(**given).logits, torch.tensor(labels)[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return model.eval().requires_grad_(False)


def audit(data: Path, seed: int, out: Path) -> AuditResult:
    """One seed's target."""
    rows = read_rows(data).rows
    order = np.random.default_rng(seed).permutation(len(rows))
    parts = [([str(rows[at]["text"]) for at in one], [int(str(rows[at]["label"])) for at in one])
             for one in (order[:2000], order[2000:4000], order[4000:])]  # fmt: skip
    words = tokenizer(parts[2][0])
    records = repromia.load_records(parts[0], parts[1])
    target, reference = (
        repromia.classifier(train(words, *parts[side], seed=seed + 10 * side), records, tokenizer=words)
        for side in (0, 2)
    )
    return repromia.audit(
        target,
        records,
        reference=reference,
        attacks=ATTACKS,
        seed=seed,
        fprs=(0.01,),
        program_permutations=1,
        out=out / f"seed-{seed}",
    )


def main() -> None:
    """Audit and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    results = {f"seed {seed}": audit(given.data, seed, given.out) for seed in given.seeds}
    print(table(results))
    for name, one in results.items():
        kept = [row.details.get("probed", {}).get("kept") for row in one.attacks if row.attack == "reprogram"]
        print(f"\n{name}: joint null p {one.null_target.joint_p}; reprogram kept {kept}")
        for control in one.permuted:
            print(f"  permuted {control.name}: {control.mean:+.3f} [{control.low:+.3f}, {control.high:+.3f}]")


if __name__ == "__main__":
    main()
