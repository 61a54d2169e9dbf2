"""The demonstration: a minute of three tenants, each with a web-app-db chain, two of them on the same addresses.

`conversations()` gives every conversation with its truth, for the test that holds the sensor against it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count, pairwise

from ..clock import EPOCH, MICROSECOND, MILLISECOND, SECOND
from ..conversation import Dialogue, Exchange, Outcome, converse, lookup, ping
from ..endpoint import Host
from ..files import Frame, pcap
from ..headers import ICMP, addresses
from ..links import ARP, BROADCAST, CTAG, arp, ethernet, frame_of, mac_of, on_wire, pad
from ..messages import http_request, http_response, postgres_answer, postgres_query, tls_records
from ..registry import capture
from ..tunnels import VXLAN_PORT, in_udp, vxlan
from ..wire import AFTER, BEFORE, LATE, Path
from .small import merged

START = "2026-01-01T00:00:00Z"
WEB, APP, DB, RESOLVER = "10.0.0.11", "10.0.0.12", "10.0.0.13", "10.0.0.2"
HTTPS, HTTP, POSTGRES = 443, 8080, 5432
PHONE, OFFICE = "203.0.113.7", "198.51.100.23"
VTEPS = {WEB: "192.168.100.1", DB: "192.168.100.1", APP: "192.168.100.2", RESOLVER: "192.168.100.2"}
SNAPLEN = 128
GREEN_VNI = 5003
WRAPPING_ISN = 2**32 - 12000
Faults = dict[tuple[str, int], str]


@dataclass(frozen=True)
class Tenant:
    """A tenant's place in the network and the temper of its links: one-way delays from the tap, in microseconds."""

    name: str
    number: int
    web_app_us: tuple[int, int]
    app_db_us: tuple[int, int]
    db_think_ms: int
    vlan: tuple[int, ...] = ()
    vni: int | None = None
    mss: int = 1460

    def frame(self, packet: bytes) -> bytes:
        """A packet in the tenant's own Ethernet."""
        return frame_of(packet, [(CTAG, vid) for vid in self.vlan], self.number)


RED = Tenant("red", 1, (50, 85), (90, 120), 4, vlan=(10,))
BLUE = Tenant("blue", 2, (100, 140), (160, 310), 28, vlan=(20,))
GREEN = Tenant("green", 3, (120, 170), (150, 190), 6, vni=GREEN_VNI, mss=1410)
TENANTS = (RED, BLUE, GREEN)

WEB_FAULTS: dict[tuple[str, int], Faults] = {
    ("red", 1): {("s2c", 2): AFTER},
    ("red", 4): {("s2c", 3): LATE},
    ("blue", 0): {("s2c", 2): BEFORE},
    ("blue", 2): {("s2c", 3): LATE},
    ("blue", 5): {("c2s", 3): AFTER},
    ("green", 1): {("s2c", 2): LATE},
    ("green", 3): {("s2c", 1): BEFORE},
    ("green", 4): {("s2c", 2): AFTER},
}
OUTSIDE_FAULTS: dict[int, Faults] = {
    1: {("s2c", 9): BEFORE},
    3: {("s2c", 5): BEFORE, ("s2c", 6): BEFORE},
    4: {("s2c", 4): AFTER, ("s2c", 12): AFTER},
    6: {("s2c", 3): LATE},
    8: {("s2c", 6): AFTER, ("s2c", 15): BEFORE},
    10: {("s2c", 2): BEFORE},
}
POOL_FAULTS: dict[tuple[str, int], Faults] = {
    ("blue", 0): {("s2c", 2): AFTER, ("c2s", 9): AFTER},
    ("green", 1): {("s2c", 4): AFTER},
}
BACKUP_FAULTS: Faults = {
    ("c2s", 8): AFTER, ("c2s", 60): BEFORE, ("c2s", 120): AFTER, ("c2s", 170): AFTER, ("c2s", 211): BEFORE,
}  # fmt: skip


def _path(delays_us: tuple[int, int], jitter_us: int) -> Path:
    client, server = delays_us
    return Path(client * MICROSECOND, server * MICROSECOND, jitter_us * MICROSECOND)


def _between(chance: random.Random, low: int, high: int) -> int:
    return low + int((high - low) * chance.random())


def _web_to_app(tenant: Tenant, chance: random.Random) -> Iterator[Dialogue]:
    """Eight connections of a proxy, every few seconds one; blue's seventh is reset."""
    for i in range(8):
        exchanges = [
            Exchange(
                http_request(f"/orders/{i}/{k}", 0 if k % 3 else 3500),
                http_response(_between(chance, 7000, 15000)),
                think_ns=_between(chance, 3, 12) * MILLISECOND,
                pause_ns=_between(chance, 200, 1500) * MILLISECOND,
            )
            for k in range(5)
        ]
        isn = WRAPPING_ISN if (tenant, i) == (GREEN, 3) else chance.getrandbits(32)
        yield Dialogue(
            Host(WEB, 41000 + i, chance.getrandbits(32), tenant.mss), Host(APP, HTTP, isn, tenant.mss), exchanges,
            start_ns=(1000 + 6300 * i + 130 * tenant.number) * MILLISECOND, path=_path(tenant.web_app_us, 40),
            faults=WEB_FAULTS.get((tenant.name, i), {}), ending="reset" if (tenant, i) == (BLUE, 6) else "fin",
        )  # fmt: skip


def _app_to_db(tenant: Tenant, chance: random.Random) -> Iterator[Dialogue]:
    """Two pooled connections: one busy till the end, one that rests so long that red's sends a keep-alive."""
    for i, pauses_ms in enumerate(([1600] * 34, [900] * 8 + [14000] + [900] * 8)):
        exchanges = [
            Exchange(
                postgres_query(f"SELECT * FROM orders WHERE id = {k}"),
                postgres_answer(_between(chance, 600, 5200) if k else 7000),
                think_ns=tenant.db_think_ms * MILLISECOND + _between(chance, 0, 900) * MICROSECOND,
                pause_ns=pause * MILLISECOND,
            )
            for k, pause in enumerate(pauses_ms)
        ]
        yield Dialogue(
            Host(APP, 42000 + i, chance.getrandbits(32), tenant.mss, quick_acks=4),
            Host(DB, POSTGRES, chance.getrandbits(32), tenant.mss, quick_acks=4),
            exchanges, start_ns=(400 + 90 * tenant.number) * MILLISECOND, path=_path(tenant.app_db_us, 60),
            faults=POOL_FAULTS.get((tenant.name, i), {}), ending="fin" if i else "open",
            keepalive_ns=10 * SECOND if tenant is RED else None,
        )  # fmt: skip


def _from_outside(chance: random.Random) -> Iterator[Dialogue]:
    """Two clients far away fetch pages from red's web server."""
    for i in range(12):
        address, one_way_us = (PHONE, 19700) if i % 3 else (OFFICE, 22400)
        exchanges = [
            Exchange(
                tls_records(_between(chance, 300, 700)),
                tls_records(_between(chance, 22000, 52000)),
                think_ns=_between(chance, 8, 30) * MILLISECOND,
                pause_ns=_between(chance, 5, 600) * MILLISECOND,
            )
            for _ in range(3)
        ]
        isn = WRAPPING_ISN if i == 1 else chance.getrandbits(32)
        yield Dialogue(
            Host(address, 51000 + 7 * i, chance.getrandbits(32), ttl=51), Host(WEB, HTTPS, isn), exchanges,
            start_ns=(700 + 4400 * i) * MILLISECOND, path=_path((one_way_us, 70), 400),
            faults=OUTSIDE_FAULTS.get(i, {}),
        )  # fmt: skip


def _backup(chance: random.Random) -> Dialogue:
    """Blue's application pours 700 kB into the database, which shuts its window for a while."""
    mss, segments = 1460, 16
    server = Host(DB, POSTGRES, chance.getrandbits(32), buffer=segments * mss, shift=2, stall_at=300 * mss,
                  stall_ns=130 * MILLISECOND)  # fmt: skip
    upload = Exchange(postgres_query("x" * 700_000), postgres_answer(40), think_ns=60 * MILLISECOND)
    return Dialogue(Host(APP, 42900, chance.getrandbits(32)), server, [upload], 31 * SECOND,
                    _path(BLUE.app_db_us, 60), BACKUP_FAULTS)  # fmt: skip


def _small_talk(tenant: Tenant, chance: random.Random) -> Iterator[Outcome]:
    """Names looked up, and a ping."""
    path = _path(tenant.web_app_us, 0)
    for i in range(10):
        client, name, answer = ((WEB, "app", APP), (APP, "db", DB))[i % 2]
        asked = (300 + 5500 * i + _between(chance, 0, 400)) * MILLISECOND
        yield lookup((client, 53000 + i), RESOLVER, f"{name}.{tenant.name}.example", answer, start_ns=asked, path=path)
    yield ping(WEB, APP, count=5, start_ns=(12 + tenant.number) * SECOND, path=path)


@cache
def conversations() -> dict[Tenant, list[Outcome]]:
    """Every conversation of every tenant, in its domain, with its truth."""
    chance = random.Random(20260101)
    seeds = count(1)
    played: dict[Tenant, list[Outcome]] = {}
    for tenant in TENANTS:
        plans = [*_web_to_app(tenant, chance), *_app_to_db(tenant, chance)]
        plans += _from_outside(chance) if tenant is RED else []
        plans += [_backup(chance)] if tenant is BLUE else []
        outcomes = [converse(plan, next(seeds)) for plan in plans] + list(_small_talk(tenant, chance))
        played[tenant] = [outcome.placed(tenant.vlan, tenant.vni) for outcome in outcomes]
    return played


def _neighbours(tenant: Tenant) -> list[Frame]:
    """Each VM of the chain asks for the next one's MAC, three times in the minute."""
    frames: list[Frame] = []
    tags = [(CTAG, vid) for vid in tenant.vlan]
    for i, (asker, owner) in enumerate([*pairwise((WEB, APP, DB))] * 3):
        ask, own = (mac_of(asker, tenant.number), asker), (mac_of(owner, tenant.number), owner)
        asked = EPOCH + (200 + 9300 * i + 10 * tenant.number) * MILLISECOND
        frames.append((asked, pad(ethernet(BROADCAST, ask[0], ARP, arp(1, ask, (bytes(6), owner)), tags))))
        answer = pad(ethernet(ask[0], own[0], ARP, arp(2, own, ask), tags))
        frames.append((asked + 180 * MICROSECOND, answer))
    return frames


def _in_overlay(packet: bytes, ident: int) -> bytes:
    """One of green's packets between its VTEPs; the source port spreads flows, as RFC 7348 asks."""
    src, dst = addresses(packet)
    flow = packet[12:20] if packet[9] == ICMP else packet[12:24]
    sport = 0xC000 | sum(flow) * 40503 >> 3 & 0x3FFF
    overlay = vxlan(GREEN.frame(packet), GREEN_VNI)
    return on_wire(in_udp(VTEPS[src], VTEPS[dst], VXLAN_PORT, overlay, sport=sport, ident=ident))


def frames(tenants: Sequence[Tenant] = TENANTS) -> list[Frame]:
    """The whole minute as the mirror delivers it."""
    idents = count(1)
    streams = []
    for tenant in tenants:
        outcomes = conversations()[tenant]
        packets = sorted((p for outcome in outcomes for p in outcome.packets), key=lambda packet: packet.time_ns)
        if tenant is GREEN:
            streams.append([(packet.time_ns, _in_overlay(packet.ip, next(idents))) for packet in packets])
        else:
            streams.append([(packet.time_ns, pad(tenant.frame(packet.ip))) for packet in packets])
            streams.append(_neighbours(tenant))
    return merged(*streams)


@capture("demo.pcap")
def demo() -> bytes:
    """What `make demo` shows: a minute of three tenants on overlapping addresses, with some loss."""
    return pcap(frames(), snaplen=SNAPLEN)
