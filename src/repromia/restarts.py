"""Restarts of what is learned, one after the other in this process or a worker each; none is done twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from repromia.cluster import Unit, run_units
from repromia.parts import Workers, on_gpu, replica_of
from repromia.programs import Binding, Plan, Program, Target
from repromia.programs.saved import Learned, dump_program, parse_program
from repromia.progress import Silent
from repromia.records import LabelledRecords
from repromia.store import Store


@dataclass(frozen=True)
class Restarts:
    """Binds a plan several times. key: under which the program of a plan and a binding is stored."""

    store: Store
    workers: Workers
    key: Callable[[Plan, Binding], str]

    def __call__(self, plan: Plan, bindings: Sequence[Binding]) -> list[Program]:
        """A program a binding, all of one target. Raises what learning raises, ClusterError where workers are lost."""
        keys = [self.key(plan, one) for one in bindings]
        if self.workers.cluster == "local" or len(bindings) < 2 or bindings[0].target.modality == "graph":
            return [self._here(plan, one, key) for one, key in zip(bindings, keys, strict=True)]
        target = bindings[0].target
        replica, gpus = replica_of(target, self.workers), float(on_gpu(target))
        units = [
            Unit(
                key,
                _learned,
                (replica, plan, one.fit, one.select, one.seed, one.longest),
                name=f"{type(plan).__name__}, restart {number + 1} of {len(bindings)}",
                gpus=gpus,
            )
            for number, (one, key) in enumerate(zip(bindings, keys, strict=True))
        ]
        found = run_units(
            units,
            cluster=self.workers.cluster,
            store=_Programs(self.store),
            progress=bindings[0].progress,
            what=f"restarts of {type(plan).__name__}",
        )
        return [parse_program(one["program"]) for one in found]

    def _here(self, plan: Plan, binding: Binding, key: str) -> Program:
        return learned_once(self.store, key, lambda: plan.bind(binding))


def learned_once(store: Store, key: str, bind: Callable[[], Program]) -> Program:
    """The program that is stored under this key, or a new one, which is stored if it was learned."""
    kept = _Programs(store)
    found = kept.get(key)
    if found is not None:
        return parse_program(found["program"])
    began = store.clock()
    program = bind()
    if isinstance(program, Learned):
        kept.put(key, {"program": dump_program(program), "seconds": store.clock() - began})
    return program


@dataclass(frozen=True)
class _Programs:
    """A store of programs as JSON values."""

    store: Store

    def get(self, key: str, /) -> Any:
        found = self.store.get_json(key)
        if found is not None and self.store.first(key):
            self.store.spent += found["seconds"]
        return found

    def put(self, key: str, result: Any, /) -> None:
        self.store.put_json(key, result)
        self.store.first(key)


def _learned(
    target: Target, plan: Plan, fit: LabelledRecords, select: LabelledRecords, seed: int, longest: int
) -> dict[str, Any]:
    began = time.perf_counter()
    program: Any = plan.bind(Binding(target, fit, select, seed, Silent(), longest))
    return {"program": dump_program(program), "seconds": time.perf_counter() - began}
