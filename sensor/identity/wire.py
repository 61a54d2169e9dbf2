"""What the packets say that name VMs and switches: ARP, RARP, neighbour discovery, DHCP, LLDP, CDP. Read with dpkt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import dpkt
import numpy as np
from dpkt import arp, cdp, dhcp, icmp6

from sensor import native
from sensor.identity.heard import Heard, HeardKind
from sensor.identity.octets import (
    BROADCAST,
    CDP,
    DHCP6,
    LLDP,
    ND,
    UnreadableError,
    address_text,
    card_address,
    domain_name,
    elements_of,
    first_of,
    host_address,
    host_name,
    text_of,
)  # fmt: skip
from sensor.native import NumpyArray


class Reader:
    """Reads the notices of one window after the other.

    ``unreadable`` counts the packets so far that could not be read: malformed, cut before what they have to say, or
    about addresses that no card can have.
    """

    def __init__(self) -> None:
        self.unreadable = 0

    def read(self, notices: NumpyArray) -> list[Heard]:
        """What the packets (dtype ``NOTICE``) said, in their order."""
        heard: list[Heard] = []
        for packet in _packets(notices):
            try:
                heard += _READERS[packet.kind](packet)
            except (UnreadableError, dpkt.UnpackError):
                self.unreadable += 1
        return heard


def read_notices(notices: NumpyArray) -> list[Heard]:
    """What the packets (dtype ``NOTICE``) said; what cannot be read is left out."""
    return Reader().read(notices)


# ---- the packets


class _Packet(NamedTuple):
    """A notice; addresses as they were on the wire, empty where there were none."""

    ts_ns: int
    kind: str
    octets: bytes
    vlan: tuple[int, ...]
    vni: int | None
    vtep: bytes
    src_mac: bytes
    dst_mac: bytes
    src_ip: bytes
    dst_ip: bytes

    def says(
        self, kind: HeardKind, mac: bytes, ip: str | None = None, target: str | None = None, name: str | None = None,
        port: str | None = None, gratuitous: bool = False, reply: bool = False,
    ) -> Heard:  # fmt: skip
        """One thing that this packet says of a card. Who speaks for another card is not on that card's host."""
        vtep = address_text(self.vtep) if self.vtep and mac == self.src_mac else None
        return Heard(
            self.ts_ns, kind, mac.hex(":"), self.vlan, self.vni, vtep, ip, target, name, port, gratuitous, reply
        )


_OVERLAYS = [native.TUNNELS.index(word) for word in ("vxlan", "geneve", "gre", "nvgre")]
"""Tunnels between the hosts of VMs. ERSPAN's ends are the mirroring switch and the sensor."""


def _packets(notices: NumpyArray) -> Iterator[_Packet]:
    """The rows as plain Python values: column by column, which is far faster than row by row."""
    column = {
        name: notices[name].tolist() for name in ("ts_ns", "vni", "size", "kind", "has_vni", "vlan", "vlan_count")
    }
    outside = np.where(np.isin(notices["tunnel"], _OVERLAYS), notices["outer_ip_version"], 0)
    octets, macs = _split(notices["octets"]), zip(_split(notices["src_mac"]), _split(notices["dst_mac"]), strict=True)
    ips = zip(_ip(notices, "src_ip"), _ip(notices, "dst_ip"), strict=True)
    vteps = _ip(notices, "outer_src", outside)
    for ts_ns, vni, size, kind, has_vni, vlan, tags, vtep, held, (src_mac, dst_mac), (src_ip, dst_ip) in zip(
        *column.values(), vteps, octets, macs, ips, strict=True
    ):
        yield _Packet(
            ts_ns, native.NOTICES[kind], held[:size], tuple(vlan[:tags]), vni if has_vni else None, vtep, src_mac,
            dst_mac, src_ip, dst_ip,
        )  # fmt: skip


def _split(column: NumpyArray) -> list[bytes]:
    octets, width = column.tobytes(), column.shape[1]
    return [octets[at : at + width] for at in range(0, len(octets), width)]


_IP_OCTETS = {0: 0, 4: 4, 6: 16}


def _ip(notices: NumpyArray, name: str, versions: NumpyArray | None = None) -> list[bytes]:
    """IP addresses at their length: 4 or 16 octets, 0 where there is none."""
    sizes = (notices["ip_version"] if versions is None else versions).tolist()
    return [octets[: _IP_OCTETS[version]] for octets, version in zip(_split(notices[name]), sizes, strict=True)]


# ---- ARP and RARP

_LINK_LOCAL = b"\xa9\xfe"
"""169.254/16: there, replies are broadcast too (RFC 3927 section 2.5)."""


def _arp(packet: _Packet) -> list[Heard]:
    """RFC 826; probes and announcements: RFC 5227."""
    message = _ethernet_arp(packet)
    mac, spa, tpa = card_address(message.sha), message.spa, message.tpa
    if message.op == arp.ARP_OP_REPLY:
        to_all = packet.dst_mac == BROADCAST and spa[:2] != _LINK_LOCAL
        return [packet.says("binding", mac, host_address(spa), gratuitous=spa == tpa or to_all, reply=True)]
    if message.op != arp.ARP_OP_REQUEST:
        raise UnreadableError
    if not any(spa):
        return [packet.says("request", mac, None, host_address(tpa))]
    ip = host_address(spa)
    if spa == tpa:
        return [packet.says("binding", mac, ip, gratuitous=True)]
    return [packet.says("request", mac, ip, host_address(tpa)), packet.says("binding", mac, ip)]


def _rarp(packet: _Packet) -> list[Heard]:
    """RFC 903. A hypervisor asks in the name of a VM that has moved, so that switches learn its new port."""
    message = _ethernet_arp(packet)
    if message.op == arp.ARP_OP_REVREPLY:
        return []
    if message.op != arp.ARP_OP_REVREQUEST:
        raise UnreadableError
    return [packet.says("rarp", card_address(message.sha))]


def _ethernet_arp(packet: _Packet) -> Any:
    message = arp.ARP(packet.octets)
    ethernet = message.hrd in (arp.ARP_HRD_ETH, arp.ARP_HRD_IEEE802) and message.hln == 6
    if not ethernet or message.pro != arp.ARP_PRO_IP or message.pln != 4:
        raise UnreadableError
    return message


# ---- neighbour discovery

_OWN_LINK, _TARGET_LINK = 1, 2
_ND_HEADER = {
    icmp6.ND_ROUTER_SOLICIT: 8, icmp6.ND_ROUTER_ADVERT: 16, icmp6.ND_NEIGHBOR_SOLICIT: 24, icmp6.ND_NEIGHBOR_ADVERT: 24
}  # fmt: skip
_SOLICITED = 0x40


def _nd(packet: _Packet) -> list[Heard]:
    """RFC 4861; duplicate address detection: RFC 4862 section 5.4. Redirects tell nothing of who has an address."""
    message, octets = icmp6.ICMP6(packet.octets), packet.octets
    if message.type == icmp6.ND_REDIRECT:
        return []
    header = _ND_HEADER.get(message.type)
    if header is None or message.code or len(octets) < header or len(octets) % 8 or len(packet.src_ip) != 16:
        raise UnreadableError
    links = {kind: value[:6] for kind, value in reversed(elements_of(ND, octets, header))}
    if message.type == icmp6.ND_NEIGHBOR_ADVERT:
        asked = bool(octets[4] & _SOLICITED)
        if asked and packet.dst_ip[0] == 0xFF:
            raise UnreadableError
        mac = card_address(links.get(_TARGET_LINK, packet.src_mac))
        return [packet.says("binding", mac, host_address(octets[8:24]), gratuitous=not asked, reply=asked)]
    own = links.get(_OWN_LINK) if any(packet.src_ip) else None
    ip = host_address(packet.src_ip) if any(packet.src_ip) else None
    heard = [packet.says("binding", card_address(own), ip)] if own else []
    if message.type == icmp6.ND_NEIGHBOR_SOLICIT:
        heard.insert(0, packet.says("request", card_address(own or packet.src_mac), ip, host_address(octets[8:24])))
    return heard


# ---- DHCP

_HOST_NAME, _REQUESTED, _OVERLOAD, _MESSAGE_TYPE, _FQDN = 12, 50, 52, 53, 81
_FQDN_ENCODED = 0x04
_DHCP_HEADER = 240


def _dhcp(packet: _Packet) -> list[Heard]:
    """RFC 2131. Behind a relay the domain is not the client's, so there only its name counts, not its address."""
    header = dhcp.DHCP(packet.octets[:_DHCP_HEADER])
    if header.magic != dhcp.DHCP_MAGIC or header.hrd != arp.ARP_HRD_ETH or header.hln != 6:
        raise UnreadableError
    mac, options = card_address(header.chaddr), _dhcp_options(packet.octets)
    if len(options.get(_MESSAGE_TYPE, b"")) != 1:
        raise UnreadableError
    kind, asks = options[_MESSAGE_TYPE][0], header.op == dhcp.DHCP_OP_REQUEST
    on_its_segment = packet.src_mac == mac if asks else packet.dst_mac in (mac, BROADCAST)
    if asks != (kind not in (dhcp.DHCPOFFER, dhcp.DHCPACK, dhcp.DHCPNAK)):
        raise UnreadableError
    if not asks and kind != dhcp.DHCPACK:
        return []
    ip = _dhcp_address(kind, header, options) if on_its_segment else None
    heard = [packet.says("binding", mac, ip)] if kind == dhcp.DHCPACK and ip and header.yiaddr else []
    name = _dhcp_name(options)
    if name:
        heard.append(packet.says("hostname", mac, ip, name=name))
    return heard


def _dhcp_options(octets: bytes) -> dict[int, bytes]:
    """RFC 2132; an option that comes twice is a long one in parts (RFC 3396); file and server name may hold more.

    By hand: dpkt takes an option that was cut for a whole one, and so half of a name for a name.
    """
    options: dict[int, bytes] = {}
    _collect(octets[_DHCP_HEADER:], options)
    overload = options.get(_OVERLOAD, b"\0")[:1]
    for bit, area in ((1, octets[108:236]), (2, octets[44:108])):
        if overload and overload[0] & bit:
            _collect(area, options)
    return options


def _collect(octets: bytes, options: dict[int, bytes]) -> None:
    at = 0
    while at + 1 < len(octets) and octets[at] != 0xFF:
        if octets[at] == 0:  # padding, of one octet
            at += 1
            continue
        code, value = octets[at], octets[at + 2 : at + 2 + octets[at + 1]]
        if len(value) < octets[at + 1]:
            return
        options[code] = options.get(code, b"") + value
        at += 2 + len(value)


def _dhcp_address(kind: int, header: Any, options: dict[int, bytes]) -> str | None:
    """The address that a message says the client has or is about to have (RFC 2131 table 5 and section 4.3)."""
    ip = b""
    if kind == dhcp.DHCPACK:
        ip = (header.yiaddr or header.ciaddr).to_bytes(4, "big")
    elif kind == dhcp.DHCPREQUEST:
        ip = header.ciaddr.to_bytes(4, "big") if header.ciaddr else options.get(_REQUESTED, b"")
    elif kind == dhcp.DHCPINFORM:
        ip = header.ciaddr.to_bytes(4, "big")
    return host_address(ip) if len(ip) == 4 and any(ip) else None


def _dhcp_name(options: dict[int, bytes]) -> str | None:
    """The host name, else the fully qualified one (RFC 4702), which says itself how it is written."""
    name = host_name(options.get(_HOST_NAME, b""))
    fqdn = options.get(_FQDN, b"")
    if name or len(fqdn) < 3:
        return name
    return host_name(domain_name(fqdn[3:]) if fqdn[0] & _FQDN_ENCODED else fqdn[3:])


# ---- DHCP for IPv6

_SOLICIT, _REQUEST, _CONFIRM, _RENEW, _REBIND, _REPLY, _RELEASE, _DECLINE, _INFORM = 1, 3, 4, 5, 6, 7, 8, 9, 11
_NAMES_ITSELF = (_SOLICIT, _REQUEST, _CONFIRM, _RENEW, _REBIND, _REPLY, _RELEASE, _DECLINE, _INFORM)
_NAMES_ITS_ADDRESS = (_REQUEST, _CONFIRM, _RENEW, _REBIND, _REPLY)
_RELAYS, _RELAY_HEADER, _MOST_RELAYS = (12, 13), 34, 8
_CLIENT_ID, _IA_NA, _IA_ADDRESS, _RELAYED, _CLIENT_FQDN, _CLIENT_LINK = 1, 3, 5, 9, 39, 79
_LINK_LOCAL6 = b"\xfe\x80"


def _dhcp6(packet: _Packet) -> list[Heard]:
    """RFC 8415. As with DHCP, a relayed message counts for the name only."""
    octets, link = _unrelayed(packet.octets)
    if len(octets) < 4 or octets[0] == 0:
        raise UnreadableError
    kind, options = octets[0], elements_of(DHCP6, octets, 4)
    if kind not in _NAMES_ITSELF:
        return []
    peer, mac = (packet.dst_ip, packet.dst_mac) if kind == _REPLY else (packet.src_ip, packet.src_mac)
    direct = octets is packet.octets and peer[:2] == _LINK_LOCAL6
    said = first_of(options)
    card = _dhcp6_card(mac if direct else link, said.get(_CLIENT_ID, b""))
    ips = _leased(options) if direct and kind in _NAMES_ITS_ADDRESS else []
    heard = [packet.says("binding", card, ip) for ip in ips if kind == _REPLY]
    name = host_name(domain_name(said.get(_CLIENT_FQDN, b"")[1:]))  # RFC 4704: an octet of flags, then the name
    if name:
        heard.append(packet.says("hostname", card, ips[0] if ips else None, name=name))
    return heard


def _unrelayed(octets: bytes) -> tuple[bytes, bytes]:
    """The client's own message, and its MAC address where the first relay tells it (RFC 6939)."""
    link = b""
    for _ in range(_MOST_RELAYS):
        if octets[:1] not in (b"\x0c", b"\x0d"):
            return octets, link
        options = first_of(elements_of(DHCP6, octets, _RELAY_HEADER))
        octets, link = options.get(_RELAYED, b""), options.get(_CLIENT_LINK, b"")[2:]
    raise UnreadableError


def _dhcp6_card(link: bytes, duid: bytes) -> bytes:
    """The client's MAC address: the frame's or the relay's word, else that in a DUID-LLT or DUID-LL (section 11).

    The DUID comes last: VMs that were cloned share it, and it may hold the address of another card.
    """
    if len(link) == 6 and not link[0] & 1 and any(link):
        return link
    kind = duid[:4]
    return card_address(duid[8:] if kind == b"\0\1\0\1" else duid[4:] if kind == b"\0\3\0\1" else b"")


def _leased(options: list[tuple[int, bytes]]) -> list[str]:
    """The addresses of the message that are valid for any time at all."""
    found = []
    for value in (value for code, value in options if code == _IA_NA):
        for code, address in elements_of(DHCP6, value, 12):
            if code == _IA_ADDRESS and len(address) >= 24 and any(address[20:24]):
                found.append(host_address(address[:16]))
    return found


# ---- LLDP and CDP

_CHASSIS, _PORT, _LIFETIME, _PORT_DESCRIPTION, _SYSTEM_NAME, _CAPABILITIES = 1, 2, 3, 4, 5, 7
_CHASSIS_MAC, _CHASSIS_ADDRESS, _PORT_MAC, _PORT_ADDRESS, _PORT_INTERFACE = 4, 5, 3, 4, 5
_LLDP_FORWARDS = 0x071E
"""Repeater, bridge, access point, router, and the VLAN components: what a mirror can be fed from."""


def _lldp(packet: _Packet) -> list[Heard]:
    """IEEE 802.1AB clause 8. A lifetime of 0 is a farewell; a mere station has no port to feed a mirror from."""
    said = first_of(elements_of(LLDP, packet.octets))
    chassis, port, lifetime = (said.get(kind, b"") for kind in (_CHASSIS, _PORT, _LIFETIME))
    if len(chassis) < 2 or len(port) < 2 or len(lifetime) < 2:
        raise UnreadableError
    enabled = int.from_bytes(said.get(_CAPABILITIES, b"")[2:4], "big")
    if not any(lifetime[:2]) or (enabled and not enabled & _LLDP_FORWARDS):
        return []
    name = text_of(said.get(_SYSTEM_NAME, b"")) or _lldp_id(chassis, _CHASSIS_MAC, _CHASSIS_ADDRESS)
    where = _lldp_id(port, _PORT_MAC, _PORT_ADDRESS)
    if port[0] != _PORT_INTERFACE:
        where = text_of(said.get(_PORT_DESCRIPTION, b"")) or where
    return [packet.says("switch_port", packet.src_mac, name=name, port=where)]


def _lldp_id(value: bytes, mac: int, address: int) -> str:
    """A chassis or port id: a subtype, then a MAC address, an address behind its IANA family, or a text."""
    subtype, value = value[0], value[1:]
    if subtype == mac and len(value) == 6:
        return value.hex(":")
    if subtype == address and (value[0], len(value)) in ((1, 5), (2, 17)):
        return address_text(value[1:])
    return text_of(value) or value.hex()


_CDP_FORWARDS = 0x4B
"""Router, transparent bridge, switch, repeater."""


def _cdp(packet: _Packet) -> list[Heard]:
    """Cisco Discovery Protocol. The elements by hand, for dpkt takes one that was cut for a whole one."""
    header = cdp.CDP(packet.octets[:4])
    said = first_of(elements_of(CDP, packet.octets, 4))
    name = text_of(said.get(cdp.CDP_SYSTEM_NAME, b"")) or text_of(said.get(cdp.CDP_DEVID, b""))
    port = text_of(said.get(cdp.CDP_PORTID, b""))
    if header.version not in (1, 2) or not name or not port:
        raise UnreadableError
    able = int.from_bytes(said.get(cdp.CDP_CAPABILITIES, b""), "big")
    if header.ttl == 0 or (able and not able & _CDP_FORWARDS):
        return []
    return [packet.says("switch_port", packet.src_mac, name=name, port=port)]


_READERS: dict[str, Callable[[_Packet], list[Heard]]] = {
    "arp": _arp, "rarp": _rarp, "nd": _nd, "dhcp": _dhcp, "dhcp6": _dhcp6, "lldp": _lldp, "cdp": _cdp
}  # fmt: skip
