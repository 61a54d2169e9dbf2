"""Community ID version 1, seed 0 (https://github.com/corelight/community-id-spec), from a decoded packet."""

from __future__ import annotations

import base64
import hashlib
import struct
from ipaddress import ip_address

from tests.oracles.flows import ICMP, ICMP6, Packet

PAIRS = {
    ICMP: ((8, 0), (13, 14), (15, 16), (17, 18), (10, 9)),
    ICMP6: ((128, 129), (133, 134), (135, 136), (130, 131), (139, 140), (144, 145)),
}
"""ICMP requests and their answers; every other type is a flow of one direction, keyed by type and code."""


def icmp_ports(packet: Packet) -> tuple[tuple[int, int] | None, bool]:
    """What stands for the ports of an ICMP packet, and whether it belongs to a one-way flow."""
    if packet.ports is None:
        return None, False
    kind, code = packet.ports
    answers = {a: b for pair in PAIRS[packet.protocol] for a, b in (pair, pair[::-1])}
    return (kind, answers.get(kind, code)), kind not in answers


def community_id(packet: Packet) -> str:
    """The identifier of the packet's flow; a packet without ports is identified by addresses and protocol."""
    icmp = packet.protocol in PAIRS
    ports, one_way = icmp_ports(packet) if icmp else (packet.ports, False)
    sport, dport = (struct.pack("!H", port) for port in ports) if ports else (b"", b"")
    src, dst = ip_address(packet.src).packed, ip_address(packet.dst).packed
    if not one_way and (dst, dport) < (src, sport):
        src, dst, sport, dport = dst, src, dport, sport
    digest = hashlib.sha1(b"\0\0" + src + dst + bytes((packet.protocol, 0)) + sport + dport).digest()
    return "1:" + base64.b64encode(digest).decode()
