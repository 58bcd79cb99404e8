"""Shadow models that were trained elsewhere: a folder of them, and which records each was trained on."""

from __future__ import annotations

import gc
import re
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from repromia.cluster import Unit, named, run_units
from repromia.errors import RecordsError, TargetError
from repromia.function_key import described
from repromia.programs import Program
from repromia.programs.queries import Query
from repromia.progress import Progress
from repromia.records import Records
from repromia.shadows import Answers, asked, checked, complaining, gained
from repromia.signals import ReferenceGains, ReferenceSignals, stack
from repromia.store import Store, code_digest, digest
from repromia.targets.classifier import PROBED, Classifier

MASKS = "masks.npz"
LEAST = 3  # models without which none is spared
KINDS = (".safetensors", ".skops")
_BROKEN = (OSError, ValueError, EOFError, LookupError, TypeError, AttributeError, MemoryError, NotImplementedError)
Load = Callable[[Path], Classifier]


@dataclass(frozen=True)
class SavedShadows:
    """Models in the files `NAME0.safetensors`, `NAME1.safetensors`, … (or `.skops`), and `masks.npz` beside them.

    masks.npz: `inside`, (model, record), whether the model of this number was trained on the record; `ids`, (record,),
    their names, which must cover those audited. load: a file to a classifier; classes: of the target, in its order;
    load_key: what tells loading functions apart in the store.
    """

    folder: Path
    load: Load
    classes: tuple[str, ...] = ()
    load_key: str = ""

    def check(self, records: Records) -> None:
        """Raises RecordsError for masks that say nothing of a record, or the same of all models, and TargetError for
        a file that is no such model: each is loaded, and asked about a few records."""
        masks, ids = _read_masks(self.folder / MASKS)
        _columns(masks[: len(masks) - self._aside(masks)], ids, records)
        for path in _files(self.folder, len(masks)):
            try:
                with complaining("It cannot be loaded."):
                    model = self.load(path)
                Query().ask(checked(model, self.classes), records.take(range(min(PROBED, len(records)))))
            except Exception as error:
                raise named(f"Shadow model {path.name}", error) from error

    def saw(self, records: Records) -> Bool[np.ndarray, "model record"]:
        """Which of the records each was trained on, the null model included. Raises RecordsError for other masks."""
        masks, ids = _read_masks(self.folder / MASKS)
        return _columns(masks, ids, records, complete=False)

    def signals(self, records: Records, store: Store, progress: Progress) -> ReferenceSignals:
        """What they say of the records, in the order of their numbers.

        Raises RecordsError for masks that say nothing of a record, or the same of all models, and TargetError for
        files that are no such models.
        """
        return stack(self._asked(records, store, progress, asked))

    def gains(self, records: Records, store: Store, progress: Progress, program: Program) -> ReferenceGains:
        """What they say under a program that answers with `GainSignals`. Raises as `signals`."""
        return stack(self._asked(records, store, progress, partial(gained, program), program.key))

    def _asked(
        self, records: Records, store: Store, progress: Progress, ask: Callable[..., Answers], key: str = ""
    ) -> list[Answers]:
        masks, ids = _read_masks(self.folder / MASKS)
        inside = _columns(masks[: len(masks) - self._aside(masks)], ids, records)
        files = _files(self.folder, len(masks))[: len(inside)]
        common = (code_digest(), self.load_key or described(self.load), records.digest(), self.classes)
        units = [
            Unit(
                digest("saved shadow", *common, inside[number].tolist(), _content(path), key),
                _loaded_and_asked,
                (self.load, path, records, inside[number], self.classes, ask),
                name=f"Shadow model {path.name}",
            )
            for number, path in enumerate(files)
        ]
        return run_units(units, store=store, progress=progress, what="saved shadow models")

    def null_model(self, records: Records) -> Classifier | None:
        """The last of them: it is not asked for `signals`. None where there are too few to spare one."""
        masks, _ = _read_masks(self.folder / MASKS)
        if not self._aside(masks):
            return None
        with complaining("The null model cannot be loaded."):
            return checked(self.load(_files(self.folder, len(masks))[-1]), self.classes)

    @property
    def key(self) -> str:
        """Hash of files, masks and the loading function."""
        masks, ids = _read_masks(self.folder / MASKS)
        files = [_content(path) for path in _files(self.folder, len(masks))]
        return digest("saved shadows", self.load_key or described(self.load), files, masks.tolist(), ids.tolist())

    def describe(self) -> dict[str, Any]:
        """What a reader of the report needs to know about them."""
        masks, _ = _read_masks(self.folder / MASKS)
        aside = self._aside(masks)
        return {"name": f"{len(masks) - aside} shadow models", "kept_aside_as_null": aside, "trained": "elsewhere"}

    @staticmethod
    def _aside(masks: np.ndarray) -> int:
        """How many are kept aside to serve as the null model."""
        return int(len(masks) > LEAST)


def _loaded_and_asked(
    load: Load,
    path: Path,
    records: Records,
    inside: Bool[np.ndarray, " record"],
    classes: tuple[str, ...],
    ask: Callable[..., Answers],
) -> Answers:
    with complaining("It cannot be loaded."):
        model = load(path)
    found = ask(checked(model, classes), records, inside)
    del model
    gc.collect()
    return found


def _read_masks(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        # opened here, as numpy leaves it open on errors
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            inside, ids = file["inside"], file["ids"]
    except (*_BROKEN, zipfile.BadZipFile, zlib.error) as error:
        raise RecordsError(
            f"{path.name!r} cannot be read.",
            expected="arrays `inside` (model, record) and `ids` (record,), without Python objects",
            found=f"{type(error).__name__}: {error}",
            hint="write it with numpy.savez(path, inside=inside, ids=numpy.array(ids))",
        ) from error
    right = inside.ndim == 2 and ids.ndim == 1 and inside.shape[1:] == ids.shape and len(inside) > 1
    if not (right and inside.dtype == np.bool_ and ids.dtype.kind == "U"):
        raise RecordsError(
            f"{path.name!r} does not say which records each model was trained on.",
            expected="`inside`, booleans (model, record) of two or more models, and `ids`, (record,) strings",
            found=f"inside {inside.dtype} {inside.shape}, ids {ids.dtype} {ids.shape}",
        )
    if len(set(ids.tolist())) < len(ids):
        raise RecordsError(f"{path.name!r} names a record twice.", expected="different ids")
    return inside, ids


def _columns(
    inside: np.ndarray, ids: np.ndarray, records: Records, *, complete: bool = True
) -> Bool[np.ndarray, "model record"]:
    """The records' own columns. complete: refuse records that all models saw, or none."""
    place = {name: at for at, name in enumerate(ids.tolist())}
    unknown = sum(name not in place for name in records.ids)
    if unknown:
        raise RecordsError(
            "The shadow models' masks do not cover the records.",
            expected="the id of every audited record",
            found=f"{unknown} of {len(records)} records without",
        )
    found: Bool[np.ndarray, "model record"] = inside[:, [place[name] for name in records.ids]]
    everywhere, nowhere = int(found.all(axis=0).sum()), int((~found.any(axis=0)).sum())
    if complete and (everywhere or nowhere):
        raise RecordsError(
            "Some records are not in some shadow models and out of others.",
            expected="each record inside about half of them",
            found=f"{everywhere} records in all, {nowhere} in none of {len(found)} models",
            hint="leave these records out of the audit, or name models of which some were trained without them",
        )
    return found


def _files(folder: Path, count: int) -> list[Path]:
    numbered: dict[int, list[Path]] = {}
    for path in folder.iterdir():
        if path.suffix in KINDS:
            digits = re.search(r"\d+$", path.stem)
            numbered.setdefault(int(digits.group()) if digits else -1, []).append(path)
    if sorted(numbered) != list(range(count)) or any(len(paths) > 1 for paths in numbered.values()):
        raise TargetError(
            f"The files in {folder.name!r} are not those of the masks.",
            expected=f"one {' or '.join(KINDS)} file a row, whose name ends in its number, from 0 to {count - 1}",
            found=f"{sum(map(len, numbered.values()))} files, of numbers {', '.join(map(str, sorted(numbered)[:8]))}",
        )
    return [numbered[number][0] for number in range(count)]


def _content(path: Path) -> str:
    with path.open("rb") as file:
        hasher = blake2b(digest_size=16)
        while block := file.read(1 << 20):
            hasher.update(block)
    return hasher.hexdigest()
