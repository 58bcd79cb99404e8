"""What decides a result: a hash of all of it, and the versions of what the figures depend on."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from repromia._version import __version__
from repromia.attacks import Chosen, choose
from repromia.config import Settings
from repromia.programs import Target
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
        [
            _named_files(one)
            for one in choose(
                settings.attacks, reference=others[0] is not None, modality=target.modality, captions=True
            )
        ],
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
