"""What an independent decoder says: dpkt's header classes, one header at a time, and a few headers that dpkt lacks.

dpkt's own descent stops at two tags, guesses where a packet is cut and knows half of the tunnels; so every header is
read alone and the way down is written here. Nothing is shared with the sensor or with tshark.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import dpkt

from tests.oracles.capture_file import Capture, Unreadable, open_capture
from tests.oracles.flows import (
    AH,
    EXTENSION_HEADERS,
    FRAGMENT_HEADER,
    HOP_BY_HOP,
    ICMP,
    ICMP6,
    NO_NEXT,
    UDP,
    WITH_PORTS,
    Fragment,
    Packet,
    Verdict,
    virtual_subnet,
)
from tests.oracles.headers import ETHERNET, IP4, IP6, CutShort, Descent, Inside, Link, header, number, numbers
from tests.oracles.links import LINKS, below, ethernet, raw

ERSPAN_I_II, ERSPAN_III, FRAME_TYPE_IP = 0x88BE, 0x22EB, 2
GRE_CHECKSUM, GRE_ROUTING, GRE_KEY, GRE_SEQUENCE, GRE_VERSION = 0x8000, 0x4000, 0x2000, 0x1000, 0x0007
IPV4_IN_IP, IPV6_IN_IP, GRE_IN_IP = 4, 41, 47
VXLAN_PORTS, VXLAN_HAS_VNI, GENEVE_PORT = (4789, 8472), 0x08, 6081
JUMBO_OPTION = 0xC2


def text(address: bytes) -> str:
    """An address as people write it."""
    return str(ip_address(address))


def ipv4(descent: Descent, octets: bytes) -> tuple[Packet, bytes]:
    """RFC 791: the packet and its payload. Segmentation offload leaves a length of 0: as long as the frame."""
    ip = header(dpkt.ip.IP, octets)
    length, start = ip.len or len(octets), ip.hl * 4
    if ip.v != 4 or start < 20 or length < start or start > len(octets):
        raise CutShort("IPv4 header")
    fragment = Fragment(ip.id, ip.offset == 0) if ip.offset or ip.mf else None
    packet = Packet(ip.p, text(ip.src), text(ip.dst), None, length, tuple(descent.vlans), descent.vni, fragment)
    return extensions(packet, 4, octets[start:length])


def ipv6(descent: Descent, octets: bytes) -> tuple[Packet, bytes]:
    """RFC 8200: the packet and its payload. A payload length of 0 is a jumbogram's (RFC 2675), or as in IPv4."""
    ip = header(dpkt.ip6.IP6, octets)
    if ip.v != 6:
        raise CutShort("IPv6 header")
    empty = ip.nxt == NO_NEXT
    length = 40 + ip.plen if ip.plen or empty else jumbo_length(ip) or len(octets)
    packet = Packet(ip.nxt, text(ip.src), text(ip.dst), None, length, tuple(descent.vlans), descent.vni)
    return extensions(packet, 6, octets[40:length])


def jumbo_length(ip: Any) -> int | None:
    """The jumbo payload option, when it is the first one of the hop-by-hop header."""
    if ip.nxt != HOP_BY_HOP or len(ip.data) < 8 or ip.data[2] != JUMBO_OPTION:
        return None
    return 40 + int.from_bytes(ip.data[4:8], "big")


def extensions(packet: Packet, version: int, octets: bytes) -> tuple[Packet, bytes]:
    """Follows the chain of extension headers to the payload, or to where a later fragment breaks it off."""
    protocol, fragment = packet.protocol, packet.fragment
    while protocol in EXTENSION_HEADERS[version] and (fragment is None or fragment.first):
        following, units = numbers("!BB", octets)
        length = 8 if protocol == FRAGMENT_HEADER else (units + 2) * 4 if protocol == AH else (units + 1) * 8
        if len(octets) < length:
            raise CutShort("extension header")
        if protocol == FRAGMENT_HEADER:
            fragment = fragment_of(octets)
        protocol, octets = following, octets[length:]
    return replace(packet, protocol=protocol, fragment=fragment), octets


def fragment_of(octets: bytes) -> Fragment | None:
    """An atomic fragment (RFC 6946) is no fragment."""
    ip = header(dpkt.ip6.IP6FragmentHeader, octets)
    more = ip._frag_off_resv_m & 1
    return Fragment(ip.id, ip.frag_off == 0) if ip.frag_off or more else None


def keyed_by(packet: Packet, octets: bytes) -> Packet:
    """The packet with its ports, or ICMP type and code."""
    if packet.fragment and not packet.fragment.first:
        return packet
    layout = "!HH" if packet.protocol in WITH_PORTS else "!BB" if packet.protocol in (ICMP, ICMP6) else ""
    first, second = numbers(layout, octets) if layout else (None, None)
    return replace(packet, ports=(first, second)) if layout else packet


def tunnelled(descent: Descent, packet: Packet, octets: bytes) -> Inside | None:
    """What the packet carries if it is a tunnel's. Fragments of a tunnel count as themselves beyond the first."""
    if packet.fragment and not packet.fragment.first:
        return None
    if packet.protocol in (IPV4_IN_IP, IPV6_IN_IP):
        return Inside(IP4 if packet.protocol == IPV4_IN_IP else IP6, octets)
    if packet.protocol == GRE_IN_IP:
        return gre(descent, octets)
    if packet.protocol == UDP and len(octets) >= 8:
        return over_udp(descent, octets)
    return None


def over_udp(descent: Descent, octets: bytes) -> Inside | None:
    """VXLAN (RFC 7348) and Geneve (RFC 8926), by destination port."""
    udp = header(dpkt.udp.UDP, octets)
    if udp.dport in VXLAN_PORTS:
        flags, vni = numbers("!B3xI", udp.data)
        if not flags & VXLAN_HAS_VNI:
            return None
        descent.vni = vni >> 8
        return ethernet(descent, udp.data[8:])
    if udp.dport != GENEVE_PORT:
        return None
    options, inside, vni = numbers("!BxHI", udp.data)
    start = 8 + (options & 0x3F) * 4
    if options >> 6 or len(udp.data) < start:
        raise CutShort("Geneve header")
    descent.vni = vni >> 8
    return by_ethertype(descent, inside, udp.data[start:])


def by_ethertype(descent: Descent, ethertype: int, octets: bytes) -> Inside | None:
    """A payload that an EtherType names, an Ethernet frame included."""
    return ethernet(descent, octets) if ethertype == ETHERNET else below(descent, ethertype, octets)


def gre(descent: Descent, octets: bytes) -> Inside | None:
    """GRE (RFC 2784, 2890), NVGRE (RFC 7637), ERSPAN. Routing (RFC 1701) and version 1 (PPTP) are not understood."""
    flags, inside = numbers("!HH", octets)
    if flags & (GRE_ROUTING | GRE_VERSION):
        return None
    start = 4 + 4 * sum(bool(flags & bit) for bit in (GRE_CHECKSUM, GRE_KEY, GRE_SEQUENCE))
    if len(octets) < start:
        raise CutShort("GRE header")
    if inside in (ERSPAN_I_II, ERSPAN_III):
        return erspan(descent, inside, bool(flags & GRE_SEQUENCE), octets[start:])
    if flags & GRE_KEY:
        key = number("!I", octets[8 if flags & GRE_CHECKSUM else 4 :])
        descent.vni = virtual_subnet(key) if inside == ETHERNET else key
    return by_ethertype(descent, inside, octets[start:])


def erspan(descent: Descent, kind: int, sequenced: bool, octets: bytes) -> Inside | None:
    """Type I has no header of its own; II and III carry the mirrored frame's VLAN, used where the frame has none."""
    if kind == ERSPAN_I_II and not sequenced:
        return ethernet(descent, octets)
    vlan = number("!H6x" if kind == ERSPAN_I_II else "!H10x", octets)
    start, is_ip = 8, False
    if kind == ERSPAN_III:
        start, is_ip = 20 if octets[11] & 1 else 12, octets[10] >> 2 & 0x1F == FRAME_TYPE_IP
    outer = len(descent.vlans)
    inside = (raw if is_ip else ethernet)(descent, octets[start:])
    if len(descent.vlans) == outer and vlan & 0x0FFF:
        descent.vlans.append(vlan & 0x0FFF)
    return inside


def layers(link: Link, octets: bytes) -> Iterator[tuple[Packet, bytes]]:
    """The IP packets of a frame and their octets, outermost first, as far as they are complete."""
    descent = Descent()
    try:
        inside = link(descent, octets)
        while inside:
            packet, payload = (ipv4 if inside.ethertype == IP4 else ipv6)(descent, inside.octets)
            yield keyed_by(packet, payload), inside.octets[: packet.octets]
            inside = tunnelled(descent, packet, payload)
    except CutShort:
        return


def verdict(link: Link, octets: bytes) -> Verdict:
    """The innermost IP packet of a frame; a tunnel with a stump inside counts as itself."""
    packets = [packet for packet, _ in layers(link, octets)]
    if not packets:
        return None
    *outer, innermost = packets
    return replace(innermost, carriers=tuple(packet for packet in outer if packet.fragment))


def read(path: Path) -> list[Verdict]:
    """One verdict a frame; Unreadable for a file or a link type that this decoder does not know."""
    capture = open_capture(path)
    link = link_of(capture)
    return [verdict(link, octets) for _, octets in capture.frames]


def link_of(capture: Capture) -> Link:
    """How the frames of a capture begin."""
    if capture.link_type not in LINKS:
        raise Unreadable(f"link type {capture.link_type}")
    return LINKS[capture.link_type]
