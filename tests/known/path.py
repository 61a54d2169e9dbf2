"""The path of a connection with the tap in it, and the mirror that copies what passes the tap."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from .ends import ACK, FORGED, MS, Clock, End, Habits, Script, Sent

US = 1_000


@dataclass(frozen=True)
class Trouble:
    """What goes wrong, as shares of packets."""

    lost_before: float = 0.0
    lost_after: float = 0.0
    reordered: float = 0.0
    copied: float = 0.0
    unseen: float = 0.0
    """Sightings that the mirror drops."""


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


@dataclass(slots=True)
class Sighting:
    """One copy of a packet in the capture."""

    time_ns: int
    sent: Sent
    copy: bool


@dataclass
class Wire:
    """Carries packets between two ends; `sightings` is what the mirror delivers."""

    clock: Clock
    legs: Legs
    trouble: Trouble
    chance: random.Random
    identify: str
    """How senders fill in the IP identification: `flow`, `host` or `zero`."""
    copy_ns: int
    ends: list[End] = field(default_factory=list)
    sightings: list[Sighting] = field(default_factory=list)
    _free: dict[tuple[int, bool], int] = field(default_factory=dict)
    _idents: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._idents = [self.chance.getrandbits(16), self.chance.getrandbits(16)]

    def send(self, sent: Sent) -> None:
        """Take a packet from its sender."""
        if self.identify != "zero":
            self._idents[sent.side] += 1 if self.identify == "flow" else self.chance.randrange(1, 20)
            sent.ident = self._idents[sent.side] & 0xFFFF
        if self.chance.random() < self.trouble.lost_before:
            sent.lost_before = True
            return
        late = 0
        if self.chance.random() < self.trouble.reordered:
            late = self.chance.randrange(10 * US, max(min(2 * MS, self.legs.around // 2), 11 * US))
        leg = self.legs.server if sent.side else self.legs.client
        self.clock.at(self._arrival((sent.side, True), leg, late), lambda: self._pass(sent))

    def _arrival(self, queue: tuple[int, bool], leg: int, late: int) -> int:
        """Queues keep the order; what is late leaves it."""
        jitter = self.chance.randrange(self.legs.jitter) if self.legs.jitter else 0
        when = self.clock.now + leg + jitter
        if late:
            return when + late
        self._free[queue] = when = max(when, self._free.get(queue, 0) + US)
        return when

    def _pass(self, sent: Sent) -> None:
        self._mirror(self.clock.now, sent, False)
        if self.chance.random() < self.trouble.copied:
            self._mirror(self.clock.now + self.chance.randrange(US, self.copy_ns), sent, True)
        if sent.kind == FORGED:
            return
        if self.chance.random() < self.trouble.lost_after:
            sent.lost_after = True
            return
        leg = self.legs.client if sent.side else self.legs.server
        self.clock.at(self._arrival((sent.side, False), leg, 0), lambda: self.ends[1 - sent.side].receive(sent))

    def _mirror(self, when: int, sent: Sent, copy: bool) -> None:
        if self.chance.random() >= self.trouble.unseen:
            self.sightings.append(Sighting(when, sent, copy))


@dataclass
class Connection:
    """A connection that is over: how it was set up, and what the mirror showed of it."""

    legs: Legs
    habits: Habits
    identify: str
    sightings: list[Sighting]


def run(
    start: int, legs: Legs, trouble: Trouble, habits: tuple[Habits, Habits], script: Script, identify: str,
    chance: random.Random, copy_ns: int,
) -> Connection:  # fmt: skip
    """Let a connection happen."""
    clock = Clock(start)
    wire = Wire(clock, legs, trouble, chance, identify, copy_ns)
    client = End(0, clock, habits[0], wire.send)
    server = End(1, clock, habits[1], wire.send)
    wire.ends = [client, server]
    _Applications(client, server, script, clock).begin()
    if chance.random() < 0.02:
        forged = 1 + chance.randrange(1 << 30, 3 << 30)
        clock.at(start + legs.around * 3, lambda: wire.send(Sent(0, forged, forged + 99, ACK, 1, 65535, FORGED)))
    clock.run(start + 400 * 1000 * MS)
    wire.sightings.sort(key=lambda sighting: sighting.time_ns)
    return Connection(legs, habits[0], identify, wire.sightings)


class _Applications:
    """Asks and answers as the script says, then closes."""

    def __init__(self, client: End, server: End, script: Script, clock: Clock) -> None:
        self.client, self.server, self.script, self.clock = client, server, script, clock
        self.exchange = -1
        self.asked = self.answered = 0
        self.got_request = self.got_answer = 0
        self.probed = 0
        self.pending = -1

    def begin(self) -> None:
        self.client.on_data, self.server.on_data = self._client_has, self._server_has
        self.server.on_fin = self.server.close
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
        self.clock.at(self.clock.now + pause, lambda: self._ask(request))

    def _ask(self, octets: int) -> None:
        self.asked += octets
        self.answered += self.script.exchanges[self.exchange][3]
        if self.exchange == 1 and self.script.stall_ns:
            self.client.stall(self.script.stall_ns)
        self.client.write(octets)

    def _server_has(self, octets: int) -> None:
        self.got_request += octets
        if octets and self.got_request == self.asked and self.exchange >= 0:
            _, _, thinking, answer = self.script.exchanges[self.exchange]
            self.clock.at(self.clock.now + thinking, lambda: self.server.write(answer))

    def _idle(self) -> None:
        if self.probed == len(self.script.keepalives):
            end = self.client.abort if self.script.reset else self.client.close
            self.clock.at(self.clock.now + MS, end)
            return
        idle, octets = self.script.keepalives[self.probed]
        self.probed += 1
        self.clock.at(self.clock.now + idle, lambda: self._probe(octets))

    def _probe(self, octets: int) -> None:
        self.client.probe_idle(octets)
        self._idle()
