"""A capture process as the supervisor sees it, and what runs in it.

The worker alone touches the interface. Messages come up a pipe; the stop goes down another, whose end the worker also
sees when the supervisor dies.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import queue
import signal
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from sensor import logs
from sensor.config import LIVE_SNAPLEN, Settings
from sensor.errors import PrivilegeError, SensorError
from sensor.fanout import Fanout
from sensor.interface import LiveSource, wall_clock_ns
from sensor.privileges import drop_all
from sensor.runner import make_table
from sensor.window import Snapshot
from sensor.worker import Message, Worker, deadline

log = logging.getLogger(__name__)

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


@dataclass(frozen=True)
class Duty:
    """Which of several workers it is. The first one tells what the NIC lost, which all would count alike."""

    number: int = 0
    of: int = 1
    fanout: Fanout | None = None
    cpu: int | None = None


class WorkerProcess:
    """The capture process and the two pipes to it."""

    def __init__(self, settings: Settings, interface: str, duty: Duty) -> None:
        self.duty = duty
        context = multiprocessing.get_context("spawn")
        self.messages, theirs_up = context.Pipe(duplex=False)
        theirs_down, self._control = context.Pipe(duplex=False)
        self._process = context.Process(
            target=worker_main, args=(settings, interface, duty, theirs_up, theirs_down), daemon=True,
            name=f"vmsensor-worker-{duty.number}",
        )  # fmt: skip
        self._process.start()
        for connection in (theirs_up, theirs_down):
            connection.close()

    def stop(self) -> None:
        """Ask the worker to finish; harmless when it has."""
        with contextlib.suppress(OSError):
            self._control.close()

    def end(self) -> int | None:
        """Make sure that it has ended; how it did, as in ``multiprocessing.Process.exitcode``."""
        self.stop()
        self.messages.close()
        self._process.join(WORKER_EXIT_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        return self._process.exitcode


def worker_main(settings: Settings, interface: str, duty: Duty, up: Connection, control: Connection) -> None:
    """What the capture process runs. Signals are the supervisor's; it passes them on."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if duty.cpu is not None:
        with contextlib.suppress(OSError):  # a processor that went offline: any other will do
            os.sched_setaffinity(0, {duty.cpu})
    logs.setup(settings.log_format, settings.log_level)
    sender = _Sender(up)
    try:
        _capture(settings, interface, duty, sender, control)
        sender.finish(None)
    except SensorError as error:
        sender.finish(Failed(error))


def _capture(settings: Settings, interface: str, duty: Duty, sender: _Sender, control: Connection) -> None:
    source = LiveSource(
        interface,
        settings.snaplen or LIVE_SNAPLEN,
        settings.buffer_size,
        settings.promiscuous,
        settings.filter,
        settings.direction,
        settings.packets,
        wake=control.fileno(),
        fanout=duty.fanout,
        tells_nic=duty.number == 0,
    )
    table = make_table(settings, share=duty.of)
    with contextlib.closing(source):
        source.open(table)
        _give_up_privileges(settings.user)
        sender.emit(Ready())
        over = deadline(settings.duration and settings.duration / 1e9)
        Worker(source, table, sender.emit, lambda: control.poll() or over(), wall_clock_ns).run()


def _give_up_privileges(user: str) -> None:
    """What comes in from here on is other people's packets."""
    try:
        drop_all(user)
    except OSError as error:
        raise PrivilegeError(f"cannot give up privileges: {error.strerror}; choose another --user") from None


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
            log.warning("the window at %d ns is lost: the supervisor is busy", message.start_ns)
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
