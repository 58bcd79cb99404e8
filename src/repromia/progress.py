"""Where long work tells how far it is. Silent unless a terminal listens."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class Shown:
    """How much a command says, and to whom.

    quiet: no progress, and the first sentence alone; as_json: data alone, on stdout; tracker: the experiment tracker
    that is told too.
    """

    quiet: bool = False
    as_json: bool = False
    tracker: str = ""


EVERYTHING = Shown()


class Step(Protocol):
    """One running piece of work."""

    def advance(self, amount: float = 1) -> None:
        """So much more is done."""
        ...


class Progress(Protocol):
    """Shows pieces of work."""

    @contextmanager
    def step(self, name: str, total: float | None) -> Iterator[Step]:
        """A piece of work of `total` units; None: it has no parts."""
        ...


class _SilentStep:
    def advance(self, amount: float = 1) -> None:
        pass


class Silent:
    """Shows nothing."""

    @contextmanager
    def step(self, name: str, total: float | None) -> Iterator[Step]:
        """A step that nobody watches."""
        yield _SilentStep()


class Terminal:
    """A rich progress bar a step; finished steps disappear, so that only the result stays."""

    def __init__(self, console: object) -> None:
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=console,  # type: ignore[arg-type]
            transient=True,
        )

    @contextmanager
    def step(self, name: str, total: float | None) -> Iterator[Step]:
        """A bar with time left."""
        self._bars.start()
        task = self._bars.add_task(name, total=total)
        bars = self._bars

        class _Bar:
            def advance(self, amount: float = 1) -> None:
                bars.advance(task, amount)

        try:
            yield _Bar()
        finally:
            self._bars.remove_task(task)
            if not self._bars.tasks:
                self._bars.stop()


def watched(*, quiet: bool = False) -> Progress:
    """Bars on stderr where somebody looks at a terminal, else nothing."""
    if quiet or not sys.stderr.isatty():
        return Silent()
    from rich.console import Console

    return Terminal(Console(stderr=True))


def each(progress: Progress, name: str, items: Collection[Item]) -> Iterator[Item]:
    """The items one by one, as a step that advances when the next one is asked for."""
    with progress.step(name, len(items)) as bar:
        for item in items:
            yield item
            bar.advance()
