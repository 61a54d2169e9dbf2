"""What the ends of a connection hand to the wire, and the clock they live by.

Times are ns; sequence numbers count from the SYN, so that a wrap is the encoder's business only.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
US = 1_000
MS = 1_000 * US
SECOND = 1_000 * MS
DATA, PROBE, KEEPALIVE, FORGED = "data", "probe", "keepalive", "forged"
"""What a packet was sent as; a pure ACK is `data` of length 0."""

SCALE = 7
"""Both sides offer this window scale."""


class Clock:
    """The events of one connection in the order of time."""

    def __init__(self, start: int) -> None:
        self.now = start
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._number = 0

    def at(self, when: int, do: Callable[[], None]) -> None:
        """Do something at a time, not before now."""
        self._number += 1
        heapq.heappush(self._events, (max(when, self.now), self._number, do))

    def after(self, wait: int, do: Callable[[], None]) -> None:
        """Do something a while from now."""
        self.at(self.now + wait, do)

    def run(self, until: int) -> None:
        """Let time pass."""
        while self._events and self._events[0][0] <= until:
            self.now, _, do = heapq.heappop(self._events)
            do()


@dataclass(slots=True, eq=False)
class Sent:
    """One packet as it left its sender: one transmission, told from every other one by its identity."""

    side: int
    seq: int
    end: int
    flags: int
    ack: int | None
    window: int
    kind: str = DATA
    resend: bool = False
    because: Sent | None = None
    """Of a window probe: the packet that told of the closed window."""
    sacks: tuple[tuple[int, int], ...] = ()
    twice: tuple[Sent, Sent] | None = None
    """Of an ACK with a DSACK: the two transmissions of the same bytes that had arrived."""
    ts_val: int = 0
    ts_ecr: int = 0
    ident: int = 0
    answers: Sent | None = None
    """Of an ACK: the packet whose arrival moved the acknowledgment to where it is."""
    sent_ns: int = 0
    arrived_ns: int | None = None

    @property
    def octets(self) -> int:
        """Payload."""
        return self.end - self.seq - bool(self.flags & SYN) - bool(self.flags & FIN)


@dataclass(frozen=True)
class Habits:
    """How an end behaves."""

    mss: int = 1460
    window: int = 40
    """Segments in flight at most."""
    sack: bool = True
    timestamps: bool = True
    tick_ns: int = MS
    """Of the clock in the timestamps."""
    ack_each: bool = False
    timeout_ns: int = 200 * MS
    buffer: int = 1 << 20
    probe_octets: int = 0
    """A window probe has none, one below what comes next, or carries the next one."""
    clock_offset: int = 0


@dataclass
class Script:
    """What the applications do: requests and answers in octets, with pauses before and between them."""

    exchanges: list[tuple[int, int, int, int]] = field(default_factory=list)
    """(client's pause in ns, octets of the request, server's thinking in ns, octets of the answer)"""
    keepalives: list[tuple[int, int]] = field(default_factory=list)
    """(idle ns before it, octets: 0 or 1)"""
    stall_ns: int = 0
    """The client does not read its second answer for so long."""
    reset: bool = False
