"""A masked language model that proposes neighbours of a text."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from repromia.errors import TargetError
from repromia.targets.fingerprint import masked_fingerprint
from repromia.targets.load import quiet


@dataclass(frozen=True)
class MaskedModel:
    """A BERT-like model and its tokenizer."""

    model: Any
    tokenizer: Any

    @cached_property
    def fingerprint(self) -> str:
        """Hash of weights, architecture and tokenizer."""
        return masked_fingerprint(self.model, self.tokenizer)

    @staticmethod
    @lru_cache(maxsize=1)
    def load(path: str) -> MaskedModel:
        """Load from a folder or a hub id named by the user. Raises TargetError."""
        try:
            with quiet():
                model, info = AutoModelForMaskedLM.from_pretrained(path, use_safetensors=True, output_loading_info=True)
                tokenizer = AutoTokenizer.from_pretrained(path)
        except (OSError, ValueError, RuntimeError) as error:
            raise TargetError(
                f"The masked language model {path!r} cannot be loaded.",
                expected="a folder with config.json, model.safetensors and a tokenizer",
                found=str(error).splitlines()[0][:200],
            ) from error
        if info["missing_keys"]:
            raise TargetError(
                f"The checkpoint {path!r} does not fill a masked language model: its guesses would be random.",
                found=f"missing: {sorted(info['missing_keys'])[:3]}",
            )
        if tokenizer.mask_token_id is None:
            raise TargetError(f"The tokenizer of {path!r} has no mask token, so it cannot propose neighbours.")
        return MaskedModel(model.eval(), tokenizer)

    def neighbour(self, text: str, share: float, top: int, generator: np.random.Generator) -> str:
        """The text with `share` of its tokens replaced by likely others."""
        limit = int(self.model.config.max_position_embeddings) - 2
        ids = self.tokenizer(text, truncation=True, max_length=limit, return_tensors="pt")["input_ids"][0]
        special = set(self.tokenizer.all_special_ids)
        places = [at for at, token in enumerate(ids.tolist()) if token not in special]
        if not places:
            return text
        chosen = generator.choice(places, size=max(1, int(share * len(places))), replace=False)
        masked = ids.clone()
        masked[torch.from_numpy(chosen)] = self.tokenizer.mask_token_id
        with torch.no_grad():  # not inference mode, whose tensors cannot be written to below
            logits = self.model(input_ids=masked[None]).logits[0]
        for at in chosen:
            logits[at, [int(ids[at]), *special]] = -torch.inf
            best = logits[at].topk(top)
            odds = torch.softmax(best.values.double(), 0).numpy()
            ids[at] = int(best.indices[int(generator.choice(top, p=odds / odds.sum()))])
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))
