"""A classifier as a target: whatever it is made of, it is asked for the classes of records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from repromia.errors import TargetError
from repromia.records import Content, class_of
from repromia.signals import ClassSignals
from repromia.targets.class_answers import Answer, alike, logprobs_of
from repromia.targets.classifier_forwards import ModuleForward
from repromia.targets.devices import full_float32
from repromia.targets.fingerprint import add_computation, add_weights
from repromia.targets.inputs import Inputs, Reader
from repromia.targets.nodes import NodeForward, Nodes

PROBED = 16  # records asked twice


@dataclass(frozen=True)
class Batch:
    """Some records as the classifier sees them. label: the class that each names."""

    key: str
    inputs: Inputs
    label: Int[np.ndarray, " record"]

    def __len__(self) -> int:
        return len(self.label)


@dataclass
class Classifier:
    """A frozen classifier and how it is asked.

    forward: a batch of inputs, as `reader` makes them, to (record, class) logits or probabilities (NaN for what a
    top-k answer leaves out), or to (record,) predicted classes; answer says which. classes: their names in the
    model's order; empty: 0, 1, … module: whose weights decide the answers, where there is one. identity: what tells
    two callables apart, that have no weights to look at. random: answers may differ from call to call.
    The weights are never changed, and training mode is restored to what it was after every call.
    """

    forward: Callable[[Any], Any]
    reader: Reader
    classes: tuple[str, ...] = ()
    answer: Answer = "logits"
    module: torch.nn.Module | None = None
    identity: str = ""
    name: str = "target"
    batch: int = 256
    random: bool = False
    asked: int = field(default=0, compare=False)
    _fingerprint: str = field(default="", compare=False)
    _batch: Batch | None = field(default=None, compare=False, repr=False)
    _checked: frozenset[bool] = field(default=frozenset(), compare=False, repr=False)

    has_adapter = False

    @property
    def modality(self) -> Literal["classifier", "graph"]:
        """Nodes of a graph are asked in ways of their own."""
        return "graph" if self.reader.kind == "node" else "classifier"

    @property
    def part_records(self) -> int:
        """Records that are asked at a time: on a whole graph one forward pass answers for all."""
        return 2**20 if self.reader.kind == "node" else 1024

    def __post_init__(self) -> None:
        if self.answer not in get_args(Answer):
            raise TargetError(
                f"{self.name} gives an answer that is not known.",
                expected=", ".join(get_args(Answer)),
                found=repr(self.answer),
            )
        if len(set(self.classes)) < len(self.classes):
            raise TargetError(f"{self.name} has two classes of one name.", expected="different names")

    @property
    def defences(self) -> tuple[str, ...]:
        """What stands between the model and whoever asks it (`repromia.targets.defended`)."""
        return tuple(getattr(self.forward, "defences", ()))

    @property
    def passes(self) -> int:
        """Forward passes that an answer takes: more than one behind input smoothing."""
        found: int = getattr(self.forward, "passes", 1)
        return found

    @property
    def device(self) -> torch.device:
        """Where the module is."""
        weight = next(self.module.parameters(), None) if self.module is not None else None
        return weight.device if weight is not None else torch.device("cpu")

    @property
    def differentiable(self) -> bool:
        """Whether programs can be learned by gradients: a module that returns logits of numbers."""
        return self.module is not None and self.answer == "logits" and self.reader.kind != "text"

    @property
    def fingerprint(self) -> str:
        """Hash of weights, of what is computed with them, of how inputs are read, and of what is answered."""
        if not self._fingerprint:
            hasher = blake2b(digest_size=16)
            kind = type(self.module).__name__ if self.module is not None else ""
            named = () if self.classes == _numbered(len(self.classes)) else self.classes  # known once it has answered
            hasher.update(repr((kind, self.identity, self.reader.key, named, self.answer)).encode())
            if self.module is not None:
                add_computation(hasher, self.module)
                add_weights(hasher, self.module)
            self._fingerprint = hasher.hexdigest()
        return self._fingerprint

    def refresh(self) -> None:
        """Forget what depends on the weights: a live model may have been trained on since."""
        self._fingerprint, self._batch, self._checked = "", None, frozenset()
        inner = getattr(self.forward, "inner", None)
        if inner is not None:
            inner.refresh()
            self.identity = f"{inner.fingerprint} behind {self.defences[-1]}"

    def describe(self) -> dict[str, Any]:
        """What a reader of the report needs to know about this model."""
        weights = list(self.module.parameters()) if self.module is not None else []
        other = getattr(self.forward, "architecture", "callable")
        return {
            "name": self.name,
            "architecture": type(self.module).__name__ if self.module is not None else other,
            "parameters": sum(weight.numel() for weight in weights),
            "dtype": str(weights[0].dtype).removeprefix("torch.") if weights else "float64",
            "device": str(self.device),
            "inputs": self.reader.describe(),
            "classes": len(self.classes),
            "answers": self.answer,
            "random": self.random,
            **({"defences": list(self.defences), "passes_an_answer": self.passes} if self.defences else {}),
            "fingerprint": self.fingerprint,
        }

    def with_module(self, module: torch.nn.Module, name: str) -> Classifier:
        """The same classifier with other weights. Raises TargetError where they are not behind a plain forward."""
        behind = getattr(self.forward, "with_module", None)
        if behind is not None:
            known = behind(module, name)
            identity = f"{known.inner.fingerprint} behind {self.defences[-1]}"
            return replace(
                self, forward=known, module=module, identity=identity, name=name, asked=0, _fingerprint="", _batch=None
            )
        if not isinstance(self.forward, ModuleForward | NodeForward):
            raise TargetError("The weights of this classifier cannot be exchanged.", expected="a torch module")
        forward: Callable[[Any], Any] = replace(self.forward, module=module)
        return replace(self, forward=forward, module=module, name=name, asked=0, _fingerprint="", _batch=None)

    def check_same_inputs(self, other: Classifier) -> None:
        """Raises TargetError unless another model classifies the same things into the same classes."""
        known = bool(self.classes and other.classes)  # else the counts are compared when both have answered
        if self.reader.shape != other.reader.shape or (known and self.classes != other.classes):
            raise TargetError(
                "The reference classifies something else than the target.",
                expected=f"{self.reader.describe()} into {len(self.classes) or 'as many'} classes",
                found=f"{other.reader.describe()} into {len(other.classes) or 'as many'}",
                hint="name a model of the same inputs and classes, in the same order",
            )

    def encode(self, contents: Sequence[Content], ids: Sequence[str] | None = None) -> Batch:
        """Records as the classifier sees them; the last ones are kept. Raises TargetError without known classes."""
        label = self._labels([class_of(one) for one in contents])
        key = blake2b(repr([(one, class_of(one)) for one in contents]).encode(), digest_size=16).hexdigest()
        if self._batch is None or self._batch.key != key:
            self._batch = Batch(key, self.reader.read(contents), label)
        return self._batch

    def _labels(self, names: Sequence[str]) -> Int[np.ndarray, " record"]:
        found = self.class_numbers(names)
        wrong = [name for name, at in zip(names, found, strict=True) if at < 0]
        if wrong:
            raise TargetError(
                f"{len(wrong)} of {len(names)} records name no class of the model.",
                expected=self._known(),
                found=", ".join(sorted({one[:30] or "nothing" for one in wrong})[:5]),
                hint="name the field of the class with --class-field, and the classes in the model's order (--classes)",
            )
        return found

    def _known(self) -> str:
        shown = ", ".join(self.classes[:8]) + (", …" if len(self.classes) > 8 else "")
        return shown or "the number of a class, from 0"

    def class_numbers(self, names: Sequence[str]) -> Int[np.ndarray, " name"]:
        """Where classes of these names stand; -1 for no class. Where no class is called by a number, numbers count."""
        place = {name: at for at, name in enumerate(self.classes)}
        numbers = not any(map(_is_number, self.classes))  # else a model of the classes 3 and 7 would know a class 1
        most = len(self.classes) or 2**31
        found = [
            place.get(name, int(name) if numbers and _is_number(name) and int(name) < most else -1) for name in names
        ]
        return np.array(found, dtype=np.int64).reshape(len(found))

    def signals(self, inputs: Inputs, label: Int[np.ndarray, " record"]) -> ClassSignals:
        """Its answers about inputs, batch by batch. None depends on its batch mates. Raises TargetError."""
        self._check_steady(inputs)
        rows = self._rows(inputs)
        if self.answer == "label":
            predicted = self._predicted(rows)
            return ClassSignals(np.full((len(label), max(1, len(self.classes))), np.nan), predicted, label)
        logprobs = logprobs_of(np.asarray(rows, dtype=np.float64), self.answer, self.name)
        if label.size and int(label.max()) >= logprobs.shape[1]:
            raise TargetError(
                "Records name classes that the model does not have.",
                expected=f"numbers below {logprobs.shape[1]}",
                found=str(int(label.max())),
            )
        return ClassSignals(logprobs.astype(np.float32), logprobs.argmax(axis=1).astype(np.int64), label)

    def logits(self, inputs: Tensor | Nodes) -> Tensor:
        """One forward pass of a module, differentiable where gradients are on."""
        self.asked += len(inputs) * self.passes
        found: Tensor = self.forward(inputs.to(self.device))
        return found

    def _rows(self, inputs: Inputs) -> np.ndarray:
        found: list[np.ndarray] = []
        at = 0
        with self.asking():
            while at < len(inputs):
                some = inputs[at : at + self.batch]
                try:
                    answer = self.forward(some if isinstance(some, list) else some.to(self.device))
                except TargetError:
                    raise
                except Exception as error:  # a model of others may raise anything
                    if not _is_memory(error):
                        raise TargetError(
                            f"{self.name} raised an error when it was asked.",
                            expected=f"answers about {self.reader.describe()}",
                            found=f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:300]}",
                        ) from error
                    if len(some) == 1:
                        raise TargetError("Memory ran out on a single record.", hint="choose another device") from error
                    self.batch = max(1, min(self.batch, len(some)) // 2)
                    continue
                found.append(self._checked_rows(answer, len(some)))
                self.asked += len(some) * self.passes
                at += len(some)
        return np.concatenate(found) if found else np.zeros((0, max(1, len(self.classes))))

    def _checked_rows(self, answer: Any, count: int) -> np.ndarray:
        if isinstance(answer, Tensor):
            answer = answer.detach().double().cpu() if answer.is_floating_point() else answer.detach().cpu()
        try:
            rows = np.asarray(answer)
            rows = rows if self.answer == "label" else rows.astype(np.float64)
        except (ValueError, TypeError):
            rows = np.empty(())  # ragged, or no numbers
        wanted = 1 if self.answer == "label" else 2
        if rows.ndim != wanted or len(rows) != count:
            raise TargetError(
                f"{self.name} does not answer with one row a record.",
                expected=f"{count} predicted classes" if wanted == 1 else f"{count} rows, one number a class",
                found=f"an array of shape {rows.shape}",
                hint="say what it answers with: logits, probabilities, top_k or label (--answer)",
            )
        if wanted == 2:
            self._check_classes(rows)
        return rows

    def _check_classes(self, rows: np.ndarray) -> None:
        if not self.classes:
            self.classes = _numbered(rows.shape[1])
        if rows.shape[1] != len(self.classes) or rows.shape[1] < 2:
            raise TargetError(
                f"{self.name} has another number of classes than was said.",
                expected=f"{max(2, len(self.classes))} classes",
                found=str(rows.shape[1]),
                hint="one number for each class, of two classes too",
            )

    def _predicted(self, rows: np.ndarray) -> Int[np.ndarray, " record"]:
        names = [str(int(one) if isinstance(one, float) and one.is_integer() else one) for one in rows.tolist()]
        found = self.class_numbers(names)
        if (found < 0).any():
            raise TargetError(
                f"{self.name} predicts a class that does not exist.",
                expected=self._known(),
                found=names[int(np.flatnonzero(found < 0)[0])][:30],
            )
        return found

    def _check_steady(self, inputs: Inputs) -> None:
        """Asks a few records again, in other batches: equal answers, or an error that says so."""
        apart = isinstance(inputs, Nodes) and inputs.apart  # what is steady on a whole graph may not be so side by side
        if apart in self._checked or self.random or not len(inputs):
            return
        some = inputs[:PROBED]
        order = [*range(0, len(some), 2), *range(1, len(some), 2)]  # other neighbours, however small the batches
        spent, size = self.asked, self.batch
        try:
            whole = self._rows(some)
            self.batch = max(1, min(size, (len(some) + 1) // 2))
            parts = np.empty_like(whole)
            parts[order] = self._rows([some[at] for at in order] if isinstance(some, list) else some[order])
        finally:
            self.asked, self.batch = spent, size
        if not alike(whole, parts):
            raise TargetError(
                f"{self.name} answers differently when it is asked again in other company.",
                expected="answers that depend on the record alone",
                found="other answers to the same records in other batches",
                hint="switch dropout and batch statistics off in its forward; or declare it random (random=True)",
            )
        self._checked |= {apart}

    @contextmanager
    def asking(self) -> Iterator[None]:
        """The module in eval mode, gradients off; both as they were afterwards."""
        if self.module is None:
            yield
            return
        training = [one for one in self.module.modules() if one.training]
        self.module.eval()
        try:
            with torch.no_grad(), full_float32():
                yield
        finally:
            for one in training:
                one.training = True


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit() and len(name) < 10


def _is_memory(error: Exception) -> bool:
    # on the CPU torch has no error of its own
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "allocate memory" in str(error)
