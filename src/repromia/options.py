"""Options given as text: `name=value`, of the type of the default."""

from __future__ import annotations

from typing import Any

from repromia.errors import AttackError


def typed(name: str, value: str, default: object) -> Any:
    """The value as the type of its default. Raises AttackError."""
    kind = type(default)
    try:
        if kind is bool:
            return {"true": True, "false": False, "yes": True, "no": False}[value.lower()]
        return kind(value)  # type: ignore[call-arg]
    except (KeyError, ValueError) as error:
        raise AttackError(f"The option {name} cannot be {value!r}.", expected=f"a value like {default!r}") from error
