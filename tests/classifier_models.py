"""Small real classifiers of the 8 x 8 digits that scikit-learn brings, and of texts, trained in the test run."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from torch import Tensor, nn

from repromia.class_records import class_records_from_objects
from repromia.records import LabelledRecords

DIGITS = load_digits()
IMAGES = np.rint(DIGITS.images * 255 / 16).astype(np.uint8)
CLASSES: list[int] = DIGITS.target.tolist()
SENTENCES = [f"{tone} film number {number}" for number in range(20) for tone in ("good", "bad", "dull")]


class SmallCnn(nn.Module):
    """One convolution with batch statistics, dropout, and a linear layer: fit for the traps of train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2))
        self.head = nn.Linear(8 * 36, 10)

    def forward(self, pixels: Tensor) -> Tensor:
        found: Tensor = self.head(self.body(pixels))
        return found


def small_mlp() -> nn.Module:
    """Of rows of 64 numbers."""
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


@torch.enable_grad()
def trained(model: nn.Module, inputs: Tensor, steps: int = 60) -> nn.Module:
    labels = torch.tensor(CLASSES)[: len(inputs)]
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(steps):
        loss = nn.functional.cross_entropy(model(inputs), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model


@cache
def cnn() -> SmallCnn:
    """Trained on 400 digits; left in train mode."""
    torch.manual_seed(0)
    model = SmallCnn()
    trained(model, pixels(400))
    return model


@cache
def mlp() -> nn.Module:
    torch.manual_seed(0)
    return trained(small_mlp(), torch.tensor(DIGITS.data[:400] / 16, dtype=torch.float32))


@cache
def forest() -> RandomForestClassifier:
    return RandomForestClassifier(20, random_state=0).fit(DIGITS.data[:400], DIGITS.target[:400])


def pixels(count: int) -> Tensor:
    """In [0, 1], as a classifier is to see them."""
    return torch.from_numpy(IMAGES[:count, None]).float() / 255


def image_records(count: int = 40) -> LabelledRecords:
    half = count // 2
    return class_records_from_objects((IMAGES[:half], CLASSES[:half]), (IMAGES[half:count], CLASSES[half:count]))


def row_records(count: int = 40, scale: float = 1.0) -> LabelledRecords:
    half, values = count // 2, DIGITS.data * scale
    return class_records_from_objects((values[:half], CLASSES[:half]), (values[half:count], CLASSES[half:count]))


def text_records() -> LabelledRecords:
    tones = [one.split()[0] for one in SENTENCES]
    return class_records_from_objects((SENTENCES[:30], tones[:30]), (SENTENCES[30:], tones[30:]))


def word_tokenizer(length: int = 16) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = sorted({word for one in SENTENCES for word in one.split()})
    vocabulary = {word: at for at, word in enumerate(["[PAD]", "[UNK]", *words])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    named = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=length, **named)


def bert(folder: Path, *, names: bool = True) -> Any:
    """A tiny BERT for three classes, saved with its tokenizer."""
    from transformers import BertConfig, BertForSequenceClassification

    tokenizer = word_tokenizer()
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=24,
        pad_token_id=tokenizer.pad_token_id,
        num_labels=3,
        initializer_range=0.5,
        **({"id2label": {0: "dull", 1: "good", 2: "bad"}} if names else {}),
    )
    model = BertForSequenceClassification(config).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def vit(folder: Path, channels: int = 1) -> Any:
    """A tiny ViT of 8 x 8 digits, saved without a processor."""
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(2)
    config = ViTConfig(
        image_size=8,
        patch_size=4,
        num_channels=channels,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        num_labels=10,
        initializer_range=0.3,
    )
    model = ViTForImageClassification(config).eval()
    model.save_pretrained(folder)
    return model
