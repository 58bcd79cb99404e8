"""Text that a model writes by itself: samples of what it holds likely, without any record."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Int

from repromia.errors import AttackError

if TYPE_CHECKING:
    from repromia.targets.language import LanguageModel

BATCH = 100


def sample(
    target: LanguageModel, count: int, length: int, *, starts: Int[np.ndarray, " start"], seed: int
) -> list[np.ndarray]:
    """`count` token sequences of at most `length` tokens, drawn from the model's own distribution.

    Begins with the encoder's BOS token, or else with one of `starts` (first tokens of records), as models
    without BOS have learned no first token. Raises AttackError where the model cannot generate.
    """
    from transformers import GenerationConfig

    generator = np.random.default_rng([seed, 3])
    bos = target.encoder.bos
    first = np.full(count, bos) if bos is not None else generator.choice(starts, count)
    end = target.tokenizer.eos_token_id
    settings = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=length - 1,
        eos_token_id=end,
        pad_token_id=end if end is not None else 0,
        bos_token_id=bos,
    )
    found: list[np.ndarray] = []
    devices = [target.device] if target.device.type == "cuda" else []
    with (
        target.asking(),
        _no_settings_of_its_own(target.model),
        torch.no_grad(),
        torch.random.fork_rng(devices),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        for at in range(0, count, BATCH):
            ids = torch.from_numpy(first[at : at + BATCH].astype(np.int64))[:, None].to(target.device)
            try:
                drawn = target.model.generate(
                    input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings
                )
            except (AttributeError, TypeError, ValueError, NotImplementedError) as error:
                raise AttackError(
                    "The model cannot write text by itself.", found=f"{type(error).__name__}: {str(error)[:200]}"
                ) from error
            target.asked += drawn.numel()
            found += [_until_end(row, end) for row in drawn.cpu().numpy()]
    return found


@contextmanager
def _no_settings_of_its_own(model: Any) -> Iterator[None]:
    """`generate` fills whatever is not set from the checkpoint's settings, repetition penalties for one."""
    from transformers import GenerationConfig

    holders = [one for one in model.modules() if getattr(one, "generation_config", None) is not None]
    before = [one.generation_config for one in holders]
    try:
        for one in holders:
            one.generation_config = GenerationConfig()
        yield
    finally:
        for one, kept in zip(holders, before, strict=True):
            one.generation_config = kept


def _until_end(ids: Int[np.ndarray, " drawn"], end: int | None) -> Int[np.ndarray, " token"]:
    """Up to the end token, which is left out; at least two tokens, so that there is something to predict."""
    ends = np.flatnonzero(ids[1:] == end) if end is not None else np.zeros(0, dtype=np.int64)
    stop = int(ends[0]) + 1 if len(ends) else len(ids)
    return ids[: max(2, stop)].astype(np.int64)
