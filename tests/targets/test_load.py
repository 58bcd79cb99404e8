"""Loading: what is whole is loaded exactly, what is damaged or unsafe is refused with a way out."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from architectures import target_of, with_lora
from safetensors.torch import load_file, save_file

from repromia.demo.language import train_tokenizer
from repromia.errors import TargetError
from repromia.programs.saved import export_peft
from repromia.programs.soft_prompt import SoftPrompt
from repromia.signals import TOKEN_FIELDS, TokenSignals
from repromia.targets.language import LanguageModel, check_same_tokens
from repromia.targets.load import LoadOptions, load_language_model
from small import SmallModels

CPU = LoadOptions(device="cpu", max_tokens=64)


@pytest.fixture
def folder(models: SmallModels, tmp_path: Path) -> Path:
    """The small base as a user would have it on disk."""
    models.base.model.save_pretrained(tmp_path / "base")
    models.base.tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def adapter(models: SmallModels, folder: Path) -> Path:
    """A LoRA adapter beside its base, naming it by its full path."""
    adapted = with_lora(models.base.model)
    adapted.peft_config["default"].base_model_name_or_path = str(folder)
    adapted.save_pretrained(folder.with_name("adapter"))
    return folder.with_name("adapter")


def ask(target: LanguageModel, models: SmallModels) -> TokenSignals:
    return target.signals(target.encode(models.members[:5]))


def assert_equal(got: TokenSignals, expected: TokenSignals) -> None:
    for name in TOKEN_FIELDS:
        assert np.array_equal(getattr(got, name), getattr(expected, name)), name


def change_weights(folder: Path, change: Any) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_saved_model_answers_as_the_live_one(folder: Path, models: SmallModels) -> None:
    loaded = load_language_model(str(folder), CPU)
    assert_equal(ask(loaded, models), ask(target_of(models.base.model, models.base.tokenizer), models))
    assert not any(weight.requires_grad for weight in loaded.model.parameters())
    assert loaded.context == 256
    assert load_language_model(str(folder), LoadOptions(device="cpu")).encoder.limit == 192
    json.dumps(loaded.describe())


def test_a_published_model_is_sensible(stories_folder: Path) -> None:
    target = load_language_model(str(stories_folder), CPU)
    signals = target.signals(
        target.encode(["Once upon a time, there was a little girl named Lily.", "Quarterly zinc futures fell 3.7%."])
    )
    story, news = signals.average(signals.logprob)
    assert news < -4 < -1 < story
    assert target.describe()["parameters"] == 260_032


@pytest.mark.parametrize("path", ["/no/such/model", "./nothing", "nothing"])
def test_a_missing_folder(path: str) -> None:
    with pytest.raises(TargetError, match="There is no model at"):
        load_language_model(path, CPU)


def test_a_missing_tokenizer(folder: Path) -> None:
    for path in folder.glob("token*"):
        path.unlink()
    with pytest.raises(TargetError, match="tokenizer"):
        load_language_model(str(folder), CPU)


def test_a_truncated_file(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(TargetError, match="cannot be loaded"):
        load_language_model(str(folder), CPU)


def test_a_missing_weight(folder: Path) -> None:
    change_weights(folder, lambda weights: weights.pop("model.layers.0.mlp.up_proj.weight"))
    with pytest.raises(TargetError, match=r"1 missing.*layers\.0\.mlp\.up_proj"):
        load_language_model(str(folder), CPU)


def test_a_weight_of_another_shape(folder: Path) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    change_weights(folder, lambda weights: weights.update({name: torch.zeros(3, 3)}))
    with pytest.raises(TargetError, match=r"up_proj|mismatch|shape"):
        load_language_model(str(folder), CPU)


class Planted:
    """Injected fault: unpickling this writes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_pickled_weights_are_refused_unread(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Planted(tmp_path / "marker")}, folder / "pytorch_model.bin")
    with pytest.raises(TargetError, match=r"pickled weights \(\.bin\) are refused"):
        load_language_model(str(folder), CPU)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("kind", ["llama", "never_heard_of"])
def test_code_in_the_folder_is_not_run(kind: str, folder: Path, tmp_path: Path, models: SmallModels) -> None:
    marker = tmp_path / "marker"
    (folder / "theirs.py").write_text(
        f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n"
        "from transformers import LlamaConfig as Config, LlamaForCausalLM as Model\n"
    )
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": kind, "auto_map": {"AutoConfig": "theirs.Config", "AutoModelForCausalLM": "theirs.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    expected = ask(target_of(models.base.model, models.base.tokenizer), models)
    if kind == "llama":  # the library's own class is used instead
        assert_equal(ask(load_language_model(str(folder), CPU), models), expected)
    else:
        with pytest.raises(TargetError):
            load_language_model(str(folder), CPU)
    assert not marker.exists()


def test_an_adapter_folder_loads_onto_its_base(adapter: Path, models: SmallModels) -> None:
    loaded = load_language_model(str(adapter), CPU)
    live = target_of(with_lora(models.base.model), models.base.tokenizer)
    assert_equal(ask(loaded, models), ask(live, models))
    plain = target_of(models.base.model, models.base.tokenizer)
    assert_equal(ask(loaded.base(), models), ask(plain, models))


def test_an_adapter_whose_base_is_elsewhere(adapter: Path, folder: Path, models: SmallModels) -> None:
    expected = ask(load_language_model(str(adapter), CPU), models)
    moved = folder.rename(folder.with_name("moved"))
    with pytest.raises(TargetError, match=r"not on this disk[\s\S]*--base"):
        load_language_model(str(adapter), CPU)
    named = LoadOptions(device="cpu", max_tokens=64, base=str(moved))
    assert_equal(ask(load_language_model(str(adapter), named), models), expected)


def test_an_adapter_with_damaged_files(adapter: Path) -> None:
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(TargetError, match="adapter"):
        load_language_model(str(adapter), CPU)
    (adapter / "adapter_config.json").write_text("{")
    with pytest.raises(TargetError, match="not valid JSON"):
        load_language_model(str(adapter), CPU)


def test_a_pickled_adapter_is_refused_unread(adapter: Path, tmp_path: Path) -> None:
    (adapter / "adapter_model.safetensors").unlink()
    torch.save({"weight": Planted(tmp_path / "marker")}, adapter / "adapter_model.bin")
    with pytest.raises(TargetError, match=r"found: +adapter_model\.bin[\s\S]*pickled weights \(\.bin\) are refused"):
        load_language_model(str(adapter), CPU)
    assert not (tmp_path / "marker").exists()


def test_an_adapter_folder_without_weights_is_not_sought_on_the_hub(
    adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*_: object, **named: object) -> bool:
        pytest.fail(f"the hub was asked: {named}")

    monkeypatch.setattr("peft.utils.save_and_load.file_exists", asked)
    monkeypatch.setattr("peft.utils.save_and_load.hf_hub_download", asked)
    (adapter / "adapter_model.safetensors").unlink()
    (adapter / "training_args.bin").touch()  # of a trainer; holds no weights
    with pytest.raises(TargetError, match=r"expected: adapter_model\.safetensors[\s\S]*copy the files again"):
        load_language_model(str(adapter), CPU)


def test_an_adapter_that_leaves_weights_out(adapter: Path) -> None:
    weights = load_file(adapter / "adapter_model.safetensors")
    del weights[next(name for name in weights if "lora_B" in name)]
    save_file(weights, adapter / "adapter_model.safetensors")
    with pytest.raises(TargetError, match="missing"):
        load_language_model(str(adapter), CPU)


def test_a_prompt_tuning_adapter_is_refused(folder: Path, tmp_path: Path) -> None:
    export_peft(SoftPrompt(np.zeros((3, 64), np.float32), {}), tmp_path / "prompt", base_model=str(folder))
    with pytest.raises(TargetError, match="prompt"):
        load_language_model(str(tmp_path / "prompt"), CPU)


def test_options_that_make_no_sense(folder: Path) -> None:
    with pytest.raises(TargetError, match=r"no dtype 'float12'[\s\S]*bfloat16"):
        load_language_model(str(folder), LoadOptions(device="cpu", dtype="float12"))
    with pytest.raises(TargetError, match=r"longer than the model's context[\s\S]*256[\s\S]*257"):
        load_language_model(str(folder), LoadOptions(device="cpu", max_tokens=257))


def test_dtype_auto_is_float32_on_a_cpu(folder: Path, models: SmallModels) -> None:
    copy.deepcopy(models.base.model).bfloat16().save_pretrained(folder)
    assert load_language_model(str(folder), CPU).embeddings.dtype == torch.float32
    half = LoadOptions(device="cpu", dtype="bfloat16", max_tokens=64)
    assert load_language_model(str(folder), half).embeddings.dtype == torch.bfloat16


def test_a_reference_with_another_tokenizer_is_refused(models: SmallModels) -> None:
    other = target_of(models.base.model, train_tokenizer(models.members, 512))
    check_same_tokens(models.leaky, models.base, models.members)
    with pytest.raises(TargetError, match="another tokenizer"):
        check_same_tokens(models.leaky, other, models.members)


def write_gguf(path: Path, model: Any, tokenizer: Any) -> None:
    config = model.config
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    rules = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(sorted(rules["vocab"], key=rules["vocab"].get))
    writer.add_token_types([gguf.TokenType.CONTROL] * 2 + [gguf.TokenType.NORMAL] * (config.vocab_size - 2))
    writer.add_token_merges([" ".join(merge) for merge in rules["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":
            continue  # tied
        if "q_proj" in name or "k_proj" in name:  # GGUF pairs rotary dimensions next to each other
            heads, width = tensor.shape[0] // config.head_dim, tensor.shape[1]
            tensor = tensor.view(heads, 2, config.head_dim // 2, width).transpose(1, 2).reshape(-1, width)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), tensor.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_answers_as_the_model_it_was_made_of(models: SmallModels, tmp_path: Path) -> None:
    write_gguf(tmp_path / "small.gguf", models.base.model, models.base.tokenizer)
    loaded = load_language_model(str(tmp_path), LoadOptions(device="cpu", gguf_file="small.gguf", max_tokens=64))
    live = target_of(models.base.model, models.base.tokenizer)
    text = models.members[0]
    assert loaded.encoder.plain_ids(text) == live.encoder.plain_ids(text)
    sequences = live.encode(models.members[:5])
    np.testing.assert_allclose(loaded.signals(sequences).logprob, live.signals(sequences).logprob, atol=1e-5)


def test_a_gguf_file_that_is_not_there(tmp_path: Path) -> None:
    shutil.copy(__file__, tmp_path / "config.json")
    with pytest.raises(TargetError, match="cannot be loaded"):
        load_language_model(str(tmp_path), LoadOptions(device="cpu", gguf_file="small.gguf"))
