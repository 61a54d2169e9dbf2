"""Connections as a capture file: Ethernet frames cut behind their headers, as with a short snap length."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from pcaps.generator.headers import DONT_FRAGMENT, TCP
from pcaps.generator.links import CTAG, DLT_ETHERNET, IPV4, IPV6

from .mirror import Sighting
from .packets import SCALE, SECOND, SYN, US, Habits, Sent

PORT = 443
CLIENT, SERVER, ROUTER = (bytes((2, 0, 0, 0, 0, last)) for last in (1, 2, 254))
EPOCH = 1_767_225_600
SNAPLEN = 128
ROUTED, TAGGED = "routed", "tagged"
"""Copies from behind a router: with less time to live and another MAC; and, tagged, in another VLAN."""
SAME = "same"


@dataclass(frozen=True)
class Address:
    """Where a connection is, and how its copies differ."""

    number: int
    six: bool
    copies: str
    isns: tuple[int, int]

    @property
    def client(self) -> str:
        """The client's address, which no other connection has."""
        return str(IPv6Address((0xFD << 120) + self.number)) if self.six else str(IPv4Address((10 << 24) + self.number))

    @property
    def server(self) -> str:
        """The server's address."""
        return "fd00:1::1" if self.six else "172.16.0.1"


def address(number: int, chance: random.Random, copies: tuple[str, ...]) -> Address:
    """Draw one; a sequence space in four begins just before its end."""
    isns = [
        (1 << 32) - chance.randrange(1, 40_000) if chance.random() < 0.25 else chance.getrandbits(32) for _ in range(2)
    ]
    return Address(number, chance.random() < 0.2, chance.choice(copies), (isns[0], isns[1]))


def write(path: Path, shown: list[tuple[list[Sighting], Address, Habits]]) -> None:
    """Write what the mirror showed of all connections, in the order of time, as a classic pcap file."""
    frames: list[tuple[int, bytes, int]] = []
    for sightings, where, habits in shown:
        encode = _Encoder(where, habits).frame
        frames += [(sighting.time_ns, *encode(sighting)) for sighting in sightings]
    frames.sort(key=lambda frame: frame[0])
    with path.open("wb") as out:
        out.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, SNAPLEN, DLT_ETHERNET))
        for time_ns, frame, length in frames:
            seconds, rest = divmod(time_ns, SECOND)
            out.write(struct.pack("<IIII", EPOCH + seconds, rest // US, len(frame), length) + frame)


def _words(data: bytes) -> int:
    """The sum of 16-bit words that a checksum is made of (RFC 1071): 2^16 is 1 modulo 2^16 - 1."""
    return int.from_bytes(data, "big") % 0xFFFF


def _checksum(total: int) -> bytes:
    return (0xFFFF - total % 0xFFFF).to_bytes(2, "big")


class _Encoder:
    """Frames of one connection. What all its packets share is summed up once."""

    def __init__(self, where: Address, habits: Habits) -> None:
        self.where, self.habits = where, habits
        self.ports = (32768 + where.number % 28000, PORT)
        address_of = IPv6Address if where.six else IPv4Address
        self.packed = tuple(address_of(end).packed for end in (where.client, where.server))
        self.pseudo = _words(b"".join(self.packed)) + TCP

    def frame(self, sighting: Sighting) -> tuple[bytes, int]:
        """The captured octets and how many there were on the wire."""
        sent, routed = sighting.sent, sighting.copy and self.where.copies != SAME
        header = self._tcp(sent)
        size = len(header) + sent.octets
        hops = 63 if routed else 64
        addresses = self.packed[sent.side] + self.packed[1 - sent.side]
        if self.where.six:
            ip = struct.pack(">IHBB", 0x60000000, size, TCP, hops) + addresses
        else:
            ip = struct.pack(">BBHHHBB", 0x45, 0, 20 + size, sent.ident, DONT_FRAGMENT, hops, TCP)
            ip += _checksum(_words(ip + addresses)) + addresses
        link = self._link(sent.side, sighting.copy, routed)
        return link + ip + header, len(link) + len(ip) + size

    def _link(self, side: int, copy: bool, routed: bool) -> bytes:
        macs = (CLIENT, SERVER)
        link = macs[1 - side] + (ROUTER if routed else macs[side])
        if self.where.copies == TAGGED:
            link += struct.pack(">HH", CTAG, 200 if copy else 100)
        return link + struct.pack(">H", IPV6 if self.where.six else IPV4)

    def _tcp(self, sent: Sent) -> bytes:
        side, peer = sent.side, 1 - sent.side
        options = self._options(sent)
        seq = sent.seq + self.where.isns[side] & 0xFFFFFFFF
        ack = 0 if sent.ack is None else sent.ack + self.where.isns[peer] & 0xFFFFFFFF
        window = min(sent.window, 65535) if sent.flags & SYN else sent.window >> SCALE
        words = 20 + len(options) << 2
        header = struct.pack(">HHIIBBH", self.ports[side], self.ports[peer], seq, ack, words, sent.flags, window)
        total = self.pseudo + _words(header) + _words(options) + 20 + len(options) + sent.octets
        return header + _checksum(total) + b"\0\0" + options

    def _options(self, sent: Sent) -> bytes:
        options = b""
        if sent.flags & SYN:
            options += struct.pack(">BBHBBB", 2, 4, self.habits.mss, 3, 3, SCALE)
            options += b"\x04\x02" if self.habits.sack else b""
        if self.habits.timestamps:
            options += struct.pack(">BBII", 8, 10, sent.ts_val, sent.ts_ecr)
        if sent.sacks:
            edges = [edge + self.where.isns[1 - sent.side] & 0xFFFFFFFF for block in sent.sacks for edge in block]
            options += struct.pack(f">BB{len(edges)}I", 5, 2 + 4 * len(edges), *edges)
        return options + b"\x01" * (-len(options) % 4)
