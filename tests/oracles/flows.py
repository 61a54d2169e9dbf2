"""What the oracles have in common: a packet as a flow table sees it, and packets summed into flows.

Nothing here decodes. An oracle gives one verdict a frame; summing them up follows the definitions of the flow record.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import NamedTuple

ICMP, TCP, UDP, ICMP6, SCTP = 1, 6, 17, 58, 132
WITH_PORTS = (TCP, UDP, SCTP)
LOWEST_VSID = 0x1000
VLANS_KEPT = 4  # of the tags of a frame, in a flow record
HOP_BY_HOP, ROUTING, FRAGMENT_HEADER, AH, NO_NEXT, DESTINATION = 0, 43, 44, 51, 59, 60
EXTENSION_HEADERS = {4: (AH,), 6: (HOP_BY_HOP, ROUTING, FRAGMENT_HEADER, AH, DESTINATION)}
"""What stands between the IP header and the payload, by IP version: RFC 8200 section 4, RFC 4302."""


@dataclass(frozen=True)
class Fragment:
    """Which datagram a fragment belongs to, and whether it begins it."""

    identification: int
    first: bool


@dataclass(frozen=True)
class Packet:
    """The innermost IP packet of a frame.

    For ICMP, ``ports`` is type and code; None where there are none. ``carriers`` are the tunnel packets around it that
    are first fragments: their later fragments, which hold no IP header of the inside, belong to the tunnel's own flow.
    """

    protocol: int
    src: str
    dst: str
    ports: tuple[int, int] | None
    octets: int
    vlans: tuple[int, ...] = ()
    vni: int | None = None
    fragment: Fragment | None = None
    carriers: tuple[Packet, ...] = ()


Verdict = Packet | None
"""What an oracle says about a frame: None when it holds no IP packet that could be in a flow."""


class Endpoint(NamedTuple):
    """One side of a flow."""

    ip: str
    port: int | None

    def order(self) -> tuple[int, bytes, int]:
        """Sorts endpoints the same way everywhere."""
        address = ip_address(self.ip)
        return address.version, address.packed, -1 if self.port is None else self.port


class Key(NamedTuple):
    """What tells bidirectional flows apart in the records; ``low`` sorts before ``high``."""

    protocol: int
    low: Endpoint
    high: Endpoint
    vlans: tuple[int, ...]
    vni: int | None


@dataclass
class Counts:
    """Packets and IP octets of a flow: ``up`` from the low endpoint to the high one, ``down`` the other way."""

    up_packets: int = 0
    up_octets: int = 0
    down_packets: int = 0
    down_octets: int = 0

    def add(self, up: bool, packets: int, octets: int) -> None:
        """Counts ``packets`` of one direction."""
        if up:
            self.up_packets += packets
            self.up_octets += octets
        else:
            self.down_packets += packets
            self.down_octets += octets


def key_and_direction(
    protocol: int, src: Endpoint, dst: Endpoint, vlans: tuple[int, ...], vni: int | None
) -> tuple[Key, bool]:
    """The key of a packet's flow, and whether the packet goes from its low endpoint to its high one."""
    up = src.order() <= dst.order()
    low, high = (src, dst) if up else (dst, src)
    return Key(protocol, low, high, vlans[:VLANS_KEPT], vni), up


@dataclass
class FragmentMemory:
    """Gives later fragments what only the first one carries."""

    seen: dict[tuple[object, ...], tuple[int, tuple[int, int] | None]] = field(default_factory=dict)

    def resolve(self, packet: Packet) -> Packet:
        """The packet with the protocol and ports of its datagram's first fragment, where that came before."""
        for carrier in packet.carriers:
            self.resolve(carrier)
        if packet.fragment is None:
            return packet
        datagram = (packet.src, packet.dst, packet.fragment.identification, packet.vlans, packet.vni)
        if packet.fragment.first:
            self.seen[datagram] = packet.protocol, packet.ports
            return packet
        protocol, ports = self.seen.get(datagram, (packet.protocol, None))
        return replace(packet, protocol=protocol, ports=ports)


def whole(verdicts: Iterable[Verdict]) -> list[Packet]:
    """The packets that are in flows, fragments completed."""
    memory = FragmentMemory()
    return [memory.resolve(packet) for packet in verdicts if packet is not None]


def virtual_subnet(key: int) -> int:
    """The VNI in the key of bridging GRE: NVGRE's VSID (RFC 7637), or the whole key where that would be reserved.

    The upper 24 bits are the VSID, the lower 8 a flow hash. VSIDs below 4096 are reserved; a key that small is a plain
    one (RFC 2890), unless it has its lower 8 bits clear, as NVGRE without a hash has them.
    """
    nvgre = key >> 8 >= LOWEST_VSID or (key > 0xFF and key & 0xFF == 0)
    return key >> 8 if nvgre else key


def direction(packet: Packet) -> tuple[Key, bool]:
    """The key of a packet's flow and its direction in it. ICMP types are left out, as they are in the flow record."""
    sport, dport = packet.ports if packet.ports and packet.protocol in WITH_PORTS else (None, None)
    src, dst = Endpoint(packet.src, sport), Endpoint(packet.dst, dport)
    return key_and_direction(packet.protocol, src, dst, packet.vlans, packet.vni)


def flows(verdicts: Iterable[Verdict]) -> dict[Key, Counts]:
    """Bidirectional flows."""
    table: dict[Key, Counts] = {}
    for packet in whole(verdicts):
        key, up = direction(packet)
        table.setdefault(key, Counts()).add(up, 1, packet.octets)
    return table
