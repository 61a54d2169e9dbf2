"""Frames made to trip a decoder: cut at every layer, lying about lengths, going on for ever."""

from __future__ import annotations

import struct

from ..clock import EPOCH, MILLISECOND
from ..files import pcap
from ..headers import (
    ACK,
    AH,
    DESTINATION,
    FRAGMENT,
    GRE,
    IPIP,
    MORE_FRAGMENTS,
    SCTP,
    TCP,
    UDP,
    checksum,
    ip,
    ipv4,
    ipv6,
    tcp,
    udp,
)  # fmt: skip
from ..links import CTAG, IPV4, IPV6, MPLS, PPPOE_SESSION, ethernet, frame_of, mac_of, mpls
from ..registry import capture
from ..tunnels import ERSPAN_2, GENEVE_PORT, VXLAN_PORT, gre, in_gre, in_udp, vxlan
from .small import CLIENT, CLIENT6, SERVER, SERVER6

SEGMENT = tcp(CLIENT, 40001, SERVER, 80, seq=1, ack=1, flags=ACK, window=512, payload=b"GET / HTTP/1.0\r\n\r\n")
PACKET = ip(CLIENT, SERVER, TCP, SEGMENT)
PACKET6 = ip(CLIENT6, SERVER6, UDP, udp(CLIENT6, 7001, SERVER6, 7000, b"hello"))


def _frame(kind: int, payload: bytes) -> bytes:
    return ethernet(mac_of(SERVER), mac_of(CLIENT), kind, payload)


def _patched(packet: bytes, offset: int, value: bytes) -> bytes:
    """An IPv4 packet with some octets changed, and its header checksum right again."""
    changed = bytearray(packet)
    changed[offset : offset + len(value)] = value
    changed[10:12] = b"\0\0"
    changed[10:12] = struct.pack(">H", checksum(bytes(changed[:20])))
    return bytes(changed)


def _cut() -> list[bytes]:
    """Ends inside a header."""
    return [
        frame_of(PACKET)[:10],
        frame_of(PACKET, [(CTAG, 10)])[:16],
        frame_of(PACKET)[:14],
        frame_of(PACKET)[:26],
        frame_of(PACKET)[:36],
        frame_of(PACKET)[:44],
        frame_of(PACKET6)[:44],
        frame_of(PACKET6)[:56],
        frame_of(ipv6(CLIENT6, SERVER6, FRAGMENT, struct.pack(">BBH", UDP, 0, 0))),
        frame_of(ipv6(CLIENT6, SERVER6, AH, b"\x11")),
        frame_of(ipv4(CLIENT, SERVER, SCTP, b"\x0b\x59")),
        _frame(MPLS, b"\0\x01"),
        _frame(PPPOE_SESSION, b"\x11\0\0\x11"),
        frame_of(in_gre(CLIENT, SERVER, struct.pack(">HH", 0xB000, IPV4) + bytes(6))),
        frame_of(in_gre(CLIENT, SERVER, gre(bytes(4), ERSPAN_2, sequence=1))),
        frame_of(in_udp(CLIENT, SERVER, VXLAN_PORT, vxlan(frame_of(PACKET), 1)[:12])),
    ]


def _lying() -> list[bytes]:
    """Says something about itself that cannot be."""
    return [
        _frame(IPV4, PACKET6),
        _frame(IPV6, PACKET),
        _frame(IPV4, _patched(PACKET, 0, b"\x44")),
        _frame(IPV4, _patched(PACKET, 0, b"\x4f")[:50]),
        _frame(IPV4, _patched(PACKET, 2, bytes(2))),
        _frame(IPV4, _patched(PACKET, 2, struct.pack(">H", 19))),
        _frame(IPV4, _patched(PACKET, 2, struct.pack(">H", 9000))),
        _frame(IPV4, _patched(PACKET, 2, struct.pack(">H", 22))),
        _frame(IPV4, PACKET[:32] + b"\x30" + PACKET[33:]),
        _frame(IPV4, PACKET[:32] + b"\xf0" + PACKET[33:]),
        _frame(IPV6, PACKET6[:4] + struct.pack(">H", 3) + PACKET6[6:]),
        _frame(IPV6, PACKET6[:4] + struct.pack(">H", 60000) + PACKET6[6:]),
        frame_of(ipv4(CLIENT, SERVER, UDP, struct.pack(">HHHH", 7001, 7000, 3, 0))),
        frame_of(in_udp(CLIENT, SERVER, GENEVE_PORT, struct.pack(">BBHI", 63, 0, 0x6558, 256) + bytes(20))),
        frame_of(in_gre(CLIENT, SERVER, struct.pack(">HH", 7, IPV4) + PACKET)),
        _frame(PPPOE_SESSION, struct.pack(">BBHHH", 0x11, 0, 0x11, 9999, 0x0021) + PACKET),
        frame_of(ipv4(CLIENT, SERVER, UDP, bytes(16), ident=9, fragment=0x1FFF | MORE_FRAGMENTS)),
        frame_of(ipv4(CLIENT, SERVER, TCP, SEGMENT[:8], ident=10, fragment=MORE_FRAGMENTS)),
    ]


def _endless() -> list[bytes]:
    """Layer upon layer."""
    options = b"".join(bytes((DESTINATION, 0, 1, 4, 0, 0, 0, 0)) for _ in range(150))
    unending_labels = b"\0\x01\0\x40" * 300
    inception, matryoshka = PACKET, PACKET
    for _ in range(12):
        inception = in_udp(CLIENT, SERVER, VXLAN_PORT, vxlan(frame_of(inception), 1))
    for _ in range(40):
        matryoshka = ip(CLIENT, SERVER, IPIP, matryoshka)
    return [
        frame_of(ipv6(CLIENT6, SERVER6, DESTINATION, options)),
        _frame(MPLS, unending_labels),
        _frame(MPLS, mpls(PACKET, *range(16, 216))),
        frame_of(PACKET, [(CTAG, 10)] * 60),
        frame_of(inception),
        frame_of(matryoshka),
        frame_of(in_gre(CLIENT, SERVER, gre(b"", GRE))),
    ]


@capture("malformed.pcap")
def malformed() -> bytes:
    """Hostile frames: cut inside every header, lengths that lie, layers without end; and one good frame."""
    frames = [*_cut(), *_lying(), *_endless(), frame_of(PACKET)]
    return pcap((EPOCH + i * MILLISECOND, frame) for i, frame in enumerate(frames))
