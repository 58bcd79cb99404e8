"""What the target writes by itself, shared by every program that needs it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from repromia.errors import AttackError
from repromia.programs import Binding
from repromia.programs.prefixes import TextPrefix

LENGTH = 128  # tokens of a sample, at most


def own_samples(binding: Binding, count: int) -> list[np.ndarray]:
    """`count` samples of the target as long as its records at most; the same ones for every program of an audit."""
    from repromia.targets.sampling import sample

    key = f"own samples {count} {binding.seed} {binding.target.fingerprint}"
    if key not in binding.memory:
        records = binding.fit.records
        starts = np.array([one.ids[0] for one in binding.target.encode(records.contents, records.ids)])
        length = min(LENGTH, binding.longest)
        with binding.progress.step("letting the model write", 1) as bar:
            binding.memory[key] = sample(binding.target, count, length, starts=starts, seed=binding.seed)
            bar.advance()
    found: list[np.ndarray] = binding.memory[key]
    return found


@dataclass(frozen=True)
class GeneratedPrefix:
    """Text that the target wrote itself, in front of every record: `length` tokens; `draw` picks another text."""

    length: int = 64
    draw: int = 0

    def bind(self, binding: Binding) -> TextPrefix:
        """Write the prefix. Raises AttackError where the context leaves no room."""
        target = binding.target
        room = target.context - binding.longest
        bos = target.encoder.bos
        wanted = min(self.length, room)
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
