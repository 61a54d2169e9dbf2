"""What a source of packets is: it fills the flow table itself, so that no packet ever becomes a Python object.

``captures.py`` and ``interface.py`` are sources on libpcap, through pcapy-ng; others plug in at the same place.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Any, NamedTuple, Protocol

import pcapy

from sensor.errors import UsageError
from sensor.flowtable import META_SIZE, FlowTable

MICROSECOND_NS = 1000
"""What pcapy-ng's next_batch counts fractions of a second in."""


class Progress(Enum):
    """What a poll came to."""

    READ = auto()
    """Packets were counted."""
    HELD = auto()
    """A packet waits: finished flows must be taken, or the window must be rolled, before it can be counted."""
    IDLE = auto()
    """No packet arrived within the timeout."""
    END = auto()
    """There will be no more packets."""


class Drops(NamedTuple):
    """Packets that did not reach the table; None where the source cannot know.

    ``unread`` ones are still in the kernel's buffer, or fetched but not fed: at the end of a run, they are lost too.
    """

    kernel: int | None = None
    unread: int | None = None


class Source(Protocol):
    """What a worker asks of a source."""

    def open(self, table: FlowTable) -> None:
        """Claim the handle and tell the table the link type."""

    def poll(self, table: FlowTable) -> Progress:
        """Count what is there, waiting a moment if nothing is."""

    def drops(self) -> Drops:
        """Packets that were lost on the way so far."""

    def close(self) -> None:
        """Give the handle back."""


class Batches:
    """Feeds batches of next_batch to the table and keeps what the table has not taken yet."""

    def __init__(self) -> None:
        self._data = b""
        self._meta = b""
        self._next = 0

    def put(self, data: bytes, meta: bytes) -> None:
        """Take the next batch; the one before has been fed."""
        self._data, self._meta, self._next = data, meta, 0

    @property
    def left(self) -> int:
        """Packets not fed yet."""
        return len(self._meta) // META_SIZE - self._next

    def feed(self, table: FlowTable) -> Progress:
        """Count as many as the table takes now."""
        self._next = table.ingest(self._data, self._meta, self._next, MICROSECOND_NS)
        return Progress.HELD if self.left else Progress.READ


def set_filter(handle: Any, bpf: str | None) -> None:
    """Set a BPF filter; UsageError with libpcap's message when it is not valid."""
    if not bpf:
        return
    try:
        handle.setfilter(bpf)
    except pcapy.PcapError as error:
        raise UsageError(f"--filter {bpf!r}: {error}") from None
