"""Where long work tells how far it is. Silent unless a terminal listens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Step(Protocol):
    """One running piece of work."""

    def advance(self, amount: float = 1) -> None:
        """So much more is done."""
        ...


class Progress(Protocol):
    """Shows pieces of work."""

    @contextmanager
    def step(self, name: str, total: float) -> Iterator[Step]:
        """A piece of work of `total` units."""
        ...


class _SilentStep:
    def advance(self, amount: float = 1) -> None:
        pass


class Silent:
    """Shows nothing."""

    @contextmanager
    def step(self, name: str, total: float) -> Iterator[Step]:
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
    def step(self, name: str, total: float) -> Iterator[Step]:
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
