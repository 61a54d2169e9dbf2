"""What the kernel would put into a packet socket's ring (TPACKET_V3), without a kernel."""

from __future__ import annotations

import struct


def block(frames: list[tuple[int, int, bytes]], size: int) -> bytes:
    """A block of a ring with these packets, each of a status and a time: linux/if_packet.h, TPACKET_V3."""
    packets = b""
    for number, (status, ns, frame) in enumerate(frames):
        room = 48 + 16 + -(-len(frame) // 16) * 16
        ahead = 0 if number == len(frames) - 1 else room
        sec, nsec = divmod(ns, 1_000_000_000)
        head = struct.pack("6I2H", ahead, sec, nsec, len(frame), len(frame), status, 64, 64)
        packets += (head.ljust(64, b"\0") + frame).ljust(room, b"\0")
    head = struct.pack("6I", 3, 0, 1, len(frames), 64, len(packets))
    return (head.ljust(64, b"\0") + packets).ljust(size, b"\0")
