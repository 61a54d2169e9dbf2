"""The queue in front of a sink: it never waits, and every window is either written or counted as dropped."""

from __future__ import annotations

import threading
import time

import pytest

from sensor.errors import OutputError
from sensor.sinks.queue import QueuedSink
from sensor.window import Report
from tests.reports import make_report


class RecordingSink:
    """Keeps the reports; waits at the ``gate`` before each, and fails at number ``fails_at``."""

    name = "recording"

    def __init__(self, fails_at: int | None = None, fails_open: bool = False) -> None:
        self.gate = threading.Event()
        self.busy = threading.Event()
        self.written: list[Report] = []
        self.closed = False
        self._fails_at = fails_at
        self._fails_open = fails_open

    def open(self) -> None:
        """Fail if so told."""
        if self._fails_open:
            raise OutputError("cannot open")

    def write(self, report: Report) -> None:
        """Wait, then keep the report or fail."""
        self.busy.set()
        self.gate.wait(10)
        if len(self.written) == self._fails_at:
            raise OutputError("cannot write")
        self.written.append(report)

    def close(self) -> None:
        """Note that it was called."""
        self.closed = True


REPORTS = [make_report(window) for window in range(10)]


def test_all_windows_reach_a_sink_that_keeps_up() -> None:
    """In order, none dropped, and the sink is closed only after the last."""
    sink = RecordingSink()
    sink.gate.set()
    queued = QueuedSink(sink, capacity=len(REPORTS))
    queued.open()
    for report in REPORTS:
        queued.write(report)
    queued.close()
    assert sink.written == REPORTS
    assert sink.closed
    assert (queued.name, queued.dropped_windows, queued.depth) == ("recording", 0, 0)


def test_a_slow_sink_costs_windows_not_time(caplog: pytest.LogCaptureFixture) -> None:
    """A full queue drops what comes next, counts it, says so once, and never waits."""
    sink = RecordingSink()
    queued = QueuedSink(sink, capacity=3)
    queued.open()
    queued.write(REPORTS[0])
    assert sink.busy.wait(5)
    before = time.monotonic()
    for report in REPORTS[1:]:
        queued.write(report)
    assert time.monotonic() - before < 1
    assert (queued.depth, queued.dropped_windows) == (3, 6)
    sink.gate.set()
    queued.close()
    assert sink.written == REPORTS[:4]
    assert [record.getMessage() for record in caplog.records] == [
        "the recording output is too slow: windows are dropped there, other outputs go on"
    ]


def test_a_failure_is_raised_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    """The cause is said when it fails, and comes out of close; what it did not write is counted; the sink is closed."""
    sink = RecordingSink(fails_at=2)
    sink.gate.set()
    queued = QueuedSink(sink, capacity=20)
    queued.open()
    for report in REPORTS:
        queued.write(report)
    with pytest.raises(OutputError, match="cannot write"):
        queued.close()
    queued.write(REPORTS[0])
    assert sink.written == REPORTS[:2]
    assert queued.dropped_windows == len(REPORTS) - 2 + 1
    assert sink.closed
    (said,) = caplog.messages
    assert said.startswith("the recording output has failed (")
    assert "cannot write" in said


def test_a_sink_that_cannot_open_fails_at_once() -> None:
    """Opening is not deferred to the thread; closing afterwards is harmless."""
    queued = QueuedSink(RecordingSink(fails_open=True), capacity=1)
    with pytest.raises(OutputError, match="cannot open"):
        queued.open()
    queued.close()


def test_closing_does_not_wait_for_ever() -> None:
    """A sink that hangs is left behind after the grace period, and its windows are counted as dropped."""
    sink = RecordingSink()
    queued = QueuedSink(sink, capacity=5, grace=0.2)
    queued.open()
    for report in REPORTS[:4]:
        queued.write(report)
    with pytest.raises(OutputError, match="recording output is still busy"):
        queued.close()
    assert queued.dropped_windows == 4
    sink.gate.set()
