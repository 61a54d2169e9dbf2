"""Mirror duplicates, by comparing the captured octets of innermost IP packets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.oracles.capture_file import Unreadable, open_capture
from tests.oracles.dpkt_oracle import layers, link_of
from tests.oracles.flows import Verdict
from tests.oracles.headers import Link

HORIZON_US = 10_000  # the default of --duplicate-horizon
HORIZON_WITHOUT_ID_US = HORIZON_US // 8  # a packet without an identification that was not routed: may be a resend
TRAFFIC_CLASS = 0x0FF00000
FRAGMENT = 44


def likeness(octets: bytes) -> bytes:
    """What a router leaves of an IP packet: all but TOS, TTL and IPv4's checksum. The length may be given as 0."""
    if octets[0] >> 4 == 4:
        return octets[:1] + octets[4:8] + octets[9:10] + octets[12:]
    first = int.from_bytes(octets[:4], "big") & ~TRAFFIC_CLASS
    return first.to_bytes(4, "big") + octets[6:7] + octets[8:]


def horizon_us(first: bytes, copy: bytes) -> int:
    """How long after the first a copy may come."""
    if copy[0] >> 4 == 4:
        told_apart = copy[4:6] != bytes(2) or first[8] != copy[8]
    else:
        told_apart = copy[6] == FRAGMENT or first[7] != copy[7]
    return HORIZON_US if told_apart else HORIZON_WITHOUT_ID_US


def octets_of(verdict: Verdict, link: Link, frame: bytes) -> bytes | None:
    """The octets of the packet that a frame counts for, among the IP packets it is made of."""
    if verdict is None:
        return None
    bare = replace(verdict, carriers=())
    return next((octets for packet, octets in layers(link, frame) if packet == bare), None)


def copies(path: Path, verdicts: list[Verdict]) -> dict[int, int]:
    """Which frames, counted from 0, hold a packet that was in a flow a moment before, and the frame it was in first."""
    try:
        capture = open_capture(path)
        link = link_of(capture)
    except Unreadable:
        return {}
    counted: dict[tuple[int, bytes], tuple[int, int, bytes]] = {}
    found: dict[int, int] = {}
    for index, (verdict, (time_us, frame)) in enumerate(zip(verdicts, capture.frames, strict=True)):
        octets = octets_of(verdict, link, frame)
        if verdict is None or octets is None:
            continue
        like = verdict.octets, likeness(octets)
        first, first_us, first_octets = counted.get(like, (index, time_us, octets))
        if first != index and abs(time_us - first_us) <= horizon_us(first_octets, octets):
            found[index] = first
        else:
            counted[like] = index, time_us, octets
    return found


def without_copies(path: Path, verdicts: list[Verdict]) -> list[Verdict]:
    """The verdicts, None for every frame whose packet was in a flow a moment before; such a one is no first itself."""
    found = copies(path, verdicts)
    return [None if index in found else verdict for index, verdict in enumerate(verdicts)]
