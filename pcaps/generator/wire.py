"""The wire between two ends, with the tap in it: delays, faults, and the truth about both."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from .clock import MICROSECOND, Clock
from .endpoint import Endpoint, Segment
from .headers import RST, SYN, TCP, ip, tcp, total_length

BEFORE, AFTER, LATE = "before", "after", "late"
"""Faults: lost before the tap, lost after it, overtaken by its successors on the way to the tap."""

OVERTAKEN_BY = 28 * MICROSECOND
EMPTY_QUEUES = 0.7
"""How often a packet meets none, so that a conversation's fastest segment shows the path's own time."""
TURNAROUND = 15 * MICROSECOND
OTHER = {"c2s": "s2c", "s2c": "c2s"}


@dataclass(frozen=True)
class Packet:
    """An innermost IP packet at the tap."""

    time_ns: int
    side: str
    ip: bytes


@dataclass(frozen=True)
class Path:
    """One-way delays from the tap to each end, what queues add at most, and how long a full segment takes to send."""

    client_ns: int = 60 * MICROSECOND
    server_ns: int = 90 * MICROSECOND
    jitter_ns: int = 20 * MICROSECOND
    segment_ns: int = 12 * MICROSECOND

    def leg(self, side: str) -> int:
        """The delay between the tap and the end that sends `side`."""
        return self.client_ns if side == "c2s" else self.server_ns


@dataclass
class Half:
    """What is true of one direction. The losses are what the wire did; the rest is what the tap could see of it."""

    packets: int = 0
    ip_bytes: int = 0
    data_packets: int = 0
    payload_bytes: int = 0
    lost_before_tap: int = 0
    lost_after_tap: int = 0
    reordered: int = 0
    seen_again: int = 0
    filled_late: int = 0
    zero_windows: int = 0
    keepalives: int = 0
    rtt_base_ns: int | None = None
    rtt_min_ns: int | None = None

    def count(self, packet: bytes) -> None:
        """Count an IP packet."""
        self.packets += 1
        self.ip_bytes += total_length(packet)


@dataclass
class _Progress:
    """How far one direction has come at the tap."""

    highest: int = 0
    tapped: set[int] = field(default_factory=set)
    in_flight: list[tuple[int, int, int]] = field(default_factory=list)


class Wire:
    """Carries segments between two ends and records those that pass the tap."""

    def __init__(self, clock: Clock, path: Path, faults: Mapping[tuple[str, int], str], chance: random.Random) -> None:
        """`faults` names segments by direction and ordinal of their first transmission, 0 being the SYN."""
        self.clock, self.path, self.faults, self.chance = clock, path, faults, chance
        self.ends: dict[str, Endpoint] = {}
        self.packets: list[Packet] = []
        self.halves = {side: Half() for side in OTHER}
        self._progress = {side: _Progress() for side in OTHER}
        self._idents = {side: chance.getrandbits(16) for side in OTHER}
        self._sender_free = dict.fromkeys(OTHER, 0)
        self._leg_free: dict[tuple[str, bool], int] = {}

    def send(self, side: str, segment: Segment) -> None:
        """Take a segment from the end that sends `side`."""
        self._idents[side] += 1
        packet = self._encode(side, segment)
        fault = None if segment.ordinal is None else self.faults.get((side, segment.ordinal))
        departure = max(self.clock.now + TURNAROUND, self._sender_free[side])
        self._sender_free[side] = departure + self.path.segment_ns * len(packet) // 1500
        if fault == BEFORE:
            self.halves[side].lost_before_tap += 1
            return
        passing = self._cross((side, True), departure, self.path.leg(side), fault == LATE)
        self.clock.at(passing, lambda: self._pass_tap(side, segment, packet, fault == AFTER))

    def _cross(self, leg: tuple[str, bool], start: int, delay: int, overtaken: bool = False) -> int:
        """When a packet reaches the end of a leg. Queues keep the order; what is overtaken left it."""
        if overtaken:
            return start + delay + OVERTAKEN_BY
        queued = max(0.0, self.chance.random() - EMPTY_QUEUES) / (1 - EMPTY_QUEUES)
        jitter = int(self.path.jitter_ns * queued * queued)
        arrival = max(start + delay + jitter, self._leg_free.get(leg, 0) + 1)
        self._leg_free[leg] = arrival
        return arrival

    def _pass_tap(self, side: str, segment: Segment, packet: bytes, lost: bool) -> None:
        self.packets.append(Packet(self.clock.now, side, packet))
        self._observe(side, segment, packet)
        if lost:
            self.halves[side].lost_after_tap += 1
            return
        arrival = self._cross((side, False), self.clock.now, self.path.leg(OTHER[side]))
        self.clock.at(arrival, lambda: self.ends[OTHER[side]].receive(segment))

    def _encode(self, side: str, segment: Segment) -> bytes:
        source, target = self.ends[side].host, self.ends[OTHER[side]].host
        message = tcp(
            source.address, source.port, target.address, target.port, seq=source.isn + segment.seq,
            ack=0 if segment.ack is None else target.isn + segment.ack, flags=segment.flags, window=segment.window,
            payload=segment.payload, options=segment.options,
        )  # fmt: skip
        return ip(source.address, target.address, TCP, message, ident=self._idents[side], ttl=source.ttl)

    # What the tap can know.

    def _observe(self, side: str, segment: Segment, packet: bytes) -> None:
        half, progress = self.halves[side], self._progress[side]
        half.count(packet)
        half.data_packets += bool(segment.payload)
        half.payload_bytes += len(segment.payload)
        half.zero_windows += segment.window == 0 and not segment.flags & (SYN | RST)
        empty = segment.end == segment.seq
        half.keepalives += empty and not segment.flags & RST and segment.seq < progress.highest == segment.seq + 1
        self._acknowledged(OTHER[side], segment.ack or 0)
        if segment.payload:
            self._classify(half, progress, segment)
        progress.highest = max(progress.highest, segment.end)

    def _classify(self, half: Half, progress: _Progress, segment: Segment) -> None:
        """Name the segment's part in the stream, and time it unless it was resent (Karn's rule)."""
        if segment.resend:
            half.seen_again += segment.seq in progress.tapped
            half.filled_late += segment.seq not in progress.tapped and segment.end <= progress.highest
            progress.in_flight = [timed for timed in progress.in_flight if timed[0] != segment.seq]
        else:
            half.reordered += segment.end <= progress.highest
            progress.in_flight.append((segment.seq, segment.end, self.clock.now))
        progress.tapped.add(segment.seq)

    def _acknowledged(self, side: str, ack: int) -> None:
        """The fastest of the segments that `ack` covers."""
        half, progress = self.halves[side], self._progress[side]
        for _, end, passed in progress.in_flight:
            if end <= ack:
                took = self.clock.now - passed
                half.rtt_min_ns = took if half.rtt_min_ns is None else min(half.rtt_min_ns, took)
                half.rtt_base_ns = 2 * self.path.leg(OTHER[side]) + TURNAROUND
        progress.in_flight = [timed for timed in progress.in_flight if timed[1] > ack]
