"""Packets that name VMs and switches: who has which address, what it calls itself, where the mirror is fed from."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from ..clock import EPOCH, MILLISECOND, SECOND
from ..files import Frame, pcap
from ..headers import ICMP6, UDP, checksum, icmp6, ip, ipv6, packed, udp
from ..links import ARP, BROADCAST, CTAG, IPV4, IPV6, LLDP, RARP, arp, ethernet, mac_of, pad
from ..registry import capture
from ..tunnels import VXLAN_PORT, in_udp, vxlan

WEB, APP = bytes.fromhex("5254000a0015"), bytes.fromhex("5254000a0016")
"""Cards as KVM gives them."""
ROUTER, SWITCH, PHONE = bytes.fromhex("00005e000101"), bytes.fromhex("001c73000001"), bytes.fromhex("001b54000001")
WEB4, APP4, ROUTER4, SERVER4 = "10.3.0.21", "10.3.0.22", "10.3.0.1", "10.3.9.53"
WEB6, APP6, ROUTER6 = "2001:db8:3::21", "2001:db8:3::22", "fe80::1"
WEB6_LINK, SERVER6_LINK = "fe80::5054:ff:fe0a:15", "fe80::53"
HOST_A, HOST_B = ("192.168.100.1", "192.168.100.2"), ("192.168.100.3", "192.168.100.2")
"""The tunnel's ends before and after a migration."""
ZERO, NOBODY = bytes(6), "0.0.0.0"
TENANT = [(CTAG, 30)]


def _every(step_ns: int, frames: Sequence[bytes], start_ns: int = 0) -> list[Frame]:
    return [(EPOCH + start_ns + i * step_ns, pad(frame)) for i, frame in enumerate(frames)]


# ARP and RARP.


def _asks(mac: bytes, address: str, target: str) -> bytes:
    return ethernet(BROADCAST, mac, ARP, arp(1, (mac, address), (ZERO, target)))


def _tagged(frame: bytes) -> bytes:
    return frame[:12] + struct.pack(">HH", *TENANT[0]) + frame[12:]


def _overlay(frame: bytes, ends: tuple[str, str], vni: int = 5003) -> bytes:
    outer = in_udp(*ends, VXLAN_PORT, vxlan(frame, vni))
    return ethernet(mac_of(ends[1]), mac_of(ends[0]), IPV4, outer)


@capture("names-arp.pcap")
def names_arp() -> bytes:
    """ARP in a VLAN and in VXLAN: request, reply, announcements, probe; RARP when a VM has moved to another host."""
    reply = ethernet(WEB, APP, ARP, arp(2, (APP, APP4), (WEB, WEB4)))
    announced = ethernet(BROADCAST, APP, ARP, arp(2, (APP, APP4), (BROADCAST, APP4)))
    moved = ethernet(BROADCAST, WEB, RARP, arp(3, (WEB, NOBODY), (WEB, NOBODY)))
    plain = [
        _asks(WEB, NOBODY, WEB4),  # a probe: is it free?
        _asks(WEB, WEB4, WEB4),  # an announcement
        _asks(WEB, WEB4, APP4),
        reply,
        announced,  # the other way to announce
    ]
    return pcap([
        *_every(10 * MILLISECOND, [_tagged(frame) for frame in plain]),
        *_every(10 * MILLISECOND, [_overlay(frame, HOST_A) for frame in plain], SECOND),
        *_every(10 * MILLISECOND, [_tagged(moved), _overlay(moved, HOST_B)], 2 * SECOND),
    ])  # fmt: skip


# DHCP.


def _option(code: int, value: bytes) -> bytes:
    return bytes((code, len(value))) + value


def _dhcp(kind: int, *options: bytes, ciaddr: str = NOBODY, yiaddr: str = NOBODY, giaddr: str = NOBODY) -> bytes:
    """A DHCP message of or for the web VM (RFC 2131)."""
    answers = kind in (2, 5, 6)
    fixed = struct.pack(">BBBBIHH", 1 + answers, 1, 6, int(giaddr != NOBODY), 0x3903F326, 0, 0)
    addresses = packed(ciaddr) + packed(yiaddr) + packed(NOBODY) + packed(giaddr)
    body = b"\x63\x82\x53\x63" + _option(53, bytes((kind,))) + b"".join(options) + b"\xff"
    return fixed + addresses + WEB + bytes(10 + 64 + 128) + body


def _udp_frame(macs: tuple[bytes, bytes], src: tuple[str, int], dst: tuple[str, int], payload: bytes) -> bytes:
    """A datagram from `macs[0]` to `macs[1]`."""
    kind = IPV6 if ":" in src[0] else IPV4
    return ethernet(macs[1], macs[0], kind, ip(src[0], dst[0], UDP, udp(*src, *dst, payload)))


def _lease() -> list[bytes]:
    """The four steps to an address, a renewal without them, and one leg of it behind a relay."""
    name, server, lease = _option(12, b"web-1"), _option(54, packed(SERVER4)), _option(51, struct.pack(">I", 3600))
    wish = _option(50, packed(WEB4))
    fqdn = _option(81, b"\x05\0\0\x05web-1\x05shops\x07example\0")
    everyone, booting = ("255.255.255.255", 67), (NOBODY, 68)
    offered, relay = ("255.255.255.255", 68), (ROUTER4, 67)
    ack = _dhcp(5, server, lease, yiaddr=WEB4)
    relayed = _dhcp(3, wish, server, name, giaddr=ROUTER4)
    renewal = _udp_frame((WEB, ROUTER), (WEB4, 68), (SERVER4, 67), _dhcp(3, fqdn, ciaddr=WEB4))
    return [
        _udp_frame((WEB, BROADCAST), booting, everyone, _dhcp(1, wish, name)),
        _udp_frame((ROUTER, BROADCAST), relay, offered, _dhcp(2, server, lease, yiaddr=WEB4)),
        _udp_frame((WEB, BROADCAST), booting, everyone, _dhcp(3, wish, server, name)),
        _udp_frame((ROUTER, SWITCH), relay, (SERVER4, 67), relayed),
        _udp_frame((ROUTER, BROADCAST), relay, offered, ack),
        renewal,
    ]


def _option6(code: int, value: bytes) -> bytes:
    return struct.pack(">HH", code, len(value)) + value


def _lease6() -> list[bytes]:
    """Request and reply with the name in them (RFC 8415, RFC 4704), and the request as a relay passes it on."""
    client = _option6(1, struct.pack(">HHI", 1, 1, 0x2A000000) + WEB)
    address = _option6(5, packed(WEB6) + struct.pack(">II", 1800, 3600))
    identity = _option6(3, struct.pack(">III", 1, 900, 1440) + address)
    fqdn = _option6(39, b"\x01\x05web-1\x05shops\x07example\0")
    request = b"\x03\x10\x20\x30" + client + identity + fqdn
    reply = b"\x07\x10\x20\x30" + client + identity + fqdn
    relayed = b"\x0c\0" + packed("2001:db8:3::1") + packed(WEB6_LINK) + _option6(9, request)
    asked, servers = "ff02::1:2", ("2001:db8:9::53", 547)
    return [
        _udp_frame((WEB, mac_of(asked)), (WEB6_LINK, 546), (asked, 547), request),
        _udp_frame((ROUTER, SWITCH), ("2001:db8:3::1", 547), servers, relayed),
        _udp_frame((ROUTER, WEB), (SERVER6_LINK, 547), (WEB6_LINK, 546), reply),
    ]


@capture("names-dhcp.pcap")
def names_dhcp() -> bytes:
    """DHCP with host name and FQDN, a renewal, one leg behind a relay; DHCPv6 with FQDN, direct and relayed."""
    return pcap(
        [
            *_every(10 * MILLISECOND, [_tagged(frame) for frame in _lease()]),
            *_every(10 * MILLISECOND, _lease6(), SECOND),
        ]
    )


# Neighbour discovery.


def _nd(macs: tuple[bytes, bytes], src: str, dst: str, kind: int, body: bytes) -> bytes:
    return ethernet(macs[1], macs[0], IPV6, ipv6(src, dst, ICMP6, icmp6(src, dst, kind, 0, body), hop_limit=255))


def _link(kind: int, mac: bytes) -> bytes:
    return bytes((kind, 1)) + mac


def _group(address: str) -> str:
    """The solicited-node group (RFC 4291 section 2.7.1)."""
    last = packed(address)[-3:]
    return f"ff02::1:ff{last[0]:02x}:{last[1]:02x}{last[2]:02x}"


@capture("names-nd.pcap")
def names_nd() -> bytes:
    """Neighbour discovery: router solicitation and advertisement, DAD, solicitation, both kinds of advertisement."""
    nobody, routers, nodes = "::", "ff02::2", "ff02::1"
    prefix = struct.pack(">BBBBIII", 3, 4, 64, 0xC0, 86400, 14400, 0) + packed("2001:db8:3::")
    router = struct.pack(">BBHII", 64, 0, 1800, 0, 0) + _link(1, ROUTER) + prefix
    asks = bytes(4) + packed(APP6) + _link(1, WEB)
    frames = [
        _nd((WEB, mac_of(routers)), WEB6_LINK, routers, 133, bytes(4) + _link(1, WEB)),
        _nd((ROUTER, mac_of(nodes)), ROUTER6, nodes, 134, router),
        _nd((WEB, mac_of(_group(WEB6))), nobody, _group(WEB6), 135, bytes(4) + packed(WEB6)),  # is it free?
        _nd((WEB, mac_of(nodes)), WEB6, nodes, 136, b"\x20\0\0\0" + packed(WEB6) + _link(2, WEB)),  # nobody asked
        _nd((WEB, mac_of(_group(APP6))), WEB6, _group(APP6), 135, asks),
        _nd((APP, WEB), APP6, WEB6, 136, b"\x60\0\0\0" + packed(APP6) + _link(2, APP)),
        _nd((APP, WEB), APP6, WEB6, 135, bytes(4) + packed(WEB6)),  # still there? From card to card, without options
        _nd((WEB, APP), WEB6, APP6, 136, b"\x40\0\0\0" + packed(WEB6)),
    ]
    return pcap(_every(10 * MILLISECOND, frames))


# LLDP and CDP.


def _lldp_element(kind: int, value: bytes) -> bytes:
    return struct.pack(">H", kind << 9 | len(value)) + value


def _lldp(mac: bytes, able: int, *elements: bytes) -> bytes:
    """A data unit with its three mandatory elements; the port is named by its interface (IEEE 802.1AB clause 8)."""
    unit = [
        _lldp_element(1, b"\x04" + mac), _lldp_element(2, b"\x05Ethernet12"), _lldp_element(3, struct.pack(">H", 120)),
        *elements, _lldp_element(7, struct.pack(">HH", able, able)), _lldp_element(0, b""),
    ]  # fmt: skip
    return ethernet(bytes.fromhex("0180c200000e"), mac, LLDP, b"".join(unit))


def _cdp_element(kind: int, value: bytes) -> bytes:
    return struct.pack(">HH", kind, 4 + len(value)) + value


def _cdp() -> bytes:
    elements = b"".join([
        _cdp_element(1, b"dist-2.example(FDO1)"), _cdp_element(3, b"GigabitEthernet1/0/24"),
        _cdp_element(4, struct.pack(">I", 0x29)), _cdp_element(6, b"C9300"),
    ])  # fmt: skip
    message = b"\x02\xb4" + struct.pack(">H", checksum(b"\x02\xb4\0\0" + elements)) + elements
    snap = b"\xaa\xaa\x03\x00\x00\x0c\x20\x00" + message
    return ethernet(bytes.fromhex("01000ccccccc"), SWITCH, len(snap), snap)


@capture("names-switch.pcap")
def names_switch() -> bytes:
    """LLDP of a switch, with and without a system name, and of a telephone, which feeds no mirror; CDP."""
    frames = [
        _lldp(SWITCH, 0x14, _lldp_element(4, b"to the monitoring host"), _lldp_element(5, b"leaf-1.example")),
        _lldp(SWITCH, 0x14),
        _lldp(PHONE, 0x20, _lldp_element(5, b"phone-7")),
        _cdp(),
    ]
    return pcap(_every(SECOND, frames))
