"""What the target writes by itself, shared by every program that needs it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from repromia.errors import AttackError
from repromia.programs import Binding, weights_of
from repromia.programs.prefixes import TextPrefix

LENGTH = 128  # tokens of a sample, at most


def own_samples(binding: Binding, count: int) -> list[np.ndarray]:
    """`count` samples of the target as long as its records at most; the same ones for every program of an audit."""
    from repromia.targets.sampling import sample

    target = weights_of(binding.target, "Text that the model writes by itself")
    records = binding.fit.records
    key = f"own samples {count} {binding.seed} {binding.longest} {target.fingerprint} {records.digest()}"
    if key not in binding.memory:
        starts = np.array([one.ids[0] for one in target.encode(records.contents, records.ids)])
        length = min(LENGTH, binding.longest)
        with binding.progress.step("letting the model write", 1) as bar:
            binding.memory[key] = sample(target, count, length, starts=starts, seed=binding.seed)
            bar.advance()
    found: list[np.ndarray] = binding.memory[key]
    return found


@dataclass(frozen=True)
class GeneratedPrefix:
    """Text that the target wrote itself, in front of every record: `length` tokens; `draw` picks another text."""

    length: int = 64
    draw: int = 0

    def bind(self, binding: Binding) -> TextPrefix:
        """Write the prefix. Raises AttackError where the context leaves no room, or there are no weights."""
        target = weights_of(binding.target, "GeneratedPrefix")
        room = target.context - binding.longest
        bos = target.encoder.bos
        wanted = min(self.length, room)
        if self.length < 2:
            raise AttackError("A generated prefix has at least 2 tokens.", found=f"length={self.length}")
        if wanted < 2:
            raise AttackError(
                "The context leaves no room for a prefix.",
                expected="at least 2 tokens between the longest record and the context length",
                found=f"{room} tokens",
                hint="cut records with --max-tokens",
            )
        ids: list[int] = [] if bos is None else [bos]
        samples = own_samples(binding, 64)
        border = target.encoder.plain_ids("\n\n")
        for at in range(len(samples)):
            if len(ids) >= wanted:
                break
            text = samples[(self.draw * 7 + at) % len(samples)]
            ids += [int(one) for one in (text if bos is None else text[1:])]
        kept = ids[: max(2, wanted - len(border))] + border
        return TextPrefix(tuple(kept[:wanted]), frozenset(), 1, 1)
