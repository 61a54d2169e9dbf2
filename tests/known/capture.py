"""Connections as a capture file: Ethernet frames cut behind their headers, as with a short snap length."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from pcaps.generator.headers import TCP, checksum, pseudo_header

from .ends import SYN, Sent
from .path import Connection

PORT = 443
MAC_CLIENT, MAC_SERVER, MAC_ROUTER = (bytes([2, 0, 0, 0, 0, last]) for last in (1, 2, 254))
SCALE = 7
EPOCH = 1_767_225_600


@dataclass(frozen=True)
class Address:
    """Where a connection is, and how its copies differ: `same`, `routed` (TTL, MAC) or `tagged` (another VLAN, too)."""

    number: int
    six: bool
    copies: str
    isns: tuple[int, int]

    @property
    def client(self) -> str:
        """The client's address, which no other connection has."""
        if self.six:
            return str(IPv6Address((0xFD00 << 112) + self.number))
        return str(IPv4Address((10 << 24) + self.number))

    @property
    def server(self) -> str:
        """The server's address."""
        return "fd00:1::1" if self.six else "172.16.0.1"


def address(number: int, chance: random.Random, tagged: bool) -> Address:
    """Draw one; a sequence space in four begins just before its end."""
    isns = tuple((1 << 32) - chance.randrange(1, 40_000) if chance.random() < 0.25 else chance.getrandbits(32)
                 for _ in range(2))  # fmt: skip
    copies = chance.choice(("same", "routed", "tagged") if tagged else ("same", "routed"))
    return Address(number, chance.random() < 0.2, copies, (isns[0], isns[1]))


def pcap(connections: list[tuple[Connection, Address]]) -> bytes:
    """A classic pcap file of all the connections' packets, in the order of time."""
    frames = []
    for connection, where in connections:
        encoder = _Encoder(where, connection)
        frames += [(s.time_ns, encoder.frame(s.sent, s.copy)) for s in connection.sightings]
    frames.sort(key=lambda frame: frame[0])
    parts = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 256, 1)]
    for time_ns, (frame, length) in frames:
        seconds, rest = divmod(time_ns, 1_000_000_000)
        parts.append(struct.pack("<IIII", EPOCH + seconds, rest // 1000, len(frame), length))
        parts.append(frame)
    return b"".join(parts)


class _Encoder:
    def __init__(self, where: Address, connection: Connection) -> None:
        self.where, self.isns = where, where.isns
        self.port = 32768 + where.number % 28000
        self.ends = (where.client, where.server)
        self.packed = tuple(
            (IPv6Address(end) if where.six else IPv4Address(end)).packed for end in self.ends
        )  # fmt: skip
        self.habits = connection.habits

    def frame(self, sent: Sent, copy: bool) -> tuple[bytes, int]:
        """The captured octets and how many there were on the wire."""
        header = self._tcp(sent)
        size = len(header) + sent.octets
        source, target = self.packed[sent.side], self.packed[1 - sent.side]
        hops = 63 if copy and self.where.copies != "same" else 64
        if self.where.six:
            ip = struct.pack(">IHBB", 0x60000000, size, TCP, hops) + source + target
        else:
            ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + size, sent.ident, 0x4000, hops, TCP, 0) + source + target
            ip = ip[:10] + struct.pack(">H", checksum(ip)) + ip[12:]
        link = self._link(sent.side, copy)
        return link + ip + header, len(link) + len(ip) + size

    def _link(self, side: int, copy: bool) -> bytes:
        macs = (MAC_CLIENT, MAC_SERVER)
        routed = copy and self.where.copies != "same"
        link = macs[1 - side] + (MAC_ROUTER if routed else macs[side])
        if self.where.copies == "tagged":
            link += struct.pack(">HH", 0x8100, 200 if copy else 100)
        return link + struct.pack(">H", 0x86DD if self.where.six else 0x0800)

    def _tcp(self, sent: Sent) -> bytes:
        options = self._options(sent)
        seq = sent.seq + self.isns[sent.side] & 0xFFFFFFFF
        ack = 0 if sent.ack is None else sent.ack + self.isns[1 - sent.side] & 0xFFFFFFFF
        ports = (self.port, PORT)
        window = min(sent.window, 65535) if sent.flags & SYN else sent.window >> SCALE
        fields = (ports[sent.side], ports[1 - sent.side], seq, ack, (20 + len(options)) << 2, sent.flags, window, 0, 0)
        header = struct.pack(">HHIIBBHHH", *fields) + options
        pseudo = pseudo_header(self.ends[sent.side], self.ends[1 - sent.side], TCP, len(header) + sent.octets)
        return header[:16] + struct.pack(">H", checksum(pseudo + header)) + header[18:]

    def _options(self, sent: Sent) -> bytes:
        options = b""
        if sent.flags & SYN:
            options += struct.pack(">BBHBBB", 2, 4, self.habits.mss, 3, 3, SCALE) + (
                b"\x04\x02" if self.habits.sack else b""
            )
        if self.habits.timestamps:
            options += struct.pack(">BBII", 8, 10, sent.ts_val, sent.ts_ecr)
        if sent.sacks:
            blocks = [(edge + self.isns[1 - sent.side]) & 0xFFFFFFFF for block in sent.sacks for edge in block]
            options += struct.pack(f">BB{len(blocks)}I", 5, 2 + 4 * len(blocks), *blocks)
        return options + b"\x01" * (-len(options) % 4)
