"""The sensor against tshark: how many segments each counts of every cause, by flow and direction.

A flow's packets are those of its five-tuple and domain from the start of its record on. What tshark says of a mirror
duplicate goes to the flow that holds the first sighting.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from tests.oracles import program
from tests.oracles.alone import alone
from tests.oracles.capture_file import open_capture
from tests.oracles.captures import by_tshark, decoded
from tests.oracles.copies import copies
from tests.oracles.flows import TCP, Endpoint, Key, Packet, direction

Value = Callable[[str], int]
"""A number of one direction of a flow record; 0 where it could not be measured."""

METRICS: dict[str, Callable[[Value], int]] = {
    "retransmission": lambda value: value("retransmissions") + value("upstream_losses"),
    "spurious_retransmission": lambda value: value("spurious"),
    "out_of_order": lambda value: value("reordered"),
    "lost_segment": lambda value: value("upstream_losses") + value("reordered") + value("unseen_bytes"),
    "ack_lost_segment": lambda value: value("unseen_bytes"),
    "keep_alive": lambda value: value("keepalives"),
    "zero_window": lambda value: value("zero_windows"),
}
"""What of the sensor's answers to tshark's words. To tshark a resend is one wherever the first copy was lost."""

YES_OR_NO = ("lost_segment", "ack_lost_segment")
"""tshark counts segments before and behind a gap, the sensor what became of it: they can agree that there was one."""

ABOUT_THE_OTHER = ("ack_lost_segment",)
"""tshark names the ACK, the sensor counts for the direction whose octets are missing."""


class Way(NamedTuple):
    """One direction of one flow: from its low endpoint if ``up``; the n-th flow of its key in the capture."""

    key: Key
    turn: int
    up: bool


@dataclass
class Row:
    """What is said of one metric of one direction of a flow. Frames are counted from 1.

    ``alone`` holds the frames that tshark names when it sees nothing but this flow.
    """

    tshark: list[int] = field(default_factory=list)
    alone: list[int] = field(default_factory=list)
    sensor: int = 0


Table = dict[tuple[Way, str], Row]


def counted(metric: str, frames: list[int]) -> int:
    """The frames as the metric's number."""
    return min(len(frames), 1) if metric in YES_OR_NO else len(frames)


class Flows:
    """The TCP records of a capture, to find the one that a packet belongs to."""

    def __init__(self, records: list[dict[str, Any]]) -> None:
        """Flows of a key are told apart by when they began."""
        self.starts: dict[Key, list[int]] = {}
        self.records = sorted((r for r in records if r["protocol"] == "tcp"), key=lambda r: r["start_ns"])
        for record in self.records:
            self.starts.setdefault(program.direction(record)[0], []).append(record["start_ns"] // 1000)

    def way(self, packet: Packet, time_us: int) -> Way:
        """Where a packet belongs; a packet from before the first flow of its key, to that."""
        key, up = direction(packet)
        return Way(key, max(0, bisect_right(self.starts.get(key, []), time_us) - 1), up)

    def ways(self) -> Iterator[tuple[Way, Value]]:
        """Both directions of every flow, with what the sensor says of them."""
        turns: dict[Key, int] = {}
        for record in self.records:
            key, client_is_low = program.direction(record)
            turn = turns[key] = turns.get(key, -1) + 1
            for side, up in (("c2s", client_is_low), ("s2c", not client_is_low)):
                yield Way(key, turn, up), side_of(record, side)


def side_of(record: dict[str, Any], side: str) -> Value:
    """The numbers of one direction of a record."""
    return lambda name: record[f"{side}_{name}"] or 0


@cache
def table(capture: Path) -> Table:
    """Every metric of every TCP flow in a capture that tshark can read, both directions."""
    reading = by_tshark(capture)
    if reading is None:
        return {}
    flows = Flows(program.run(capture).records)
    rows: Table = {}
    for way, value in flows.ways():
        for metric, of in METRICS.items():
            said = of(value)
            rows[way, metric] = Row(sensor=min(said, 1) if metric in YES_OR_NO else said)
    if any(reading.analysis) or any(alone(capture)):
        add_tshark(capture, flows, rows)
    return rows


def add_tshark(capture: Path, flows: Flows, rows: Table) -> None:
    """Enter each frame of which tshark says something, in its whole reading and in that of the flow alone."""
    reading = by_tshark(capture)
    assert reading is not None
    first = copies(capture, decoded(capture))
    times = [frame.time_us for frame in open_capture(capture).frames]
    for index, (whole, apart) in enumerate(zip(reading.analysis, alone(capture), strict=True)):
        packet = reading.verdicts[first.get(index, index)]
        if packet and packet.protocol == TCP:
            way = flows.way(packet, times[index])
            for metric in whole:
                rows.setdefault((spoken_of(way, metric), metric), Row()).tshark.append(index + 1)
            for metric in apart:
                rows.setdefault((spoken_of(way, metric), metric), Row()).alone.append(index + 1)


def spoken_of(way: Way, metric: str) -> Way:
    """The direction that a frame's analysis speaks of: that of an ACK of unseen data is about the other side's."""
    return way._replace(up=not way.up) if metric in ABOUT_THE_OTHER else way


def text(way: Way, flows_of_key: int) -> str:
    """A direction of a flow as the list of differences calls it."""
    src, dst = (way.key.low, way.key.high) if way.up else (way.key.high, way.key.low)
    parts = [f"{address(src)} > {address(dst)}", *(f"vlan {vlan}" for vlan in way.key.vlans)]
    if way.key.vni is not None:
        parts.append(f"vni {way.key.vni}")
    return " ".join([*parts, f"flow {way.turn + 1}"] if flows_of_key > 1 else parts)


def address(endpoint: Endpoint) -> str:
    """An endpoint as people write it."""
    return f"[{endpoint.ip}]:{endpoint.port}" if ":" in endpoint.ip else f"{endpoint.ip}:{endpoint.port}"
