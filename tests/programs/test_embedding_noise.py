"""Noise on embeddings against noise added by hand."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from test_programs import records_of

from repromia.programs import Identity
from repromia.programs import embedding_noise as module
from repromia.programs.embedding_noise import EmbeddingNoise
from repromia.records import Records
from small import SmallModels
from targets.architectures import ARCHITECTURES, target_of, tiny


@pytest.fixture
def records(models: SmallModels) -> Records:
    return records_of([text[: 12 * (row + 2)] for row, text in enumerate(models.members[:6])])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_noise_is_added_to_what_the_embedding_layer_gives(
    architecture: str, models: SmallModels, records: Records
) -> None:
    model = tiny(architecture)
    target = target_of(model, models.base.tokenizer)
    layer = model.get_input_embeddings()
    spread = float(layer(torch.arange(512)).std())
    variants = EmbeddingNoise(0.5, draws=2, seed=7).ask(target, records)
    assert len(variants) == 2
    for draw, got in enumerate(variants):
        for row, sequence in enumerate(target.encode(records.contents)):
            ids = torch.from_numpy(sequence.ids)
            noise = np.random.default_rng([7, draw]).standard_normal((len(ids), 32), dtype=np.float32)
            embedded = layer(ids) + 0.5 * spread * torch.from_numpy(noise)
            logits = model(inputs_embeds=embedded[None], use_cache=False).logits[0].double()
            expected = logits[:-1].log_softmax(-1).gather(-1, ids[1:, None])[:, 0]
            np.testing.assert_allclose(got.take([row]).logprob, expected, atol=1e-4)


@torch.no_grad()
def test_scale_is_relative_to_the_embeddings(models: SmallModels, records: Records) -> None:
    """Embeddings ten times as large in front of an RMS norm: the same model, and the same noise."""
    model = copy.deepcopy(tiny("llama", num_hidden_layers=1))
    larger = copy.deepcopy(model)
    larger.get_input_embeddings().weight.mul_(10)
    for one in (model, larger):
        one.model.layers = torch.nn.ModuleList()  # nothing but the last norm, which takes the factor out
        one.config.num_hidden_layers = 0
    first, second = (target_of(one, models.base.tokenizer) for one in (model, larger))
    for got, expected in zip(
        EmbeddingNoise(0.6).ask(second, records), EmbeddingNoise(0.6).ask(first, records), strict=True
    ):
        np.testing.assert_allclose(got.logprob, expected.logprob, atol=1e-3)


def test_more_noise_changes_more_and_none_nothing(models: SmallModels, records: Records) -> None:
    (plain,) = Identity().ask(models.base, records)
    changes = [
        np.abs(EmbeddingNoise(scale, draws=1).ask(models.base, records)[0].logprob - plain.logprob).mean()
        for scale in (0.0, 0.1, 0.3, 1.0)
    ]
    assert changes[0] < 1e-5
    assert changes == sorted(changes)
    assert changes[1] > 1e-3


def test_the_scale_of_a_large_vocabulary_comes_from_rows_all_over_it(
    models: SmallModels, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """256 of 512 rows by 64: the standard deviation is within 5 standard errors (false alarms: 6e-7)."""
    whole = EmbeddingNoise(0.3, draws=1).ask(models.base, records)[0]
    seen: list[torch.Tensor] = []
    embed = type(models.base).embed

    def watched(self: object, ids: torch.Tensor) -> torch.Tensor:
        seen.append(ids)
        return embed(self, ids)

    monkeypatch.setattr(module, "SAMPLED_ROWS", 256)
    monkeypatch.setattr(type(models.base), "embed", watched)
    part = EmbeddingNoise(0.3, draws=1).ask(models.base, records)[0]
    assert len(set(seen[0].tolist())) == 256
    assert (int(seen[0].min()), int(seen[0].max())) == (0, 511)
    some, all_rows = (float(models.base.embeddings[rows].std()) for rows in (seen[0], slice(None)))
    assert abs(some / all_rows - 1) < 5 / np.sqrt(2 * 256 * 64)
    assert 0 < np.abs(part.logprob - whole.logprob).max() < 0.5
