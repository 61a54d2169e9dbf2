"""What VMs do and what is done to them: a migration, a slow database, attacks, and clean twins of the attacks."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count

from ..clock import EPOCH, MICROSECOND, MILLISECOND, SECOND
from ..conversation import Dialogue, Exchange, Outcome, converse, echo
from ..endpoint import Host
from ..files import Frame, pcap
from ..headers import ACK, RST, SYN, TCP, UDP, addresses, ip, tcp, udp
from ..links import BROADCAST, RARP, arp, ethernet, frame_of, mac_of, on_wire
from ..messages import http_request, http_response, postgres_answer, postgres_query
from ..registry import capture
from ..tunnels import VXLAN_PORT, in_udp, vxlan
from ..wire import Path
from .small import framed, merged, visit

SNAPLEN = 128
WEB, APP, DB, LOGIN, PEER = "10.2.0.11", "10.2.0.12", "10.2.0.13", "10.2.0.14", "10.2.0.15"
ATTACKER = "10.2.0.66"
VNI = 7001
HOSTS = {WEB: "192.168.200.1", DB: "192.168.200.3"}
NEW_HOST = "192.168.200.2"
MOVED_NS = EPOCH + 14 * SECOND
TUNNEL_MSS = 1410


# ---- life


def _talk(start_s: float, seconds: float, path: Path, port: int) -> Outcome:
    """A query every 100 ms."""
    chance = random.Random(port)
    exchanges = [
        Exchange(postgres_query(f"SELECT {k}"), postgres_answer(400), pause_ns=97 * MILLISECOND)
        for k in range(round(seconds * 10))
    ]
    ends = (Host(WEB, port, chance.getrandbits(32), TUNNEL_MSS), Host(DB, 5432, chance.getrandbits(32), TUNNEL_MSS))
    return converse(Dialogue(*ends, exchanges, round(start_s * SECOND), path), seed=port)


def _overlay(time_ns: int, frame: bytes, src: str, dst: str, ident: int) -> Frame:
    return time_ns, on_wire(in_udp(src, dst, VXLAN_PORT, vxlan(frame, VNI), sport=0xC123, ident=ident))


@capture("behaviour/life-migration.pcap")
def migration() -> bytes:
    """A live migration: a VM is silent for 0.6 s, comes back behind another VTEP with a RARP, and its RTT has grown."""
    idents = count(1)
    near, far = Path(40 * MICROSECOND, 60 * MICROSECOND, 0), Path(260 * MICROSECOND, 60 * MICROSECOND, 0)
    before, after = _talk(1.0, 12.4, near, 46001), _talk(14.0, 15.5, far, 46002)
    frames = []
    for packet in sorted((*before.packets, *after.packets), key=lambda packet: packet.time_ns):
        hosts = {**HOSTS, WEB: NEW_HOST} if packet.time_ns >= MOVED_NS else HOSTS
        src, dst = (hosts[address] for address in addresses(packet.ip))
        frames.append(_overlay(packet.time_ns, frame_of(packet.ip), src, dst, next(idents)))
    card = mac_of(WEB)
    announced = ethernet(BROADCAST, card, RARP, arp(3, (card, "0.0.0.0"), (card, "0.0.0.0")))
    rarp = [_overlay(MOVED_NS - 10 * MILLISECOND, announced, NEW_HOST, HOSTS[DB], next(idents))]
    return pcap(merged(frames, rarp), snaplen=SNAPLEN)


def _tier(client: str, server: str, port: int, slow_from: int, think_ms: tuple[int, int]) -> Outcome:
    """Eight requests a second for 80 seconds; the server's time grows from one on."""
    chance = random.Random(port)
    postgres = port == 5432
    exchanges = [
        Exchange(
            postgres_query(f"SELECT {k}") if postgres else http_request(f"/{k}"),
            postgres_answer(900) if postgres else http_response(2500),
            think_ns=round(think_ms[k >= slow_from] * (0.9 + 0.2 * chance.random()) * MILLISECOND),
            pause_ns=max(120 - think_ms[k >= slow_from], 1) * MILLISECOND,
        )
        for k in range(600)
    ]
    ends = (Host(client, 47000 + port % 1000, chance.getrandbits(32)), Host(server, port, chance.getrandbits(32)))
    return converse(Dialogue(*ends, exchanges, SECOND, Path(jitter_ns=0)), seed=port)


@capture("behaviour/life-slow-database.pcap")
def slow_database() -> bytes:
    """Three tiers: after a minute the database takes 90 ms instead of 4, and everything above it slows down with it."""
    outcomes = (
        _tier(WEB, APP, 8080, 480, (9, 95)), _tier(APP, DB, 5432, 480, (4, 90)), _tier(WEB, LOGIN, 8081, 600, (3, 3))
    )  # fmt: skip
    return pcap(framed(*outcomes), snaplen=SNAPLEN)


# ---- attacks


def _segment(src: str, sport: int, dst: str, dport: int, flags: int, seq: int, ack: int = 0) -> bytes:
    message = tcp(src, sport, dst, dport, seq=seq, ack=ack, flags=flags, window=1024)
    return on_wire(ip(src, dst, TCP, message, ident=seq & 0xFFFF))


def _probe(at_ns: int, dst: str, port: int, *, is_open: bool = False, answers: bool = True) -> Iterator[Frame]:
    """A half-open probe by the attacker, with what comes of it."""
    sport, seq = 50_000 + port % 1000, 1000 + port
    yield at_ns, _segment(ATTACKER, sport, dst, port, SYN, seq)
    if answers:
        flags = SYN | ACK if is_open else RST | ACK
        yield at_ns + 200 * MICROSECOND, _segment(dst, port, ATTACKER, sport, flags, 9000, seq + 1)
    if is_open:
        yield at_ns + 400 * MICROSECOND, _segment(ATTACKER, sport, dst, port, RST, seq + 1)


def _everyday() -> list[Frame]:
    """Pages fetched now and then, so that the mirror is seen to show both directions."""
    return framed(*(visit(PEER, WEB, sport=48000 + i, start_ms=700 * i) for i in range(14)))


@capture("behaviour/attack-port-scan.pcap")
def port_scan() -> bytes:
    """A half-open scan of 200 ports of one VM, two of them open."""
    probes = [
        frame
        for port in range(1, 201)
        for frame in _probe(EPOCH + SECOND + port * 15 * MILLISECOND, WEB, port, is_open=port in (22, 80))
    ]
    return pcap(merged(probes, _everyday()))


@capture("behaviour/attack-host-sweep.pcap")
def host_sweep() -> bytes:
    """One port tried on 100 addresses, of which few answer."""
    probes = [
        frame
        for i in range(1, 101)
        for frame in _probe(EPOCH + SECOND + i * 20 * MILLISECOND, f"10.2.1.{i}", 445, answers=i % 12 == 0)
    ]
    return pcap(merged(probes, _everyday()))


@capture("behaviour/attack-syn-flood.pcap")
def syn_flood() -> bytes:
    """3,000 SYNs in nine seconds from as many forged addresses, none of which completes a handshake."""
    chance = random.Random(7)
    router = mac_of(WEB) + mac_of("10.2.0.1")
    flood = [
        (EPOCH + SECOND + i * 3 * MILLISECOND, router + _segment(
            f"198.18.{chance.randrange(256)}.{chance.randrange(1, 255)}", chance.randrange(1024, 65535), WEB, 80, SYN,
            chance.getrandbits(32))[12:])
        for i in range(3000)
    ]  # fmt: skip
    return pcap(merged(flood, _everyday()), snaplen=64)


@capture("behaviour/attack-brute-force.pcap")
def brute_force() -> bytes:
    """60 short SSH connections of one VM to another, two a second, each closed after one attempt."""
    return pcap(merged(framed(*_logins(60, 450)), _everyday()), snaplen=SNAPLEN)


def _logins(many: int, every_ms: int) -> Iterator[Outcome]:
    for i in range(many):
        chance = random.Random(i)
        exchanges = [Exchange(bytes(size), bytes(600), 2 * MILLISECOND) for size in (40, 700, 120)]
        exchanges.append(Exchange(bytes(90), bytes(60), 150 * MILLISECOND))
        ends = (Host(ATTACKER, 51_000 + i, chance.getrandbits(32)), Host(LOGIN, 22, chance.getrandbits(32)))
        yield converse(Dialogue(*ends, exchanges, SECOND + i * every_ms * MILLISECOND), seed=i)


@capture("behaviour/attack-udp-flood.pcap")
def udp_flood() -> bytes:
    """12,000 datagrams in a second to ever other ports of a VM that answers none."""
    chance = random.Random(9)
    flood = [
        (EPOCH + SECOND + i * 83 * MICROSECOND,
         on_wire(ip(ATTACKER, WEB, UDP, udp(ATTACKER, 40_000, WEB, chance.randrange(1024, 65535), b"x" * 18), ident=i)))
        for i in range(12_000)
    ]  # fmt: skip
    return pcap(merged(flood, _everyday()), snaplen=46)


@capture("behaviour/attack-icmp-flood.pcap")
def icmp_flood() -> bytes:
    """4,500 echo requests in three seconds, of which the VM answers hardly any."""
    times = [EPOCH + SECOND + i * 2 * SECOND // 3000 for i in range(4500)]
    asked = [(at, on_wire(echo(ATTACKER, WEB, False, 9, i))) for i, at in enumerate(times)]
    answers = [(at + 90 * MICROSECOND, on_wire(echo(WEB, ATTACKER, True, 9, i))) for i, at in enumerate(times[::50])]
    return pcap(merged(asked, answers, _everyday()), snaplen=50)


# ---- clean twins


@capture("behaviour/clean-busy-client.pcap")
def busy_client() -> bytes:
    """No scan: a client of 60 servers that answer, and of three that are down and tried again and again."""
    pages = framed(
        *(visit(ATTACKER, f"10.2.1.{i}", sport=43_000 + i, start_ms=100 * i, size=300) for i in range(1, 61))
    )
    dead = [
        frame
        for k in range(30)
        for i in (1, 2, 3)
        for frame in _probe(EPOCH + SECOND + (k * 3 + i) * 70 * MILLISECOND, f"10.2.2.{i}", 8080)
    ]
    return pcap(merged(pages, dead, _everyday()), snaplen=SNAPLEN)


@capture("behaviour/clean-busy-server.pcap")
def busy_server() -> bytes:
    """No flood: 600 connections in a few seconds, all completed."""
    return pcap(framed(*(visit(f"10.2.3.{1 + i % 250}", WEB, sport=30_000 + i, start_ms=10 * i, size=200)
                         for i in range(600))), snaplen=80)  # fmt: skip


@capture("behaviour/clean-logins.pcap")
def logins() -> bytes:
    """No brute force: eight logins in a minute."""
    return pcap(merged(framed(*_logins(8, 7000)), _everyday()), snaplen=SNAPLEN)
