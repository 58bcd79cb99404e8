"""Targets to audit: real bases fine-tuned on records drawn by lot, each with the records that were kept aside.

Members and non-members come from one pool, so nothing but the model tells them apart. `stories_ag_news` at seed 100
is the development target: recipes and presets were chosen there and nowhere else.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from repromia.demo.language import Files, paragraphs, train_tokenizer
from repromia.targets.load import LoadOptions, load_language_model, quiet
from repromia.targets.tokens import Encoder
from repromia.training import train

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
PER_CLASS = 1430  # leaves 1,000 + 1,000 for eval after fit (.2) and select (.1)
DOMAINS = ("pile_cc", "wikipedia_en", "stackexchange", "hackernews", "pubmed_abstracts")


def stories_ag_news(folder: Path, seed: int) -> Files:
    """stories260k (a Llama trained on TinyStories), all weights fine-tuned on news for four epochs."""
    files, members = _drawn(folder, SHARED / "stories260k", _news(), seed)
    return _fine_tuned(files, members, epochs=4, seed=seed)


def stories_ag_news_shadow(folder: Path, seed: int) -> Files:
    """A shadow of `stories_ag_news` at the same seed: the same recipe on news that neither side of it holds."""
    files, members = _drawn(folder, SHARED / "stories260k", _news(), seed, skip=2 * PER_CLASS, per_class=1070)
    return _fine_tuned(files, members, epochs=4, seed=seed)


def stories_ag_news_one_epoch(folder: Path, seed: int) -> Files:
    """The same, for a single epoch."""
    files, members = _drawn(folder, SHARED / "stories260k", _news(), seed)
    return _fine_tuned(files, members, epochs=1, seed=seed)


def stories_ag_news_lora(folder: Path, seed: int) -> Files:
    """stories260k with a LoRA adapter of rank 16 on every linear layer, eight epochs."""
    from peft import LoraConfig, get_peft_model

    files, members = _drawn(folder, SHARED / "stories260k", _news(), seed)
    if not (files.finetuned / "adapter_model.safetensors").is_file():
        target = load_language_model(str(files.base), LoadOptions())
        with quiet():
            model = get_peft_model(target.model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))
        train(model, target.encoder, members, epochs=8, learning_rate=5e-3, batch=16, seed=seed)
        _save(model, target.tokenizer, files.finetuned)
    return files


def neox_addresses(folder: Path, seed: int) -> Files:
    """A GPT-NeoX of 1.3M parameters trained here on five Pile domains, fine-tuned on presidential addresses."""
    files, members = _drawn(folder, folder.parent / "neox_base", paragraphs(25, 100), seed)
    if not (files.base / "model.safetensors").is_file():
        _train_neox(files.base)
    return _fine_tuned(files, members, epochs=3, seed=seed)


TARGETS: dict[str, Callable[[Path, int], Files]] = {
    "stories_ag_news": stories_ag_news,
    "stories_ag_news_shadow": stories_ag_news_shadow,
    "stories_ag_news_one_epoch": stories_ag_news_one_epoch,
    "stories_ag_news_lora": stories_ag_news_lora,
    "neox_addresses": neox_addresses,
}


def _fine_tuned(files: Files, members: list[str], *, epochs: float, seed: int) -> Files:
    """All weights of the base trained on the members, once."""
    if not (files.finetuned / "model.safetensors").is_file():
        target = load_language_model(str(files.base), LoadOptions())
        target.model.requires_grad_(True)
        train(target.model, target.encoder, members, epochs=epochs, learning_rate=1e-3, batch=16, seed=seed)
        _save(target.model, target.tokenizer, files.finetuned)
    return files


def _train_neox(folder: Path) -> None:
    import torch
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    texts = [" ".join(words) for domain in DOMAINS for text in _pile(domain) for words in _passages(text)]
    texts = [texts[row] for row in np.random.default_rng(0).permutation(len(texts))[:9000]]
    tokenizer = train_tokenizer(texts[:4000], 2048)
    torch.manual_seed(0)
    model = GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=2048,
            hidden_size=128,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=512,
            hidden_dropout=0.0,
            attention_dropout=0.0,
            bos_token_id=0,
            eos_token_id=1,
        )
    )
    encoder: Encoder = Encoder(tokenizer, limit=160)
    train(model, encoder, texts, epochs=2, learning_rate=2e-3, batch=32, seed=0)
    _save(model, tokenizer, folder)


def _passages(text: str, words: int = 80) -> list[list[str]]:
    found = text.split()
    return [found[at : at + words] for at in range(0, len(found) - words // 2, words)]


def _drawn(
    folder: Path, base: Path, texts: list[str], seed: int, *, skip: int = 0, per_class: int = PER_CLASS
) -> tuple[Files, list[str]]:
    """Two halves drawn by lot: the first is trained on. skip: so many of the lot are left to others."""
    files = Files(base, folder / "finetuned", folder / "members.jsonl", folder / "nonmembers.jsonl")
    order = np.random.default_rng(seed).permutation(len(texts))
    starts = (skip, skip + per_class)
    halves = [[texts[row] for row in order[at : at + per_class]] for at in starts]
    folder.mkdir(parents=True, exist_ok=True)
    for path, part in zip((files.members, files.nonmembers), halves, strict=True):
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in part), encoding="utf-8")
    return files, halves[0]


def _news() -> list[str]:
    with gzip.open(SHARED / "ag_news" / "ag_news.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line)["text"] for line in file]


def _pile(domain: str) -> list[str]:
    with gzip.open(SHARED / "pile_mimir" / f"{domain}.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line)["text"] for line in file]


def _save(model: Any, tokenizer: Any, folder: Path) -> None:
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
