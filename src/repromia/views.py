"""Views: a target's signals about records under one program. Each is asked once, shared and stored."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Int

from repromia.errors import AttackError, TargetError
from repromia.frequencies import token_frequencies
from repromia.programs import Binding, Identity, Program, Target
from repromia.programs.prefixes import visible_texts
from repromia.programs.registry import plan_for
from repromia.programs.saved import dump_soft_prompt, parse_soft_prompt
from repromia.programs.soft_prompt import SoftPrompt
from repromia.records import Records, content_digest
from repromia.signals import TokenSignals, join
from repromia.store import Store, code_digest, digest
from repromia.targets.endpoint import EndpointModel

Of = Literal["target", "reference"]
PART_RECORDS = 1024  # a part that is stored on its own: what a killed run loses at most
PART_TEXTS = 64  # the same at an endpoint, whose slow answers should be seen to come


@dataclass
class Cost:
    """What a view cost: forward passes a record, tokens fed (padding included), seconds. Zero when stored before."""

    of: str
    program: str
    records: int
    passes: int
    tokens: int
    seconds: float


@dataclass
class Views:
    """Asks models about records.

    targets: the models by role in the audit; records: all that may be asked about, in order, without labels;
    binding: what programs are made from. Signals are kept in `memory` once asked (share it between views of the
    same records) and stored part by part.
    """

    targets: dict[Of, Target]
    records: Records
    binding: Binding
    store: Store
    costs: list[Cost] = field(default_factory=list)
    memory: dict[str, tuple[TokenSignals, ...]] = field(default_factory=dict)
    _bound: dict[str, Program] = field(default_factory=dict)
    _facts: dict[str, Any] = field(default_factory=dict)

    def measure_longest(self) -> None:
        """Finds the longest record in tokens. An endpoint is asked the plain view for it, which every audit needs."""
        target = self.targets["target"]
        sequences = target.encode(self.records.contents, self.records.ids)
        if isinstance(target, EndpointModel):
            self.ask("target", Identity())
            lengths = target.lengths(sequences)
        else:
            lengths = [len(one.ids) for one in sequences]
        self.binding = replace(self.binding, longest=max(lengths))

    def add_reference(self, reference: Target) -> None:
        """A model to compare with. Raises TargetError unless it cuts the records into the target's tokens."""
        from repromia.targets.language import LanguageModel, check_same_tokens

        target = self.targets["target"]
        self.targets["reference"] = reference
        if isinstance(target, LanguageModel) and isinstance(reference, LanguageModel):
            check_same_tokens(target, reference, self.records.contents)
            return
        ours, theirs = (self.ask(of, Identity())[0].token for of in get_args(Of))
        if not np.array_equal(ours, theirs):
            raise TargetError(
                "The reference has another tokenizer than the target.",
                expected="the same tokens for every record, so that differences are per token",
                found="at least one record is cut differently",
                hint="name the checkpoint that the target was fine-tuned from as --reference",
            )

    def program(self, plan_name: str, options: dict[str, Any]) -> Program:
        """The bound program; learned at most once, and read back where an earlier run learned it."""
        plan = plan_for(plan_name, options)
        name = repr(plan)
        if name not in self._bound:
            self._bound[name] = self._bind(plan)
        return self._bound[name]

    def _bind(self, plan: Any) -> Program:
        binding = self.binding
        if getattr(plan, "program", ""):  # a file that the user may change
            program: Program = plan.bind(binding)
            self._refuse_learned_on_eval(program)
            return program
        key = digest(
            "program",
            code_digest(),
            repr(plan),
            binding.target.fingerprint,
            binding.seed,
            binding.longest,
            [(role.records.digest(), role.member.tolist()) for role in (binding.fit, binding.select)],
        )
        stored = self.store.get_json(key)
        if stored is not None:
            return parse_soft_prompt(stored)
        program = plan.bind(binding)
        if isinstance(program, SoftPrompt):
            self.store.put_json(key, dump_soft_prompt(program))
        return program

    def _refuse_learned_on_eval(self, program: Program) -> None:
        """A program carried over may have been learned on what is measured here, under whatever name."""
        known = {*self.binding.fit.records.ids, *self.binding.select.records.ids}
        rest = zip(self.records.ids, self.records.contents, strict=True)
        measured = {content_digest(content) for name, content in rest if name not in known}
        overlap = len(measured & getattr(program, "seen", frozenset()))
        if overlap:
            raise AttackError(
                "The program was learned on records that are measured here.",
                expected="a program learned on other records (a shadow model's)",
                found=f"{overlap} eval records among those it was learned on",
                hint="audit other records, or learn the program anew",
            )

    def ask(self, of: Of, program: Program, rows: Int[np.ndarray, " row"] | None = None) -> tuple[TokenSignals, ...]:
        """Signals of all records, or of some rows, under a program. Raises AttackError without that model."""
        if of not in self.targets:
            raise AttackError(
                "There is no reference model.",
                hint="name one with --reference: the checkpoint before fine-tuning is best",
            )
        if isinstance(program, SoftPrompt) and program.is_identity:
            program = Identity()
        key = f"{self.targets[of].fingerprint} {program.key}"
        if key in self.memory:
            known = self.memory[key]
            return known if rows is None else tuple(one.take(rows) for one in known)
        if rows is not None:
            return self._ask_parts(of, program, self.records.take(rows))
        self.memory[key] = self._ask_parts(of, program, self.records)
        return self.memory[key]

    def _ask_parts(self, of: Of, program: Program, records: Records) -> tuple[TokenSignals, ...]:
        target = self.targets[of]
        began, fed, variants = time.perf_counter(), target.tokens_asked, 1
        parts: list[tuple[TokenSignals, ...]] = []
        name = f"{of}: {type(program).__name__}"
        with self.binding.progress.step(name, len(records)) as bar:
            size = min(PART_TEXTS, PART_RECORDS) if isinstance(target, EndpointModel) else PART_RECORDS
            for at in range(0, len(records), size):
                part = records.take(range(at, min(at + size, len(records))))
                parts.append(self._ask_part(target, program, part))
                variants = len(parts[-1])
                bar.advance(len(part))
        program.close()
        joined = tuple(join([part[variant] for part in parts]) for variant in range(variants))
        tokens = target.tokens_asked - fed
        seconds = time.perf_counter() - began
        self.costs.append(Cost(of, type(program).__name__, len(records), variants, tokens, round(seconds, 3)))
        self.store.event("view", of=of, program=type(program).__name__, records=len(records), tokens=tokens)
        return joined

    def _ask_part(self, target: Target, program: Program, part: Records) -> tuple[TokenSignals, ...]:
        key = digest("view", code_digest(), target.fingerprint, program.key, part.digest())
        found: list[TokenSignals] = []
        while (one := self.store.get(f"{key}-{len(found)}")) is not None:
            found.append(one)
        count = self.store.get_json(key)
        if count is not None and count == len(found):
            return tuple(found)
        answers = program.ask(target, part)
        for variant, one in enumerate(answers):
            self.store.put(f"{key}-{variant}", one)
        self.store.put_json(key, len(answers))
        return answers

    def fact(self, name: str, options: dict[str, Any]) -> Any:
        """A fact about the records that is no view: `texts` or `token_frequencies`."""
        corpus = str(options.get("corpus", ""))
        key = f"{name} {corpus}"
        if key not in self._facts:
            self._facts[key] = (
                visible_texts(self.targets["target"], self.records)
                if name == "texts"
                else token_frequencies(self.binding, corpus=corpus)
            )
        return self._facts[key]

    def soft_prompts(self) -> dict[str, SoftPrompt]:
        """Learned programs by plan, the identity left out."""
        return {name: one for name, one in self._bound.items() if isinstance(one, SoftPrompt) and not one.is_identity}

    def cost_table(self) -> tuple[dict[str, Any], ...]:
        """What was asked and what it cost, in order."""
        return tuple(asdict(cost) for cost in self.costs)


def take_fact(fact: Any, rows: Sequence[int] | Int[np.ndarray, " row"]) -> Any:
    """Per-record facts cut to rows; others as they are."""
    return [fact[int(row)] for row in rows] if isinstance(fact, list) else fact
