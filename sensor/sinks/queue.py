"""A queue and a thread in front of a sink, so that a slow one never holds up the capture."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Mapping

from sensor.errors import OutputError
from sensor.sinks import Sink
from sensor.window import Report

log = logging.getLogger(__name__)


class QueuedSink:
    """Hands reports to ``sink`` in a thread of its own; at most ``capacity`` of them wait.

    Every report offered is either written or counted in ``dropped_windows``: when the queue is full, when the sink has
    failed, or when it is still busy ``grace`` seconds after ``close``. A failure of the sink is raised by ``close``.
    """

    def __init__(self, sink: Sink, capacity: int = 8, grace: float = 10.0) -> None:
        self.name = sink.name
        self.dropped_windows = 0
        self._sink = sink
        self._capacity = capacity
        self._grace = grace
        self._reports: deque[Report] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=f"vmsensor-{sink.name}", daemon=True)

    @property
    def depth(self) -> int:
        """Reports that wait."""
        return len(self._reports)

    def open(self) -> None:
        """Open the sink here, so that its failure is seen at once, then start the thread."""
        self._sink.open()
        self._thread.start()

    def write(self, report: Report) -> None:
        """Queue the report, or drop it; never wait."""
        with self._changed:
            if self._closing or self._failure is not None or len(self._reports) >= self._capacity:
                self._drop(1)
            else:
                self._reports.append(report)
                self._changed.notify()

    def health(self) -> Mapping[str, int | float]:
        """What the sink says, and how many windows it was too slow for."""
        return {**self._sink.health(), "output_lost_windows": self.dropped_windows}

    def close(self) -> None:
        """Let the sink finish what is queued, then raise what went wrong in it."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(self._grace)
        if self._thread.is_alive():
            raise self._overdue()
        try:
            self._sink.close()
        finally:
            if self._failure is not None:
                raise self._failure

    def _run(self) -> None:
        while (report := self._next()) is not None:
            try:
                self._sink.write(report)
            except Exception as error:
                with self._changed:
                    self._failure = error
                    self._drop(1 + len(self._reports))
                    self._reports.clear()
                return

    def _next(self) -> Report | None:
        """The next report; None when there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._reports or self._closing)
            return self._reports.popleft() if self._reports else None

    def _drop(self, windows: int) -> None:
        if not self.dropped_windows:
            cause = "is too slow" if self._failure is None else f"has failed ({self._failure})"
            log.warning("the %s output %s: windows are dropped there, other outputs go on", self.name, cause)
        self.dropped_windows += windows

    def _overdue(self) -> OutputError:
        with self._changed:
            self._drop(1 + len(self._reports))
            self._reports.clear()
        return OutputError(f"the {self.name} output is still busy after {self._grace:g} s; its last windows are lost")
