"""The format of the embedded store: segments of line protocol, in which each window is a block.

    # vmsensor-window version=1 start_ns=... end_ns=... partial=false lines=2 bytes=145 crc32=0c1d2e3f
    vm_traffic,dst_vm=db-1,src_vm=web-1 bytes=1200i,packets=3i 1700000000000000000
    vm_traffic,dst_vm=web-1,src_vm=db-1 bytes=9000i,packets=8i 1700000000000000000

A header is a comment to line protocol, so a segment can be read by eye and written to InfluxDB as it is. The checksum
covers the header before it and the lines after it. What a crash cut off is recognised by length or checksum.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import NamedTuple

from sensor.errors import InputError
from sensor.sinks import lineprotocol
from sensor.window import Report

VERSION = 1
LOCK_NAME = "vmsensor.lock"
SUFFIX = ".lp"

_MARK = b"# vmsensor-window "
_HEADER = re.compile(
    rb"(?P<checked># vmsensor-window version=(?P<version>\d{1,4})"
    rb" start_ns=(?P<start_ns>-?\d{1,19}) end_ns=(?P<end_ns>-?\d{1,19})"
    rb" partial=(?P<partial>true|false) lines=(?P<lines>\d{1,18}) bytes=(?P<bytes>\d{1,18}))"
    rb" crc32=(?P<crc32>[0-9a-f]{8})\n"
)
_HEADER_MOST = 300
"""More octets than a header has."""


class Position(NamedTuple):
    """A place in a store, in writing order: the number of a segment and a byte offset in it."""

    segment: int
    offset: int

    def plus(self, size: int) -> Position:
        """``size`` bytes further on in the same segment."""
        return Position(self.segment, self.offset + size)


START = Position(0, 0)


@dataclass(frozen=True)
class Block:
    """One window and where it stands in the store; or, with ``damage`` saying why, a stretch without a whole window."""

    position: Position
    next: Position
    start_ns: int = 0
    end_ns: int = 0
    partial: bool = False
    lines: int = 0
    data: bytes = b""
    damage: str | None = None


def pack(report: Report) -> list[bytes | memoryview]:
    """The report as a block, in pieces."""
    data = lineprotocol.written(report)
    header = (
        f"# vmsensor-window version={VERSION} start_ns={report.start_ns} end_ns={report.end_ns}"
        f" partial={'true' if report.partial else 'false'} lines={data.lines} bytes={sum(map(len, data.pieces))}"
    ).encode()
    crc32 = reduce(lambda crc, piece: zlib.crc32(piece, crc), data.pieces, zlib.crc32(header))
    return [b"%b crc32=%08x\n" % (header, crc32), *data.pieces]


def segment_path(directory: Path, number: int) -> Path:
    """Where segment ``number`` is kept; names sort in writing order."""
    return directory / f"{number:08d}{SUFFIX}"


def segment_numbers(directory: Path) -> list[int]:
    """The segments of a store in writing order."""
    return sorted(int(path.stem) for path in directory.glob(f"*{SUFFIX}") if path.stem.isdecimal())


def read_blocks(directory: Path, start: Position = START) -> Iterator[Block]:
    """The blocks of a store from ``start`` on, in writing order; damage is one of them and ends nothing."""
    require_store(directory)
    for number in segment_numbers(directory):
        if number >= start.segment:
            yield from read_segment(directory, Position(number, start.offset if number == start.segment else 0))


def require_store(directory: Path) -> None:
    """InputError unless a sensor has kept windows in ``directory``, or was about to."""
    if not directory.is_dir():
        raise InputError(f"{directory}: no such directory; name the one given to --store or --to store:DIR")
    # A store whose first window is still to come has only its lock file.
    if not segment_numbers(directory) and not (directory / LOCK_NAME).exists():
        raise InputError(f"{directory}: not a vmsensor store: no segments ({segment_path(Path(), 1)}, ...) in it")


def headers_of(directory: Path, start: Position) -> Iterator[Block]:
    """The blocks of one segment without their data, which is not looked at; nothing from the first damage on."""
    path = segment_path(directory, start.segment)
    try:
        with path.open("rb") as file:
            file.seek(start.offset)
            while (header := _HEADER.fullmatch(file.readline(_HEADER_MOST))) is not None:
                next_offset = file.seek(int(header["bytes"]), os.SEEK_CUR)
                block = _block(header, start, Position(start.segment, next_offset))
                yield block
                start = block.next
    except OSError:
        return  # whoever reads it will say so


def read_segment(directory: Path, start: Position) -> Iterator[Block]:
    """The blocks of one segment from ``start`` on; none when it has been removed meanwhile."""
    path = segment_path(directory, start.segment)
    try:
        with path.open("rb") as file:
            file.seek(start.offset)
            data = file.read()
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{path}: cannot read the segment: {error.strerror}") from None
    at = 0
    while at < len(data):
        block, at = _block_at(data, at, start, path)
        yield block


def _block_at(data: bytes, at: int, start: Position, path: Path) -> tuple[Block, int]:
    """The block at ``at`` of what follows ``start``, and where the next one begins."""
    header = _HEADER.match(data, at)
    if header is None:
        return _damage_at(data, at, start, path)
    if int(header["version"]) != VERSION:
        raise InputError(f"{path}: its format is newer than this vmsensor reads; use the release that wrote it")
    end = header.end() + int(header["bytes"])
    body = data[header.end() : end]
    if end > len(data) or zlib.crc32(body, zlib.crc32(header["checked"])) != int(header["crc32"], 16):
        return _damage_at(data, at, start, path)
    return _block(header, start.plus(at), start.plus(end), body), end


def _block(header: re.Match[bytes], position: Position, end: Position, data: bytes = b"") -> Block:
    return Block(
        position,
        end,
        start_ns=int(header["start_ns"]),
        end_ns=int(header["end_ns"]),
        partial=header["partial"] == b"true",
        lines=int(header["lines"]),
        data=data,
    )


def _damage_at(data: bytes, at: int, start: Position, path: Path) -> tuple[Block, int]:
    """What stands between here and the next header, or the end of the segment."""
    found = data.find(b"\n" + _MARK, at)
    end = len(data) if found < 0 else found + 1
    cause = "the last window is cut off" if found < 0 else "a window is damaged"
    return Block(start.plus(at), start.plus(end), damage=f"{path}: {cause} at byte {start.plus(at).offset}"), end
