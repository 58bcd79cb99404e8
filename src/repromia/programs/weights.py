"""Programs that ask a throw-away copy: with noise on its weights, or noised and then repaired.

Noise destroys what a model knows of single records before what it knows of the language; repair on the model's own
samples brings the language back. The copy then is a reference model that the target carries in itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args

from repromia.errors import AttackError
from repromia.programs import Binding, Fixed, Target, at_least, weights_of
from repromia.programs.own_text import own_samples
from repromia.records import Records
from repromia.signals import TokenSignals
from repromia.targets.copies import Where, noised_copy, repair

if TYPE_CHECKING:
    from repromia.targets.language import LanguageModel


@dataclass(frozen=True)
class WeightNoise(Fixed):
    """A copy with Gaussian noise of `scale` times each matrix's standard deviation; `draws` copies in turn."""

    scale: float = 0.1
    draws: int = 2
    seed: int = 0

    def ask(self, target: Target, records: Records) -> tuple[TokenSignals, ...]:
        """One signal a copy. Raises AttackError without weights."""
        target = weights_of(target, "WeightNoise")
        at_least(1, draws=self.draws)
        at_least(0, scale=self.scale)
        sequences = target.encode(records.contents, records.ids)
        answers = []
        for draw in range(self.draws):
            copied = noised_copy(target, self.scale, seed=1000 * self.seed + draw)
            answers.append(copied.signals(sequences))
            target.asked += copied.asked
        return tuple(answers)


@dataclass(frozen=True)
class NoiseAndRepair:
    """A copy with noise of `noise` times each matrix's standard deviation, brought back to the target's next-token
    distributions in `steps` steps, on text that the target wrote itself.

    No label is used, and of records only their first tokens, where the tokenizer has no BOS.
    What is common to all text comes back, what was learned of single records much less. batch: texts a step, each
    used once; rate: see `repair`. where: for LoRA targets, "weights" merges the adapter and noises all of them,
    "adapter" noises and repairs the adapter alone.
    """

    noise: float = 0.2
    steps: int = 128
    batch: int = 16
    rate: float = 0.03
    where: Where = "auto"

    def bind(self, binding: Binding) -> RepairedCopy:
        """The copy, made when it is first asked."""
        return RepairedCopy(self, binding)

    def copy_of(self, binding: Binding) -> tuple[LanguageModel, dict[str, float]]:
        """The repaired copy as a model of its own (a reference for any attack that takes one), and how it went.

        Made once an audit, until `forget`.
        """
        target = weights_of(binding.target, "NoiseAndRepair")
        at_least(0, noise=self.noise, steps=self.steps, rate=self.rate)
        at_least(1, batch=self.batch)
        if self.where not in get_args(Where):
            raise AttackError(f"There are no weights called {self.where!r}.", expected=", ".join(get_args(Where)))
        key = self.key(binding)
        if key not in binding.memory:
            samples = own_samples(binding, self.steps * self.batch)
            copied = noised_copy(target, self.noise, seed=binding.seed, where=self.where)
            first, last = repair(
                copied, target, samples, batch=self.batch, rate=self.rate, where=self.where, progress=binding.progress
            )
            copied.name = f"{target.name}, noised and repaired"
            binding.memory[key] = copied, {"divergence_before": first, "divergence_after": last}
        found: tuple[LanguageModel, dict[str, float]] = binding.memory[key]
        return found

    def key(self, binding: Binding) -> str:
        """Options, seed, and what the samples depend on."""
        records = binding.fit.records.digest()
        return f"{self!r} {binding.seed} {binding.longest} {binding.target.fingerprint} {records}"

    def forget(self, binding: Binding) -> None:
        """Free the copy, unless somebody else holds it."""
        binding.memory.pop(self.key(binding), None)


@dataclass
class RepairedCopy:
    """The program that asks a repaired copy in place of the target."""

    plan: NoiseAndRepair
    binding: Binding = field(repr=False)
    _repaired: dict[str, float] = field(default_factory=dict, repr=False)

    travels = False  # the copy is made once, here

    @property
    def key(self) -> str:
        """What decides the copy."""
        return self.plan.key(self.binding)

    @property
    def used(self) -> frozenset[str]:
        """No record."""
        return frozenset()

    @property
    def details(self) -> dict[str, Any]:
        """How far the copy was from the target before and after repair."""
        return dict(self._repaired)

    def remember(self, details: dict[str, Any]) -> None:
        """What an earlier run found out, whose answers are read back."""
        self._repaired = details | self._repaired

    def ask(self, target: Target, records: Records) -> tuple[TokenSignals, ...]:
        """Signals of the copy. Raises AttackError where it cannot be made."""
        target = weights_of(target, "NoiseAndRepair")
        copied, self._repaired = self.plan.copy_of(self.binding)
        before = copied.asked
        answers = copied.signals(copied.encode(records.contents, records.ids))
        target.asked += copied.asked - before
        return (answers,)

    def close(self) -> None:
        """Free the copy; asking again makes it anew."""
        self.plan.forget(self.binding)
