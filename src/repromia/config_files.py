"""YAML files that configure commands, as flags of the command line."""

from __future__ import annotations

from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path

from repromia.config import AuditConfig
from repromia.errors import ConfigError
from repromia.set_config import ForgetConfig, SuspectConfig, flags_of

YAML = (".yaml", ".yml")
# Commands that a YAML file may configure, and the settings they know.
CONFIGURED: dict[str, tuple[str, ...]] = {
    "audit": tuple(AuditConfig.model_fields),
    "dataset-inference": flags_of(SuspectConfig),
    "unlearning": flags_of(ForgetConfig),
}


def refuse_late_files(given: list[str]) -> None:
    """A configuration behind other flags would be taken for their value, or for nothing that is known."""
    alone = ("--dry-run", "--quiet", "--json")
    late = [one for before, one in pairwise(given[1:]) if one.endswith(YAML) and before in alone]
    if given[:1] and given[0] in CONFIGURED and late:
        raise ConfigError(
            "The configuration must come first.",
            expected=f"repromia {given[0]} {late[0]} …",
            hint="put flags behind it: they override what it says",
        )


def flags_of_file(path: Path, given: list[str], known: tuple[str, ...]) -> list[str]:
    """A YAML file as flags, without those given beside it. Raises ConfigError where it is no such mapping."""
    flags: list[str] = []
    for key, value in _settings_of(path, known).items():
        flag = f"--{key.replace('_', '-')}"
        names = (flag, f"--no-{flag[2:]}")
        if value is None or any(token.split("=")[0] in names for token in given):
            continue
        if isinstance(value, dict) or (isinstance(value, list) and any(isinstance(one, dict) for one in value)):
            raise ConfigError(
                f"The setting {key!r} of {str(path)!r} holds settings of its own.",
                expected="a value, or a list of values",
                hint="write an attack with its options as on the command line: min_k:k=0.1" if key == "attacks" else "",
            )
        if isinstance(value, bool):
            flags.append(names[0] if value else names[1])
        else:
            flags += [f"{flag}={one}" for one in (value if isinstance(value, list) else [value])]
    return flags


def _settings_of(path: Path, known: tuple[str, ...]) -> dict[str, object]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        found = (getattr(error, "strerror", None) or str(error)).replace("\n", " ")
        raise ConfigError(f"The configuration {str(path)!r} cannot be read.", found=found) from error
    if not isinstance(content, dict):
        raise ConfigError(
            f"The configuration {str(path)!r} holds no settings.", expected="lines such as `model: ./finetuned`"
        )
    content = {str(key).replace("-", "_"): value for key, value in content.items()}
    unknown = sorted(key for key in content if key not in known)
    if unknown:
        near = get_close_matches(unknown[0], known, n=1)
        raise ConfigError(
            f"The configuration {str(path)!r} has a setting that does not exist: {unknown[0]!r}.",
            expected="" if near else ", ".join(known),
            hint=f"did you mean {near[0]!r}?" if near else "dry_run, quiet, json and track are flags, not settings",
        )
    return content
