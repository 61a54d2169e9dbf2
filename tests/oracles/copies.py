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


def without_copies(path: Path, verdicts: list[Verdict]) -> list[Verdict]:
    """The verdicts, None for every frame whose packet was in a flow a moment before; such a one is no first itself."""
    try:
        capture = open_capture(path)
        link = link_of(capture)
    except Unreadable:
        return verdicts
    counted: dict[tuple[int, bytes], tuple[int, bytes]] = {}
    kept: list[Verdict] = []
    for verdict, (time_us, frame) in zip(verdicts, capture.frames, strict=True):
        octets = octets_of(verdict, link, frame)
        like = (verdict.octets, likeness(octets)) if verdict and octets else None
        copy = False
        if like in counted and octets:
            first_us, first = counted[like]
            copy = abs(time_us - first_us) <= horizon_us(first, octets)
        kept.append(None if copy else verdict)
        if like and octets and not copy:
            counted[like] = time_us, octets
    return kept
