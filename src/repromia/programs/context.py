"""Programs that take context away: the model sees only the last few tokens, layer by layer.

A band is not truncated text: block k reaches back through block k - 1, so a model of depth d with a band of w
tokens depends on up to d * (w - 1) earlier ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool
from torch import Tensor

from repromia.errors import AttackError
from repromia.programs import Fixed, Target, weights_of
from repromia.records import Records
from repromia.signals import TokenSignals

if TYPE_CHECKING:
    from repromia.targets.language import LanguageModel


@dataclass(frozen=True)
class Band(Fixed):
    """Each token attends to the last `width` tokens, itself included."""

    width: int = 1

    def ask(self, target: Target, records: Records) -> tuple[TokenSignals, ...]:
        """Signals under the band. Raises AttackError on models that do not obey such a mask."""
        return _ask(self, weights_of(target, type(self).__name__), records)

    def visible(self, length: int, device: torch.device) -> Bool[Tensor, "query key"]:
        """Which token sees which."""
        at = torch.arange(length, device=device)
        back = at[:, None] - at[None, :]
        return (back >= 0) & (back < self.width)

    def positions(self, length: int, device: torch.device) -> dict[str, Any]:
        """Tokens keep their place; said so that no model counts places from the mask, as OPT does."""
        return {"position_ids": torch.arange(length, device=device)[None]}


@dataclass(frozen=True)
class Chunks(Fixed):
    """The text in chunks of `size` tokens, each read as if it were alone, all in one pass."""

    size: int = 8

    def ask(self, target: Target, records: Records) -> tuple[TokenSignals, ...]:
        """Signals of the chunks. Raises AttackError on models that do not obey such a mask."""
        return _ask(self, weights_of(target, type(self).__name__), records)

    def visible(self, length: int, device: torch.device) -> Bool[Tensor, "query key"]:
        """Which token sees which."""
        at = torch.arange(length, device=device)
        return (at[:, None] >= at[None, :]) & (at[:, None] // self.size == at[None, :] // self.size)

    def positions(self, length: int, device: torch.device) -> dict[str, Any]:
        """Positions that begin again in every chunk, for models with absolute ones."""
        return {"position_ids": torch.arange(length, device=device)[None] % self.size}


def _ask(program: Band | Chunks, target: LanguageModel, records: Records) -> tuple[TokenSignals, ...]:
    reach = program.width if isinstance(program, Band) else program.size
    if reach < 1:
        raise AttackError("A context ablation needs at least one token.", found=repr(program))
    _check_masks_are_obeyed(target)
    sequences = target.encode(records.contents, records.ids)
    longest = max(len(one.ids) for one in sequences)
    windows = [
        getattr(target.model.config.get_text_config(), name, None)
        for name in ("sliding_window", "attention_chunk_size")
    ]
    if any(window and min(reach, longest) > window for window in windows):  # the mask would take the window's place
        raise AttackError(
            "The model's own attention window is narrower than the context asked for.",
            expected=f"at most {min(window for window in windows if window)} tokens",
            found=repr(program),
        )

    def way(target: LanguageModel, ids: Tensor) -> Iterator[Tensor]:
        length = ids.shape[1]
        mask = additive(program.visible(length, ids.device), target.embeddings.dtype)
        yield target.hidden(
            input_ids=ids,
            attention_mask=mask.expand(len(ids), 1, length, length),
            **program.positions(length, ids.device),
        )

    return target.ask(sequences, way)


def additive(visible: Bool[Tensor, "query key"], dtype: torch.dtype) -> Tensor:
    """(1, 1, query, key): 0 where visible. A boolean mask is silently misread by eager attention."""
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(
        ~visible, torch.finfo(dtype).min
    )[None, None]


def _check_masks_are_obeyed(target: LanguageModel) -> None:
    """Asked once on eight tokens: some models ignore such a mask or read it in another way."""
    try:
        obeyed = target.remembered("masks are obeyed", _masks_are_obeyed)
    except Exception as error:
        raise AttackError(
            "The model cannot be asked with context taken away.",
            expected="a transformer that takes an additive (batch, 1, query, key) attention mask",
            found=f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}",
        ) from error
    if not obeyed:
        raise AttackError(
            "The model does not obey an attention mask per token pair, so context cannot be taken away.",
            expected="a transformer with sdpa or eager attention",
            found=type(target.model).__name__,
        )


def _masks_are_obeyed(target: LanguageModel) -> bool:
    """The full causal mask changes nothing; under a band of one, no token depends on another."""
    ids = torch.arange(8, device=target.device)[None] % target.vocabulary
    changed = ids.clone()
    changed[0, 3] = target.vocabulary - 1
    dtype = target.embeddings.dtype
    causal = additive(Band(8).visible(8, ids.device), dtype)
    alone = additive(Band(1).visible(8, ids.device), dtype)
    tolerance = 1e-3 if dtype == torch.float32 else 5e-2
    places = Band(8).positions(8, ids.device)
    plain = target.hidden(input_ids=ids)
    masked = target.hidden(input_ids=ids, attention_mask=causal, **places)
    same = torch.allclose(plain, masked, atol=tolerance, rtol=tolerance)
    before, after = (target.hidden(input_ids=one, attention_mask=alone, **places) for one in (ids, changed))
    kept = [at for at in range(8) if at != 3]
    return same and torch.allclose(before[:, kept], after[:, kept], atol=tolerance, rtol=tolerance)
