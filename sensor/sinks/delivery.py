"""From the store to InfluxDB, in order: what ``vmsensor push`` does once and ``--to influx`` in the background."""

from __future__ import annotations

import logging
import shlex
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sensor.errors import DeliveryError
from sensor.sinks.batches import Batches
from sensor.sinks.blocks import Block, Position, read_blocks, require_store
from sensor.sinks.delivered import Delivered
from sensor.sinks.influx import Writer, connect
from sensor.sinks.lock import StoreLock
from sensor.sinks.rejects import FILE_NAME, Rejects
from sensor.sinks.servers import InfluxSettings

log = logging.getLogger(__name__)


@dataclass
class Sent:
    """What a ``push`` delivered; ``damaged`` stretches of the store hold nothing that could be.

    Of the ``lines``, the server refused ``rejected``.
    """

    windows: int = 0
    lines: int = 0
    damaged: int = 0
    rejected: int = 0

    def add(self, block: Block) -> None:
        """Count one block."""
        self.windows += block.damage is None
        self.lines += block.lines
        self.damaged += block.damage is not None


class Deliverer:
    """Sends to one server, in order, the windows of a store that it has not received yet.

    A window is noted as delivered once the server has taken all of it that it ever will. One that was sent but not
    noted is sent again and overwrites itself: the same series at the same time.
    """

    def __init__(self, directory: Path, settings: InfluxSettings) -> None:
        self.rejects = Rejects(directory, settings.destination)
        self._directory = directory
        self._settings = settings
        self._delivered = Delivered(directory)
        self._writer: Writer | None = None
        self._batches: Batches | None = None
        self._noting = threading.Lock()
        self._abandoned = False

    @property
    def position(self) -> Position:
        """Up to where the server has everything."""
        return self._delivered.position(self._settings.destination)

    def pending(self, until: Position | None = None) -> Iterator[Block]:
        """The blocks still to send, up to ``until``: what stands behind it is being written."""
        for block in read_blocks(self._directory, self.position):
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
        self._writer = self._batches = None

    def _send(self, block: Block) -> None:
        if not block.data:
            return
        try:
            if self._batches is None:
                # Which server it is, is asked again after every failure: it may have been replaced.
                self._writer = connect(self._settings)
                self._batches = Batches(self._writer, self.rejects)
            self._batches.send(block.data)
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
            raise undelivered(left, error, store) from None
        finally:
            deliverer.close()
    sent.rejected = deliverer.rejects.points
    return sent


def undelivered(windows: int, reason: object, directory: Path) -> DeliveryError:
    """So many windows are still in the store, and why."""
    left = "1 window is" if windows == 1 else f"{windows} windows are"
    command = f"vmsensor push {shlex.quote(str(directory))}"
    return DeliveryError(f"{reason}; {left} kept in {directory}, to send later with: {command}")


def refused(points: int, directory: Path) -> DeliveryError:
    """The server has not taken so many points, for what they are."""
    were = "1 point was" if points == 1 else f"{points} points were"
    return DeliveryError(f"{were} refused by the server; see {directory / FILE_NAME}, which has them and the reasons")
