"""The sending half of an end: windows, resends and probes."""

from __future__ import annotations

from typing import Protocol

from .packets import ACK, FIN, KEEPALIVE, MS, PROBE, PSH, SECOND, SYN, Clock, Habits, Sent

INITIAL_WINDOW = 10
DUPLICATES_FOR_RESEND = 3
TRIES = 8
LONGEST_TIMEOUT = 60 * SECOND
ANSWERED = 1_200 * MS
"""A SYN-ACK is repeated for each SYN that comes again, and only then by its own timer."""


class Emit(Protocol):
    """Sends a packet with the receiving half's acknowledgment in it."""

    def __call__(
        self, seq: int, end: int, flags: int, *, kind: str = ..., resend: bool = ..., because: Sent | None = ...
    ) -> None:
        """`seq` and `end` count from the SYN."""


class Sender:
    """Bytes from `una`, not ACKed, to `next`, not sent."""

    def __init__(self, clock: Clock, habits: Habits, emit: Emit) -> None:
        self.clock, self.habits, self.emit = clock, habits, emit
        self.una = self.next = self.written = 0
        self.dead = False
        self._segments: dict[int, tuple[int, int]] = {}  # start -> end, flags
        self._fin_at: int | None = None
        self._congestion = INITIAL_WINDOW
        self._peer_window = 1 << 20
        self._told: Sent | None = None
        self._duplicates = 0
        self._recover: int | None = None
        self._timed_out = False
        self._sacked: set[int] = set()
        self._resent: set[int] = set()
        self._timer = self._tries = 0
        self._timeout_ns = habits.timeout_ns

    # ---- what the application wants

    def open(self, flags: int) -> None:
        """Send the SYN or the SYN-ACK."""
        self._segments[0] = (1, flags)
        self.next = 1
        self.written = max(self.written, 1)
        self._transmit(0, False)
        self._arm(SECOND if flags == SYN else ANSWERED)

    def write(self, octets: int) -> None:
        """The application writes."""
        self.written += octets
        self.pump()

    def close(self) -> None:
        """Send FIN once everything written has been sent."""
        self._fin_at = self.written
        self.pump()

    def keep_alive(self, octets: int) -> None:
        """Send a keep-alive if all is quiet."""
        if not self.dead and self.una == self.next:
            self.emit(self.next - 1, self.next - 1 + octets, ACK, kind=KEEPALIVE)

    def repeat_handshake(self) -> None:
        """Answer a SYN again."""
        if self.una == 0 and not self.dead:
            self._transmit(0, True)
            self._arm(ANSWERED)

    def pump(self) -> None:
        """Send what the windows allow."""
        mss = self.habits.mss
        allowed = min(min(self._congestion, self.habits.window) * mss, self._peer_window)
        while not self.dead and self.una:
            octets = min(mss, self.written - self.next)
            if octets > 0 and self.next - self.una + octets <= allowed:
                self._new(octets, ACK | (PSH if self.next + octets == self.written else 0))
            elif octets == 0 and self._fin_at == self.next:
                self._fin_at = None
                self._new(1, FIN | ACK)
            else:
                break
        if self.una == self.next and self.written > self.next and self._peer_window < mss:
            self._arm(self.habits.timeout_ns)

    def _new(self, length: int, flags: int) -> None:
        start = self.next
        self.next += length
        self._segments[start] = (self.next, flags)
        self._transmit(start, False)
        if self.una == start:
            self._arm(self._timeout_ns)

    def _transmit(self, start: int, resend: bool) -> None:
        end, flags = self._segments[start]
        if resend:
            self._resent.add(start)
        self.emit(start, end, flags, resend=resend)

    # ---- the timer

    def _arm(self, wait: int) -> None:
        self._timer += 1
        timer = self._timer
        self.clock.after(wait, lambda: self._expire(timer, wait))

    def _expire(self, timer: int, waited: int) -> None:
        if timer != self._timer or self.dead:
            return
        if self.una == self.next:
            self._probe_window(waited)
            return
        self._tries += 1
        if self._tries > TRIES:
            self.dead = True
            return
        self._timeout_ns += self._timeout_ns // 2  # too short a timer is learnt from
        self._congestion, self._recover, self._timed_out = 1, self.next, True
        self._duplicates = 0
        self._resent.clear()
        self._transmit(self.una, True)
        self._arm(min(2 * waited, LONGEST_TIMEOUT))

    def _probe_window(self, waited: int) -> None:
        if self.written == self.next or self._peer_window >= self.habits.mss or self._tries >= TRIES:
            return
        self._tries += 1
        seq = self.next if self.habits.probe_octets else self.next - 1
        self.emit(seq, seq + self.habits.probe_octets, ACK, kind=PROBE, because=self._told)
        self._arm(2 * waited)

    # ---- what the peer's packets say

    def synchronised(self, sent: Sent) -> None:
        """The peer's SYN: its window is not scaled, and it may acknowledge ours."""
        self._peer_window = min(sent.window, 65535)
        if sent.ack is not None and self.una == 0:
            self._advance(sent.ack)

    def acknowledged(self, sent: Sent) -> None:
        """Any other packet with an acknowledgment."""
        assert sent.ack is not None
        if sent.ack < self.una:
            return
        window_moved = sent.window != self._peer_window
        self._peer_window, self._told = sent.window, sent
        if sent.sacks:
            held = sent.sacks[1:] if sent.twice else sent.sacks
            self._sacked.update(
                start for start, (end, _) in self._segments.items()
                if any(left <= start and end <= right for left, right in held)
            )  # fmt: skip
        if sent.ack > self.una:
            self._advance(sent.ack)
        elif sent.ack < self.next and sent.seq == sent.end and not window_moved:
            self._duplicate()
        self.pump()

    def _advance(self, ack: int) -> None:
        self.una = ack
        self._tries = self._duplicates = 0
        for start in [start for start in self._segments if self._segments[start][0] <= ack]:
            del self._segments[start]
            self._sacked.discard(start)
        self._arm(self._timeout_ns)
        if self._recover is not None and ack < self._recover:
            self._resend_next()
        else:
            self._recover = None
            self._resent.clear()
            self._congestion = min(self._congestion + 1, self.habits.window)

    def _duplicate(self) -> None:
        self._duplicates += 1
        if self._recover is None and self._duplicates == DUPLICATES_FOR_RESEND:
            self._recover, self._timed_out = self.next, False
            self._congestion = max(self._congestion // 2, 2)
            self._resend_next()
        elif self._recover is not None and self.habits.sack and self._duplicates > DUPLICATES_FOR_RESEND:
            self._resend_next()

    def _resend_next(self) -> None:
        """The first segment missed: below a SACK; of a receiver without them, and after a timeout, the oldest."""
        highest = max(self._sacked, default=-1)
        oldest = -1 if self.habits.sack and not self._timed_out else self.una
        for start in sorted(self._segments):
            missing = start == oldest or start < highest
            if missing and start not in self._sacked and start not in self._resent:
                self._transmit(start, True)
                return
