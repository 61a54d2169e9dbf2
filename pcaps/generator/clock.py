"""Simulated time: events in order, to the nanosecond."""

from __future__ import annotations

import heapq
from collections.abc import Callable

MICROSECOND, MILLISECOND, SECOND = 10**3, 10**6, 10**9
EPOCH = 1767225600 * SECOND
"""2026-01-01T00:00:00Z, when every capture starts."""


class Clock:
    """An event queue; events of the same instant run in the order in which they were asked for."""

    def __init__(self, now: int) -> None:
        """Start at `now`."""
        self.now = now
        self._asked = 0
        self._events: list[tuple[int, int, Callable[[], None]]] = []

    def at(self, time: int, action: Callable[[], None]) -> None:
        """Run `action` at `time`."""
        self._asked += 1
        heapq.heappush(self._events, (time, self._asked, action))

    def after(self, delay: int, action: Callable[[], None]) -> None:
        """Run `action` in `delay` nanoseconds."""
        self.at(self.now + delay, action)

    def run(self) -> None:
        """Run until nothing is left to happen."""
        while self._events:
            self.now, _, action = heapq.heappop(self._events)
            action()
