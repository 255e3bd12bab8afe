"""How long the stages of the work take, and how far they are."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Clock", "Progress"]

Progress = Callable[[str, int, int], object]


class Clock:
    """Times the stages and passes their progress on."""

    def __init__(self, timings: dict[str, float], progress: Progress | None) -> None:
        self.timings, self.progress = timings, progress

    def stage(self, name: str) -> Stage:
        """A context that times a stage; a stage that comes again is added to."""
        return Stage(self, name)


class Stage:
    """A context that times one stage; it yields the callback for its progress, or None if nobody listens."""

    def __init__(self, clock: Clock, name: str) -> None:
        self.clock, self.name, self.started = clock, name, 0.0

    def __enter__(self) -> Callable[[int, int], object] | None:
        self.started = time.perf_counter()
        progress = self.clock.progress
        return None if progress is None else lambda done, total: progress(self.name, done, total)

    def __exit__(self, *_: object) -> None:
        taken = time.perf_counter() - self.started
        self.clock.timings[self.name] = self.clock.timings.get(self.name, 0.0) + taken
