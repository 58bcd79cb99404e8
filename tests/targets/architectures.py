"""Tiny models with random weights, one an architecture, large enough weights that logits are not flat."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from repromia.targets.language import LanguageModel
from repromia.targets.load import LoadOptions, quiet, wrap_language_model

COMMON = {
    "vocab_size": 512,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
SOFT_CAP = {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 8, "final_logit_softcapping": 3.0}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {},
    "gpt2": {},
    "gpt_neox": {},
    "mistral": {"sliding_window": 8},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "gemma2": SOFT_CAP,
    "gemma3_text": SOFT_CAP,
    "cohere": {"logit_scale": 0.25},
    "granite": {"logits_scaling": 4.0},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "mamba": {},
    "mixtral": {"num_local_experts": 4},
    "qwen2_moe": {"num_experts": 4, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16},
    "gpt_neo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 8},
    "bloom": {},
    "phi3": {
        "original_max_position_embeddings": 30,
        "rope_parameters": {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [1.0, 4.0, 8.0, 32.0]},
    },
}
NO_KEY_VALUES = {"mistral", "gemma2", "gemma3_text", "mamba", "phi3"}  # a prefix is read again in front of every record
SCALED_HEAD = {"gemma2", "gemma3_text", "cohere", "granite"}


@cache
def tiny(architecture: str, **changes: int) -> Any:
    """A model with normal(0, 1/4) matrices. Shared between tests: copy before changing it."""
    torch.manual_seed(0)
    settings = {**COMMON, **ARCHITECTURES[architecture], **changes}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **settings)).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() >= 2 and "A_log" not in name and "conv1d" not in name:
                weight.normal_(0, 0.25)
    return model.requires_grad_(False)


def target_of(model: Any, tokenizer: Any, **options: Any) -> LanguageModel:
    """The model as a target that reads 64 tokens a record."""
    return wrap_language_model(model, tokenizer, options=LoadOptions(**{"max_tokens": 64, **options}))


def with_lora(model: Any) -> Any:
    """A copy with a low-rank adapter that changes its answers (PEFT starts at no change)."""
    torch.manual_seed(0)
    every = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    with quiet():
        adapted = get_peft_model(copy.deepcopy(model), LoraConfig(r=2, target_modules=every, task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.3)
    return adapted.eval()
