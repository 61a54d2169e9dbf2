"""What runs in a capture process, the only one that touches other people's packets.

Messages go up a pipe; the stop comes down another, whose end the worker also sees when the supervisor dies.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import select
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

import sensor.native  # noqa: F401  what makes records loads it when first asked; by then a worker can not read its files
from sensor import logs, messages
from sensor.config import LIVE_SNAPLEN, Settings
from sensor.errors import SensorError
from sensor.fanout import Fanout
from sensor.interface import LiveSource
from sensor.messages import Failed, Ready, Told
from sensor.nicclock import NicClock
from sensor.privileges import give_up
from sensor.ring import RingSource, is_ethernet
from sensor.runner import make_table
from sensor.snapshot import Snapshot
from sensor.sources import Source
from sensor.tap import Tap, wall_clock_ns
from sensor.worker import Finished, Message, Worker, deadline

log = logging.getLogger(__name__)

WAITING_MESSAGES = 64
"""Messages that a worker keeps while the supervisor is busy; further windows are dropped, and said."""


@dataclass(frozen=True)
class Duty:
    """Which of several workers it is."""

    number: int = 0
    of: int = 1
    fanout: Fanout | None = None
    cpu: int | None = None


def worker_main(
    settings: Settings, interface: str, duty: Duty, up: Connection, control: Connection, clock: NicClock | None
) -> None:
    """What the capture process runs; ``clock`` as Tap has it."""
    if duty.cpu is not None:
        with contextlib.suppress(OSError):  # a processor that went offline: any other will do
            os.sched_setaffinity(0, {duty.cpu})
    logs.setup(settings.log_format, settings.log_level)
    source = _source(settings, interface, duty, control, clock)
    with contextlib.closing(source):
        try:
            table = make_table(settings)
            source.open(table)
            give_up()  # before the first thread, which would keep its own, and before the first packet
        except SensorError as error:
            with contextlib.suppress(OSError):
                messages.send(up, Failed(error))
            return
        sender = Sender(up)
        sender.emit(Ready())
        is_asked, over = _end_of(control), deadline(settings.duration and settings.duration / 1e9)
        try:
            Worker(source, table, sender.emit, lambda: is_asked() or over(), wall_clock_ns, sender.wait).run()
            sender.finish(None)
        except SensorError as error:
            sender.finish(Failed(error))


def _end_of(control: Connection) -> Callable[[], bool]:
    """Whether the other end has been closed. ``Connection.poll`` takes fifteen times as long."""
    poller = select.poll()
    poller.register(control.fileno(), select.POLLIN)
    return lambda: bool(poller.poll(0))


def _source(settings: Settings, interface: str, duty: Duty, control: Connection, clock: NicClock | None) -> Source:
    """The ring, where it can be had: of Ethernet, without a filter, which is libpcap's."""
    must_be_stamped = settings.timestamps == "adapter"
    tap = Tap(
        interface,
        settings.snaplen or LIVE_SNAPLEN,
        settings.buffer_size,
        settings.promiscuous,
        settings.filter,
        settings.direction,
        settings.packets,
        wake=control.fileno(),
        fanout=duty.fanout,
        clock=clock,
        must_be_stamped=must_be_stamped,
    )
    has_ring = is_ethernet(interface) and settings.filter is None
    takes_ring = settings.source == "ring" or must_be_stamped or (settings.source == "auto" and has_ring)
    return RingSource(tap) if takes_ring else LiveSource(tap)


class Sender:
    """Sends messages up the pipe in a thread, so that a busy supervisor never holds up the capture loop.

    While it captures, what has no room in the queue is dropped, said and counted in the next window that has; once it
    is over (``wait``), everything waits its turn.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._queue: queue.Queue[Told] = queue.Queue(WAITING_MESSAGES)
        self._lost = {"windows_lost": 0, "flow_records_lost": 0}
        self._waits = False
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)
        self._thread.start()

    def emit(self, message: Message | Ready) -> None:
        """Queue a message."""
        has_room = self._waits or not self._queue.full()
        if isinstance(message, Snapshot):
            self._window(message, has_room)
        elif isinstance(message, Finished) and not has_room:
            self._lost["flow_records_lost"] += len(message.records)
            log.warning("%d flow records are lost: the supervisor is busy", len(message.records))
        else:
            self._queue.put(message)

    def wait(self) -> None:
        """From now on nothing is captured that could be held up."""
        self._waits = True

    def finish(self, last: Failed | None) -> None:
        """Send the last message and wait until all are sent."""
        self._queue.put(last)
        self._thread.join()

    def _window(self, window: Snapshot, has_room: bool) -> None:
        if not has_room:
            self._lost["windows_lost"] += 1
            log.warning("the window at %d ns is lost: the supervisor is busy", window.start_ns)
            return
        notes = {**window.counters.notes, **self._lost}
        self._lost = dict.fromkeys(self._lost, 0)
        self._queue.put(replace(window, counters=replace(window.counters, notes=notes)))

    def _run(self) -> None:
        while True:
            message = self._queue.get()
            try:
                messages.send(self._connection, message)
            except OSError:
                return  # the supervisor is gone, and the closed control pipe ends the capture
            if message is None or isinstance(message, Failed):
                return
