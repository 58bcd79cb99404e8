"""Views: a target's signals about records under one program. Each is asked once, shared and stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int

from repromia.errors import AttackError, TargetError
from repromia.frequencies import token_frequencies
from repromia.parts import Asked, Asking, Workers, parts_of
from repromia.programs import Binding, Identity, Plan, Program, Target, TextTarget, identity_of, text_target
from repromia.programs.prefixes import visible_texts
from repromia.programs.registry import plan_for
from repromia.programs.saved import Learned
from repromia.progress import Progress
from repromia.records import Records, content_digest
from repromia.restarts import Restarts, learned_once
from repromia.signals import (
    DenoiseSignals,
    ForecastSignals,
    GradientSignals,
    ReferenceGains,
    ReferenceSignals,
    Signals,
    TokenSignals,
    join,
    size_of,
    stack,
    told_by,
)
from repromia.store import Store, code_digest, digest
from repromia.targets.endpoint import EndpointModel

Of = Literal["target", "reference"]
KEPT_BYTES = 2**30  # of signals in memory; what else was stored is read back when it is wanted again


@runtime_checkable
class ShadowModels(Protocol):
    """Models trained like the target on known random halves of the records."""

    def check(self, records: Records) -> None:
        """Raises RepromiaError for what can be seen to be wrong before anything is asked or trained."""
        ...

    def saw(self, records: Records) -> Bool[np.ndarray, "model record"]:
        """Which of the records each was trained on; of a null model too that was drawn together with them."""
        ...

    def signals(self, records: Records, store: Store, progress: Progress) -> ReferenceSignals:
        """What they say of the records: trained and asked, or read back from the store."""
        ...

    def gains(self, records: Records, store: Store, progress: Progress, program: Program) -> ReferenceGains:
        """What they say under a program that answers with `GainSignals`: trained again for it."""
        ...

    def null_model(self, records: Records) -> Target | None:
        """One more such model, none of those asked: whom it saw was drawn by lot, whatever the audit's labels."""
        ...

    @property
    def key(self) -> str:
        """Everything that decides what they say."""
        ...

    def describe(self) -> dict[str, Any]:
        """What a reader of the report needs to know about them."""
        ...


@dataclass
class Cost:
    """What a view cost: forward passes a record, tokens fed (padding included) or denoiser evaluations, seconds of
    asking (the sum over workers).

    Of what an earlier run of the audit stored, what it took then. Zero where this run had the answers already.
    """

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
    binding: what programs are made from; shadows: reference models of known training data; workers: who asks. Signals
    are kept in `memory` once asked (share it between views of the same records) and stored part by part.
    """

    targets: dict[Of, Target]
    records: Records
    binding: Binding
    store: Store
    costs: list[Cost] = field(default_factory=list)
    memory: dict[str, tuple[Signals, ...]] = field(default_factory=dict)
    shadows: ShadowModels | None = None
    workers: Workers = field(default_factory=Workers)
    _bound: dict[str, Program] = field(default_factory=dict)
    _facts: dict[str, Any] = field(default_factory=dict)

    @property
    def modality(self) -> str:
        """What kind of model is asked."""
        return self.targets["target"].modality

    @property
    def has_reference(self) -> bool:
        """Whether there is a model to compare with."""
        return "reference" in self.targets or self.shadows is not None

    def measure_longest(self) -> None:
        """Finds the longest record in tokens. An endpoint is asked the plain view for it, which every audit needs."""
        target = self.targets["target"]
        if not isinstance(target, TextTarget):
            return
        endpoint = target if isinstance(target, EndpointModel) else None
        if endpoint is not None:
            self.ask("target", Identity())
        longest = 0
        for part in parts_of(target, self.records):
            sequences = target.encode(part.contents, part.ids)
            lengths = endpoint.lengths(sequences) if endpoint else [len(one.ids) for one in sequences]
            longest = max(longest, *lengths)
        self.binding = replace(self.binding, longest=longest)

    def add_reference(self, reference: Target) -> None:
        """A model to compare with. Raises TargetError unless it sees the records as the target does."""
        from repromia.targets.language import LanguageModel, check_same_tokens

        target = self.targets["target"]
        if reference.modality != target.modality:
            raise TargetError(
                "The reference is another kind of model than the target.",
                expected=target.modality,
                found=reference.modality,
            )
        self.targets["reference"] = reference
        check = getattr(target, "check_same_inputs", None)
        if check is not None:
            check(reference)
            return
        if isinstance(target, LanguageModel) and isinstance(reference, LanguageModel):
            check_same_tokens(target, reference, self.records.contents)
            return
        ours, theirs = (_tokens(self.ask(of, Identity())[0]) for of in get_args(Of))
        if not np.array_equal(ours, theirs):
            raise TargetError(
                "The reference has another tokenizer than the target.",
                expected="the same tokens for every record, so that differences are per token",
                found="at least one record is cut differently",
                hint="name the checkpoint that the target was fine-tuned from as --reference",
            )

    def program(self, plan_name: str, options: dict[str, Any]) -> Program:
        """The bound program; learned at most once, and read back where an earlier run learned it."""
        plan = plan_for(plan_name, options, self.modality)
        name = repr(plan)
        if name not in self._bound:
            self._bound[name] = self._bind(plan)
        return self._bound[name]

    def _about(self) -> tuple[Records, tuple[Any, ...], ReferenceSignals]:
        return self.records, self.ask("target", self.program("augmented", {})), self.references()

    def _bind(self, plan: Any) -> Program:
        spread = Restarts(self.store, self.workers, _program_key)
        binding = replace(self.binding, about=self._about, spread=spread)
        if getattr(plan, "program", ""):  # a file that the user may change
            program: Program = plan.bind(binding)
            self._refuse_learned_on_eval(program)
            return program
        return learned_once(self.store, _program_key(plan, binding), lambda: plan.bind(binding))

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

    def ask(self, of: Of, program: Program, rows: Int[np.ndarray, " row"] | None = None) -> tuple[Any, ...]:
        """Signals of all records, or of some rows, under a program. Raises AttackError without that model."""
        if of not in self.targets:
            raise AttackError(
                "There is no reference model.",
                hint="name one with --reference: the checkpoint before fine-tuning is best",
            )
        if isinstance(program, Learned) and program.is_identity:
            program = identity_of(program)
        key = f"{self.targets[of].fingerprint} {program.key}"
        if key in self.memory:
            known = self.memory[key] or _joined(self._parts(of, program, self.records))
            self._keep(key, known)
            return known if rows is None else tuple(one.take(rows) for one in known)
        if rows is not None:
            return self._ask_parts(of, program, self.records.take(rows))
        found = self._ask_parts(of, program, self.records)
        self._keep(key, found)
        return found

    def _keep(self, key: str, signals: tuple[Signals, ...]) -> None:
        """As the latest in memory. In a stored audit the oldest ones of too many leave an empty place."""
        self.memory.pop(key, None)
        self.memory[key] = signals
        if self.store.folder is None:
            return
        total = 0
        for name in reversed(self.memory):
            total += sum(size_of(one) for one in self.memory[name])
            if total > KEPT_BYTES and name != key:
                self.memory[name] = ()

    def references(self, program: str = "") -> ReferenceSignals:
        """What reference models say of all records: those that `program` makes, else shadow models, else the one
        reference. Raises AttackError where there is none."""
        key = f"references {program}"
        if key not in self._facts:
            self._facts[key] = self._references(program)
        found: ReferenceSignals = self._facts[key]
        return found

    def reference_gains(self, program: Program) -> ReferenceGains:
        """What shadow models say of all records under a program. Raises AttackError where there are none."""
        key = f"gains {program.key}"
        if key not in self._facts:
            if self.shadows is None:
                raise AttackError("There are no shadow models.", hint="give --shadow-training or --shadow-folder")
            self._facts[key] = self.shadows.gains(self.records, self.store, self.binding.progress, program)
        found: ReferenceGains = self._facts[key]
        return found

    def _references(self, program: str) -> ReferenceSignals:
        if program:
            asked = self.ask("target", self.program(program, {}))
            assert isinstance(asked[0], ReferenceSignals)  # noqa: S101 — of a program that stands for references
            return asked[0]
        if self.shadows is not None:
            return self.shadows.signals(self.records, self.store, self.binding.progress)
        if "reference" not in self.targets:
            raise AttackError(
                "There is no reference model.",
                hint="give --shadow-training or --reference, or ask for reference=noise_and_repair",
            )
        return outside([self.ask("reference", self.program("augmented", {}))])

    def ask_together(self, of: Of, programs: Sequence[Program]) -> None:
        """Ask part by part instead of program by program, so that programs share what they can within a part.

        A program that fails is left out: asked by itself later, it fails with its reason.
        """
        fingerprint = self.targets[of].fingerprint
        wanted = {key: one for one in programs if (key := f"{fingerprint} {one.key}") not in self.memory}
        asking = self._asking(of, lenient=True)
        found = asking.ask(list(wanted.values()), self.records, f"{of}: {len(wanted)} programs")
        for (key, program), parts in zip(wanted.items(), found, strict=True):
            if parts:
                self._keep(key, _joined(parts))
                self._count(of, program, self.records, self.memory[key], parts)

    def _asking(self, of: Of, *, lenient: bool) -> Asking:
        return Asking(self.targets[of], self.store, self.binding.progress, self.workers, lenient)

    def _ask_parts(self, of: Of, program: Program, records: Records) -> tuple[Signals, ...]:
        parts = self._parts(of, program, records)
        joined = _joined(parts)
        self._count(of, program, records, joined, parts)
        return joined

    def _parts(self, of: Of, program: Program, records: Records) -> list[Asked]:
        (parts,) = self._asking(of, lenient=False).ask([program], records, f"{of}: {type(program).__name__}")
        program.close()
        return parts

    def _count(
        self, of: Of, program: Program, records: Records, answers: tuple[Signals, ...], parts: Sequence[Asked]
    ) -> None:
        name = getattr(program, "label", type(program).__name__)
        passes, fed = passes_of(program, answers), sum(one.fed for one in parts)
        seconds = round(sum(one.seconds for one in parts), 3)
        self.costs.append(Cost(of, name, len(records), passes, fed, seconds))
        self.store.event("view", of=of, program=type(program).__name__, records=len(records), tokens=fed)

    def fact(self, name: str, options: dict[str, Any]) -> Any:
        """A fact about the records that is no view: `texts` or `token_frequencies`."""
        corpus = str(options.get("corpus", ""))
        key = f"{name} {corpus}"
        if key not in self._facts:
            self._facts[key] = (
                visible_texts(text_target(self.targets["target"]), self.records)
                if name == "texts"
                else token_frequencies(self.binding, corpus=corpus)
            )
        return self._facts[key]

    def learned(self) -> dict[str, Learned]:
        """Learned programs by plan, the identity left out."""
        return {name: one for name, one in self._bound.items() if isinstance(one, Learned) and not one.is_identity}

    def cost_table(self) -> tuple[dict[str, Any], ...]:
        """What was asked and what it cost, in order."""
        return tuple(asdict(cost) for cost in self.costs)


def _program_key(plan: Plan, binding: Binding) -> str:
    """Of everything that decides what is learned."""
    return digest(
        "program",
        code_digest(),
        repr(plan),
        binding.target.fingerprint,
        binding.seed,
        binding.longest,
        [(role.records.digest(), role.member.tolist()) for role in (binding.fit, binding.select)],
    )


def passes_of(program: Program, answers: Sequence[Signals]) -> int:
    """Forward passes a record that a program costs by itself."""
    each: int = getattr(program, "evaluations", 0)
    answers = [one for one in answers if not isinstance(one, ForecastSignals)]  # nothing was asked of the model
    return sum(each or (len(one.t) if isinstance(one, DenoiseSignals | GradientSignals) else 1) for one in answers)


def _joined(parts: Sequence[Asked]) -> tuple[Signals, ...]:
    """The parts one after the other, variant by variant."""
    return tuple(join([one.answers[variant] for one in parts]) for variant in range(len(parts[0].answers)))


def _tokens(signals: Signals) -> Int[np.ndarray, " token"]:
    assert isinstance(signals, TokenSignals)  # noqa: S101 — of a model that reads text
    return signals.token


def outside(answers: Sequence[tuple[Any, ...]]) -> ReferenceSignals:
    """Reference signals of models, each asked the same variants, that saw none of the records."""
    return stack([told_by(variants, np.zeros(len(variants[0]), dtype=bool)) for variants in answers])


def take_fact(fact: Any, rows: Sequence[int] | Int[np.ndarray, " row"]) -> Any:
    """Per-record facts cut to rows; others as they are."""
    return [fact[int(row)] for row in rows] if isinstance(fact, list) else fact
