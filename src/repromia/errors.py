"""Errors that a user can act on: what was expected, what was found, what to do."""


class RepromiaError(Exception):
    """Base of every error raised on purpose.

    `str(error)` is one readable block without record text.
    """

    def __init__(self, problem: str, *, expected: str = "", found: str = "", hint: str = "") -> None:
        lines = [problem]
        lines += [f"  expected: {expected}"] if expected else []
        lines += [f"  found:    {found}"] if found else []
        lines += [f"  to do:    {hint}"] if hint else []
        super().__init__("\n".join(lines))


def one_line(message: str) -> str:
    """An error's block on one line; of other multi-line messages the first line."""
    first, *rest = message.splitlines() or [""]
    said = [" ".join(one.split()) for one in rest if one.startswith(("  expected: ", "  found:    ", "  to do:    "))]
    return f"{first} ({'; '.join(said)})" if said else first


def said(error: BaseException) -> str:
    """Kind and first line of somebody else's error."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


class RecordsError(RepromiaError):
    """The records cannot be read or cannot support an audit."""


class TargetError(RepromiaError):
    """The model cannot be loaded, or answers with something that is not a number."""


class AttackError(RepromiaError):
    """An attack cannot be run as asked."""


class ConfigError(RepromiaError):
    """The configuration contradicts itself or names something that does not exist."""


class StoreError(RepromiaError):
    """A run directory cannot be written, is locked, or holds damaged files."""


class ClusterError(RepromiaError):
    """Workers cannot do the work, or were lost: no property of what they were to do."""
