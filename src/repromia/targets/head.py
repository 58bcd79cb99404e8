"""Token statistics from hidden states, a few rows of the vocabulary at a time.

The (batch x time x vocabulary) logits never exist: the output head is applied to chunks of the scored positions
only, in float32. Working memory is two buffers of `CHUNK_FLOATS` whatever the batch, length and vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

CHUNK_FLOATS = 2**24  # logits in memory at once: large, so that the matrix product is efficient
BLOCK_FLOATS = 2**19  # logits looked at together: small, so that a dozen passes over them stay in the cache
Head = Callable[[Tensor], Tensor]


def chunk_rows(vocabulary: int) -> int:
    """Rows whose float32 logits fill about 64 MB."""
    return max(16, min(4096, CHUNK_FLOATS // vocabulary))


def token_statistics(
    head: Head, hidden: Float[Tensor, "row width"], token: Int[Tensor, " row"], vocabulary: int
) -> dict[str, Tensor]:
    """The fields of `TokenSignals` for each row (hidden state that predicts `token`), on the CPU.

    mean and std are of log p(v), v ~ p (Min-K%++, Zhang et al. 2024, eq. 3), the variance centred: the
    uncentred form cancels catastrophically for confident tokens.
    """
    step, block = chunk_rows(vocabulary), max(1, BLOCK_FLOATS // vocabulary)
    parts: list[dict[str, Tensor]] = []
    for at in range(0, len(token), step):
        logits, own = head(hidden[at : at + step]), token[at : at + step]
        if logits.device.type != "cpu":
            block = step  # an accelerator wants few large kernels
        parts += [
            _block_statistics(logits[row : row + block], own[row : row + block]) for row in range(0, len(own), block)
        ]
    return {name: torch.cat([part[name] for part in parts]).cpu() for name in parts[0]}


def _block_statistics(logits: Tensor, token: Tensor) -> dict[str, Tensor]:
    logits = logits.float()
    top, top_token = logits.max(-1)
    own = logits.gather(-1, token[:, None])
    rank = (logits > own).sum(-1, dtype=torch.int32)
    logits = logits - top[:, None]  # the only copy; every later step is in place
    weight = logits.exp()
    mass = weight.sum(-1)
    log_mass = mass.log()
    centre = torch.linalg.vecdot(weight, logits) / mass
    if not centre.isfinite().all():  # an entry masked to -inf has weight 0 and must count as 0, not 0 * inf
        logits = logits.clamp_(min=-1e4)
        centre = torch.linalg.vecdot(weight, logits) / mass
    logits.sub_(centre[:, None]).square_()
    variance = torch.linalg.vecdot(weight, logits) / mass
    return {
        "logprob": own[:, 0] - top - log_mass,
        "mean": centre - log_mass,
        "std": variance.sqrt(),
        "top_token": top_token.int(),
        "top_logprob": -log_mass,
        "rank": rank,
    }


def token_divergence(
    head: Head,
    hidden: Float[Tensor, "row width"],
    other_head: Head,
    other: Float[Tensor, "row other_width"],
    vocabulary: int,
) -> Float[Tensor, ""]:
    """Mean KL(p || q) of next-token distributions, nats: p from `head(hidden)`, q differentiable from the other.

    Chunked and recomputed in the backward pass, as `token_logprob`.
    """
    step = chunk_rows(vocabulary)

    def chunk(rows: Tensor, other_rows: Tensor) -> Tensor:
        own = torch.log_softmax(head(rows).detach().float(), -1)
        return torch.nn.functional.kl_div(
            torch.log_softmax(other_head(other_rows).float(), -1), own, log_target=True, reduction="sum"
        )

    parts = [
        checkpoint(chunk, hidden[at : at + step], other[at : at + step], use_reentrant=False)
        for at in range(0, len(hidden), step)
    ]
    return torch.stack(parts).sum() / len(hidden)


def token_logprob(
    head: Head, hidden: Float[Tensor, "row width"], token: Int[Tensor, " row"], vocabulary: int
) -> Float[Tensor, " row"]:
    """Differentiable log p(token); logits are recomputed in the backward pass instead of kept."""
    step = chunk_rows(vocabulary)

    def chunk(rows: Tensor, ids: Tensor) -> Tensor:
        return torch.log_softmax(head(rows).float(), -1).gather(-1, ids[:, None])[:, 0]

    parts = [
        checkpoint(chunk, hidden[at : at + step], token[at : at + step], use_reentrant=False)
        for at in range(0, len(token), step)
    ]
    return torch.cat(parts)
