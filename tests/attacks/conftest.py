"""What the attacks look at: a leaky model, its base, a masked model and a saved prompt, all real and small."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors, trainers
from tokenizers import models as token_models
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from repromia.programs import Binding
from repromia.programs.saved import save_program
from repromia.programs.soft_prompt import SoftPrompt
from repromia.progress import Silent
from repromia.records import LabelledRecords, Records
from repromia.store import Store
from repromia.targets.language import LanguageModel
from repromia.targets.load import quiet
from repromia.views import Views
from small import SmallModels


def labelled(members: list[str], nonmembers: list[str]) -> LabelledRecords:
    texts = (*members, *nonmembers)
    ids = tuple(f"id {text[:40]}" for text in texts)
    return LabelledRecords(Records(ids, texts, ids), np.arange(len(texts)) < len(members))


@pytest.fixture(scope="session")
def make_views(models: SmallModels) -> Callable[[LanguageModel, LanguageModel, Records], Views]:
    """Views of any records; programs are always made from the same 20 + 20 fit and 10 + 10 select records."""
    fit = labelled(models.members[:20], models.nonmembers[:20])
    select = labelled(models.members[20:30], models.nonmembers[20:30])

    def make(target: LanguageModel, reference: LanguageModel, records: Records) -> Views:
        binding = Binding(target, fit, select, 0, Silent(), 128)
        return Views({"target": target, "reference": reference}, records, binding, Store(None))

    return make


@pytest.fixture(scope="session")
def measured_records(models: SmallModels) -> LabelledRecords:
    """90 members and 90 non-members that no program is made from."""
    return labelled(models.members[30:], models.nonmembers[30:])


@pytest.fixture(scope="session")
def specs(models: SmallModels, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """How each attack that needs more than its defaults is asked for here."""
    folder = tmp_path_factory.mktemp("attacks")
    _save_masked_model(folder / "masked", models.nonmembers)
    noise = np.random.default_rng(0).normal(0, 0.3, (8, 64)).astype(np.float32)
    save_program(SoftPrompt(noise, {"kept": "prompt"}), folder / "prompt.safetensors")
    return {
        "pac": "pac:copies=3",
        "neighbour": f"neighbour:masked_model={folder / 'masked'}:copies=3",
        "probe_bank": "probe_bank:programs=band/width=1+skipped_layers+generated_prefix/length=8"
        "+noise_and_repair/steps=2",
        "reprogram": f"reprogram:program={folder / 'prompt.safetensors'}",
    }


def _save_masked_model(folder: Path, texts: list[str]) -> None:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = Tokenizer(token_models.WordPiece(unk_token="[UNK]"))  # noqa: S106
    pieces.normalizer = normalizers.Lowercase()
    pieces.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    pieces.train_from_iterator(texts, trainer)
    pieces.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=pieces.get_vocab_size(),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=256,
    )
    with quiet():
        PreTrainedTokenizerFast(tokenizer_object=pieces, **names).save_pretrained(folder)
        BertForMaskedLM(config).save_pretrained(folder)
