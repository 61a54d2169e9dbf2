"""Conversations as a tap sees them, each with the truth about it: dialogues over TCP, lookups over UDP, pings."""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

from .clock import EPOCH, MICROSECOND, MILLISECOND, SECOND, Clock
from .endpoint import MINIMUM_RTO, Endpoint, Host
from .headers import ICMP, ICMP6, TCP, UDP, icmp, icmp6, ip, udp
from .messages import dns
from .wire import TURNAROUND, Half, Packet, Path, Wire

DNS_PORT = 53
PING_DATA = bytes(range(56))


@dataclass(frozen=True)
class Exchange:
    """The client waits `pause_ns`, asks; the server thinks for `think_ns`, answers."""

    request: bytes
    response: bytes
    think_ns: int = 2 * MILLISECOND
    pause_ns: int = 1 * MILLISECOND


@dataclass(frozen=True)
class Dialogue:
    """Exchanges over one TCP connection that starts `start_ns` into the capture and ends by "fin", "reset" or not."""

    client: Host
    server: Host
    exchanges: Sequence[Exchange]
    start_ns: int = 0
    path: Path = field(default_factory=Path)
    faults: Mapping[tuple[str, int], str] = field(default_factory=dict)
    ending: str = "fin"
    keepalive_ns: int | None = None


@dataclass(frozen=True)
class Truth:
    """What a perfect sensor says of a conversation; None where there is nothing to measure."""

    protocol: int
    client: tuple[str, int | None]
    server: tuple[str, int | None]
    c2s: Half
    s2c: Half
    vlan: tuple[int, ...] = ()
    vni: int | None = None
    handshake_server_ns: int | None = None
    handshake_client_ns: int | None = None
    state: str | None = None


@dataclass(frozen=True)
class Outcome:
    """The innermost packets that pass the tap, in order, and the truth."""

    packets: list[Packet]
    truth: Truth

    def placed(self, vlan: tuple[int, ...] = (), vni: int | None = None) -> Outcome:
        """The same conversation in a domain."""
        return Outcome(self.packets, replace(self.truth, vlan=vlan, vni=vni))


class _Applications:
    """The two programs: the client asks when it has its last answer, the server answers what it has read."""

    def __init__(self, plan: Dialogue, clock: Clock, client: Endpoint, server: Endpoint) -> None:
        self.plan, self.clock, self.client, self.server = plan, clock, client, server
        self.asked = self.answered = 0
        self.request_ends = list(accumulate(len(exchange.request) for exchange in plan.exchanges))
        self.response_ends = list(accumulate(len(exchange.response) for exchange in plan.exchanges))
        client.on_read, server.on_read = self.client_read, self.server_read
        server.on_close = lambda: clock.after(100 * MICROSECOND, server.close)

    def start(self) -> None:
        self.client.connect()
        self.ask_next()

    def ask_next(self) -> None:
        if self.asked == len(self.plan.exchanges):
            self.clock.after(MILLISECOND, self.end)
            return
        exchange = self.plan.exchanges[self.asked]
        self.asked += 1
        self.clock.after(exchange.pause_ns, lambda: self.client.write(exchange.request))
        if self.plan.keepalive_ns and self.plan.keepalive_ns < exchange.pause_ns:
            self.clock.after(self.plan.keepalive_ns, self.client.probe_idle)

    def client_read(self, octets: int) -> None:
        if octets == self.response_ends[self.asked - 1]:
            self.ask_next()

    def server_read(self, octets: int) -> None:
        if octets == self.request_ends[self.answered]:
            exchange = self.plan.exchanges[self.answered]
            self.answered += octets < self.request_ends[-1]
            self.clock.after(exchange.think_ns, lambda: self.server.write(exchange.response))

    def end(self) -> None:
        if self.plan.ending == "fin":
            self.client.close()
        elif self.plan.ending == "reset":
            self.client.abort()


def converse(plan: Dialogue, seed: int) -> Outcome:
    """Play a dialogue."""
    clock = Clock(EPOCH + plan.start_ns)
    wire = Wire(clock, plan.path, plan.faults, random.Random(seed))
    rto = MINIMUM_RTO + 2 * (plan.path.client_ns + plan.path.server_ns)
    for side, host in (("c2s", plan.client), ("s2c", plan.server)):
        wire.ends[side] = Endpoint(side, host, clock, wire, rto)
    _Applications(plan, clock, wire.ends["c2s"], wire.ends["s2c"]).start()
    clock.run()
    syn, syn_ack, ack = (packet.time_ns for packet in wire.packets[:3])
    state = {"fin": "closed", "reset": "reset", "open": "established"}[plan.ending]
    return Outcome(wire.packets, Truth(
        TCP, (plan.client.address, plan.client.port), (plan.server.address, plan.server.port),
        wire.halves["c2s"], wire.halves["s2c"],
        handshake_server_ns=syn_ack - syn, handshake_client_ns=ack - syn_ack, state=state,
    ))  # fmt: skip


def _datagrams(protocol: int, ends: Sequence[tuple[str, int | None]], packets: list[Packet]) -> Outcome:
    halves = {"c2s": Half(), "s2c": Half()}
    for packet in packets:
        halves[packet.side].count(packet.ip)
    client, server = ends
    return Outcome(packets, Truth(protocol, client, server, halves["c2s"], halves["s2c"]))


def lookup(client: tuple[str, int], server: str, name: str, answer: str, *, start_ns: int = 0,
           path: Path | None = None) -> Outcome:  # fmt: skip
    """One DNS query and its response."""
    address, port = client
    asked = EPOCH + start_ns
    answered = asked + 2 * (path or Path()).server_ns + TURNAROUND
    query = udp(address, port, server, DNS_PORT, dns(port, name))
    response = udp(server, DNS_PORT, address, port, dns(port, name, answer))
    return _datagrams(UDP, (client, (server, DNS_PORT)), [
        Packet(asked, "c2s", ip(address, server, UDP, query, ident=port)),
        Packet(answered, "s2c", ip(server, address, UDP, response, ident=port + 1)),
    ])  # fmt: skip


def echo(src: str, dst: str, reply: bool, ident: int, sequence: int) -> bytes:
    """An echo request or reply packet, ICMP or ICMPv6."""
    rest = struct.pack(">HH", ident, sequence)
    if ":" in src:
        return ip(src, dst, ICMP6, icmp6(src, dst, 129 if reply else 128, 0, rest + PING_DATA))
    return ip(src, dst, ICMP, icmp(0 if reply else 8, 0, rest, PING_DATA), ident=ident + sequence)


def ping(client: str, server: str, *, count: int = 3, start_ns: int = 0, ident: int = 77,
         path: Path | None = None) -> Outcome:  # fmt: skip
    """`count` echo requests, one a second, and their replies."""
    packets = []
    for sequence in range(1, count + 1):
        asked = EPOCH + start_ns + (sequence - 1) * SECOND
        answered = asked + 2 * (path or Path()).server_ns + TURNAROUND
        packets.append(Packet(asked, "c2s", echo(client, server, False, ident, sequence)))
        packets.append(Packet(answered, "s2c", echo(server, client, True, ident, sequence)))
    return _datagrams(ICMP6 if ":" in client else ICMP, ((client, None), (server, None)), packets)
