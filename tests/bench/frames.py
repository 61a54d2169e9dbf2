"""Columns of packets -> a classic capture file, with no Python per packet.

Each packet is a row with room for every header; a mask keeps the columns that this packet really has. Payload is
zeros: it adds nothing to a checksum, so checksums are right although the bytes behind the snap length never exist.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.signedinteger]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Fields = list[tuple[str, str]]
Number = TypeVar("Number", Ints, int)

FIN, SYN, PSH, ACK = 0x01, 0x02, 0x08, 0x10
TCP_NUMBER, UDP_NUMBER = 6, 17
EPOCH_S = 1_700_000_000
SNAP, WHOLE_FRAMES = 96, 1518
CHUNK = 10_000_000  # octets, about
SMALLEST_FRAME = 60
LOCAL_MAC = 0x0200
VERSION_IHL_TOS, DONT_FRAGMENT, TTL = 0x4500, 0x4000, 64 << 8
SYN_OPTIONS = 0x020405B401030307  # MSS 1460, NOP, window scale 7
SYN_WINDOW, WINDOW = 64240, 502
VXLAN_PORT, VXLAN_HAS_VNI, FIRST_EPHEMERAL = 4789, 0x08000000, 49152

PCAP: Fields = [("sec", "<u4"), ("usec", "<u4"), ("caplen", "<u4"), ("wirelen", "<u4")]
MACS: Fields = [("dst_oui", ">u2"), ("dst_mac", ">u4"), ("src_oui", ">u2"), ("src_mac", ">u4")]
VLAN: Fields = [("tpid", ">u2"), ("tci", ">u2")]
IPV4: Fields = [
    ("ethertype", ">u2"), ("version", ">u2"), ("length", ">u2"), ("ident", ">u2"), ("fragment", ">u2"),
    ("ttl", ">u2"), ("checksum", ">u2"), ("src", ">u4"), ("dst", ">u4"),
]  # fmt: skip
PORTS: Fields = [("sport", ">u2"), ("dport", ">u2")]
TCP: Fields = [
    ("seq", ">u4"), ("ack", ">u4"), ("flags", ">u2"), ("window", ">u2"), ("tcp_sum", ">u2"), ("urgent", ">u2"),
]  # fmt: skip
OPTIONS: Fields = [("options", ">u8")]
UDP: Fields = [("udp_length", ">u2"), ("udp_sum", ">u2")]
VXLAN: Fields = [("vxlan_flags", ">u4"), ("vni", ">u4")]
SMALLEST_HEADERS = 42  # the rest, up to the snap length, is payload and padding


@dataclass(frozen=True)
class Addresses:
    """Who talks in each flow. Two-row arrays hold the client's value, then the server's."""

    ip: Ints
    mac: Ints
    port: Ints
    host: Ints  # outer address of the tunnel
    vlan: Ints  # 0: untagged
    vni: Ints
    udp: Bools


@dataclass(frozen=True)
class Packets:
    """One entry per packet; ``side`` 0 was sent by the client, 1 by the server."""

    flow: Ints
    side: Ints
    time_us: Ints
    payload: Ints
    flags: Ints
    ident: Ints
    seq: Ints
    ack: Ints

    def take(self, pick: Ints) -> Packets:
        """The packets at these positions."""
        return Packets(**{name: column[pick] for name, column in vars(self).items()})


def write(file: BinaryIO, who: Addresses, packets: Packets, tunnel: bool, snap: int = SNAP) -> None:
    """Write a capture in the order of time, where packets of one microsecond keep theirs.

    With ``tunnel`` every frame travels in VXLAN, and the snap length grows by the outer headers.
    """
    outer = [(f"outer_{name}", kind) for name, kind in MACS + IPV4 + PORTS + UDP] + VXLAN if tunnel else []
    tail: Fields = [("tail", f"V{snap - SMALLEST_HEADERS}")]
    layout = np.dtype(PCAP + outer + MACS + VLAN + IPV4 + PORTS + TCP + OPTIONS + UDP + tail)
    outer_size = np.dtype(outer).itemsize
    file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, snap + outer_size, 1))
    order = np.argsort(packets.time_us, kind="stable")
    count = CHUNK // layout.itemsize
    for start in range(0, len(order), count):
        chunk = Chunk(layout, outer_size, snap, who, packets.take(order[start : start + count]))
        file.write(chunk.records().data)


class Chunk:
    """Some packets on their way to bytes."""

    def __init__(self, layout: np.dtype[np.void], outer: int, snap: int, who: Addresses, packets: Packets) -> None:
        """``layout`` is a row with all headers, ``outer`` the size of the tunnel's part of it."""
        self.rows = np.zeros(len(packets.flow), layout)
        self.outer, self.snap, self.who, self.packets = outer, snap, who, packets
        self.udp = who.udp[packets.flow]
        self.tag = 4 * (who.vlan[packets.flow] > 0)
        self.options = 8 * ((packets.flags & SYN) > 0)
        self.transport = np.where(self.udp, 8, 20 + self.options)

    def records(self) -> npt.NDArray[np.uint8]:
        """The capture records of these packets, one behind the other."""
        inner = self.write_frame()
        if self.outer:
            self.write_tunnel(inner)
        wire = np.maximum(self.outer + inner, SMALLEST_FRAME)
        captured = np.minimum(wire, self.snap + self.outer)
        self.write_record_header(wire, captured)
        return self.squeeze(captured - self.outer - 14 - self.tag - 20 - self.transport)

    def write_frame(self) -> Ints:
        """Every header of the frame that the sender's network card saw. Returns its length."""
        rows, who, flow, side = self.rows, self.who, self.packets.flow, self.packets.side
        self.write_macs("", who.mac[side, flow], who.mac[1 - side, flow])
        rows["tpid"], rows["tci"] = 0x8100, who.vlan[flow]
        length = self.transport + self.packets.payload
        protocol = np.where(self.udp, UDP_NUMBER, TCP_NUMBER)
        partial = self.write_ip("", who.ip[side, flow], who.ip[1 - side, flow], protocol, length)
        partial += self.write_ports("", who.port[side, flow], who.port[1 - side, flow])
        self.write_tcp(partial)
        rows["udp_length"], rows["udp_sum"] = length, checksum(partial + length)
        return 14 + self.tag + 20 + length

    def write_tunnel(self, inner: Ints) -> None:
        """RFC 7348: the hosts' addresses, no UDP checksum, and a source port that spreads flows over paths."""
        rows, who, flow, side = self.rows, self.who, self.packets.flow, self.packets.side
        source, target = who.host[side, flow], who.host[1 - side, flow]
        self.write_macs("outer_", source, target)
        self.write_ip("outer_", source, target, UDP_NUMBER, 16 + inner)
        self.write_ports("outer_", FIRST_EPHEMERAL + flow % 16384, VXLAN_PORT)
        rows["outer_udp_length"] = 16 + inner
        rows["vxlan_flags"], rows["vni"] = VXLAN_HAS_VNI, who.vni[flow] << 8

    def write_macs(self, prefix: str, source: Ints, target: Ints) -> None:
        """Locally administered addresses that end in these numbers."""
        for name, number in (("src", source), ("dst", target)):
            self.rows[f"{prefix}{name}_oui"], self.rows[f"{prefix}{name}_mac"] = LOCAL_MAC, number

    def write_ip(self, prefix: str, source: Ints, target: Ints, protocol: Ints | int, length: Ints) -> Ints:
        """RFC 791, with ``length`` octets to carry. Returns the pseudo header's part of the next checksum."""
        addresses, ident = words(source) + words(target), self.packets.ident
        fields = {
            "ethertype": 0x0800, "version": VERSION_IHL_TOS, "length": 20 + length, "ident": ident,
            "fragment": DONT_FRAGMENT, "ttl": TTL + protocol, "src": source, "dst": target,
            "checksum": checksum(addresses + VERSION_IHL_TOS + 20 + length + ident + DONT_FRAGMENT + TTL + protocol),
        }  # fmt: skip
        for name, values in fields.items():
            self.rows[prefix + name] = values
        return addresses + protocol + length

    def write_ports(self, prefix: str, source: Ints, target: Ints | int) -> Ints:
        """Returns their part of the checksum."""
        self.rows[f"{prefix}sport"], self.rows[f"{prefix}dport"] = source, target
        return source + target

    def write_tcp(self, partial: Ints) -> None:
        """RFC 9293; ``partial`` is the checksum of everything before the sequence number."""
        rows, packets = self.rows, self.packets
        control = (self.transport // 4 << 12) + packets.flags
        window = np.where(self.options, SYN_WINDOW, WINDOW)
        options = np.where(self.options, words(SYN_OPTIONS >> 32) + words(SYN_OPTIONS & 0xFFFFFFFF), 0)
        rows["seq"], rows["ack"], rows["flags"], rows["window"] = packets.seq, packets.ack, control, window
        rows["tcp_sum"] = checksum(partial + words(packets.seq) + words(packets.ack) + control + window + options)
        rows["options"] = SYN_OPTIONS

    def write_record_header(self, wire: Ints, captured: Ints) -> None:
        """The capture file's own header before each packet."""
        rows, time_us = self.rows, self.packets.time_us
        rows["sec"], rows["usec"] = EPOCH_S + time_us // 1_000_000, time_us % 1_000_000
        rows["caplen"], rows["wirelen"] = captured, wire

    def squeeze(self, tail: Ints) -> npt.NDArray[np.uint8]:
        """Take out what a packet does not have; ``tail`` octets follow its headers."""
        octets = self.rows.view(np.uint8).reshape(len(self.rows), -1)
        keep = np.ones(octets.shape, np.bool_)
        for first, last, present in (
            ("tpid", "ethertype", self.tag > 0),
            ("seq", "options", ~self.udp),
            ("options", "udp_length", self.options > 0),
            ("udp_length", "tail", self.udp),
        ):
            keep[:, self.offset(first) : self.offset(last)] = present[:, np.newaxis]
        keep[:, self.offset("tail") :] = np.arange(octets.shape[1] - self.offset("tail")) < tail[:, np.newaxis]
        return octets[keep]

    def offset(self, name: str) -> int:
        """Where a field begins in a row."""
        fields = self.rows.dtype.fields
        assert fields is not None
        return int(fields[name][1])


def words(number: Number) -> Number:
    """Sum of the two 16-bit words of a 32-bit number."""
    return (number >> 16) + (number & 0xFFFF)


def checksum(total: Ints) -> Ints:
    """RFC 1071: fold the carries in and complement. Two folds are enough for so few words."""
    return 0xFFFF - words(words(total))
