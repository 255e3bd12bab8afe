"""Progress on the standard error, when a person is looking at it and rich is there; silence otherwise."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Self

__all__ = ["Progress"]


class Progress:
    """A context in which stages are announced, with a bar for those that can say how far they are."""

    def __init__(self) -> None:
        self._bars: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            try:
                from rich.console import Console
                from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
            except ImportError:
                return self
            self._bars = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                TimeElapsedColumn(),
                console=Console(stderr=True),
                transient=True,  # what stays on the screen is the result
            )
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def say(self, what: str) -> None:
        """Announce a stage of unknown length."""
        if self._bars is None:
            return
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._task = self._bars.add_task(what, total=None)

    def stage(self, what: str) -> Any:
        """Announce a stage, and return the callback that says how far it is."""
        self.say(what)

        def update(stage: str, done: int, total: int) -> None:
            if self._bars is not None:
                self._bars.update(self._task, description=f"{what}: {stage}", completed=done, total=total or None)

        return update
