"""Link layers: what stands before an IP packet on the wire or in the capture."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from .headers import addresses, packed

ARP, RARP, IPV4, IPV6, CTAG, STAG, MPLS = 0x0806, 0x8035, 0x0800, 0x86DD, 0x8100, 0x88A8, 0x8847
PPPOE_DISCOVERY, PPPOE_SESSION, VNTAG, LLDP, TEB = 0x8863, 0x8864, 0x8926, 0x88CC, 0x6558

DLT_NULL, DLT_ETHERNET, DLT_RAW, DLT_LOOP, DLT_SLL, DLT_SLL2 = 0, 1, 101, 108, 113, 276

BROADCAST = b"\xff" * 6
MINIMUM_FRAME = 60


def mac_of(address: str, tenant: int = 0) -> bytes:
    """A group's own MAC (RFC 1112, RFC 2464), else a local one: the tenant and the address's last four octets."""
    octets = packed(address)
    if address.startswith("ff"):
        return b"\x33\x33" + octets[-4:]
    if len(octets) == 4 and octets[0] >> 4 == 14:
        return b"\x01\x00\x5e" + bytes((octets[1] & 0x7F,)) + octets[2:]
    return bytes((0x02, tenant)) + octets[-4:]


def ethertype(packet: bytes) -> int:
    """0x0800 or 0x86dd."""
    return IPV4 if packet[0] >> 4 == 4 else IPV6


def ethernet(dst: bytes, src: bytes, kind: int, payload: bytes, tags: Sequence[tuple[int, int]] = ()) -> bytes:
    """An Ethernet II frame; `tags` are (TPID, VLAN id) pairs, outermost first."""
    stack = b"".join(struct.pack(">HH", tpid, vid) for tpid, vid in tags)
    return dst + src + stack + struct.pack(">H", kind) + payload


def pad(frame: bytes) -> bytes:
    """A frame as it leaves a NIC: at least 60 octets, so that lengths have to come from the IP header."""
    return frame + b"\0" * (MINIMUM_FRAME - len(frame))


def frame_of(packet: bytes, tags: Sequence[tuple[int, int]] = (), tenant: int = 0) -> bytes:
    """An IP packet in Ethernet, between the MACs of its own addresses."""
    src, dst = (mac_of(address, tenant) for address in addresses(packet))
    return ethernet(dst, src, ethertype(packet), packet, tags)


def on_wire(packet: bytes) -> bytes:
    """An IP packet in a padded, untagged frame."""
    return pad(frame_of(packet))


def mpls(payload: bytes, *labels: int) -> bytes:
    """A label stack (RFC 3032), the last label at the bottom."""
    last = len(labels) - 1
    return b"".join(struct.pack(">I", label << 12 | (i == last) << 8 | 64) for i, label in enumerate(labels)) + payload


def pppoe(protocol: int, payload: bytes, session: int = 0x11) -> bytes:
    """A PPPoE session payload (RFC 2516) with its PPP protocol field."""
    return struct.pack(">BBHHH", 0x11, 0, session, len(payload) + 2, protocol) + payload


def vntag(kind: int, payload: bytes, source_port: int, destination_port: int) -> bytes:
    """An IEEE 802.1BR predecessor's tag: direction and ports, then the frame's own EtherType."""
    return struct.pack(">HHH", destination_port, source_port, kind) + payload


def arp(operation: int, sender: tuple[bytes, str], target: tuple[bytes, str]) -> bytes:
    """An ARP or RARP message for IPv4 over Ethernet (RFC 826)."""
    fixed = struct.pack(">HHBBH", 1, IPV4, 6, 4, operation)
    return fixed + sender[0] + packed(sender[1]) + target[0] + packed(target[1])


def sll(packet: bytes, kind: int) -> bytes:
    """Linux cooked capture v1: `kind` 0 came to us, 4 was sent by us."""
    return struct.pack(">HHH", kind, 1, 6) + mac_of(addresses(packet)[0]) + b"\0\0" + _type_field(packet) + packet


def sll2(packet: bytes, kind: int, interface: int = 2) -> bytes:
    """Linux cooked capture v2."""
    fixed = struct.pack(">HIHBB", 0, interface, 1, kind, 6)
    return _type_field(packet) + fixed + mac_of(addresses(packet)[0]) + b"\0\0" + packet


def _type_field(packet: bytes) -> bytes:
    return struct.pack(">H", ethertype(packet))
