"""The path of a connection with the tap in it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from .ends import End
from .packets import ACK, FORGED, MS, SECOND, SYN, US, Clock, Habits, Script, Sent

LONGEST = 400 * SECOND
FORGED_SHARE = 0.02
QUIET = 500 * MS
"""Between the last exchange or keep-alive and the end."""


@dataclass(frozen=True)
class Trouble:
    """What goes wrong on either side of the tap, as shares of packets."""

    lost_before: float = 0.0
    lost_after: float = 0.0
    late_before: float = 0.0
    late_after: float = 0.0
    late_most_ns: int = 0
    """How much later than the others a late packet comes, at most."""


@dataclass(frozen=True)
class Legs:
    """One-way delays in ns from the tap to the client and to the server, and what queues add at most."""

    client: int
    server: int
    jitter: int

    @property
    def around(self) -> int:
        """The shortest time around both ends."""
        return 2 * (self.client + self.server)


@dataclass
class Wire:
    """Carries packets between two ends; `passed` is what came by the tap, with its time."""

    clock: Clock
    legs: Legs
    trouble: Trouble
    chance: random.Random
    identify: str
    """How senders fill in the IP identification: `flow`, `host`, `random` or `zero`."""
    ends: list[End] = field(default_factory=list)
    passed: list[tuple[int, Sent]] = field(default_factory=list)
    _free: dict[tuple[int, bool], int] = field(default_factory=dict)
    _idents: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._idents = [self.chance.getrandbits(16), self.chance.getrandbits(16)]

    def send(self, sent: Sent) -> None:
        """Take a packet from its sender."""
        trouble, leg = self.trouble, self.legs.server if sent.side else self.legs.client
        sent.ident, sent.sent_ns = self._identification(sent), self.clock.now
        if self.chance.random() >= trouble.lost_before:
            when = self._arrival((sent.side, True), leg, trouble.late_before)
            self.clock.at(when, lambda: self._pass(sent))

    def _pass(self, sent: Sent) -> None:
        self.passed.append((self.clock.now, sent))
        trouble, leg = self.trouble, self.legs.client if sent.side else self.legs.server
        if sent.kind != FORGED and self.chance.random() >= trouble.lost_after:
            when = self._arrival((sent.side, False), leg, trouble.late_after)
            self.clock.at(when, lambda: self._arrive(sent))

    def _arrive(self, sent: Sent) -> None:
        sent.arrived_ns = self.clock.now
        self.ends[1 - sent.side].receive(sent)

    def _identification(self, sent: Sent) -> int:
        if self.identify == "random":
            return self.chance.getrandbits(16)
        if self.identify == "zero" or (self.identify == "flow" and sent.flags == SYN | ACK):
            return 0  # Linux answers a SYN before it has a socket to count with
        self._idents[sent.side] += 1 if self.identify == "flow" else self.chance.randrange(1, 20)
        return self._idents[sent.side] & 0xFFFF

    def _arrival(self, queue: tuple[int, bool], leg: int, late_share: float) -> int:
        """Queues keep the order; what is late has left them."""
        jitter = self.chance.randrange(self.legs.jitter) if self.legs.jitter else 0
        when = self.clock.now + leg + jitter
        if late_share and self.chance.random() < late_share:
            return when + self.chance.randrange(10 * US, max(self.trouble.late_most_ns, 11 * US))
        self._free[queue] = when = max(when, self._free.get(queue, 0) + US)
        return when


@dataclass
class Connection:
    """A connection that is over: how it was set up, and what passed the tap."""

    legs: Legs
    habits: Habits
    identify: str
    passed: list[tuple[int, Sent]]


def run(
    start: int, legs: Legs, trouble: Trouble, habits: tuple[Habits, Habits], script: Script, identify: str,
    chance: random.Random,
) -> Connection:  # fmt: skip
    """Let a connection happen."""
    clock = Clock(start)
    wire = Wire(clock, legs, trouble, chance, identify)
    client = End(0, clock, habits[0], wire.send)
    server = End(1, clock, habits[1], wire.send)
    wire.ends = [client, server]
    _Applications(client, server, script, clock).begin()
    if chance.random() < FORGED_SHARE:
        forged = 1 + chance.randrange(1 << 30, 3 << 30)
        clock.at(start + 3 * legs.around, lambda: wire.send(Sent(0, forged, forged + 99, ACK, 1, 65535, FORGED)))
    clock.run(start + LONGEST)
    return Connection(legs, habits[0], identify, wire.passed)


class _Applications:
    """Asks and answers as the script says, then closes."""

    def __init__(self, client: End, server: End, script: Script, clock: Clock) -> None:
        self.client, self.server, self.script, self.clock = client, server, script, clock
        self.exchange = self.pending = -1
        self.asked = self.answered = 0
        self.got_request = self.got_answer = 0
        self.probed = 0

    def begin(self) -> None:
        self.client.on_data, self.server.on_data = self._client_has, self._server_has
        self.server.on_fin = self.server.sender.close
        self.client.open()

    def _client_has(self, octets: int) -> None:
        self.got_answer += octets
        if self.got_answer == self.answered and self.pending == self.exchange:
            self.pending += 1
            self._next()

    def _next(self) -> None:
        self.exchange += 1
        if self.exchange == len(self.script.exchanges):
            self._idle()
            return
        pause, request, _, _ = self.script.exchanges[self.exchange]
        self.clock.after(pause, lambda: self._ask(request))

    def _ask(self, octets: int) -> None:
        self.asked += octets
        self.answered += self.script.exchanges[self.exchange][3]
        if self.exchange == 1 and self.script.stall_ns:
            self.client.stall(self.script.stall_ns)
        self.client.sender.write(octets)

    def _server_has(self, octets: int) -> None:
        self.got_request += octets
        if octets and self.got_request == self.asked and self.exchange >= 0:
            _, _, thinking, answer = self.script.exchanges[self.exchange]
            self.clock.after(thinking, lambda: self.server.sender.write(answer))

    def _idle(self) -> None:
        if self.probed == len(self.script.keepalives):
            self.clock.after(QUIET, self.client.abort if self.script.reset else self.client.sender.close)
            return
        idle, octets = self.script.keepalives[self.probed]
        self.probed += 1
        self.clock.after(idle, lambda: self._probe(octets))

    def _probe(self, octets: int) -> None:
        self.client.sender.keep_alive(octets)
        self._idle()
