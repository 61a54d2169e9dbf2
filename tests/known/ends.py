"""One end of a TCP connection: a sending and a receiving half, and the rules for acknowledging."""

from __future__ import annotations

from collections.abc import Callable

from .packets import ACK, DATA, FIN, KEEPALIVE, MS, PROBE, RST, SYN, Clock, Habits, Sent
from .receiver import Receiver
from .sender import Sender

DELAYED_ACK = 40 * MS


class End:
    """It hands every packet to `wire`, and is told by `receive` what arrives."""

    def __init__(self, side: int, clock: Clock, habits: Habits, wire: Callable[[Sent], None]) -> None:
        self.side, self.clock, self.habits, self.wire = side, clock, habits, wire
        self.receiver = Receiver(habits)
        self.sender = Sender(clock, habits, self._emit)
        self.on_data: Callable[[int], None] = lambda octets: None
        self.on_fin: Callable[[], None] = lambda: None
        self._acks = self._unacked = 0
        self._fin_taken = False

    def open(self) -> None:
        """Send the SYN."""
        self.sender.open(SYN)

    def abort(self) -> None:
        """Send RST."""
        if not self.sender.dead:
            self.sender.dead = True
            self._emit(self.sender.next, self.sender.next, RST | ACK)

    def stall(self, ns: int) -> None:
        """The application stops reading for a while."""
        self.receiver.stalled = True
        self.clock.after(ns, self._resume)

    def _resume(self) -> None:
        if self.receiver.resume() and not self.sender.dead:
            self._acknowledge()

    # ---- packets leave

    def _emit(
        self, seq: int, end: int, flags: int, *, kind: str = DATA, resend: bool = False, because: Sent | None = None
    ) -> None:
        receiver, habits = self.receiver, self.habits
        ack = None if flags == SYN else receiver.next
        sent = Sent(self.side, seq, end, flags, ack, receiver.window(), kind, resend, because)
        if habits.timestamps:
            sent.ts_val = self.clock.now // habits.tick_ns + habits.clock_offset & 0xFFFFFFFF
            sent.ts_ecr = receiver.ts_recent
        if ack is not None:
            self._unacked = 0
            self._acks += 1
            sent.answers = receiver.latest
            if habits.sack:
                sent.sacks, sent.twice = receiver.blocks()
        self.wire(sent)

    def _acknowledge(self) -> None:
        self._emit(self.sender.next, self.sender.next, ACK)

    def _acknowledge_later(self) -> None:
        acks = self._acks

        def if_owed() -> None:
            if self._acks == acks and not self.sender.dead:
                self._acknowledge()

        self.clock.after(DELAYED_ACK, if_owed)

    # ---- packets arrive

    def receive(self, sent: Sent) -> None:
        """Take a packet off the wire."""
        if sent.flags & RST:
            self.sender.dead = True
            return
        if self.sender.dead:
            self._emit(self.sender.next, self.sender.next, RST | ACK)
            return
        if sent.flags & SYN:
            self._synchronised(sent)
            return
        if self.receiver.next is None:
            return
        if sent.ts_val and sent.seq <= self.receiver.next:
            self.receiver.ts_recent = sent.ts_val
        if sent.ack is not None:
            opening = self.sender.una == 0
            self.sender.acknowledged(sent)
            if opening and self.sender.una:
                self.on_data(0)
        if sent.end > sent.seq or sent.kind in (PROBE, KEEPALIVE):
            self._sequence(sent)

    def _synchronised(self, sent: Sent) -> None:
        self.receiver.ts_recent = sent.ts_val
        first, opening = self.receiver.next is None, self.sender.una == 0
        if first:
            self.receiver.next = 1
        self.receiver.latest = sent
        self.sender.synchronised(sent)
        if self.side:
            if first:
                self.sender.open(SYN | ACK)
            else:
                self.sender.repeat_handshake()
            return
        self._acknowledge()
        if opening:
            self.on_data(0)

    def _sequence(self, sent: Sent) -> None:
        receiver = self.receiver
        before = receiver.next
        assert before is not None
        orderly = sent.seq == before and not receiver.has_holes
        new = receiver.take(sent)
        self._unacked += 1
        fin = bool(sent.flags & FIN)
        if orderly and new and not self.habits.ack_each and self._unacked < 2 and not fin:
            self._acknowledge_later()
        else:
            self._acknowledge()
        if receiver.next is not None and receiver.next > before:
            self.on_data(receiver.next - before)
        self._fin_taken |= fin
        if self._fin_taken and not receiver.has_holes:
            self._fin_taken = False
            self.on_fin()
