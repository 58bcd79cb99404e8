"""Soft prompts on disk and in front of a model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.numpy import save_file

from repromia.errors import AttackError
from repromia.programs.saved import dump_program, export_peft, load_program, parse_program, save_program
from repromia.programs.soft_prompt import SoftPrompt
from repromia.records import Records
from repromia.signals import TOKEN_FIELDS
from small import SmallModels


@pytest.fixture
def prompt() -> SoftPrompt:
    values = np.random.default_rng(0).normal(0, 0.3, (5, 64)).astype(np.float32)
    values[0, :3] = np.float32(1) / 3, np.finfo(np.float32).tiny, -np.finfo(np.float32).max  # hard to print
    return SoftPrompt(values, {"recipe": {"steps": 2}, "trace": [{"select_auc": 0.75}]}, frozenset({"a", "b"}))


@pytest.fixture
def records(models: SmallModels) -> Records:
    ids = ("a", "b", "c")
    return Records(ids, tuple(models.members[:3]), ids)


def assert_same(one: SoftPrompt, other: SoftPrompt) -> None:
    assert one.embeddings.dtype == np.float32
    assert one.embeddings.tobytes() == other.embeddings.tobytes()
    assert one.embeddings.shape == other.embeddings.shape
    assert (one.learned, one.used, one.key) == (other.learned, other.used, other.key)


def test_saved_and_loaded_bit_for_bit(prompt: SoftPrompt, tmp_path: Path) -> None:
    path = tmp_path / "programs" / "soft.safetensors"
    save_program(prompt, path)
    assert_same(load_program(path, SoftPrompt), prompt)
    identity = SoftPrompt(np.zeros((0, 64), np.float32), {"kept": "identity"})
    save_program(identity, path)
    assert load_program(path, SoftPrompt).is_identity


def test_dumped_and_parsed_bit_for_bit(prompt: SoftPrompt) -> None:
    assert_same(parse_program(json.loads(json.dumps(dump_program(prompt)))), prompt)
    identity = SoftPrompt(np.zeros((0, 64), np.float32), {})
    assert_same(parse_program(json.loads(json.dumps(dump_program(identity)))), identity)


def test_the_key_follows_every_bit(prompt: SoftPrompt) -> None:
    changed = prompt.embeddings.copy()
    changed.view(np.int32)[4, 63] ^= 1
    assert SoftPrompt(changed, prompt.learned, prompt.used).key != prompt.key
    assert SoftPrompt(prompt.embeddings.reshape(10, 32), {}).key != prompt.key


@pytest.mark.parametrize(
    "damage", ["absent", "truncated", "no about", "about is a list", "other kind", "other tensor", "flat", "nan"]
)
def test_a_damaged_program_is_refused(damage: str, prompt: SoftPrompt, tmp_path: Path) -> None:
    path = tmp_path / "soft.safetensors"
    save_program(prompt, path)
    match damage:
        case "absent":
            path.unlink()
        case "truncated":
            path.write_bytes(path.read_bytes()[:-8])
        case "no about":
            path.with_suffix(".json").unlink()
        case "about is a list":
            path.with_suffix(".json").write_text("[]")
        case "other kind":
            about = json.loads(path.with_suffix(".json").read_text())
            path.with_suffix(".json").write_text(json.dumps({**about, "kind": "class_prompt"}))
        case "other tensor":
            save_file({"weights": prompt.embeddings}, path)
        case "flat":
            save_file({"embeddings": prompt.embeddings.ravel()}, path)
        case "nan":
            save_file({"embeddings": np.full((5, 64), np.nan, np.float32)}, path)
    with pytest.raises(AttackError, match=r"soft\.safetensors.* cannot be read"):
        load_program(path, SoftPrompt)


def small(prompt: SoftPrompt) -> SoftPrompt:
    return SoftPrompt(np.clip(prompt.embeddings, -1, 1), prompt.learned, prompt.used)


def test_asking_behind_a_prompt_is_asking_behind_its_embeddings(
    prompt: SoftPrompt, records: Records, models: SmallModels
) -> None:
    target = models.leaky
    (got,) = small(prompt).ask(target, records)
    assert np.array_equal(got.token, target.signals(target.encode(records.contents)).token)
    front = torch.from_numpy(small(prompt).embeddings)
    with torch.inference_mode():
        for row, sequence in enumerate(target.encode(records.contents)):
            ids = torch.from_numpy(sequence.ids)
            logits = target.model(inputs_embeds=torch.cat([front, target.embed(ids)])[None]).logits[0, len(front) :]
            expected = logits[:-1].log_softmax(-1).gather(-1, ids[1:, None])[:, 0]
            np.testing.assert_allclose(got.take([row]).logprob, expected, atol=1e-4)


def test_the_identity_asks_the_record_as_it_is(records: Records, models: SmallModels) -> None:
    (got,) = SoftPrompt(np.zeros((0, 64), np.float32), {}).ask(models.leaky, records)
    expected = models.leaky.signals(models.leaky.encode(records.contents))
    for name in TOKEN_FIELDS:
        assert np.array_equal(getattr(got, name), getattr(expected, name))


def test_a_prompt_of_another_width_is_refused(records: Records, models: SmallModels) -> None:
    with pytest.raises(AttackError, match=r"another width[\s\S]*64[\s\S]*32"):
        SoftPrompt(np.zeros((2, 32), np.float32), {}).ask(models.leaky, records)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # between peft and transformers
@pytest.mark.filterwarnings("ignore:Position ids are not supported")
def test_peft_reads_the_export_and_agrees(
    prompt: SoftPrompt, records: Records, models: SmallModels, tmp_path: Path
) -> None:
    target = models.leaky
    target.model.save_pretrained(tmp_path / "base")
    export_peft(small(prompt), tmp_path / "adapter", base_model=str(tmp_path / "base"))
    tuned = PeftModel.from_pretrained(
        type(target.model).from_pretrained(tmp_path / "base"), tmp_path / "adapter"
    ).eval()
    (ours,) = small(prompt).ask(target, records)
    with torch.inference_mode():
        for row, sequence in enumerate(target.encode(records.contents)):
            ids = torch.from_numpy(sequence.ids)
            assert ids[0] == target.encoder.bos  # virtual tokens, BOS, record
            logits = tuned(input_ids=ids[None], attention_mask=torch.ones_like(ids)[None]).logits[
                0, len(prompt.embeddings) :
            ]
            expected = logits[:-1].log_softmax(-1).gather(-1, ids[1:, None])[:, 0]
            np.testing.assert_allclose(ours.take([row]).logprob, expected, atol=1e-4)


def test_the_identity_cannot_be_exported(tmp_path: Path) -> None:
    with pytest.raises(AttackError, match="identity"):
        export_peft(SoftPrompt(np.zeros((0, 64), np.float32), {}), tmp_path, base_model="base")
