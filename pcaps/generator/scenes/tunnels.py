"""Overlays and other tunnels."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from ..clock import EPOCH, MILLISECOND
from ..files import pcap
from ..headers import IPIP, SIX_IN_IP, addresses, ip
from ..links import ARP, BROADCAST, CTAG, IPV4, TEB, arp, ethernet, ethertype, frame_of, mac_of, on_wire
from ..registry import capture
from ..tunnels import (
    GENEVE_PORT,
    LINUX_VXLAN_PORT,
    VXLAN_PORT,
    erspan1,
    erspan2,
    erspan3,
    geneve,
    geneve_option,
    gre,
    in_gre,
    in_udp,
    nvgre,
    vxlan,
)  # fmt: skip
from .small import CLIENT, SERVER, family4, family6, framed, merged, visit

VTEP, VTEP6 = ("192.168.100.1", "192.168.100.2"), ("fd00:100::1", "fd00:100::2")
SWITCH, COLLECTOR = "192.168.100.9", "192.168.100.200"
TUNNEL_MSS = 1410
Ends = tuple[str, str]


def _outer(packet: bytes, ends: Ends) -> Ends:
    """The tunnel's ends as this packet crosses it: `ends[0]` hosts the clients, whose addresses end in 11."""
    return ends if addresses(packet)[0].endswith("11") else (ends[1], ends[0])


def _over_udp(dport: int, encapsulate: Callable[[bytes], bytes], ends: Ends = VTEP) -> Callable[[bytes], bytes]:
    idents = count(1)

    def wrap(packet: bytes) -> bytes:
        src, dst = _outer(packet, ends)
        sport = 0xC000 | sum(packet[12:20]) & 0x3FFF
        return on_wire(in_udp(src, dst, dport, encapsulate(packet), sport=sport, ident=next(idents)))

    return wrap


def _over_gre(encapsulate: Callable[[bytes], bytes], ends: Ends = VTEP) -> Callable[[bytes], bytes]:
    idents = count(1)
    return lambda packet: on_wire(in_gre(*_outer(packet, ends), encapsulate(packet), ident=next(idents)))


def _over_ip(ends: Ends) -> Callable[[bytes], bytes]:
    def wrap(packet: bytes) -> bytes:
        return on_wire(ip(*_outer(packet, ends), IPIP if packet[0] >> 4 == 4 else SIX_IN_IP, packet))

    return wrap


@capture("vxlan.pcap")
def vxlan_overlay() -> bytes:
    """VXLAN: the same five-tuple in VNI 5003 and 5004, an IPv6 underlay, Linux's old port, an ARP inside."""

    def virtual(vni: int) -> Callable[[bytes], bytes]:
        return lambda packet: vxlan(frame_of(packet), vni)

    question = ethernet(BROADCAST, mac_of(CLIENT), ARP, arp(1, (mac_of(CLIENT), CLIENT), (bytes(6), SERVER)))
    asked = on_wire(in_udp(*VTEP, VXLAN_PORT, vxlan(question, 5003)))
    return pcap(merged(
        [(EPOCH - MILLISECOND, asked)],
        framed(visit(mss=TUNNEL_MSS), *family4()[1:], wrap=_over_udp(VXLAN_PORT, virtual(5003))),
        framed(visit(mss=TUNNEL_MSS, start_ms=1), wrap=_over_udp(VXLAN_PORT, virtual(5004))),
        framed(visit(mss=TUNNEL_MSS, start_ms=2), wrap=_over_udp(VXLAN_PORT, virtual(5005), VTEP6)),
        framed(visit(mss=TUNNEL_MSS, start_ms=3), wrap=_over_udp(LINUX_VXLAN_PORT, virtual(5006))),
    ))  # fmt: skip


@capture("geneve.pcap")
def geneve_overlay() -> bytes:
    """Geneve: with 12 octets of options around Ethernet, and without around IPv4 and IPv6."""
    options = geneve_option(0x0102, 1, b"\0\0\0\x2a") + geneve_option(0x0104, 2, b"")
    bridged = _over_udp(GENEVE_PORT, lambda packet: geneve(frame_of(packet), 6001, TEB, options))
    routed = _over_udp(GENEVE_PORT, lambda packet: geneve(packet, 6002, ethertype(packet)))
    return pcap(merged(
        framed(visit(mss=1400), *family4()[1:], wrap=bridged),
        framed(visit(mss=1400, start_ms=1), *family6()[1:], wrap=routed),
    ))  # fmt: skip


@capture("gre.pcap")
def gre_tunnel() -> bytes:
    """GRE: bare, with checksum, key and sequence number, over IPv6, and bridging without a key."""
    numbers = count(1)

    def full(packet: bytes) -> bytes:
        return gre(packet, ethertype(packet), key=0xBEEF, sequence=next(numbers), checked=True)

    return pcap(merged(
        framed(visit(mss=1436), *family4()[1:], wrap=_over_gre(lambda packet: gre(packet, IPV4))),
        framed(visit(mss=1424, start_ms=1), *family6()[1:], wrap=_over_gre(full)),
        framed(visit(mss=1416, sport=40002), wrap=_over_gre(lambda packet: gre(packet, IPV4), VTEP6)),
        framed(visit(mss=1422, sport=40003), wrap=_over_gre(lambda packet: gre(frame_of(packet), TEB))),
    ))  # fmt: skip


@capture("nvgre.pcap")
def nvgre_overlay() -> bytes:
    """NVGRE: the same five-tuple in virtual subnets 7001 and 7002, flow hash in the key."""
    first = _over_gre(lambda packet: nvgre(frame_of(packet), 7001, 0x5A))
    second = _over_gre(lambda packet: nvgre(frame_of(packet), 7002, 0xA5))
    return pcap(merged(framed(visit(mss=TUNNEL_MSS), *family4()[1:], wrap=first),
                       framed(visit(mss=TUNNEL_MSS, start_ms=1), wrap=second)))  # fmt: skip


def _mirrored(encapsulate: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """A switch sends both directions of what it mirrors one way: to the collector."""
    idents = count(1)
    return lambda packet: on_wire(in_gre(SWITCH, COLLECTOR, encapsulate(packet), ident=next(idents)))


@capture("erspan1.pcap")
def erspan_type1() -> bytes:
    """ERSPAN type I: bare GRE; both directions come from the switch."""
    return pcap(framed(*family4(), wrap=_mirrored(lambda packet: erspan1(frame_of(packet)))))


@capture("erspan2.pcap")
def erspan_type2() -> bytes:
    """ERSPAN type II: VLAN 10 in its header around untagged frames; a tagged frame inside."""
    numbers = count(1)
    untagged = _mirrored(lambda packet: erspan2(frame_of(packet), sequence=next(numbers), vlan=10))
    tagged = _mirrored(lambda packet: erspan2(frame_of(packet, [(CTAG, 20)]), sequence=next(numbers), vlan=20))
    return pcap(merged(framed(*family4(), wrap=untagged), framed(visit(sport=40002), wrap=tagged)))


@capture("erspan3.pcap")
def erspan_type3() -> bytes:
    """ERSPAN type III: without and with the platform subheader."""
    numbers = count(1)
    plain = _mirrored(lambda packet: erspan3(frame_of(packet), sequence=next(numbers), vlan=10))
    platform = bytes.fromhex("0c00000000000001")
    longer = _mirrored(lambda packet: erspan3(frame_of(packet), sequence=next(numbers), vlan=30, platform=platform))
    return pcap(merged(framed(*family4(), wrap=plain), framed(visit(sport=40002), wrap=longer)))


@capture("ip-in-ip.pcap")
def ip_in_ip() -> bytes:
    """IPv4 in IPv4, IPv6 in IPv4 (6in4), IPv4 in IPv6 (4in6), IPv6 in IPv6."""
    return pcap(merged(
        framed(*family4(), wrap=_over_ip(VTEP)),
        framed(*family6(), wrap=_over_ip(VTEP)),
        framed(visit(sport=40002), wrap=_over_ip(VTEP6)),
        framed(visit("2001:db8:2::11", "2001:db8:2::12", sport=40003, mss=1400), wrap=_over_ip(VTEP6)),
    ))  # fmt: skip


@capture("nested.pcap")
def nested() -> bytes:
    """Three tunnels deep: Ethernet in VXLAN, in GRE, in IPv4 in IPv4 behind a VLAN tag."""

    def wrap(packet: bytes) -> bytes:
        overlay = in_udp(*_outer(packet, VTEP), VXLAN_PORT, vxlan(frame_of(packet, [(CTAG, 30)]), 5003))
        carried = in_gre(*_outer(packet, ("172.16.0.1", "172.16.0.2")), gre(overlay, IPV4, key=1))
        delivery = ip(*_outer(packet, ("172.31.0.1", "172.31.0.2")), IPIP, carried)
        return frame_of(delivery, [(CTAG, 99)])

    return pcap(framed(visit(mss=1300), *family4()[1:], wrap=wrap))
