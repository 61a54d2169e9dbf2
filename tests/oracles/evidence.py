"""The TCP segments of a capture, decoded by dpkt: what decides when tshark and the sensor disagree."""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path
from typing import NamedTuple

import dpkt

from tests.oracles.alone import FiveTuple, five_tuple
from tests.oracles.capture_file import open_capture
from tests.oracles.captures import by_tshark, decoded
from tests.oracles.copies import copies, octets_of
from tests.oracles.dpkt_oracle import link_of
from tests.oracles.flows import TCP, Key, Packet, direction
from tests.oracles.headers import header

FIN, SYN, ACK = 0x01, 0x02, 0x10
IPV6_HEADER = 40
SEQUENCE_NUMBERS = 2**32


class Segment(NamedTuple):
    """A segment; ``payload`` and ``end`` are the sender's, whatever the snap length left of it."""

    frame: int
    key: Key
    up: bool
    ident: int | None
    stamp: int | None
    seq: int
    end: int
    ack: int | None
    flags: int
    payload: int
    window: int
    """As in the header, not scaled."""
    held: tuple[tuple[int, int], ...]
    """Blocks of the SACK option."""


class Evidence(NamedTuple):
    """What a capture holds, by frame or by what tshark knows a stream by.

    ``segments`` are those that count in a flow. ``copies`` and ``decoded_otherwise`` are the frames that tshark has in
    a stream where they do not belong. ``domains`` are the flows that share a five-tuple, with their first frames.
    """

    segments: dict[int, Segment]
    copies: dict[FiveTuple, list[int]]
    decoded_otherwise: dict[FiveTuple, list[int]]
    domains: dict[FiveTuple, dict[Key, int]]


def segment(frame: int, packet: Packet, octets: bytes) -> Segment | None:
    """The segment in an IP packet; None in a fragment, behind IPv6 extension headers, or if its header is cut."""
    start = (octets[0] & 0x0F) * 4 if octets[0] >> 4 == 4 else IPV6_HEADER
    if packet.fragment or (start == IPV6_HEADER and octets[6] != TCP) or len(octets) < start + dpkt.tcp.TCP.__hdr_len__:
        return None
    tcp = header(dpkt.tcp.TCP, octets[start:])
    payload = max(0, packet.octets - start - tcp.off * 4)
    taken = payload + bool(tcp.flags & SYN) + bool(tcp.flags & FIN)
    key, up = direction(packet)
    options = octets[start + tcp.__hdr_len__ : start + tcp.off * 4]
    return Segment(
        frame=frame, key=key, up=up, ident=int.from_bytes(octets[4:6], "big") if octets[0] >> 4 == 4 else None,
        stamp=timestamp(options),
        seq=tcp.seq, end=(tcp.seq + taken) % SEQUENCE_NUMBERS, ack=tcp.ack if tcp.flags & ACK else None,
        flags=tcp.flags, payload=payload, window=tcp.win, held=sack_blocks(options),
    )  # fmt: skip


def option(options: bytes, wanted: int) -> bytes:
    """The value of an option; empty if it is not there or the options cannot be read."""
    try:
        return next((value for kind, value in dpkt.tcp.parse_opts(options) if kind == wanted), b"")
    except (ValueError, IndexError):
        return b""


def timestamp(options: bytes) -> int | None:
    """The sender's clock in the timestamp option (RFC 7323)."""
    value = option(options, dpkt.tcp.TCP_OPT_TIMESTAMP)
    return int.from_bytes(value[:4], "big") if len(value) == 8 else None


def sack_blocks(options: bytes) -> tuple[tuple[int, int], ...]:
    """The blocks of the SACK option (RFC 2018)."""
    value = option(options, dpkt.tcp.TCP_OPT_SACK)
    return tuple(struct.iter_unpack(">II", value[: len(value) // 8 * 8]))


@cache
def evidence(capture: Path) -> Evidence:
    """The evidence in a capture that dpkt can read."""
    reading = by_tshark(capture)
    assert reading is not None
    found = Evidence({}, {}, {}, {})
    opened, packets = open_capture(capture), decoded(capture)
    link, doubles = link_of(opened), copies(capture, packets)
    for index, (packet, by_it) in enumerate(zip(packets, reading.verdicts, strict=True)):
        if by_it and by_it.protocol == TCP and by_it != packet:
            found.decoded_otherwise.setdefault(five_tuple(direction(by_it)[0]), []).append(index + 1)
        if packet is None or packet.protocol != TCP:
            continue
        key, _ = direction(packet)
        if index in doubles:
            found.copies.setdefault(five_tuple(key), []).append(index + 1)
            continue
        found.domains.setdefault(five_tuple(key), {}).setdefault(key, index + 1)
        octets = octets_of(packet, link, opened.frames[index].octets)
        one = segment(index + 1, packet, octets) if octets else None
        if one:
            found.segments[one.frame] = one
    return found
