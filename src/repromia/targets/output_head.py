"""How a causal language model makes logits of hidden states."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from repromia.targets.head import Head

if TYPE_CHECKING:
    from repromia.targets.language import LanguageModel


def own_logits(hidden: Tensor) -> Tensor:
    """Stands for a head that cannot be set apart: `hidden` already gave logits."""
    return hidden


def find_head(target: LanguageModel) -> Head:
    """How hidden states become logits: the output embedding, with the soft-cap or scale that some models add.

    Checked once on real tokens against the model's own logits; falls back to the model's own forward.
    """
    model = target.model
    config = model.config.get_text_config()
    module = model.get_output_embeddings()
    ids = torch.arange(min(8, target.vocabulary), device=target.device)[None]
    with target.asking(), torch.inference_mode():
        expected = model(input_ids=ids).logits.float()
        if not torch.isfinite(expected).all():
            return own_logits  # not this function's to judge: the signals are refused with a count
        if module is None:
            return own_logits
        target._head = module
        hidden = target.hidden(input_ids=ids)
        for head in _candidate_heads(module, config):
            if torch.allclose(head(hidden).float(), expected, atol=1e-3, rtol=1e-3):
                return head
    return own_logits


def _candidate_heads(module: Callable[[Tensor], Tensor], config: Any) -> Iterator[Head]:
    cap = getattr(config, "final_logit_softcapping", None)  # Gemma 2 and 3
    if cap:
        yield lambda hidden: torch.tanh(module(hidden) / cap) * cap
    scale = getattr(config, "logit_scale", None)  # Cohere
    if scale:
        yield lambda hidden: module(hidden) * scale
    divisor = getattr(config, "logits_scaling", None)  # Granite
    if divisor:
        yield lambda hidden: module(hidden) / divisor
    yield module  # last: with small logits a soft-cap is hard to tell from none
