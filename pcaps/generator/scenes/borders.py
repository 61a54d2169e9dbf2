"""Borders between tenants and who crosses them; addresses that are forged, doubled, or taken over as they should be."""

from __future__ import annotations

from collections.abc import Iterator

from ..clock import EPOCH, MILLISECOND, SECOND
from ..conversation import Outcome, ping
from ..files import Frame, pcap
from ..links import ARP, BROADCAST, IPV4, arp, ethernet, frame_of, mac_of, pad
from ..registry import capture
from .life import ATTACKER, DB, PEER, SNAPLEN, WEB
from .small import framed, merged, visit

SHOP, BACKUP = "10.2.8.11", "10.2.9.5"
"""Of other tenants than the rest."""

UPDATES, LISTED, OUTSIDE = "192.0.2.80", "198.51.100.66", "203.0.113.9"
SERVICE = "10.2.0.20"
"""An address that one of two cards has."""

FIRST, SECOND_CARD = mac_of("10.2.0.21"), mac_of("10.2.0.22")


def _arp(at_ms: int, operation: int, sender: bytes, ip: str, target: bytes, target_ip: str, to: bytes) -> Frame:
    return EPOCH + at_ms * MILLISECOND, pad(
        ethernet(to, sender, ARP, arp(operation, (sender, ip), (target, target_ip)))
    )


def _asks(at_ms: int, client: str, wanted: str, *cards: bytes) -> Iterator[Frame]:
    """A question, and the answers of the cards that think they are meant."""
    own = mac_of(client)
    yield _arp(at_ms, 1, own, client, bytes(6), wanted, BROADCAST)
    for number, card in enumerate(cards):
        yield _arp(at_ms + 1 + number, 2, card, wanted, own, client, own)


def _announces(at_ms: int, card: bytes, ip: str, times: int) -> list[Frame]:
    return [_arp(at_ms + 100 * i, 1, card, ip, bytes(6), ip, BROADCAST) for i in range(times)]


def _pages(client: str, server: str, card: bytes, first: int, last: int, step_ms: int = 500) -> list[Frame]:
    """Pages of a server behind this card, between two times in ms."""

    def wrap(packet: bytes) -> bytes:
        src, dst = (card if packet[at : at + 4] == bytes(map(int, server.split("."))) else mac_of(client)
                    for at in (12, 16))  # fmt: skip
        return pad(ethernet(dst, src, IPV4, packet))

    visits = (visit(client, server, sport=44_000 + at % 20_000, start_ms=at, size=400)
              for at in range(first, last, step_ms))  # fmt: skip
    return framed(*visits, wrap=wrap)


@capture("behaviour/attack-arp-spoof.pcap")
def arp_spoof() -> bytes:
    """Two VMs talk; a third tells each of them every second that it is the other."""
    evil = mac_of(ATTACKER)
    known = [*_asks(100, PEER, WEB, mac_of(WEB)), *_asks(200, WEB, PEER, mac_of(PEER))]
    known += _asks(300, ATTACKER, WEB, mac_of(WEB))
    forged = [
        _arp(3000 + 1000 * second + number, 2, evil, says, mac_of(to), to, mac_of(to))
        for second in range(20)
        for number, (says, to) in enumerate(((WEB, PEER), (PEER, WEB)))
    ]
    return pcap(merged(known, forged, _pages(PEER, WEB, mac_of(WEB), 500, 24_000)), snaplen=SNAPLEN)


@capture("behaviour/attack-duplicate-address.pcap")
def duplicate_address() -> bytes:
    """Two VMs were given the same address: both answer whenever somebody asks for it."""
    asked = [frame for at in range(500, 24_000, 2000) for frame in _asks(at, PEER, SERVICE, FIRST, SECOND_CARD)]
    pages = _pages(PEER, SERVICE, FIRST, 600, 24_000, 1000), _pages(WEB, SERVICE, SECOND_CARD, 700, 24_000, 1000)
    return pcap(merged(asked, *pages), snaplen=SNAPLEN)


@capture("behaviour/clean-failover.pcap")
def failover() -> bytes:
    """No forgery: a service's address fails over to another card, and half a minute later back."""
    announced = [*_announces(8000, SECOND_CARD, SERVICE, 5), *_announces(38_000, FIRST, SERVICE, 5)]
    asked = [
        *_asks(200, PEER, SERVICE, FIRST), *_asks(12_000, PEER, SERVICE, SECOND_CARD),
        *_asks(25_000, PEER, SERVICE, SECOND_CARD), *_asks(42_000, PEER, SERVICE, FIRST)
    ]  # fmt: skip
    pages = (
        _pages(PEER, SERVICE, FIRST, 300, 7000), _pages(PEER, SERVICE, SECOND_CARD, 8600, 37_000),
        _pages(PEER, SERVICE, FIRST, 38_600, 50_000)
    )  # fmt: skip
    return pcap(merged(announced, asked, *pages), snaplen=SNAPLEN)


def _allowed() -> list[Outcome]:
    """Within the tenant, to the operator's backup, for updates, and a client from outside."""
    talks = ((WEB, DB), (WEB, BACKUP), (DB, BACKUP), (WEB, UPDATES), (OUTSIDE, WEB), (SHOP, UPDATES))
    return [
        visit(client, server, sport=45_000 + 100 * i + k, start_ms=400 * i + 3000 * k, size=600)
        for i, (client, server) in enumerate(talks)
        for k in range(4)
    ]


@capture("behaviour/attack-borders.pcap")
def borders() -> bytes:
    """What a policy forbids: another tenant's shop, a database that calls outside, a bad network, a forged source."""
    talks = ((WEB, SHOP), (DB, OUTSIDE), (WEB, LISTED))
    crossed = [
        visit(client, server, sport=46_000 + 100 * i + k, start_ms=500 + 300 * i + 2500 * k, size=900)
        for i, (client, server) in enumerate(talks)
        for k in range(3)
    ]
    echo = ping(SHOP, DB, count=3, start_ns=5 * SECOND).packets
    forged = [
        (packet.time_ns, pad(mac_of(DB) + mac_of(WEB) + frame_of(packet.ip)[12:]))
        for packet in echo
        if packet.ip[12:16] == bytes(map(int, SHOP.split(".")))
    ]
    return pcap(merged(framed(*_allowed(), *crossed), forged), snaplen=SNAPLEN)


@capture("behaviour/clean-borders.pcap")
def kept_borders() -> bytes:
    """What the same policy allows, and nothing else."""
    return pcap(framed(*_allowed()), snaplen=SNAPLEN)
