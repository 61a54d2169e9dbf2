"""Capture file formats: pcap in its variants, pcapng, gzip."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable

from .links import DLT_ETHERNET

Frame = tuple[int, bytes]
"""Epoch time in nanoseconds, and the octets from the link layer on."""

SECOND = 10**9
WHOLE_PACKETS = 262144


def pcap(
    frames: Iterable[Frame], link_type: int = DLT_ETHERNET, *, snaplen: int = WHOLE_PACKETS, order: str = "<",
    nanoseconds: bool = False,
) -> bytes:  # fmt: skip
    """A classic pcap file; frames are cut to `snaplen` and keep their original length."""
    magic, tick = (0xA1B23C4D, 1) if nanoseconds else (0xA1B2C3D4, 1000)
    parts = [struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, snaplen, link_type)]
    for time_ns, frame in frames:
        kept = frame[:snaplen]
        stamp = (time_ns // SECOND, time_ns % SECOND // tick)
        parts += [struct.pack(order + "IIII", *stamp, len(kept), len(frame)), kept]
    return b"".join(parts)


def pcapng(frames: Iterable[Frame], link_type: int = DLT_ETHERNET) -> bytes:
    """A pcapng section: one interface with nanosecond timestamps, its packets and its statistics."""
    section = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)
    options = _option(2, b"mirror0") + _option(9, b"\x09") + _option(0, b"")
    parts = [_block(0x0A0D0D0A, section), _block(1, struct.pack("<HHI", link_type, 0, WHOLE_PACKETS) + options)]
    time_ns = 0
    for time_ns, frame in frames:
        parts.append(_block(6, _stamp(time_ns) + struct.pack("<II", len(frame), len(frame)) + frame))
    parts.append(_block(5, _stamp(time_ns)))
    return b"".join(parts)


def _stamp(time_ns: int) -> bytes:
    return struct.pack("<III", 0, time_ns >> 32, time_ns & 0xFFFFFFFF)


def _block(kind: int, body: bytes) -> bytes:
    body += b"\0" * (-len(body) % 4)
    size = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + size + body + size


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + b"\0" * (-len(value) % 4)


def gzipped(data: bytes) -> bytes:
    """A gzip file (RFC 1952) of stored blocks: what a compressor makes would depend on zlib's version."""
    blocks = [data[at : at + 0xFFFF] for at in range(0, len(data), 0xFFFF)]
    body = b"".join(
        struct.pack("<BHH", block is blocks[-1], len(block), len(block) ^ 0xFFFF) + block for block in blocks
    )
    return b"\x1f\x8b\x08" + bytes(6) + b"\xff" + body + struct.pack("<II", zlib.crc32(data), len(data))
