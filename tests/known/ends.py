"""Both ends of a TCP connection: what they send when, and why. Times are in ns, sequence numbers count from the SYN."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
MS = 1_000_000
SECOND = 1_000 * MS
DATA, PROBE, KEEPALIVE, FORGED = "data", "probe", "keepalive", "forged"
"""What a packet was sent as; a pure ACK is `data` of length 0."""

DELAYED_ACK = 40 * MS
INITIAL_WINDOW = 10
DUPLICATES_FOR_RESEND = 3
TRIES = 8
HELD_REPORTED = 3


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

    def run(self, until: int) -> None:
        """Let time pass."""
        while self._events and self._events[0][0] <= until:
            self.now, _, do = heapq.heappop(self._events)
            do()


@dataclass(slots=True)
class Sent:
    """One packet as it left its sender, and what became of it."""

    side: int
    seq: int
    end: int
    flags: int
    ack: int | None
    window: int
    kind: str = DATA
    resend: bool = False
    sacks: tuple[tuple[int, int], ...] = ()
    names_duplicate: bool = False
    ts_val: int = 0
    ts_ecr: int = 0
    ident: int = 0
    answers: Sent | None = None
    """The packet with whose arrival everything up to the acknowledgment had come."""
    lost_before: bool = False
    lost_after: bool = False

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
    ack_each: bool = False
    timeout_ns: int = 200 * MS
    buffer: int = 1 << 20
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


class End:
    """One end. It hands every packet to `send`, and is told what arrives."""

    def __init__(self, side: int, clock: Clock, habits: Habits, send: Callable[[Sent], None]) -> None:
        self.side, self.clock, self.habits, self.send = side, clock, habits, send
        self.una = self.nxt = self.written = 0
        self.segments: dict[int, tuple[int, int]] = {}  # start -> end, flags
        self.congestion = INITIAL_WINDOW
        self.duplicates = 0
        self.recover: int | None = None
        self.timed_out = False
        self.sacked: set[int] = set()
        self.resent: set[int] = set()
        self.timer = self.tries = 0
        self.peer_window = 1 << 20
        self.fin_at: int | None = None
        self.dead = False
        self.rcv_nxt: int | None = None
        self.held: dict[int, int] = {}
        self.recent: list[int] = []
        self.duplicate: tuple[int, int] | None = None
        self.unacked = self.acks = 0
        self.arrived: Sent | None = None
        self.ts_recent = 0
        self.stalled = False
        self.read = 1
        self.on_data: Callable[[int], None] = lambda octets: None
        self.on_fin: Callable[[], None] = lambda: None

    # ---- sending

    def open(self, flags: int = SYN) -> None:
        """Send the SYN or the SYN-ACK."""
        self.segments[0] = (1, flags)
        self.nxt = 1
        self.written = max(self.written, 1)
        self._transmit(0, False)
        self._arm(SECOND)

    def write(self, octets: int) -> None:
        """The application writes."""
        self.written += octets
        self.pump()

    def close(self) -> None:
        """Send FIN once everything written has been sent."""
        self.fin_at = self.written
        self.pump()

    def abort(self) -> None:
        """Send RST."""
        self.dead = True
        self._packet(Sent(self.side, self.nxt, self.nxt, RST | ACK, self.rcv_nxt, self._window()))

    def probe_idle(self, octets: int) -> None:
        """Send a keep-alive."""
        if not self.dead and self.una == self.nxt:
            seq = self.nxt - 1
            self._packet(Sent(self.side, seq, seq + octets, ACK, self.rcv_nxt, self._window(), KEEPALIVE))

    def pump(self) -> None:
        """Send what the windows allow."""
        mss = self.habits.mss
        while not self.dead and self.una:
            in_flight = self.nxt - self.una
            allowed = min(min(self.congestion, self.habits.window) * mss, self.peer_window)
            octets = min(mss, self.written - self.nxt)
            if octets > 0 and in_flight + octets <= allowed:
                flags = ACK | (PSH if self.nxt + octets == self.written else 0)
                self._new(octets, flags)
            elif octets == 0 and self.fin_at == self.nxt:
                self._new(1, FIN | ACK)
                self.fin_at = None
            else:
                break
        if self.una == self.nxt and self.written > self.nxt and self.peer_window < mss:
            self._arm(self.habits.timeout_ns)

    def _new(self, length: int, flags: int) -> None:
        start = self.nxt
        self.nxt += length
        self.segments[start] = (self.nxt, flags)
        self._transmit(start, False)
        if self.una == start:
            self._arm(self.habits.timeout_ns)

    def _transmit(self, start: int, resend: bool) -> None:
        end, flags = self.segments[start]
        ack = None if flags == SYN else self.rcv_nxt
        self._packet(Sent(self.side, start, end, flags, ack, self._window(), resend=resend))
        if resend:
            self.resent.add(start)

    def _packet(self, sent: Sent) -> None:
        if sent.ack is not None:
            self.unacked = 0
            self.acks += 1
            sent.answers = self.arrived
        if self.habits.timestamps:
            sent.ts_val = self.clock.now // MS % (1 << 32) + self.habits.clock_offset & 0xFFFFFFFF
            sent.ts_ecr = self.ts_recent
        if sent.ack is not None and self.habits.sack:
            sent.sacks, sent.names_duplicate = self._blocks()
        self.send(sent)

    def _arm(self, after: int) -> None:
        self.timer += 1
        timer = self.timer
        self.clock.at(self.clock.now + after, lambda: self._timeout(timer, after))

    def _timeout(self, timer: int, waited: int) -> None:
        if timer != self.timer or self.dead:
            return
        if self.una == self.nxt:
            self._probe_window(waited)
            return
        self.tries += 1
        if self.tries > TRIES:
            self.dead = True
            return
        self.congestion, self.recover, self.timed_out = 1, self.nxt, True
        self.duplicates = 0
        self.resent.clear()
        self._transmit(self.una, True)
        self._arm(min(2 * waited, 60 * SECOND))

    def _probe_window(self, waited: int) -> None:
        if self.written > self.nxt and self.peer_window < self.habits.mss and self.tries < TRIES:
            self.tries += 1
            seq = self.nxt - 1
            self._packet(Sent(self.side, seq, seq, ACK, self.rcv_nxt, self._window(), PROBE))
            self._arm(2 * waited)

    # ---- what the peer's ACKs say

    def _acked(self, sent: Sent) -> None:
        assert sent.ack is not None
        window_moved = sent.window != self.peer_window
        self.peer_window = sent.window
        self.sacked.update(start for start, (end, _) in self.segments.items() if self._is_sacked(start, end, sent))
        if sent.ack > self.una:
            self._advance(sent.ack)
        elif sent.ack == self.una < self.nxt and sent.seq == sent.end and not window_moved:
            self._duplicate()
        self.pump()

    def _is_sacked(self, start: int, end: int, sent: Sent) -> bool:
        blocks = sent.sacks[1:] if sent.names_duplicate else sent.sacks
        return any(left <= start and end <= right for left, right in blocks)

    def _advance(self, ack: int) -> None:
        self.una = ack
        self.tries = self.duplicates = 0
        for start in [start for start in self.segments if self.segments[start][0] <= ack]:
            del self.segments[start]
            self.sacked.discard(start)
        self._arm(self.habits.timeout_ns)
        if self.recover is not None and ack < self.recover:
            if self.sacked or not self.habits.sack or self.timed_out:
                self._resend_next()
        else:
            self.recover = None
            self.timed_out = False
            self.resent.clear()
            self.congestion = min(self.congestion + 1, self.habits.window)

    def _duplicate(self) -> None:
        self.duplicates += 1
        if self.recover is None and self.duplicates == DUPLICATES_FOR_RESEND:
            self.recover = self.nxt
            self.congestion = max(self.congestion // 2, 2)
            self._resend_next()
        elif self.recover is not None and self.habits.sack and self.duplicates > DUPLICATES_FOR_RESEND:
            self._resend_next()

    def _resend_next(self) -> None:
        """The first segment that is neither SACKed nor on its way again; of a receiver with SACK only below a hole."""
        highest = max(self.sacked, default=-1)
        for start in sorted(self.segments):
            missing = start < highest if self.habits.sack and self.sacked else start == self.una
            if missing and start not in self.sacked and start not in self.resent:
                self._transmit(start, True)
                return

    # ---- receiving

    def receive(self, sent: Sent) -> None:
        """Take a packet off the wire."""
        if self.dead:
            return
        if sent.flags & RST:
            self.dead = True
            return
        if sent.flags & SYN:
            self._synchronised(sent)
            return
        if self.rcv_nxt is None:
            return
        if sent.ts_val and sent.seq <= self.rcv_nxt:
            self.ts_recent = sent.ts_val
        if sent.ack is not None:
            first = self.una == 0
            self._acked(sent)
            if first and self.una:
                self.on_data(0)
        if sent.end > sent.seq or sent.kind in (PROBE, KEEPALIVE):
            self._sequence(sent)

    def _synchronised(self, sent: Sent) -> None:
        self.ts_recent = sent.ts_val
        self.peer_window = min(sent.window, 65535)
        if self.rcv_nxt is None:
            self.rcv_nxt = 1
            if self.side:
                self.open(SYN | ACK)
                return
        elif self.side:
            if self.una == 0:
                self._transmit(0, True)
            return
        opened = self.una == 0
        if sent.ack is not None and opened:
            self._advance(sent.ack)
        self.arrived = sent
        self._acknowledge()
        if opened:
            self.on_data(0)

    def _sequence(self, sent: Sent) -> None:
        assert self.rcv_nxt is not None
        before = self.rcv_nxt
        known = sent.end <= before or sent.seq in self.held
        if known and sent.end > sent.seq:
            self.duplicate = (sent.seq, sent.end)
        orderly = sent.seq == before and not self.held and not known
        fin = bool(sent.flags & FIN)
        if not known:
            self.held[sent.seq] = sent.end
            self.recent = [sent.seq, *[start for start in self.recent if start != sent.seq]][:8]
        while self.rcv_nxt in self.held:
            self.rcv_nxt = self.held.pop(self.rcv_nxt)
        if self.rcv_nxt > before:
            self.arrived = sent if sent.end == self.rcv_nxt else None
        self._read()
        self.unacked += 1
        if orderly and not self.habits.ack_each and self.unacked < 2 and not fin:
            self._acknowledge_later()
        else:
            self._acknowledge()
        if self.rcv_nxt > before:
            self.on_data(self.rcv_nxt - before)
        if fin and not self.held:
            self.on_fin()

    def _blocks(self) -> tuple[tuple[tuple[int, int], ...], bool]:
        """RFC 2018 section 4: the block of the latest arrival first; RFC 2883: a duplicate before all."""
        merged: list[list[int]] = []
        for start in sorted(self.held):
            if merged and merged[-1][1] == start:
                merged[-1][1] = self.held[start]
            else:
                merged.append([start, self.held[start]])
        rank = {start: number for number, start in enumerate(self.recent)}
        merged.sort(key=lambda block: min((rank.get(s, 99) for s in self.held if block[0] <= s < block[1]), default=99))
        blocks = [(left, right) for left, right in merged]
        named, self.duplicate = self.duplicate, None
        if named is None:
            return tuple(blocks[:HELD_REPORTED]), False
        return (named, *blocks[: HELD_REPORTED - 1]), True

    def _acknowledge(self) -> None:
        assert self.rcv_nxt is not None
        self._packet(Sent(self.side, self.nxt, self.nxt, ACK, self.rcv_nxt, self._window()))

    def _acknowledge_later(self) -> None:
        acks = self.acks
        self.clock.at(self.clock.now + DELAYED_ACK, lambda: self._if_owed(acks))

    def _if_owed(self, acks: int) -> None:
        if self.acks == acks and not self.dead:
            self._acknowledge()

    def _window(self) -> int:
        unread = (self.rcv_nxt or 1) - self.read
        return max(self.habits.buffer - unread, 0) >> 7 << 7

    def _read(self) -> None:
        if not self.stalled:
            self.read = self.rcv_nxt or 1

    def stall(self, ns: int) -> None:
        """The application stops reading for a while."""
        self.stalled = True
        self.clock.at(self.clock.now + ns, self._resume)

    def _resume(self) -> None:
        self.stalled = False
        closed = self._window() < self.habits.mss
        self._read()
        if closed and not self.dead and self.rcv_nxt is not None:
            self._packet(Sent(self.side, self.nxt, self.nxt, ACK, self.rcv_nxt, self._window()))
