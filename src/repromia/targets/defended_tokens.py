"""Defences of language models: on whole next-token distributions, then on the log-probabilities that are told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor

from repromia.defences import Defence, Noise, Rounding, Temperature, TopK
from repromia.errors import ConfigError
from repromia.targets.answers import noise_by_answer, rounded, tempered, top
from repromia.targets.drawn import uniform


@dataclass(frozen=True)
class TokenDefences:
    """whole: change distributions, of which everything is still told; told: change the log-probability of a record's
    own tokens, and then nothing else is told. salt: what tells this model's noise from another's."""

    whole: tuple[Defence, ...]
    told: tuple[Defence, ...]
    salt: str

    @property
    def specs(self) -> tuple[str, ...]:
        """As they are written, in order."""
        return tuple(one.spec for one in (*self.whole, *self.told))

    def distribution(self, logits: Tensor) -> Tensor:
        """Logits as they are answered; differentiable."""
        for one in self.whole:
            if isinstance(one, Temperature):
                logits = tempered(logits.float(), one.t)
            elif isinstance(one, TopK):
                logits = top(logits.float(), one.k)
        return logits

    def logprobs(self, values: Tensor, sequences: Sequence[np.ndarray], counts: Sequence[int]) -> Tensor:
        """Log-probabilities of scored tokens as they are told; differentiable. sequences: token ids of each record;
        counts: scored tokens of each, laid end to end in `values`."""
        for one in self.told:
            if isinstance(one, Rounding):
                values = rounded(values, one.digits)
            elif isinstance(one, Noise):
                phase = np.concatenate(
                    [self._phase(ids, count, one.seed) for ids, count in zip(sequences, counts, strict=True)]
                )
                drawn = noise_by_answer(values.detach().double().cpu().numpy(), phase)
                noisy = values + (one.scale * torch.from_numpy(drawn)).to(values.device, values.dtype)
                values = noisy + (noisy.detach().clamp(max=0) - noisy.detach())  # no log-probability is above 0
        return values

    def _phase(self, ids: np.ndarray, count: int, seed: int) -> np.ndarray:
        text = blake2b(f"{self.salt} {seed} ".encode() + ids.astype(np.int64).tobytes(), digest_size=8).digest()
        return uniform(np.uint64(int.from_bytes(text)) + np.arange(count, dtype=np.uint64), 0)


def token_defences(defences: Sequence[Defence], salt: str) -> TokenDefences:
    """Sorted by where they act. Raises ConfigError where a distribution is to be changed of which only
    log-probabilities were left, and for noise that is drawn anew."""
    told = [isinstance(one, Noise | Rounding) for one in defences]
    if told != sorted(told):
        raise ConfigError(
            "noise and rounding tell the log-probabilities of a record's own tokens alone, and nothing can be made of "
            "these that needs the whole distribution.",
            expected="temperature and top_k first",
            found=", ".join(one.spec for one in defences),
        )
    if any(isinstance(one, Noise) and one.random for one in defences):
        raise ConfigError("Noise that is drawn anew is there for classifiers only.", hint="leave random=true out")
    whole, last = (tuple(one for one, own in zip(defences, told, strict=True) if own == side) for side in (False, True))
    return TokenDefences(whole, last, salt)
