"""The short conversations that the feature captures wrap in one thing or another."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from ..clock import MILLISECOND
from ..conversation import Dialogue, Exchange, Outcome, converse, lookup, ping
from ..endpoint import Host
from ..files import Frame
from ..links import on_wire
from ..messages import http_request, http_response
from ..wire import Path

CLIENT, SERVER, RESOLVER = "10.1.0.11", "10.1.0.12", "10.1.0.2"
CLIENT6, SERVER6, RESOLVER6 = "2001:db8:1::11", "2001:db8:1::12", "2001:db8:1::2"
PATH = Path(client_ns=60_123, server_ns=90_457)  # no whole microseconds: some captures keep nanoseconds


def visit(
    client: str = CLIENT, server: str = SERVER, *, sport: int = 40001, start_ms: int = 0, size: int = 4000,
    mss: int = 1460, path: Path = PATH, faults: Mapping[tuple[str, int], str] | None = None, ending: str = "fin",
) -> Outcome:  # fmt: skip
    """A page fetched over HTTP, with initial sequence numbers that depend on port and time."""
    chance = random.Random(sport * 1_000_003 + start_ms)
    asking = Host(client, sport, chance.getrandbits(32), mss=mss)
    answering = Host(server, 80, chance.getrandbits(32), mss=mss)
    exchanges = [Exchange(http_request("/"), http_response(size))]
    plan = Dialogue(asking, answering, exchanges, start_ms * MILLISECOND, path, faults or {}, ending)
    return converse(plan, seed=sport)


def family4() -> list[Outcome]:
    """One conversation each of TCP, UDP and ICMP."""
    return [
        visit(),
        lookup((CLIENT, 50001), RESOLVER, "app.example", SERVER, start_ns=20 * MILLISECOND),
        ping(CLIENT, SERVER, count=2, start_ns=30 * MILLISECOND),
    ]


def family6() -> list[Outcome]:
    """The same over IPv6."""
    return [
        visit(CLIENT6, SERVER6, mss=1440),
        lookup((CLIENT6, 50001), RESOLVER6, "app.example", SERVER, start_ns=20 * MILLISECOND),
        ping(CLIENT6, SERVER6, count=2, start_ns=30 * MILLISECOND),
    ]


def framed(*outcomes: Outcome, wrap: Callable[[bytes], bytes] = on_wire) -> list[Frame]:
    """The conversations' packets in order of time, each through `wrap`."""
    packets = sorted((packet for outcome in outcomes for packet in outcome.packets), key=lambda packet: packet.time_ns)
    return [(packet.time_ns, wrap(packet.ip)) for packet in packets]


def merged(*streams: list[Frame]) -> list[Frame]:
    """Frames of several streams in order of time."""
    return sorted((frame for stream in streams for frame in stream), key=lambda frame: frame[0])
