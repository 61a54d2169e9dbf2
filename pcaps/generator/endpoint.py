"""One end of a simulated TCP connection (RFC 9293): NewReno recovery, delayed ACKs, no SACK.

Sequence numbers in here are relative: 0 is the SYN, the stream starts at 1, the FIN follows it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from .clock import MILLISECOND, SECOND, Clock
from .headers import ACK, FIN, PSH, RST, SYN

INITIAL_WINDOW, LARGEST_WINDOW = 10, 44
DELAYED_ACK = 40 * MILLISECOND
MINIMUM_RTO = 200 * MILLISECOND
DUPLICATES_FOR_RESEND = 3


@dataclass(frozen=True)
class Host:
    """An address with the habits of its TCP."""

    address: str
    port: int
    isn: int
    mss: int = 1460
    buffer: int = 1 << 18
    shift: int = 7
    ttl: int = 64
    quick_acks: int = 8
    stall_at: int | None = None
    stall_ns: int = 0


@dataclass(frozen=True)
class Segment:
    """What one end hands to the wire; `ordinal` numbers first transmissions of what takes sequence space."""

    seq: int
    flags: int
    ack: int | None
    window: int
    payload: bytes = b""
    options: bytes = b""
    ordinal: int | None = None
    resend: bool = False

    @property
    def end(self) -> int:
        """The sequence number after it."""
        return self.seq + len(self.payload) + bool(self.flags & (SYN | FIN))


class Sender(Protocol):
    """What an end needs of the wire."""

    def send(self, side: str, segment: Segment) -> None:
        """Take a segment from `side`, "c2s" or "s2c"."""


@dataclass
class Endpoint:
    """The state of one end. `on_read` gets the octets read so far, `on_close` the other side's FIN."""

    side: str
    host: Host
    clock: Clock
    wire: Sender
    rto: int
    on_read: Callable[[int], None] = lambda octets: None
    on_close: Callable[[], None] = lambda: None

    stream: bytearray = field(default_factory=bytearray)
    fin_at: int | None = None
    una: int = 0
    nxt: int = 0
    sizes: dict[int, int] = field(default_factory=dict)
    congestion_window: int = 0
    threshold: int = 1 << 30
    peer_window: int = 65535
    peer_shift: int = 0
    duplicates: int = 0
    recover: int | None = None
    timer: int = 0

    rcv_nxt: int = 0
    held: dict[int, int] = field(default_factory=dict)
    octets_read: int = 0
    unacked: int = 0
    acks_sent: int = 0
    stalled: bool = False
    dead: bool = False

    def __post_init__(self) -> None:
        """Start with RFC 6928's window."""
        self.congestion_window = INITIAL_WINDOW * self.host.mss
        self.quick_acks = self.host.quick_acks
        self.stall_at = self.host.stall_at

    # What an application does.

    def connect(self) -> None:
        """Send the SYN."""
        self._transmit(0)

    def write(self, data: bytes) -> None:
        """Queue octets."""
        self.stream += data
        self._pump()

    def close(self) -> None:
        """Queue a FIN behind the stream."""
        self.fin_at = 1 + len(self.stream)
        self._pump()

    def abort(self) -> None:
        """Reset the connection."""
        self.dead = True
        self._send(Segment(self.nxt, RST | ACK, self.rcv_nxt, 0))

    def probe_idle(self) -> None:
        """Send a keep-alive: an empty segment one before the next (RFC 9293 section 3.8.4)."""
        self._send(Segment(self.nxt - 1, ACK, self.rcv_nxt, self._window()))

    # Sending.

    def _pump(self) -> None:
        """Send what both windows allow, whole segments or the stream's end only."""
        while self.una and self.rcv_nxt:
            size = self._size_at(self.nxt)
            if not size or self.nxt + size > self.una + min(self.congestion_window, self.peer_window):
                return
            self._transmit(self.nxt)

    def _size_at(self, seq: int) -> int:
        """Sequence space of the segment at `seq`; resends keep the first transmission's bounds."""
        if seq not in self.sizes and seq != 0:
            left = 1 + len(self.stream) - seq
            return min(self.host.mss, left) if left > 0 else int(seq == self.fin_at)
        return self.sizes.get(seq, 1)

    def _transmit(self, seq: int, resend: bool = False) -> None:
        size = self.sizes[seq] = self._size_at(seq)
        ordinal = None if resend else len(self.sizes) - 1
        self.nxt = max(self.nxt, seq + size)
        payload = bytes(self.stream[seq - 1 : seq - 1 + size]) if seq and seq != self.fin_at else b""
        self._send(Segment(
            seq, self._flags(seq, size, payload), self.rcv_nxt if self.rcv_nxt else None, self._window(seq == 0),
            payload, self._options() if seq == 0 else b"", ordinal, resend,
        ))  # fmt: skip
        self._arm(self.rto if seq else SECOND + self.rcv_nxt * DELAYED_ACK)  # the client's SYN is resent first

    def _flags(self, seq: int, size: int, payload: bytes) -> int:
        flags = ACK if self.rcv_nxt else 0
        if seq == 0:
            return flags | SYN
        if not payload:
            return flags | FIN
        return flags | (PSH if seq + size == 1 + len(self.stream) else 0)

    def _options(self) -> bytes:
        """MSS and window scale (RFC 7323)."""
        return struct.pack(">BBHBBBB", 2, 4, self.host.mss, 1, 3, 3, self.host.shift)

    def _send(self, segment: Segment) -> None:
        if segment.ack is not None:
            self.unacked = 0
            self.acks_sent += 1
        self.wire.send(self.side, segment)

    def _arm(self, after: int) -> None:
        """(Re)start the retransmission timer."""
        self.timer += 1
        armed = self.timer
        self.clock.after(after, lambda: self._timeout(armed, after))

    def _timeout(self, armed: int, waited: int) -> None:
        if armed != self.timer or self.una == self.nxt or self.dead:
            return
        self.threshold = max((self.nxt - self.una) // 2, 2 * self.host.mss)
        self.congestion_window = self.host.mss
        self.recover = self.nxt
        self._transmit(self.una, resend=True)
        self._arm(2 * waited)

    # The other side's ACKs.

    def _on_ack(self, segment: Segment) -> None:
        ack = segment.ack or 0
        window = segment.window << (0 if segment.flags & SYN else self.peer_shift)
        same = window == self.peer_window
        self.peer_window = window
        if ack > self.una:
            self._advance(ack)
        elif ack == self.una < self.nxt and same and segment.end == segment.seq:
            self._duplicate()

    def _advance(self, ack: int) -> None:
        acked, self.una = ack - self.una, ack
        self._arm(self.rto)
        self.duplicates = 0
        if self.recover is None:
            self._grow(acked)
        elif ack >= self.recover:
            self.recover, self.congestion_window = None, self.threshold
        else:
            self._transmit(ack, resend=True)  # a partial ACK names the next hole (RFC 6582)

    def _grow(self, acked: int) -> None:
        mss, window = self.host.mss, self.congestion_window
        growth = acked if window < self.threshold else mss * mss // window
        self.congestion_window = min(window + growth, LARGEST_WINDOW * mss)

    def _duplicate(self) -> None:
        self.duplicates += 1
        if self.recover is not None:
            self.congestion_window += self.host.mss
        elif self.duplicates == DUPLICATES_FOR_RESEND:
            self.threshold = max((self.nxt - self.una) // 2, 2 * self.host.mss)
            self.congestion_window = self.threshold + DUPLICATES_FOR_RESEND * self.host.mss
            self.recover = self.nxt
            self._transmit(self.una, resend=True)

    # Receiving.

    def receive(self, segment: Segment) -> None:
        """Take a segment off the wire."""
        if self.dead:
            return
        if segment.flags & RST:
            self.dead = True
            return
        if segment.flags & SYN:
            self.peer_shift = segment.options[-1]
        if segment.ack is not None:
            self._on_ack(segment)
        if segment.end > segment.seq:
            self._on_sequence(segment)
        elif segment.seq < self.rcv_nxt:
            self._acknowledge()
        self._pump()

    def _on_sequence(self, segment: Segment) -> None:
        """Put the segment in its place, acknowledge, let the application read."""
        if segment.flags & SYN and self.side == "s2c":
            self.rcv_nxt = 1
            self._transmit(0, resend=0 in self.sizes)
            return
        orderly = segment.seq == self.rcv_nxt and not self.held
        if segment.end > self.rcv_nxt:
            self.held[segment.seq] = segment.end
        while self.rcv_nxt in self.held:
            self.rcv_nxt = self.held.pop(self.rcv_nxt)
        self._read()
        self.unacked += 1
        if not orderly or segment.flags & (SYN | FIN) or self.acks_sent < self.quick_acks or self.unacked >= 2:
            self._acknowledge()
        else:
            self._acknowledge_later()
        self._tell(segment)

    def _tell(self, segment: Segment) -> None:
        if not self.stalled and segment.payload:
            self.on_read(self.octets_read)
        if segment.flags & FIN and not self.held:
            self.on_close()

    def _read(self) -> None:
        """The application empties the buffer, or, once it stalls, only when the window has been shut for a while."""
        arrived = self.rcv_nxt - 1
        if self.stall_at is not None and arrived > self.stall_at:
            self.stalled, self.stall_at = True, None
        if not self.stalled:
            self.octets_read = arrived
        elif self._free() == 0:
            self.clock.after(self.host.stall_ns, self._resume)

    def _resume(self) -> None:
        self.stalled = False
        self._read()
        self._acknowledge()
        self.on_read(self.octets_read)

    def _free(self) -> int:
        return self.host.buffer - (self.rcv_nxt - 1 - self.octets_read) if self.rcv_nxt else self.host.buffer

    def _window(self, unscaled: bool = False) -> int:
        return min(65535, self._free() if unscaled else self._free() >> self.host.shift)

    def _acknowledge(self) -> None:
        self._send(Segment(self.nxt, ACK, self.rcv_nxt, self._window()))

    def _acknowledge_later(self) -> None:
        owed = self.acks_sent

        def unless_sent() -> None:
            if self.acks_sent == owed and not self.dead:
                self._acknowledge()

        self.clock.after(DELAYED_ACK, unless_sent)
