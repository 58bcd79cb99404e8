"""Parts of the records: what a model is asked about at a time, here or by workers, and never again once it is stored.

A part holds the same records wherever it is asked and however many workers there are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from repromia.cluster import Unit, run_units
from repromia.errors import ClusterError
from repromia.programs import Program, Target
from repromia.progress import Progress
from repromia.records import Records
from repromia.sending import Replica
from repromia.signals import Signals
from repromia.store import Store, code_digest, digest
from repromia.targets.endpoint import EndpointModel

PART_RECORDS = 256  # a part that is stored on its own: what a killed run loses at most
PART_TEXTS = 64  # the same at an endpoint, whose slow answers should be seen to come
COUNTED = 16  # records that tell how many classes a classifier has that does not name them


@dataclass(frozen=True)
class Workers:
    """Where parts are asked. cluster: as for `repromia.cluster.run_units`; `local` is this process, on all its threads.

    loaders: how a worker loads its own copy of a model, by the model's fingerprint; other models are sent to it.
    """

    cluster: str = "local"
    loaders: Mapping[str, Callable[[], Target]] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """answers: one entry a variant; fed: what the target counted meanwhile (`Target.asked`); seconds: of asking,
    both also where an earlier run asked; details: what the program found out when it was asked, of those that can
    `remember` it.
    """

    answers: tuple[Signals, ...]
    fed: int = 0
    seconds: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Shard:
    """What is left to ask about one part. keys: under which the answers are stored, a program each."""

    part: Records
    programs: tuple[Program, ...]
    keys: tuple[str, ...]

    def split(self) -> list[Shard]:
        """A program each."""
        return [Shard(self.part, (one,), (key,)) for one, key in zip(self.programs, self.keys, strict=True)]


def parts_of(target: Target, records: Records) -> list[Records]:
    """The records, cut as this target is asked about them."""
    size = getattr(target, "part_records", PART_RECORDS)
    if isinstance(target, EndpointModel):
        size = min(PART_TEXTS, PART_RECORDS)
    return [records.take(range(at, min(at + size, len(records)))) for at in range(0, len(records), size)]


@dataclass
class Asking:
    """Asks a target about parts. lenient: a program that fails is left out, in place of its error being raised."""

    target: Target
    store: Store
    progress: Progress
    workers: Workers
    lenient: bool = False

    def ask(self, programs: Sequence[Program], records: Records, what: str) -> list[list[Asked]]:
        """Answers by program and part; nothing for a program that failed. Stored ones are read back, others stored
        as they come, part by part, so that programs share what a target remembers of a part.

        Raises what a program raises unless lenient, and ClusterError where workers cannot do the work.
        """
        parts = parts_of(self.target, records)
        digests = [part.digest() for part in parts]
        keys = [[self._key(program, one) for one in digests] for program in programs]
        found = {key: known for row in keys for key in row if (known := _stored(self.store, key)) is not None}
        shards = []
        for at, part in enumerate(parts):
            left = [row for row in range(len(programs)) if keys[row][at] not in found]
            if left:
                shards.append(Shard(part, tuple(programs[row] for row in left), tuple(keys[row][at] for row in left)))
        asked = self._here if self._stays(shards) else self._on_workers
        found |= dict(asked(shards, what))
        for program, row in zip(programs, keys, strict=True):
            remember = getattr(program, "remember", None)
            if remember is not None:
                remember({name: told for key in row if key in found for name, told in found[key].details.items()})
        whole = [row for row in keys if all(key in found for key in row)]
        return [[found[key] for key in row] if row in whole else [] for row in keys]

    def _key(self, program: Program, part: str) -> str:
        return digest("view", code_digest(), self.target.fingerprint, program.key, part)

    def _stays(self, shards: Sequence[Shard]) -> bool:
        """Whether this process asks: nobody else can, or there is too little to be worth it."""
        bound = any(not getattr(one, "travels", True) for shard in shards for one in shard.programs)
        return self.workers.cluster == "local" or len(shards) < 2 or bound or isinstance(self.target, EndpointModel)

    def _here(self, shards: Sequence[Shard], what: str) -> Iterator[tuple[str, Asked]]:
        failed: set[str] = set()
        with self.progress.step(what, sum(len(one.part) * len(one.keys) for one in shards)) as bar:
            for shard in (one for whole in shards for one in whole.split()):
                (program,), (key,) = shard.programs, shard.keys
                if program.key in failed:
                    continue
                (answer,) = ask_shard(self.target, shard.programs, shard.part, self.lenient)
                if answer is None:
                    failed.add(program.key)
                    continue
                _put(self.store, key, answer)
                bar.advance(len(shard.part))
                yield key, answer

    def _on_workers(self, shards: Sequence[Shard], what: str) -> Iterator[tuple[str, Asked]]:
        target, gpu = self.target, on_gpu(self.target)
        if getattr(target, "classes", None) == ():  # known once it has answered, and the report names them
            shards[0].programs[0].ask(target, shards[0].part.take(range(min(COUNTED, len(shards[0].part)))))
        if target.modality == "language" and not gpu:  # shares nothing within a part
            shards = [one for whole in shards for one in whole.split()]
        replica = replica_of(target, self.workers)
        units = [
            Unit(
                digest("shard", *shard.keys),
                _asked_on_worker,
                (replica, shard.programs, shard.part, self.lenient),
                name=f"{what}, part {number + 1} of {len(shards)}",
                gpus=float(gpu),
            )
            for number, shard in enumerate(shards)
        ]
        kept = _Kept(self.store, {unit.key: shard.keys for unit, shard in zip(units, shards, strict=True)})
        run_units(units, cluster=self.workers.cluster, store=kept, progress=self.progress, what=what)
        yield from kept.answers.items()


@dataclass(frozen=True)
class _Shown:
    """What a worker returns: an answer a program, None for one that failed."""

    asked: tuple[Asked | None, ...]


@dataclass
class _Kept:
    """A store of shards, whose programs are stored one by one."""

    store: Store
    keys: dict[str, tuple[str, ...]]
    answers: dict[str, Asked] = field(default_factory=dict)

    def get(self, key: str, /) -> _Shown | None:
        """Nothing: what is stored was not made a shard of."""
        return None

    def put(self, key: str, result: _Shown, /) -> None:
        """Keep the answers, without those of programs that failed."""
        for name, answer in zip(self.keys[key], result.asked, strict=True):
            if answer is not None:
                _put(self.store, name, answer)
                self.answers[name] = answer


def ask_shard(target: Target, programs: Sequence[Program], part: Records, lenient: bool) -> tuple[Asked | None, ...]:
    """The target's answers about a part under each program; None for one that failed, if lenient."""
    found: list[Asked | None] = []
    for program in programs:
        began, fed = time.perf_counter(), target.asked
        try:
            answers = program.ask(target, part)
            details = program.details if hasattr(program, "remember") else {}
            found.append(Asked(answers, target.asked - fed, time.perf_counter() - began, details))
        except Exception:
            if not lenient:
                raise
            found.append(None)  # whatever it is, the attack's own row will say
    return tuple(found)


def _asked_on_worker(target: Target, programs: tuple[Program, ...], part: Records, lenient: bool) -> _Shown:
    return _Shown(ask_shard(target, programs, part, lenient))


def on_gpu(target: Target) -> bool:
    """Whether a worker needs a GPU for it."""
    return getattr(getattr(target, "device", None), "type", "cpu") != "cpu"


def replica_of(target: Target, workers: Workers) -> Replica:
    """The target as each worker has it: loaded there from its files, or sent."""
    load = workers.loaders.get(target.fingerprint)
    if load is None:
        return Replica(target.fingerprint, None, _light(target))
    return Replica(target.fingerprint, partial(_same, load, target.fingerprint))


def _same(load: Callable[[], Target], fingerprint: str) -> Target:
    """A worker's own copy, which must be what is audited."""
    found = load()
    if found.fingerprint != fingerprint:
        raise ClusterError(
            f"A worker finds another model under the name {found.name!r}.",
            expected="the same files on every node of the cluster",
            found="other weights, tokenizer or settings",
            hint="copy the model's folder to the same path on every node, or share it",
        )
    return found


def _light(target: Any) -> Any:
    """The target without what it remembers of records."""
    found = copy(target)
    for name in ("_part", "_batch"):
        if hasattr(found, name):
            setattr(found, name, None)
    return found


def _stored(store: Store, key: str) -> Asked | None:
    found: list[Signals] = []
    while (one := store.get(f"{key}-{len(found)}")) is not None:
        found.append(one)
    about = store.get_json(key)
    if not about or about["answers"] != len(found):
        return None
    fed, seconds = (about["fed"], about["seconds"]) if store.first(key) else (0, 0.0)
    store.spent += seconds
    return Asked(tuple(found), fed, seconds, about["details"])


def _put(store: Store, key: str, asked: Asked) -> None:
    for variant, one in enumerate(asked.answers):
        store.put(f"{key}-{variant}", one)
    about = {"answers": len(asked.answers), "details": asked.details, "fed": asked.fed, "seconds": asked.seconds}
    store.put_json(key, about)
    store.first(key)
