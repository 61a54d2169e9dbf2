"""IPv4 and IPv6 themselves, and what they carry besides TCP and UDP."""

from __future__ import annotations

import struct

from ..clock import EPOCH, MILLISECOND, SECOND
from ..conversation import echo
from ..files import Frame, pcap
from ..headers import (
    AH,
    DESTINATION,
    ESP,
    ICMP,
    ICMP6,
    OSPF,
    ROUTING,
    SCTP,
    UDP,
    addresses,
    checksum,
    fragments,
    icmp,
    icmp6,
    ip,
    ipv4,
    ipv6,
    packed,
    sctp,
    sctp_chunk,
    udp,
    with_checksum,
)  # fmt: skip
from ..links import mac_of, on_wire
from ..messages import filler
from ..registry import capture
from .small import CLIENT, CLIENT6, SERVER, SERVER6, family4, family6, framed, merged

HOP_BY_HOP, IGMP, NO_NEXT_HEADER = 0, 2, 59
PADDING = struct.pack(">BB4x", 1, 4)
ROUTER_ALERT, RECORD_ROUTE = b"\x94\x04\0\0", b"\x07\x07\x04" + bytes(4) + b"\0"


def _every_ms(packets: list[bytes], start_ms: int = 0) -> list[Frame]:
    """Packets a millisecond apart."""
    return [(EPOCH + (start_ms + i) * MILLISECOND, on_wire(packet)) for i, packet in enumerate(packets)]


@capture("ipv4-options.pcap")
def ipv4_options() -> bytes:
    """IPv4 headers with options (record route): lengths have to come from the IHL."""

    def wrap(packet: bytes) -> bytes:
        src, dst = addresses(packet)
        return on_wire(ipv4(src, dst, packet[9], packet[20:], options=RECORD_ROUTE))

    return pcap(framed(*family4(), wrap=wrap))


@capture("ipv6.pcap")
def ipv6_plain() -> bytes:
    """IPv6: TCP, UDP, ICMPv6."""
    return pcap(framed(*family6()))


def _extended(packet: bytes, headers: list[tuple[int, bytes]]) -> bytes:
    """An IPv6 packet with a chain of extension headers, each given without its first octet."""
    src, dst = addresses(packet)
    following, payload = packet[6], packet[40:]
    for number, header in reversed(headers):
        following, payload = number, bytes((following,)) + header + payload
    return ipv6(src, dst, following, payload, hop_limit=packet[7])


@capture("ipv6-extensions.pcap")
def ipv6_extensions() -> bytes:
    """IPv6 with hop-by-hop, destination options, a segment routing header and AH."""

    def wrap(packet: bytes) -> bytes:
        segment_routing = struct.pack(">BBBBBH", 2, 4, 0, 0, 0, 0) + packed(addresses(packet)[1])
        authentication = struct.pack(">BHII", 4, 0, 0x100, 1) + bytes(12)
        options = b"\0" + PADDING
        chain = [(HOP_BY_HOP, options), (DESTINATION, options), (ROUTING, segment_routing), (AH, authentication)]
        return on_wire(_extended(packet, chain))

    return pcap(framed(*family6(), wrap=wrap))


def _big_datagrams(client: str, server: str, size: int) -> list[bytes]:
    """A big question and a big answer over UDP, and a big ping, all in fragments."""
    question = ip(client, server, UDP, udp(client, 7001, server, 7000, filler(4000)))
    answer = ip(server, client, UDP, udp(server, 7000, client, 7001, filler(3000)))
    if ":" in client:
        ping = ipv6(client, server, ICMP6, icmp6(client, server, 128, 0, bytes(4) + filler(2000)))
    else:
        ping = ipv4(client, server, ICMP, icmp(8, 0, bytes(4), filler(2000)))
    pieces = (fragments(packet, size, 0x1001 + i) for i, packet in enumerate((question, answer, ping)))
    return [fragment for whole in pieces for fragment in whole]


@capture("fragments-ipv4.pcap")
def fragments_ipv4() -> bytes:
    """IPv4 fragments in order, and a later fragment whose first was never seen."""
    orphan = fragments(ip(SERVER, CLIENT, UDP, udp(SERVER, 7000, CLIENT, 7002, filler(2000))), 1480, 0x2001)[1]
    return pcap(_every_ms([*_big_datagrams(CLIENT, SERVER, 1480), orphan]))


@capture("fragments-ipv6.pcap")
def fragments_ipv6() -> bytes:
    """IPv6 fragments in order, and a later fragment whose first was never seen."""
    orphan = fragments(ip(SERVER6, CLIENT6, UDP, udp(SERVER6, 7000, CLIENT6, 7002, filler(2000))), 1448, 0x2001)[1]
    return pcap(_every_ms([*_big_datagrams(CLIENT6, SERVER6, 1448), orphan]))


@capture("icmp.pcap")
def icmp_messages() -> bytes:
    """ICMP and ICMPv6: echo, port unreachable, time exceeded, neighbour solicitation and advertisement."""
    return pcap(merged(framed(family4()[-1], family6()[-1]), _every_ms([*_icmp_errors(), *_neighbours()], 100)))


def _icmp_errors() -> list[bytes]:
    """A refused datagram and a traceroute's first answer, each quoting what caused it (RFC 792)."""
    probe = ip(CLIENT, SERVER, UDP, udp(CLIENT, 50002, SERVER, 33434, filler(32)))
    probe6 = ip(CLIENT6, SERVER6, UDP, udp(CLIENT6, 50002, SERVER6, 33434, filler(32)))
    expired = ip(CLIENT, "192.0.2.9", ICMP, echo(CLIENT, "192.0.2.9", False, 78, 1)[20:], ttl=1)
    return [
        probe,
        ip(SERVER, CLIENT, ICMP, icmp(3, 3, bytes(4), probe[:28])),
        probe6,
        ip(SERVER6, CLIENT6, ICMP6, icmp6(SERVER6, CLIENT6, 1, 4, bytes(4) + probe6)),
        expired,
        ip("10.1.0.1", CLIENT, ICMP, icmp(11, 0, bytes(4), expired[:28])),
    ]


def _neighbours() -> list[bytes]:
    """Who has SERVER6, and its answer (RFC 4861)."""
    group, target = "ff02::1:ff00:12", packed(SERVER6)
    solicitation = bytes(4) + target + b"\x01\x01" + mac_of(CLIENT6)
    advertisement = b"\x60\0\0\0" + target + b"\x02\x01" + mac_of(SERVER6)
    return [
        ipv6(CLIENT6, group, ICMP6, icmp6(CLIENT6, group, 135, 0, solicitation), hop_limit=255),
        ipv6(SERVER6, CLIENT6, ICMP6, icmp6(SERVER6, CLIENT6, 136, 0, advertisement), hop_limit=255),
    ]


@capture("sctp.pcap")
def sctp_association() -> bytes:
    """SCTP: an association set up, data, its acknowledgement, shutdown."""
    ours, theirs = 0x11111111, 0x22222222
    init = struct.pack(">IIHHI", ours, 65536, 1, 1, 1000)
    init_ack = struct.pack(">IIHHI", theirs, 65536, 1, 1, 5000) + struct.pack(">HH", 7, 12) + b"cookie!!"
    data = struct.pack(">IHHI", 1000, 0, 0, 0) + filler(500)
    sack = struct.pack(">IIHH", 1000, 65536, 0, 0)
    steps = [
        (CLIENT, 0, sctp_chunk(1, 0, init)), (SERVER, ours, sctp_chunk(2, 0, init_ack)),
        (CLIENT, theirs, sctp_chunk(10, 0, b"cookie!!")), (SERVER, ours, sctp_chunk(11, 0, b"")),
        (CLIENT, theirs, sctp_chunk(0, 3, data)), (SERVER, ours, sctp_chunk(3, 0, sack)),
        (CLIENT, theirs, sctp_chunk(7, 0, struct.pack(">I", 4999))), (SERVER, ours, sctp_chunk(8, 0, b"")),
        (CLIENT, theirs, sctp_chunk(14, 0, b"")),
    ]  # fmt: skip
    return pcap(_every_ms([
        ip(CLIENT, SERVER, SCTP, sctp(36412, 2905, tag, chunk)) if sender == CLIENT
        else ip(SERVER, CLIENT, SCTP, sctp(2905, 36412, tag, chunk))
        for sender, tag, chunk in steps
    ]))  # fmt: skip


def _ospf_hello(router: str) -> bytes:
    hello = struct.pack(">4sHBBI4s4s", packed("255.255.255.0"), 10, 2, 1, 40, packed(router), bytes(4))
    head = struct.pack(">BBH4s4sHH8x", 2, 1, 24 + len(hello), packed(router), bytes(4), 0, 0)
    return with_checksum(head + hello, 12)


@capture("other-protocols.pcap")
def other_protocols() -> bytes:
    """OSPF, ESP both ways, IGMP behind an IPv4 option, AH before UDP in IPv4, no next header in IPv6."""

    def esp(spi: int, sequence: int) -> bytes:
        return struct.pack(">II", spi, sequence) + filler(120)

    report = b"\x16\0" + struct.pack(">H", checksum(b"\x16\0\0\0" + packed("239.1.2.3"))) + packed("239.1.2.3")
    datagram = udp(CLIENT, 7001, SERVER, 7000, filler(64))
    packets = [
        ipv4("10.1.0.1", "224.0.0.5", OSPF, _ospf_hello("10.1.0.1"), ttl=1),
        ipv4(CLIENT, SERVER, ESP, esp(0x1001, 1)),
        ipv4(SERVER, CLIENT, ESP, esp(0x2002, 1)),
        ipv4(CLIENT, SERVER, ESP, esp(0x1001, 2)),
        ipv4(CLIENT, "239.1.2.3", IGMP, report, ttl=1, options=ROUTER_ALERT),
        ipv4(CLIENT, SERVER, AH, struct.pack(">BBHII", UDP, 4, 0, 0x100, 1) + bytes(12) + datagram),
        ipv6(CLIENT6, SERVER6, NO_NEXT_HEADER, b""),
    ]
    return pcap([*_every_ms(packets), (EPOCH + 10 * SECOND, on_wire(packets[0]))])
