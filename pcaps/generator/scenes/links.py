"""Link layers."""

from __future__ import annotations

import struct
from collections.abc import Callable

from ..clock import EPOCH, MILLISECOND
from ..files import Frame, pcap
from ..headers import addresses
from ..links import (
    ARP,
    BROADCAST,
    CTAG,
    DLT_LOOP,
    DLT_NULL,
    DLT_RAW,
    DLT_SLL,
    DLT_SLL2,
    LLDP,
    MPLS,
    PPPOE_DISCOVERY,
    PPPOE_SESSION,
    RARP,
    STAG,
    VNTAG,
    arp,
    ethernet,
    ethertype,
    frame_of,
    mac_of,
    mpls,
    pad,
    pppoe,
    sll,
    sll2,
    vntag,
)  # fmt: skip
from ..registry import capture
from .small import CLIENT, CLIENT6, SERVER, family4, family6, framed, merged, visit

PPP_IPV4, PPP_IPV6, PPP_LCP = 0x0021, 0x0057, 0xC021
AF_INET = 2
UNKNOWN = bytes(6)


def _macs(packet: bytes) -> tuple[bytes, bytes]:
    src, dst = addresses(packet)
    return mac_of(dst), mac_of(src)


def _under(kind: int, packet: bytes, payload: bytes) -> bytes:
    """`payload` in a frame between the MACs of `packet`."""
    return pad(ethernet(*_macs(packet), kind, payload))


@capture("ethernet-ipv4.pcap")
def ethernet_ipv4() -> bytes:
    """IPv4 in Ethernet, short frames padded: TCP, UDP, ICMP."""
    return pcap(framed(*family4()))


@capture("vlan.pcap")
def vlan() -> bytes:
    """802.1Q: the same addresses and ports in VLAN 10 and VLAN 20, and once untagged."""

    def tagged(vid: int) -> Callable[[bytes], bytes]:
        return lambda packet: pad(frame_of(packet, [(CTAG, vid)]))

    return pcap(merged(
        framed(visit(), wrap=tagged(10)), framed(visit(start_ms=1), wrap=tagged(20)), framed(visit(start_ms=2)),
    ))  # fmt: skip


@capture("qinq.pcap")
def qinq() -> bytes:
    """802.1ad: service tag 100 (0x88a8) over customer tag 10 (0x8100), and two 0x8100 tags."""
    service = framed(*family4(), wrap=lambda packet: pad(frame_of(packet, [(STAG, 100), (CTAG, 10)])))
    stacked = framed(visit(sport=40002), wrap=lambda packet: pad(frame_of(packet, [(CTAG, 200), (CTAG, 20)])))
    return pcap(merged(service, stacked))


@capture("mpls.pcap")
def mpls_labels() -> bytes:
    """MPLS with two labels over IPv4 and IPv6."""
    return pcap(framed(*family4(), *family6(), wrap=lambda packet: _under(MPLS, packet, mpls(packet, 16001, 24))))


@capture("pppoe.pcap")
def pppoe_session() -> bytes:
    """PPPoE sessions over IPv4 and IPv6; discovery and LCP, which are not IP."""

    def wrap(packet: bytes) -> bytes:
        protocol = PPP_IPV4 if packet[0] >> 4 == 4 else PPP_IPV6
        return _under(PPPOE_SESSION, packet, pppoe(protocol, packet))

    client, server = mac_of(CLIENT), mac_of(SERVER)
    padi = struct.pack(">BBHHHH", 0x11, 0x09, 0, 4, 0x0101, 0)
    echo_request = pppoe(PPP_LCP, struct.pack(">BBHI", 9, 1, 8, 0x1234))
    control = [
        (EPOCH - 2 * MILLISECOND, pad(ethernet(BROADCAST, client, PPPOE_DISCOVERY, padi))),
        (EPOCH - MILLISECOND, pad(ethernet(server, client, PPPOE_SESSION, echo_request))),
    ]
    return pcap(control + framed(*family4(), *family6(), wrap=wrap))


@capture("vntag.pcap")
def vntag_ports() -> bytes:
    """VN-Tag (0x8926) alone, and over a VLAN tag."""

    def bare(packet: bytes) -> bytes:
        return _under(VNTAG, packet, vntag(ethertype(packet), packet, 5, 9))

    def over_vlan(packet: bytes) -> bytes:
        tagged = struct.pack(">HH", 10, ethertype(packet)) + packet
        return _under(VNTAG, packet, vntag(CTAG, tagged, 5, 9))

    return pcap(merged(framed(*family4(), wrap=bare), framed(visit(sport=40002), wrap=over_vlan)))


def _direction(packet: bytes) -> int:
    """Cooked captures are taken on the client: it sends (4) what the others receive (0)."""
    return 4 if addresses(packet)[0] in (CLIENT, CLIENT6) else 0


@capture("sll.pcap")
def cooked() -> bytes:
    """Linux cooked capture v1."""
    return pcap(framed(*family4(), *family6(), wrap=lambda packet: sll(packet, _direction(packet))), DLT_SLL)


@capture("sll2.pcap")
def cooked2() -> bytes:
    """Linux cooked capture v2."""
    return pcap(framed(*family4(), *family6(), wrap=lambda packet: sll2(packet, _direction(packet))), DLT_SLL2)


@capture("raw-ip.pcap")
def raw_ip() -> bytes:
    """No link layer: IPv4 and IPv6 packets by their version."""
    return pcap(framed(*family4(), *family6(), wrap=bytes), DLT_RAW)


def _family(packet: bytes, inet6: int) -> int:
    return AF_INET if packet[0] >> 4 == 4 else inet6


@capture("null-loopback.pcap")
def null_loopback() -> bytes:
    """BSD loopback: the address family in the capturing host's order, here little-endian."""

    def wrap(packet: bytes) -> bytes:
        return struct.pack("<I", _family(packet, 30)) + packet

    return pcap(framed(*family4(), *family6(), wrap=wrap), DLT_NULL)


@capture("loop.pcap")
def loop() -> bytes:
    """OpenBSD loopback: the address family in network order."""

    def wrap(packet: bytes) -> bytes:
        return struct.pack(">I", _family(packet, 24)) + packet

    return pcap(framed(*family4(), *family6(), wrap=wrap), DLT_LOOP)


def _lldp() -> bytes:
    """Chassis, port, time to live, system name, end (IEEE 802.1AB)."""
    values = [(1, b"\x04" + mac_of(SERVER)), (2, b"\x05eth1"), (3, b"\0\x78"), (5, b"leaf-1"), (0, b"")]
    return b"".join(struct.pack(">H", kind << 9 | len(value)) + value for kind, value in values)


def _bpdu() -> bytes:
    """A spanning tree hello in an 802.3 frame with LLC."""
    bridge = b"\x80\0" + mac_of(SERVER)
    times = struct.pack(">HHHHH", 0x8001, 0, 20 << 8, 2 << 8, 15 << 8)
    llc = b"\x42\x42\x03" + bytes(5) + bridge + bytes(4) + bridge + times
    return ethernet(bytes.fromhex("0180c2000000"), mac_of(SERVER), len(llc), llc)


@capture("arp-and-lldp.pcap")
def arp_and_lldp() -> bytes:
    """Frames that are not IP: ARP, gratuitous ARP, RARP, LLDP, spanning tree; and one ping."""
    client, server = (mac_of(CLIENT), CLIENT), (mac_of(SERVER), SERVER)
    frames = [
        ethernet(BROADCAST, client[0], ARP, arp(1, client, (UNKNOWN, SERVER))),
        ethernet(client[0], server[0], ARP, arp(2, server, client)),
        ethernet(BROADCAST, server[0], ARP, arp(1, server, (UNKNOWN, SERVER))),
        ethernet(BROADCAST, client[0], RARP, arp(3, (client[0], "0.0.0.0"), (client[0], "0.0.0.0"))),
        ethernet(bytes.fromhex("0180c200000e"), server[0], LLDP, _lldp()),
        _bpdu(),
    ]
    control: list[Frame] = [(EPOCH + i * MILLISECOND, pad(frame)) for i, frame in enumerate(frames)]
    return pcap(merged(control, framed(family4()[-1])))
