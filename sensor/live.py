"""``vmsensor capture``: workers that capture, and this process, the supervisor, that does the rest.

A worker that dies is started again, at growing intervals; the others go on, and the gap is said. When the interface
goes away or down, the capture waits until it is back.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection, wait

from sensor import logs
from sensor.analysis.findings import Detector
from sensor.analysis.gaps import GapWatch
from sensor.capturenic import CaptureNic
from sensor.config import Settings
from sensor.errors import InterfaceError, SensorError
from sensor.fanout import Fanout
from sensor.interface import wall_clock_ns
from sensor.merge import Merger, added, numbered_records
from sensor.notify import Notifier
from sensor.privileges import user_named
from sensor.runner import Pipeline, totals_line
from sensor.sinks import Sink
from sensor.sinks.prometheus import PrometheusSink
from sensor.sinks.queue import QueuedSink
from sensor.stopping import Stop, stop_on_signals
from sensor.window import Counters, Snapshot
from sensor.worker import Done, Finished, Message, deadline
from sensor.workerprocess import Duty, Failed, Ready, WorkerProcess

WAKE_SECONDS = 0.5
"""So often the supervisor looks whether a window is overdue or a worker is due to be started again."""

FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0
INTERFACE_DELAY = 1.0
"""So often an interface that is gone or down is looked for."""

STEADY_SECONDS = 60.0
"""A worker that has run for so long is no longer one that keeps dying."""

log = logging.getLogger(__name__)


def capture(settings: Settings, interface: str, sinks: Sequence[Sink] = (), detectors: Sequence[Detector] = ()) -> None:
    """Capture until a signal, the duration or the packet count ends it; the last window is written.

    ``sinks`` and ``detectors`` are the caller's own, as of ``Pipeline``.
    """
    user_named(settings.user)  # say now that there is no such user
    gaps, notifier = GapWatch(interface), Notifier()
    with ExitStack() as stack:
        nic = stack.enter_context(CaptureNic(interface)) if settings.nic_setup else None
        stop = stack.enter_context(stop_on_signals())
        workers = stack.enter_context(
            Workers(settings, interface, stop, gaps, nic.prepare if nic else _nothing, notifier)
        )
        workers.await_ready()
        figures = [workers.health]
        outputs = [*sinks, *_health_endpoint(settings)]
        with Pipeline(settings, interface, QueuedSink, outputs, [gaps, *detectors], figures) as pipeline:
            stop.then(workers.stop)
            stop.or_reread(_rereading(pipeline))
            notifier.ready()
            log.info("%s: capturing; workers: %d", interface, settings.workers)
            failure = _take_all(workers, pipeline)
            notifier.stopping()
    logs.result(totals_line(workers.totals()))
    if failure:
        raise failure
    pipeline.raise_failure()


def _health_endpoint(settings: Settings) -> Iterator[Sink]:
    if settings.health_port is not None:
        yield PrometheusSink(settings.health_port, settings.window)


def _rereading(pipeline: Pipeline) -> Callable[[], None]:
    def reread() -> None:
        log.warning("SIGHUP: inventory, policy, lists and [limits] are read again with the next window")
        pipeline.reread()

    return reread


def _nothing() -> None:
    """Nothing is to be made ready."""


def _take_all(workers: Workers, pipeline: Pipeline) -> SensorError | None:
    """Hand every message to the pipeline; what ended the capture too early, if something did."""
    try:
        for message in workers.messages():
            pipeline.take(message)
    except SensorError as failure:
        return failure
    return workers.outage


class _Seat:
    """A worker's place, which outlives the process in it."""

    def __init__(self, duty: Duty) -> None:
        self.duty = duty
        self.process: WorkerProcess | None = None
        self.began = self.due = 0.0
        self.deaths = 0
        self.counted: list[Counters] = []
        """What its windows said, since the process that is in it began."""
        self.done: list[Counters] = []
        """Of processes that have ended."""

    def close_account(self) -> None:
        """The process has ended without telling its sums: what its windows said stands for them."""
        self.done[:] = [added([*self.done, *self.counted])] if self.done or self.counted else []
        self.counted.clear()


class Workers:
    """The capture processes of one interface. Use as a context manager; it ends them."""

    def __init__(
        self,
        settings: Settings,
        interface: str,
        stop: Stop,
        gaps: GapWatch,
        prepare: Callable[[], None],
        notifier: Notifier,
    ) -> None:
        self._notifier = notifier
        self.outage: InterfaceError | None = None
        """Why nothing is captured now."""
        self._since_ns = 0
        self._losses = 0
        self._gaps = gaps
        self._prepare = prepare
        """Makes an interface that has come back ready again."""
        self._over = deadline(None)
        self._settings = settings
        self._interface = interface
        self._stop = stop
        count = settings.workers
        fanout = Fanout.of_this_process() if count > 1 else None
        cpus = settings.cpus or (None,)
        self._seats = [_Seat(Duty(n, count, fanout, cpus[n % len(cpus)])) for n in range(count)]
        self._merger = Merger(count)
        self._deaths = 0
        self._stack = ExitStack()

    def __enter__(self) -> Workers:
        with ExitStack() as stack:
            for seat in self._seats:
                stack.callback(self._end, seat)
                self._begin(seat)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def await_ready(self) -> None:
        """Raise what kept a worker from opening the interface."""
        for seat in self._seats:
            assert seat.process is not None
            try:
                message = seat.process.messages.recv()
            except EOFError:
                raise self._died(seat) from None
            if isinstance(message, Failed):
                raise message.error
        if self._settings.duration:
            # Workers stop by themselves; those that were started later have to be told.
            self._over = deadline(self._settings.duration / 1e9 + WAKE_SECONDS)

    def messages(self) -> Iterator[Message]:
        """What the workers hand on, windows put together, until all are done."""
        while True:
            by_pipe = {seat.process.messages: seat for seat in self._seats if seat.process is not None}
            if not by_pipe and (self._is_ending() or not any(seat.due for seat in self._seats)):
                break
            for pipe in wait(list(by_pipe), WAKE_SECONDS):
                assert isinstance(pipe, Connection)
                yield from self._receive(by_pipe[pipe])
            yield from self._merger.overdue()
            self._notifier.alive()
            if self._is_ending():
                self.stop()  # again: one that was being started when all were told has not heard it
            self._begin_again()
        yield from self._merger.rest()

    def totals(self) -> Counters:
        """Of all workers; of one that died, what its windows said."""
        return added([one for seat in self._seats for one in (*seat.done, *seat.counted)] or [Counters()])

    def health(self) -> dict[str, int]:
        """How many run, and how many have died."""
        running = sum(seat.process is not None for seat in self._seats)
        return {"workers": running, "worker_deaths": self._deaths, "interface_losses": self._losses}

    def stop(self) -> None:
        """Ask every worker to finish."""
        for seat in self._seats:
            if seat.process is not None:
                seat.process.stop()

    def _receive(self, seat: _Seat) -> Iterator[Message]:
        assert seat.process is not None
        try:
            message = seat.process.messages.recv()
        except (EOFError, OSError):
            yield from self._bury(seat)
            return
        if isinstance(message, Failed):
            if not isinstance(message.error, InterfaceError):
                raise message.error
            yield from self._lose(seat, message.error)
        elif isinstance(message, Snapshot):
            seat.counted.append(message.counters)
            seat.counted[:] = [added(seat.counted)]
            yield from self._merger.take(seat.duty.number, message)
        elif isinstance(message, Finished):
            yield Finished(numbered_records(message.records, seat.duty.number))
        elif isinstance(message, Done):
            seat.done.append(message.counters)
            seat.counted.clear()
        elif isinstance(message, Ready):
            self._merger.began(seat.duty.number)
            self._is_back(seat)
        elif message is None:
            self._end(seat)
            yield from self._merger.ended(seat.duty.number)

    def _is_ending(self) -> bool:
        """Nobody is to be started any more."""
        return self._stop() or self._over()

    # ---- an interface that is gone, or down

    def _lose(self, seat: _Seat, error: InterfaceError) -> Iterator[Message]:
        """Wait for the interface; what the worker had read has been told."""
        self._end(seat)
        seat.close_account()
        if self.outage is None:
            self.outage, self._since_ns = error, wall_clock_ns()
            self._losses += 1
            log.warning("%s; waiting until it is back", error)
            self._notifier.status(f"waiting: {error}")
        yield from self._merger.ended(seat.duty.number)
        seat.due = time.monotonic() + INTERFACE_DELAY

    def _is_back(self, seat: _Seat) -> None:
        if self.outage is None:
            log.warning("%s: worker %d captures again", self._interface, seat.duty.number + 1)
            return
        self._gaps.add(self._since_ns, wall_clock_ns(), str(self.outage).partition(": ")[2])
        log.warning("%s: captures again", self._interface)
        self._notifier.status("capturing")
        self.outage = None
        self._prepare()

    # ---- one that dies

    def _bury(self, seat: _Seat) -> Iterator[Message]:
        """It ended without a word: killed, or out of memory. What it had of the open window is lost."""
        steady = time.monotonic() - seat.began > STEADY_SECONDS
        seat.deaths = 1 if steady else seat.deaths + 1
        self._deaths += 1
        died = self._died(seat)
        if seat.process is not None:
            self._end(seat)
        seat.close_account()
        yield from self._merger.ended(seat.duty.number)
        if self._is_ending():
            return
        delay = min(LONGEST_DELAY, FIRST_DELAY * 2 ** (seat.deaths - 1))
        seat.due = time.monotonic() + delay
        log.warning("%s; what it had of its open window is lost, and it is started again in %g s", died, delay)

    def _died(self, seat: _Seat) -> InterfaceError:
        code = seat.process.end() if seat.process is not None else None
        how = f" by {signal.Signals(-code).name}" if code is not None and code < 0 else f" with status {code}"
        which = f" {seat.duty.number + 1}" if len(self._seats) > 1 else ""
        return InterfaceError(f"{self._interface}: the capture process{which} died{how}")

    def _begin_again(self) -> None:
        for seat in self._seats:
            if seat.due and time.monotonic() >= seat.due and not self._is_ending():
                self._begin(seat)

    def _begin(self, seat: _Seat) -> None:
        seat.due, seat.began = 0.0, time.monotonic()
        seat.process = WorkerProcess(self._settings, self._interface, seat.duty)

    def _end(self, seat: _Seat) -> None:
        if seat.process is not None:
            seat.process.end()
        seat.process = None
