"""``vmsensor capture``: a worker process that captures, and this process, the supervisor, that does the rest.

The worker alone touches the interface. Messages come up a pipe; the stop goes down another, whose end the worker also
sees when the supervisor dies.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from sensor.config import LIVE_SNAPLEN, Settings
from sensor.errors import InterfaceError, SensorError
from sensor.interface import LiveSource, wall_clock_ns
from sensor.runner import Pipeline, make_table, totals_line
from sensor.sinks.queue import QueuedSink
from sensor.stopping import stop_on_signals
from sensor.window import Snapshot
from sensor.worker import Message, Worker, deadline

WAITING_MESSAGES = 64
"""Messages that a worker keeps while the supervisor is busy; further windows are dropped, and said."""

WORKER_EXIT_SECONDS = 10.0


@dataclass(frozen=True)
class Ready:
    """The worker has opened the interface."""


@dataclass(frozen=True)
class Failed:
    """The worker ends with this error."""

    error: SensorError


def capture(settings: Settings, interface: str) -> None:
    """Capture until a signal, the duration or the packet count ends it; the last window is written."""
    with stop_on_signals() as stop, _WorkerProcess(settings, interface) as worker:
        worker.await_ready()
        with Pipeline(settings, interface, QueuedSink) as pipeline:
            stop.then(worker.stop)
            failure = _take_all(worker, pipeline)
    print(totals_line(pipeline.totals), file=sys.stderr)
    if failure:
        raise failure
    pipeline.raise_failure()


def _take_all(worker: _WorkerProcess, pipeline: Pipeline) -> SensorError | None:
    """Hand every message to the pipeline; what ended the worker too early, if something did."""
    try:
        for message in worker.messages():
            pipeline.take(message)
    except SensorError as failure:
        return failure
    return None


class _WorkerProcess:
    """The capture process and the two pipes to it. Use as a context manager; it ends the process."""

    def __init__(self, settings: Settings, interface: str) -> None:
        self._interface = interface
        context = multiprocessing.get_context("spawn")
        self._messages, theirs_up = context.Pipe(duplex=False)
        theirs_down, self._control = context.Pipe(duplex=False)
        self._process = context.Process(
            target=worker_main, args=(settings, interface, theirs_up, theirs_down), name="vmsensor-worker", daemon=True
        )
        self._theirs = (theirs_up, theirs_down)

    def __enter__(self) -> _WorkerProcess:
        self._process.start()
        for connection in self._theirs:
            connection.close()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._messages.close()
        self._process.join(WORKER_EXIT_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def await_ready(self) -> None:
        """Raise what kept the worker from opening the interface."""
        self._receive()

    def messages(self) -> Iterator[Message]:
        """What the worker hands on, until it is done."""
        while (message := self._receive()) is not None:
            yield message

    def stop(self) -> None:
        """Ask the worker to finish; harmless when it has."""
        with contextlib.suppress(OSError):
            self._control.close()

    def _receive(self) -> Any:
        try:
            message = self._messages.recv()
        except EOFError:
            raise InterfaceError(f"{self._interface}: the capture process died; see its last words above") from None
        if isinstance(message, Failed):
            raise message.error
        return message


def worker_main(settings: Settings, interface: str, up: Connection, control: Connection) -> None:
    """What the capture process runs. Signals are the supervisor's; it passes them on."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    sender = _Sender(up)
    try:
        _capture(settings, interface, sender, control)
        sender.finish(None)
    except SensorError as error:
        sender.finish(Failed(error))


def _capture(settings: Settings, interface: str, sender: _Sender, control: Connection) -> None:
    source = LiveSource(
        interface,
        settings.snaplen or LIVE_SNAPLEN,
        settings.buffer_size,
        settings.promiscuous,
        settings.filter,
        settings.direction,
        settings.packets,
        wake=control.fileno(),
    )
    table = make_table(settings)
    with contextlib.closing(source):
        source.open(table)
        sender.emit(Ready())
        over = deadline(settings.duration and settings.duration / 1e9)
        Worker(source, table, sender.emit, lambda: control.poll() or over(), wall_clock_ns).run()


class _Sender:
    """Sends messages up the pipe in a thread, so that a busy supervisor never holds up the capture loop."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._queue: queue.Queue[Any] = queue.Queue(WAITING_MESSAGES)
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)
        self._thread.start()

    def emit(self, message: Message | Ready) -> None:
        """Queue a message. Where there is no room, a window is dropped, and said; other messages wait."""
        if isinstance(message, Snapshot) and self._queue.full():
            print(f"vmsensor: the window at {message.start_ns} ns is lost: the supervisor is busy", file=sys.stderr)
        else:
            self._queue.put(message)

    def finish(self, last: Failed | None) -> None:
        """Send the last message and wait until all are sent."""
        self._queue.put(last)
        self._thread.join()

    def _run(self) -> None:
        while True:
            message = self._queue.get()
            try:
                self._connection.send(message)
            except OSError:
                return  # the supervisor is gone, and the closed control pipe ends the capture
            if message is None or isinstance(message, Failed):
                return
