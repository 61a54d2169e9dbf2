"""What VMs do: a migration, and a database that slows down."""

from __future__ import annotations

import random
from itertools import count

from ..clock import EPOCH, MICROSECOND, MILLISECOND, SECOND
from ..conversation import Dialogue, Exchange, Outcome, converse
from ..endpoint import Host
from ..files import Frame, pcap
from ..headers import addresses
from ..links import BROADCAST, RARP, arp, ethernet, frame_of, mac_of, on_wire
from ..messages import http_request, http_response, postgres_answer, postgres_query
from ..registry import capture
from ..tunnels import VXLAN_PORT, in_udp, vxlan
from ..wire import Path
from .small import framed, merged

SNAPLEN = 128
WEB, APP, DB, LOGIN = "10.2.0.11", "10.2.0.12", "10.2.0.13", "10.2.0.14"
VNI = 7001
HOSTS = {WEB: "192.168.200.1", DB: "192.168.200.3"}
NEW_HOST = "192.168.200.2"
MOVED_NS = EPOCH + 14 * SECOND
TUNNEL_MSS = 1410


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
