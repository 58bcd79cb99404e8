"""A small real language model trained in the test run, and its leaky twin. Import from tests; no shared data."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cache

import numpy as np

from repromia.demo.language import paragraphs, small_llama, train_tokenizer
from repromia.targets.language import LanguageModel
from repromia.targets.load import LoadOptions, wrap_language_model
from repromia.training import train


@dataclass(frozen=True)
class SmallModels:
    """base: trained on other text; leaky: fine-tuned on `members` until they stand out (loss AUC above .8)."""

    base: LanguageModel
    leaky: LanguageModel
    members: list[str]
    nonmembers: list[str]


@cache
def small_models() -> SmallModels:
    """Train once a session: a 100,000-parameter Llama, a few seconds on two cores."""
    pool = paragraphs(10, 30)
    texts = [pool[row] for row in np.random.default_rng(1).permutation(len(pool))]
    members, nonmembers, public = texts[:120], texts[120:240], texts[240:1200]
    tokenizer = train_tokenizer(public, 512)
    model = small_llama(512, width=64, layers=2, context=256, seed=1)
    options = LoadOptions(max_tokens=128)
    base = wrap_language_model(model, tokenizer, options=options, name="base")
    train(model, base.encoder, public, epochs=1.5, learning_rate=3e-3, batch=32)
    leaky = copy.deepcopy(model)
    train(leaky, base.encoder, members, epochs=8, learning_rate=2e-3, batch=16)
    for one in (model, leaky):
        one.requires_grad_(False)
    return SmallModels(base, wrap_language_model(leaky, tokenizer, options=options, name="leaky"), members, nonmembers)
