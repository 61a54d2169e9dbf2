"""Capture files as dpkt reads them, up to where they are damaged."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import IO, Any, NamedTuple

import dpkt

LINK_TYPE_MASK = 0x03FFFFFF  # the upper six bits of the file header's field tell about the FCS
MICROSECONDS = 1_000_000


class Unreadable(Exception):
    """An oracle cannot read this capture at all: it has no opinion."""


class Frame(NamedTuple):
    """One frame; its time since the epoch in microseconds, which is what dpkt's floats are good for."""

    time_us: int
    octets: bytes


class Capture(NamedTuple):
    """A capture file's frames up to where it is damaged, if it is."""

    link_type: int
    frames: list[Frame]
    damaged: bool


class WholeReads:
    """A file that ends where it is cut: dpkt would hand out the stump of the last packet."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile) -> None:
        self.file, self.seek = file, file.seek

    def read(self, count: int) -> bytes:
        """All ``count`` octets, or none at the end; EOFError when the file is cut here."""
        octets = self.file.read(count)
        if octets and len(octets) < count:
            raise EOFError
        return octets


def open_capture(path: Path) -> Capture:
    """Read a pcap or pcapng file, gzip'd or not; Unreadable when it is neither."""
    packed = path.read_bytes()[:2] == b"\x1f\x8b"
    with gzip.open(path) if packed else path.open("rb") as file:
        try:
            reader = dpkt.pcap.UniversalReader(WholeReads(file))
        except (ValueError, EOFError, dpkt.UnpackError) as error:
            raise Unreadable(str(error)) from error
        return Capture(reader.datalink() & LINK_TYPE_MASK, *up_to_damage(reader))


def up_to_damage(reader: Any) -> tuple[list[Frame], bool]:
    """The frames before the first one that is not whole, and whether there was such a one."""
    frames: list[Frame] = []
    try:
        for seconds, octets in reader:
            frames.append(Frame(round(seconds * MICROSECONDS), bytes(octets)))
    except (dpkt.UnpackError, EOFError):
        return frames, True
    return frames, False
