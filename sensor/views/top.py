"""What ``vmsensor top`` shows: the newest window of a store as rows in order, and the events that are open."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sensor.analysis.eventbook import RANK
from sensor.sinks.blocks import Block
from sensor.sinks.lineprotocol import FieldValue, Point, decode
from sensor.summary import Alarm

FACT_NS, OPEN_NS = 300 * 10**9, 3600 * 10**9
"""So long a fact is shown; and an open event of which nothing more was written: the sensor may have ended before it."""

OVERDUE = 3
"""Window lengths without a window after which the sensor seems to have stopped."""

Key = tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One direction of a VM pair and service in the window. None where nothing was measured."""

    src: str
    src_tenant: str
    dst: str
    dst_tenant: str
    scope: str
    service: str
    protocol: str
    throughput_bps: float
    packets_per_s: float
    rtt_p50_us: float | None
    rtt_p95_us: float | None
    response_p95_us: float | None
    handshake_us: float | None
    loss_ratio: float | None
    confidence: float

    @property
    def name(self) -> tuple[str, ...]:
        """Who it is about, in the order of the columns."""
        return self.src, self.dst, self.src_tenant, self.dst_tenant, self.service, self.protocol


SORTS: dict[str, Callable[[Row], float | None]] = {
    "throughput": lambda row: row.throughput_bps,
    "packets": lambda row: row.packets_per_s,
    "rtt": lambda row: row.rtt_p95_us,
    "loss": lambda row: row.loss_ratio,
    "response": lambda row: row.response_p95_us,
}
"""What rows can be ordered by, the largest first. What was not measured comes last."""


@dataclass(frozen=True)
class Choice:
    """Which rows are wanted, and in which order."""

    sort: str = "throughput"
    tenant: str | None = None
    scope: str | None = None

    def of(self, rows: list[Row]) -> list[Row]:
        """Those rows; of equals the one with more throughput, then by name."""
        value = SORTS[self.sort]

        def order(row: Row) -> tuple[bool, float, float, tuple[str, ...]]:
            found = value(row)
            return found is None, -(found or 0), -row.throughput_bps, row.name

        return sorted(filter(self._takes, rows), key=order)

    def _takes(self, row: Row) -> bool:
        return self.tenant in (None, row.src_tenant, row.dst_tenant) and self.scope in (None, row.scope)


@dataclass(frozen=True)
class Window:
    """The newest window: its times, its rows, and what the sensor says of itself, by name of tag or field."""

    start_ns: int
    end_ns: int
    partial: bool
    rows: list[Row]
    sensor: dict[str, FieldValue]

    @property
    def seconds(self) -> float:
        """Its length."""
        return (self.end_ns - self.start_ns) / 1e9

    def count(self, name: str) -> int | None:
        """A field of the sensor; None where it is null or older than the field."""
        value = self.sensor.get(name)
        return value if isinstance(value, int) else None

    def ratio(self, name: str) -> float | None:
        """The same for a ratio."""
        value = self.sensor.get(name)
        return float(value) if isinstance(value, (int, float)) else None


class Board:
    """What is known of the store so far."""

    def __init__(self) -> None:
        self.window: Window | None = None
        self.events: list[Alarm] = []
        """Open ones and recent facts, the gravest first and of equals the latest."""
        self._longest_ns = 0
        self._held: dict[Key, tuple[Alarm, bool, int]] = {}
        """Each with whether it is a fact, and when it was written last."""

    def take(self, blocks: Iterator[Block]) -> bool:
        """Take what is new, in writing order; False when there was nothing. Only the last window is looked at whole."""
        newest = None
        for block in blocks:
            newest = block
            self._longest_ns = max(self._longest_ns, block.end_ns - block.start_ns)
            for point in decode(block.data, ("event",)):
                self._note(point)
        if newest is not None:
            self.window = window_of(newest)
            self._forget(newest.end_ns)
            alarms = [alarm for alarm, _, _ in self._held.values()]
            self.events = sorted(alarms, key=lambda alarm: (-_rank(alarm.severity), -alarm.first_ns, alarm))
        return newest is not None

    def is_overdue(self, now_ns: int) -> bool:
        """Whether the sensor seems to have stopped."""
        return self.window is not None and now_ns - self.window.end_ns > OVERDUE * self._longest_ns

    def _note(self, point: Point) -> None:
        alarm, state = _alarm(point), point.fields.get("state")
        key = (alarm.kind, point.tags.get("tenant", ""), alarm.subject, alarm.object)
        self._held.pop(key, None)
        if state != "close":
            self._held[key] = alarm, state == "fact", point.time_ns

    def _forget(self, now_ns: int) -> None:
        old = [
            key
            for key, (_, is_fact, written_ns) in self._held.items()
            if now_ns - written_ns > (FACT_NS if is_fact else OPEN_NS)
        ]
        for key in old:
            del self._held[key]


def window_of(block: Block) -> Window:
    """The window of a block."""
    seconds = (block.end_ns - block.start_ns) / 1e9
    rows: list[Row] = []
    sensor: dict[str, FieldValue] = {}
    for point in decode(block.data, ("vm_traffic", "sensor")):
        if point.measurement == "sensor":
            sensor = {**point.tags, **point.fields}
        else:
            rows.append(_row(point.tags, point.fields, seconds))
    return Window(block.start_ns, block.end_ns, block.partial, rows, sensor)


def _row(tags: dict[str, str], fields: dict[str, Any], seconds: float) -> Row:
    return Row(
        src=tags.get("src_vm", ""),
        src_tenant=tags.get("src_tenant", ""),
        dst=tags.get("dst_vm", ""),
        dst_tenant=tags.get("dst_tenant", ""),
        scope=tags.get("scope", ""),
        service=tags.get("service", ""),
        protocol=tags.get("protocol", ""),
        throughput_bps=fields.get("throughput_bps") or 0.0,
        packets_per_s=fields.get("packets", 0) / seconds if seconds else 0.0,
        rtt_p50_us=fields.get("rtt_p50_us"),
        rtt_p95_us=fields.get("rtt_p95_us"),
        response_p95_us=fields.get("response_p95_us"),
        handshake_us=fields.get("handshake_us"),
        loss_ratio=fields.get("loss_ratio"),
        confidence=1.0 if fields.get("confidence") is None else fields["confidence"],
    )


def _alarm(point: Point) -> Alarm:
    said = {name: str(point.fields.get(name) or "") for name in ("subject", "object", "detail")}
    first_ns = point.fields.get("first_ns")
    return Alarm(
        point.tags.get("severity", ""), point.tags.get("kind", ""), said["subject"], said["object"],
        first_ns if isinstance(first_ns, int) else point.time_ns, said["detail"],
    )  # fmt: skip


def _rank(severity: str) -> int:
    return next((rank for name, rank in RANK.items() if name == severity), -1)
