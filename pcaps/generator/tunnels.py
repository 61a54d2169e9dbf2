"""Tunnels: what stands between an outer and an inner packet."""

from __future__ import annotations

import struct

from .headers import GRE, UDP, checksum, ip, udp
from .links import TEB

VXLAN_PORT, LINUX_VXLAN_PORT, GENEVE_PORT = 4789, 8472, 6081
ERSPAN_2, ERSPAN_3 = 0x88BE, 0x22EB
NO_CHECKSUM = b"\0\0"


def in_udp(src: str, dst: str, dport: int, payload: bytes, *, sport: int = 0xC000, ident: int = 0) -> bytes:
    """A tunnel's UDP packet. Over IPv4 its checksum is 0, as RFC 7348 asks; over IPv6 it is there."""
    datagram = udp(src, sport, dst, dport, payload)
    if ":" not in src:
        datagram = datagram[:6] + NO_CHECKSUM + datagram[8:]
    return ip(src, dst, UDP, datagram, ident=ident)


def vxlan(frame: bytes, vni: int) -> bytes:
    """A VXLAN payload (RFC 7348)."""
    return struct.pack(">II", 0x08000000, vni << 8) + frame


def geneve(payload: bytes, vni: int, kind: int = TEB, options: bytes = b"") -> bytes:
    """A Geneve payload (RFC 8926)."""
    return struct.pack(">BBHI", len(options) // 4, 0, kind, vni << 8) + options + payload


def geneve_option(option_class: int, kind: int, data: bytes) -> bytes:
    """One Geneve option; `data` in whole words."""
    return struct.pack(">HBB", option_class, kind, len(data) // 4) + data


def gre(
    payload: bytes, kind: int, *, key: int | None = None, sequence: int | None = None, checked: bool = False
) -> bytes:
    """A GRE header with the optional fields asked for (RFC 2784, RFC 2890), and the payload."""
    flags = checked << 15 | (key is not None) << 13 | (sequence is not None) << 12
    options = b"".join(struct.pack(">I", value) for value in (key, sequence) if value is not None)
    head = struct.pack(">HH", flags, kind)
    if not checked:
        return head + options + payload
    return head + struct.pack(">HH", checksum(head + bytes(4) + options + payload), 0) + options + payload


def in_gre(src: str, dst: str, message: bytes, *, ident: int = 0) -> bytes:
    """A GRE message in its delivery packet."""
    return ip(src, dst, GRE, message, ident=ident)


def nvgre(frame: bytes, vsid: int, flow: int = 0) -> bytes:
    """An NVGRE payload (RFC 7637): the key is the virtual subnet and a hash of the flow."""
    return gre(frame, TEB, key=vsid << 8 | flow)


def erspan1(frame: bytes) -> bytes:
    """ERSPAN type I: the mirrored frame straight behind a bare GRE header."""
    return gre(frame, ERSPAN_2)


def erspan2(frame: bytes, *, sequence: int, vlan: int, session: int = 7) -> bytes:
    """ERSPAN type II: GRE with sequence, then version 1, VLAN, session and port index."""
    return gre(struct.pack(">HHI", 1 << 12 | vlan, session, 3) + frame, ERSPAN_2, sequence=sequence)


def erspan3(frame: bytes, *, sequence: int, vlan: int, session: int = 7, platform: bytes = b"") -> bytes:
    """ERSPAN type III: version 2 with a timestamp, and the 8 octets of a platform subheader if given."""
    fixed = struct.pack(">HHIHH", 2 << 12 | vlan, session, 1000 * sequence, 0, bool(platform))
    return gre(fixed + platform + frame, ERSPAN_3, sequence=sequence)
