"""What decides a result: a hash of all of it, and the versions of what the figures depend on."""

from __future__ import annotations

import inspect
import platform
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from repromia._version import __version__
from repromia.attacks import Ask, Chosen, choose
from repromia.config import Settings
from repromia.programs import Target
from repromia.programs.registry import plans
from repromia.records import LabelledRecords, Records
from repromia.store import code_digest, digest


def audit_key(
    target: Target,
    others: Sequence[Target | None],
    labelled: LabelledRecords,
    settings: Settings,
    shadows: str = "",
    categories: Mapping[str, Mapping[str, str]] | None = None,
    unlabelled: Records | None = None,
) -> str:
    """Hash of everything that decides the result: the same key, the same audit.

    shadows: key of shadow models. categories: fields to slice by, with their values by id.
    unlabelled: further records to score.
    """
    chosen = choose(settings.attacks, reference=others[0] is not None, modality=target.modality, captions=True)
    return digest(
        "audit",
        code_digest(),
        shadows,
        [one.fingerprint if one else "" for one in (target, *others)],
        labelled.records.digest(),
        labelled.member.tolist(),
        unlabelled.digest() if unlabelled else "",
        [[field, sorted(values.items())] for field, values in (categories or {}).items()],
        settings.model_dump(mode="json"),
        [[*_named_files(one), *_foreign_code(one, plans(target.modality))] for one in chosen],
        _digests([_manifest(settings.manifest)]) if settings.manifest else [],
        _digests([Path(settings.transfer_from) / part for part in ("heads", "programs")])
        if settings.transfer_from
        else [],
    )


def _manifest(given: str) -> Path:
    path = Path(given)
    return path / "manifest.json" if path.is_dir() else path


def _named_files(chosen: Chosen) -> list[str]:
    """Hashes of the files and folders that an attack's options name, and of what lies beside a learned program."""
    paths = [Path(value) for value in chosen.options.values() if isinstance(value, str) and value]
    return _digests([*paths, *(path.with_suffix(".json") for path in paths if path.suffix == ".safetensors")])


def _foreign_code(chosen: Chosen, known: Mapping[str, type[Any]]) -> list[str]:
    """Hashes of the source of other packages that an attack and the programs it asks are written in."""
    asked = [mark.plan for mark, _ in chosen.inputs.values() if isinstance(mark, Ask)]
    written: list[Any] = [chosen.attack.function]
    written += [known[name] for spec in (*asked, *chosen.programs()) if (name := spec.split("/")[0]) in known]
    return [one for part in written if part.__module__.partition(".")[0] != "repromia" for one in _source_of(part)]


def _source_of(part: Any) -> Iterator[str]:
    """Hashes of the whole package that a function or class comes from: what it calls decides its answers too."""
    for name in (part.__module__.partition(".")[0], part.__module__):  # a namespace package has no file
        file = Path(getattr(sys.modules.get(name), "__file__", None) or "")
        if file.suffix == ".py":
            yield from _digests(sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else [file])
            return
    try:
        yield digest(inspect.getsource(part))  # a cell of a notebook
    except (OSError, TypeError):
        yield uuid.uuid4().hex  # unseen is not unchanged


def _digests(paths: Sequence[Path]) -> list[str]:
    files = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    return [digest(str(file), blake2b(file.read_bytes()).hexdigest()) for file in files if file.is_file()]


def versions() -> dict[str, str]:
    """Versions of what the figures depend on."""
    found = {"repromia": __version__, "python": platform.python_version()}
    for name in ("torch", "transformers", "diffusers", "peft", "numpy", "scipy", "scikit-learn", "skops", "cma", "ray"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
