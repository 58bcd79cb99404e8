"""Text that a model writes by itself: drawn from its own distribution, and from nothing else."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES, target_of, tiny, with_lora
from scipy.stats import chi2
from transformers import PreTrainedTokenizerFast

from repromia.errors import AttackError
from repromia.targets.language import LanguageModel
from repromia.targets.sampling import sample
from small import SmallModels

START = np.array([7])
DRAWS = 6000
ALARM = 1e-5  # false-alarm rate of each comparison with a distribution


def drawn(target: LanguageModel, count: int = 20, length: int = 12, seed: int = 0) -> list[np.ndarray]:
    return sample(target, count, length, starts=START, seed=seed)


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.fixture(params=ARCHITECTURES)
def target(request: pytest.FixtureRequest, models: SmallModels) -> LanguageModel:
    return target_of(tiny(request.param), models.base.tokenizer)


def test_samples_are_texts_of_the_model(target: LanguageModel) -> None:
    state, modes = torch.get_rng_state(), [one.training for one in target.model.modules()]
    weights = {name: one.clone() for name, one in target.model.state_dict().items()}
    found = drawn(target)
    assert torch.equal(torch.get_rng_state(), state)
    assert [one.training for one in target.model.modules()] == modes
    assert all(torch.equal(one, weights[name]) for name, one in target.model.state_dict().items())
    assert len(found) == 20
    for ids in found:
        assert ids.dtype == np.int64
        assert 2 <= len(ids) <= 12
        assert ids[0] == target.encoder.bos == 0
        assert ids.min() >= 0
        assert ids.max() < 512
        assert 1 not in ids[2:]  # the end token
    assert max(map(len, found)) == 12
    assert len({ids.tobytes() for ids in found}) > 15
    assert same(found, drawn(target))
    assert not same(found, drawn(target, seed=1))


def test_drawn_tokens_are_counted(models: SmallModels) -> None:
    target = target_of(tiny("llama"), models.base.tokenizer)
    target.asked = 0
    found = drawn(target, 150, 2)
    assert len(found) == 150
    assert target.asked == 300


def far_from(counts: np.ndarray, odds: np.ndarray) -> bool:
    """Pearson's chi-square beyond its 1 - ALARM quantile; tokens expected fewer than ten times count as one."""
    expected = odds * counts.sum()
    common = expected >= 10
    seen = np.append(counts[common], counts[~common].sum())
    wanted = np.append(expected[common], expected[~common].sum())
    return bool(((seen - wanted) ** 2 / wanted).sum() > chi2.ppf(1 - ALARM, len(seen) - 1))


@torch.no_grad()
def next_odds(model: Any, ids: list[int], temperature: float = 1.0) -> np.ndarray:
    logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].double()
    return (logits / temperature).softmax(-1).numpy()


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "mamba"])
def test_first_tokens_follow_the_models_own_odds(architecture: str, models: SmallModels) -> None:
    target = target_of(tiny(architecture), models.base.tokenizer)
    counts = np.bincount([ids[1] for ids in drawn(target, DRAWS, 2)], minlength=512)
    assert not far_from(counts, next_odds(target.model, [0]))
    assert far_from(counts, next_odds(target.model, [0], 0.8))  # the test would notice
    assert far_from(counts, next_odds(target.model, [5]))


def test_later_tokens_follow_the_models_own_odds(models: SmallModels) -> None:
    """Second tokens after the most frequent first one, of a model with large logits."""
    model = copy.deepcopy(tiny("llama"))
    model.get_output_embeddings().weight.mul_(3)
    found = drawn(target_of(model, models.base.tokenizer), DRAWS, 3)
    first = int(np.bincount([ids[1] for ids in found]).argmax())
    counts = np.bincount([ids[2] for ids in found if ids[1] == first and len(ids) > 2], minlength=512)
    assert first != 1  # the end token
    assert counts.sum() > 500
    odds = next_odds(model, [0, first])
    odds[1] = 0  # an end token is left out
    assert not far_from(counts, odds / odds.sum())
    assert far_from(counts, next_odds(model, [0]))  # the test would notice
    assert far_from(counts, next_odds(model, [0, first], 0.8))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("temperature", 0.1),
        ("top_k", 1),
        ("top_p", 0.1),
        ("repetition_penalty", 5.0),
        ("min_p", 0.5),
        ("no_repeat_ngram_size", 1),
        ("suppress_tokens", [5, 6, 7, 8, 9, 10]),
        ("num_return_sequences", 2),
    ],
)
def test_the_checkpoints_own_generation_settings_play_no_part(setting: str, value: Any, models: SmallModels) -> None:
    """Chat checkpoints come with a `generation_config.json` that bends what they write."""
    expected = drawn(target_of(tiny("llama"), models.base.tokenizer))
    for model in (copy.deepcopy(tiny("llama")), with_lora(tiny("llama"))):
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.data.zero_()  # the same model behind an adapter
        config = model.generation_config
        setattr(config, setting, value)
        before = config.to_dict()
        assert same(drawn(target_of(model, models.base.tokenizer)), expected)
        assert model.generation_config is config
        assert config.to_dict() == before


def test_without_bos_texts_begin_as_records_do(models: SmallModels) -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=models.base.tokenizer.backend_tokenizer)  # knows no BOS
    target = target_of(tiny("llama"), tokenizer)
    assert target.encoder.bos is None
    found = sample(target, 300, 4, starts=np.array([17, 17, 17, 40]), seed=0)
    first = np.array([ids[0] for ids in found])
    assert set(first.tolist()) == {17, 40}
    assert abs((first == 17).mean() - 0.75) < 5 * np.sqrt(0.75 * 0.25 / 300)  # false alarms: 6e-7
    assert same(found, sample(target, 300, 4, starts=np.array([17, 17, 17, 40]), seed=0))


def test_a_text_ends_before_its_end_token(models: SmallModels) -> None:
    model = copy.deepcopy(tiny("llama"))
    head = model.get_output_embeddings()
    forward = head.forward

    def often_ends(hidden: torch.Tensor) -> torch.Tensor:
        logits = forward(hidden)
        logits[..., 1] = logits.logsumexp(-1)  # every other token
        return logits

    target = target_of(model, models.base.tokenizer)
    head.forward = often_ends
    found = drawn(target, 200, 16)
    lengths = np.array([len(ids) for ids in found])
    assert (lengths == 2).mean() > 0.5  # ended at once, or after one token
    assert all(1 not in ids[2:] for ids in found)
    ended_at_once = [ids for ids in found if ids[1] == 1]
    assert ended_at_once
    assert all(len(ids) == 2 for ids in ended_at_once)  # something to predict is left


def test_an_adapter_writes_its_own_text_and_off_the_bases(models: SmallModels) -> None:
    target = target_of(with_lora(tiny("llama")), models.base.tokenizer)
    bare = target_of(tiny("llama"), models.base.tokenizer)
    assert same(drawn(target.base()), drawn(bare))
    assert not same(drawn(target), drawn(bare))


def test_a_model_that_cannot_generate_is_refused(models: SmallModels) -> None:
    class Bare(torch.nn.Module):
        """Forward and nothing else."""

        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner, self.config = inner, inner.config

        def forward(self, **inputs: Any) -> Any:
            return self.inner(**inputs)

        def get_input_embeddings(self) -> Any:
            return self.inner.get_input_embeddings()

        def get_output_embeddings(self) -> Any:
            return self.inner.get_output_embeddings()

    target = target_of(tiny("llama"), models.base.tokenizer)
    target.model = Bare(target.model)
    with pytest.raises(AttackError, match="cannot write"):
        drawn(target)
