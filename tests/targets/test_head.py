"""Token statistics against float64, a few lines a figure."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from repromia.targets.head import chunk_rows, token_logprob, token_statistics


def oracle(logits: Tensor, token: Tensor) -> dict[str, Tensor]:
    logprob = logits.double().log_softmax(-1)
    odds = logprob.exp()
    visible = torch.where(odds > 0, logprob, 0.0)  # 0 log 0 = 0
    mean = (odds * visible).sum(-1)
    own = logprob.gather(-1, token[:, None])
    return {
        "logprob": own[:, 0],
        "mean": mean,
        "std": (odds * (visible - mean[:, None]) ** 2).sum(-1).sqrt(),
        "top_token": logprob.argmax(-1),
        "top_logprob": logprob.max(-1).values,
        "rank": (logprob > own).sum(-1),
    }


def check(logits: Tensor, token: Tensor, tolerance: float) -> dict[str, Tensor]:
    expected = oracle(logits, token)
    got = token_statistics(lambda rows: rows, logits, token, logits.shape[-1])
    assert got.keys() == expected.keys()
    for name, values in got.items():
        torch.testing.assert_close(
            values.double(), expected[name].double(), atol=tolerance, rtol=tolerance, msg=lambda text, n=name: n + text
        )
    return got


@pytest.mark.parametrize(("vocabulary", "rows", "chunks"), [(7, 5000, 2), (512, 4097, 2), (50_000, 350, 2)])
def test_statistics_are_those_of_float64_in_several_chunks(vocabulary: int, rows: int, chunks: int) -> None:
    generator = torch.Generator().manual_seed(vocabulary)
    logits = 3 * torch.randn(rows, vocabulary, generator=generator)
    token = torch.randint(vocabulary, (rows,), generator=generator)
    assert -(-rows // chunk_rows(vocabulary)) == chunks
    check(logits, token, 2e-5)


def test_a_chunk_of_logits_stays_near_64_megabytes() -> None:
    for vocabulary in (512, 50_000, 262_144):
        assert chunk_rows(vocabulary) * vocabulary <= 2**24


@pytest.mark.parametrize("lead", [10.0, 30.0, 60.0, 200.0])
def test_confident_tokens_have_a_tiny_finite_spread(lead: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(8, 512, generator=generator)
    logits[:, 5] += lead
    got = token_statistics(lambda rows: rows, logits, torch.full((8,), 5), 512)
    expected = oracle(logits, torch.full((8,), 5))["std"]
    assert got["std"].isfinite().all()
    assert got["std"].max() < 3
    # far below float32's resolution of 1 + x, and still right: the uncentred form would give 0 or NaN
    torch.testing.assert_close(got["std"].double(), expected, rtol=1e-3, atol=1e-25)


def test_masked_logits_count_as_impossible() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(40, 50, generator=generator)
    logits[:, 30:] = -torch.inf
    got = check(logits, torch.randint(30, (40,), generator=generator), 1e-5)
    assert all(values.isfinite().all() for values in got.values())


def test_a_broken_row_is_not_hidden() -> None:
    logits = torch.zeros(2, 7)
    logits[1, 3] = torch.nan
    got = token_statistics(lambda rows: rows, logits, torch.tensor([0, 0]), 7)
    assert got["std"].isfinite().tolist() == [True, False]


def test_half_precision_logits_are_summed_in_float32() -> None:
    generator = torch.Generator().manual_seed(2)
    logits = (3 * torch.randn(20, 5000, generator=generator)).bfloat16()
    check(logits, torch.randint(5000, (20,), generator=generator), 2e-5)


def test_the_gradient_is_that_of_plain_autograd() -> None:
    generator = torch.Generator().manual_seed(3)
    matrix = torch.randn(50_000, 8, generator=generator)
    hidden = torch.randn(400, 8, generator=generator, requires_grad=True)
    token = torch.randint(50_000, (400,), generator=generator)
    weight = torch.randn(400, generator=generator)
    assert len(token) > chunk_rows(50_000)

    plain = torch.log_softmax(hidden @ matrix.T, -1).gather(-1, token[:, None])[:, 0]
    (expected,) = torch.autograd.grad(plain @ weight, hidden)
    got = token_logprob(lambda rows: rows @ matrix.T, hidden, token, 50_000)
    torch.testing.assert_close(got, plain)
    (gradient,) = torch.autograd.grad(got @ weight, hidden)
    torch.testing.assert_close(gradient, expected, atol=1e-4, rtol=1e-4)


def test_undecided_tokens_have_a_tiny_spread_too() -> None:
    """All entries within 1e-4 of each other: mean of squares minus squared mean would be off by a factor of ten."""
    logits = 1e-4 * torch.randn(8, 512, generator=torch.Generator().manual_seed(4))
    token = torch.zeros(8, dtype=torch.long)
    got = token_statistics(lambda rows: rows, logits, token, 512)
    torch.testing.assert_close(got["std"].double(), oracle(logits, token)["std"], rtol=1e-3, atol=0)
