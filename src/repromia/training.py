"""Small, plain training of causal language models: for demos, tests and benchmarks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from repromia.progress import Progress, Silent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from repromia.targets.tokens import Encoder

AT_ONCE = 8192  # tokens in a forward pass: 1.6 GB of logits at 49,152 words


def train(
    model: Any,
    encoder: Encoder,
    texts: Sequence[str],
    *,
    epochs: float,
    learning_rate: float,
    batch: int = 16,
    seed: int = 0,
    progress: Progress | None = None,
) -> float:
    """Train in place on next-token loss with AdamW and a linear decay; mean loss of the last tenth.

    Texts are shuffled each epoch with `seed`; a fraction of an epoch stops early.
    """
    sequences = [torch.from_numpy(one.ids) for one in encoder.encode(list(texts))]
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(trainable, lr=learning_rate, weight_decay=0.0)
    generator = torch.Generator().manual_seed(seed)
    per_epoch = max(1, len(sequences) // batch)
    steps = max(1, round(epochs * per_epoch))
    losses: list[float] = []
    batches: list[list[torch.Tensor]] = []
    model.train()
    with (progress or Silent()).step("training", steps) as bar:
        for step in range(steps):
            batches = batches or _epoch(sequences, batch, generator)
            losses.append(_step(model, optimiser, batches.pop()))
            for group in optimiser.param_groups:
                group["lr"] = learning_rate * (1 - (step + 1) / steps)
            bar.advance()
    model.eval()
    tail = losses[-max(1, len(losses) // 10) :]
    return sum(tail) / len(tail)


def _epoch(sequences: list[torch.Tensor], batch: int, generator: torch.Generator) -> list[list[torch.Tensor]]:
    """Shuffled batches of like length: sorted within random windows of 16 batches, so that little is padding."""
    order = torch.randperm(len(sequences), generator=generator).tolist()
    window = 16 * batch
    batches: list[list[torch.Tensor]] = []
    for at in range(0, len(order), window):
        rows = sorted(order[at : at + window], key=lambda row: len(sequences[row]))
        batches += [[sequences[row] for row in rows[one : one + batch]] for one in range(0, len(rows), batch)]
    whole = [one for one in batches if len(one) == batch] or batches
    return [whole[at] for at in torch.randperm(len(whole), generator=generator).tolist()]


def _step(model: Any, optimiser: torch.optim.Optimizer, batch: list[torch.Tensor]) -> float:
    """One update on the mean loss of the batch's tokens."""
    predicted = sum(len(one) - 1 for one in batch)
    loss = 0.0 if predicted else float("nan")
    for part in _parts([one for one in batch if len(one) > 1]):
        ids = torch.nn.utils.rnn.pad_sequence(part, batch_first=True)
        labels = torch.nn.utils.rnn.pad_sequence(part, batch_first=True, padding_value=-100)
        share = sum(len(one) - 1 for one in part) / predicted
        own = model(input_ids=ids.to(model.device), labels=labels.to(model.device)).loss * share
        own.backward()
        loss += float(own.detach())
    torch.nn.utils.clip_grad_norm_([p for group in optimiser.param_groups for p in group["params"]], 1.0)
    optimiser.step()
    optimiser.zero_grad()
    return loss


def _parts(batch: list[torch.Tensor]) -> list[list[torch.Tensor]]:
    """The batch in parts of at most `AT_ONCE` padded tokens: gradients add up, and logits of all do not fit a GPU."""
    rows = max(1, AT_ONCE // max((len(one) for one in batch), default=1))
    return [batch[at : at + rows] for at in range(0, len(batch), rows)]
