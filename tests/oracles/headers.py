"""How the dpkt oracle touches bytes: one header at a time, and an end where the packet ends."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import dpkt

IP4, IP6, ETHERNET = 0x0800, 0x86DD, 0x6558


class CutShort(Exception):
    """The packet ends inside a header, or contradicts itself: nothing beyond this point can be believed."""


class Inside(NamedTuple):
    """What comes next on the way down: ``ethertype`` says what ``octets`` are."""

    ethertype: int
    octets: bytes


@dataclass
class Descent:
    """What has been gathered on the way down a frame: all tags, outermost first, and the innermost VNI."""

    vlans: list[int] = field(default_factory=list)
    vni: int | None = None


Link = Callable[[Descent, bytes], Inside | None]
"""Reads a link layer: what is inside, or None when that is no IP packet."""


def header(kind: Any, octets: bytes) -> Any:
    """One dpkt header, whose ``data`` is all that follows it."""
    if len(octets) < kind.__hdr_len__:
        raise CutShort(kind.__name__)
    parsed = kind.__new__(kind)
    dpkt.Packet.unpack(parsed, octets)
    return parsed


def numbers(layout: str, octets: bytes) -> tuple[Any, ...]:
    """Big-endian fields of a header that dpkt does not know."""
    if len(octets) < struct.calcsize(layout):
        raise CutShort(layout)
    return struct.unpack_from(layout, octets)


def number(layout: str, octets: bytes) -> int:
    """The only field of such a header that matters."""
    (value,) = numbers(layout, octets)
    return int(value)
