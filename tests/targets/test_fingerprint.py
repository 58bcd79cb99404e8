"""A fingerprint changes with everything that changes answers, and with nothing else."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import target_of, tiny, with_lora

from repromia.demo.language import train_tokenizer
from repromia.targets.fingerprint import model_fingerprint, tokenizer_state
from repromia.targets.load import LoadOptions, load_language_model
from small import SmallModels


@pytest.fixture
def tokenizer(models: SmallModels) -> Any:
    return copy.deepcopy(models.base.tokenizer)


@pytest.fixture
def fingerprint(tokenizer: Any) -> str:
    return target_of(tiny("llama"), tokenizer).fingerprint


def test_the_same_model_has_the_same_fingerprint(fingerprint: str, tokenizer: Any) -> None:
    other = target_of(copy.deepcopy(tiny("llama")), tokenizer, batch_tokens=7)
    other.signals(other.encode(["My fellow citizens"]))
    assert other.fingerprint == fingerprint


def test_one_bit_of_one_weight_counts(fingerprint: str, tokenizer: Any) -> None:
    model = copy.deepcopy(tiny("llama"))
    weight = model.model.layers[1].mlp.up_proj.weight
    weight.view(torch.int32)[3, 4] ^= 1
    assert (weight != tiny("llama").model.layers[1].mlp.up_proj.weight).sum() == 1
    assert target_of(model, tokenizer).fingerprint != fingerprint


def test_dtype_counts(fingerprint: str, tokenizer: Any) -> None:
    assert target_of(copy.deepcopy(tiny("llama")).bfloat16(), tokenizer).fingerprint != fingerprint


def test_settings_that_change_answers_count(fingerprint: str, tokenizer: Any) -> None:
    model = copy.deepcopy(tiny("llama"))
    model.config.rms_norm_eps = 1e-3
    assert target_of(model, tokenizer).fingerprint != fingerprint


@pytest.mark.parametrize("policy", [{"max_tokens": 63}, {"loss_on": "all"}, {"score_end": True}], ids=str)
def test_the_token_policy_counts(policy: dict[str, Any], fingerprint: str, tokenizer: Any) -> None:
    assert target_of(tiny("llama"), tokenizer, **policy).fingerprint != fingerprint


def test_the_tokenizer_counts(fingerprint: str, tokenizer: Any, models: SmallModels) -> None:
    assert target_of(tiny("llama"), train_tokenizer(models.members, 512)).fingerprint != fingerprint
    tokenizer.chat_template = "{{ messages }}"
    assert target_of(tiny("llama"), tokenizer).fingerprint != fingerprint


def test_how_the_tokenizer_was_used_before_does_not_count(fingerprint: str, tokenizer: Any) -> None:
    tokenizer.pad_token = tokenizer.eos_token
    before = target_of(tiny("llama"), tokenizer).fingerprint
    tokenizer(["My fellow citizens", "of the Senate"], padding=True, truncation=True, max_length=3)
    assert target_of(tiny("llama"), tokenizer).fingerprint == before != fingerprint


def test_the_adapter_and_its_switch_count(fingerprint: str, tokenizer: Any) -> None:
    adapted = target_of(with_lora(tiny("llama")), tokenizer)
    other = with_lora(tiny("llama"))
    next(weight for name, weight in other.named_parameters() if "lora_B" in name).data.view(torch.int32)[0, 0] ^= 1
    assert (
        len({fingerprint, adapted.fingerprint, adapted.base().fingerprint, target_of(other, tokenizer).fingerprint})
        == 4
    )


PRINT = """
import sys
from repromia.targets.load import LoadOptions, load_language_model
print(load_language_model(sys.argv[1], LoadOptions(base=sys.argv[2], device="cpu")).fingerprint)
"""


def test_what_a_caller_left_in_the_tokenizer_does_not_count(models: SmallModels) -> None:
    before = tokenizer_state(models.base.tokenizer)
    models.base.tokenizer("a b c", truncation=True, max_length=2)
    assert tokenizer_state(models.base.tokenizer) == before


def test_saving_a_live_model_does_not_count(models: SmallModels, tmp_path: Path) -> None:
    model = copy.deepcopy(models.base.model)
    model.config.architectures = None
    before = model_fingerprint(model, models.base.encoder, adapter=True)
    model.save_pretrained(tmp_path)
    assert model.config.architectures  # what saving writes into the live configuration
    assert model_fingerprint(model, models.base.encoder, adapter=True) == before


def test_neither_folder_nor_process_counts(tokenizer: Any, tmp_path: Path) -> None:
    model = copy.deepcopy(tiny("llama"))
    for name in ("one", "two"):
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    one, two = (load_language_model(str(tmp_path / name), LoadOptions(device="cpu")) for name in ("one", "two"))
    assert one.fingerprint == two.fingerprint

    for name in ("one", "two"):
        adapter = with_lora(model)
        adapter.peft_config["default"].base_model_name_or_path = str(tmp_path / name)
        adapter.save_pretrained(tmp_path / f"adapter_{name}")
    here = load_language_model(str(tmp_path / "adapter_one"), LoadOptions(device="cpu")).fingerprint
    # PEFT keeps the adapted layers in a set, whose order depends on the process
    elsewhere = subprocess.run(
        [sys.executable, "-c", PRINT, str(tmp_path / "adapter_two"), str(tmp_path / "two")],
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert elsewhere.stdout.strip() == here
