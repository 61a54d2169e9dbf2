"""From the store to InfluxDB: what ``vmsensor push`` does once and ``--to influx`` does in the background."""

from __future__ import annotations

import logging
import random
import shlex
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sensor.errors import DeliveryError, SensorError
from sensor.sinks.blocks import Block, Position, read_blocks, require_store
from sensor.sinks.influx import InfluxSettings, Writer, connect
from sensor.sinks.lineprotocol import split
from sensor.sinks.spool import Delivered, SpoolSink, StoreLock
from sensor.window import Report

BATCH_LINES = 5000
"""Points of one request, as InfluxDB's makers advise."""

log = logging.getLogger(__name__)


@dataclass
class Sent:
    """What a ``push`` delivered; ``damaged`` stretches of the store hold nothing that could be."""

    windows: int = 0
    lines: int = 0
    damaged: int = 0

    def add(self, block: Block) -> None:
        """Count one block."""
        self.windows += block.damage is None
        self.lines += block.lines
        self.damaged += block.damage is not None


class Deliverer:
    """Sends to one server, in order, the windows of a store that it has not received yet.

    A window is noted as delivered once the server has taken all of it. One that was sent but not noted is sent again
    and overwrites itself: the same series at the same time.
    """

    def __init__(self, directory: Path, settings: InfluxSettings) -> None:
        self._directory = directory
        self._settings = settings
        self._delivered = Delivered(directory)
        self._writer: Writer | None = None
        self._noting = threading.Lock()
        self._abandoned = False

    def pending(self, until: Position | None = None) -> Iterator[Block]:
        """The blocks still to send, up to ``until``: what stands behind it is being written."""
        for block in read_blocks(self._directory, self._delivered.position(self._settings.destination)):
            if until is not None and block.position >= until:
                return
            yield block

    def deliver(self, until: Position | None = None) -> Iterator[Block]:
        """Send what is pending; each block is yielded when it is delivered and noted."""
        for block in self.pending(until):
            if block.damage is not None:
                log.warning("%s; going on behind it", block.damage)
            self._send(block)
            with self._noting:
                if self._abandoned:
                    return
                self._delivered.advance(self._settings.destination, block.next)
            yield block

    def abandon(self) -> None:
        """Stop ``deliver`` in another thread before it notes more: the store may soon be someone else's."""
        with self._noting:
            self._abandoned = True

    def close(self) -> None:
        """Drop the connection; a later ``deliver`` makes a new one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _send(self, block: Block) -> None:
        if not block.data:
            return
        try:
            # Which server it is, is asked again after every failure: it may have been replaced.
            self._writer = self._writer or connect(self._settings)
            for batch in split(block.data, BATCH_LINES):
                self._writer.write(batch)
        except DeliveryError:
            self.close()
            raise


def push(
    directory: str | Path, settings: InfluxSettings, progress: Callable[[Block], None] = lambda block: None
) -> Sent:
    """Send everything that the server has not received yet; ``progress`` is told each delivered block."""
    store = Path(directory)
    deliverer = Deliverer(store, settings)
    sent = Sent()
    require_store(store)  # before the lock file makes it look like one
    with StoreLock(store):
        try:
            for block in deliverer.deliver():
                sent.add(block)
                progress(block)
        except DeliveryError as error:
            left = sum(block.damage is None for block in deliverer.pending())
            raise _undelivered(left, error, store) from None
        finally:
            deliverer.close()
    return sent


def _undelivered(windows: int, reason: object, directory: Path) -> DeliveryError:
    left = "1 window is" if windows == 1 else f"{windows} windows are"
    command = f"vmsensor push {shlex.quote(str(directory))}"
    return DeliveryError(f"{reason}; {left} kept in {directory}, to send later with: {command}")


class InfluxSink:
    """Keeps each window in the store and delivers from there in a thread of its own, so that no server can hold it up.

    While the server fails, attempts follow each other at growing intervals with jitter. ``close`` makes a last one and
    waits ``grace`` seconds for it; what is left then stays in the store, and DeliveryError says so.
    """

    name = "influx"

    def __init__(
        self,
        spool: SpoolSink,
        settings: InfluxSettings,
        *,
        grace: float = 5.0,
        first_delay: float = 1.0,
        longest_delay: float = 60.0,
    ) -> None:
        self.spool = spool
        self.pending_windows = 0
        """Windows in the store that the server has not taken yet."""
        self._settings = settings
        self._grace = grace
        self._delays = (first_delay, longest_delay)
        self._deliverer = Deliverer(spool.directory, settings)
        self._failure: SensorError | None = None
        self._count = threading.Lock()
        self._work = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vmsensor-influx", daemon=True)

    def open(self) -> None:
        """Open the store and begin with what an earlier run left in it."""
        self.spool.open()
        self.pending_windows = sum(block.damage is None for block in self._deliverer.pending(self.spool.end))
        self._work.set()
        self._thread.start()

    def write(self, report: Report) -> None:
        """Put the window into the store; delivery is not waited for."""
        self._add_pending(1)
        try:
            self.spool.write(report)
        except SensorError:
            self._add_pending(-1)
            raise
        self._work.set()

    def close(self) -> None:
        """Try once more to deliver everything, for a few seconds."""
        self._closing.set()
        self._work.set()
        if self._thread.is_alive():
            self._thread.join(self._grace)
        self._deliverer.abandon()
        self.spool.close()
        if self.pending_windows:
            reason = self._failure or f"{self._settings.url} does not take data fast enough"
            raise _undelivered(self.pending_windows, reason, self.spool.directory)

    def _run(self) -> None:
        while not self._closing.is_set():
            self._work.wait()
            self._work.clear()
            failures = 0
            while not self._attempt():
                failures += 1
                if self._closing.wait(self._delay(failures)):
                    break
        self._attempt()
        self._deliverer.close()

    def _attempt(self) -> bool:
        """Deliver what there is; False when the server or the disk does not let it."""
        try:
            for block in self._deliverer.deliver(self.spool.end):
                self._succeeded()
                self._add_pending(-(block.damage is None))
        except SensorError as error:
            self._failed(error)
            return False
        except Exception as error:
            # A defect must not end the thread unseen. Only its name is told: its text might hold the token.
            self._failed(DeliveryError(f"{self._settings.url}: unexpected {type(error).__name__} while delivering"))
            return False
        return True

    def _failed(self, error: SensorError) -> None:
        if self._failure is None:
            log.warning("%s; windows are kept in %s until it works", error, self.spool.directory)
        self._failure = error

    def _succeeded(self) -> None:
        if self._failure is not None:
            log.warning("%s takes data again", self._settings.url)
            self._failure = None

    def _delay(self, failures: int) -> float:
        """Double each time; at random, so that many sensors do not come back to a server in the same instant."""
        first, longest = self._delays
        return min(longest, first * 2.0 ** min(failures - 1, 30)) * random.uniform(0.5, 1.0)

    def _add_pending(self, windows: int) -> None:
        with self._count:
            self.pending_windows += windows
