"""The embedded store: a directory that keeps every window, and how far each server has received them.

    DIR/00000001.lp ...     append-only segments of blocks, see blocks.py
    DIR/delivered.json      per server, the position up to which it has everything
    DIR/vmsensor.lock       held by the one process that writes here

It is the default destination, and the spool in front of InfluxDB.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from pathlib import Path

from sensor.errors import OutputError
from sensor.sinks.blocks import LOCK_NAME, START, Position, pack, read_segment, segment_numbers, segment_path
from sensor.window import Report

SEGMENT_BYTES = 16 * 1024 * 1024
"""A segment that has grown past this is followed by a new one."""

log = logging.getLogger(__name__)


class StoreLock:
    """The right to write to a store. The kernel takes it back when the process ends, however it ends."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take the lock, or say who has it."""
        try:
            fd = os.open(self._directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise OutputError(f"{self._directory}: cannot write to the store: {error.strerror}") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.read(fd, 20).decode("ascii", "replace").strip()
            os.close(fd)
            raise OutputError(
                f"{self._directory}: in use by another vmsensor{f' (process {owner})' if owner else ''};"
                " wait until it ends, or choose another directory"
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd

    def release(self) -> None:
        """Give the lock back. The file stays: removing it would let two processes lock two files of one name."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> StoreLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class SpoolSink:
    """Appends each window to a store as one block, on the disk before ``write`` returns."""

    name = "store"

    def __init__(self, directory: str | Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.directory = Path(directory)
        self.end = START
        """Everything before this is on the disk; another thread may read up to it."""
        self._segment_bytes = segment_bytes
        self._lock = StoreLock(self.directory)
        self._fd: int | None = None

    def open(self) -> None:
        """Make the directory where it is missing, and become its only writer."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{self.directory}: cannot make the store: {error.strerror}") from None
        self._lock.acquire()
        self.end = self._end_on_disk()

    def write(self, report: Report) -> None:
        """Append the report; when the disk refuses, leave the segment as it was."""
        block = pack(report)
        try:
            self._append(block)
        except OSError as error:
            raise OutputError(f"{self.directory}: cannot write to the store: {error.strerror}") from None
        self.end = self.end.plus(len(block))

    def close(self) -> None:
        """Let others write."""
        self._close_segment()
        self._lock.release()

    def _end_on_disk(self) -> Position:
        """Where to go on: behind the last block, or in a new segment where the last one ends in damage."""
        numbers = segment_numbers(self.directory)
        delivered = Delivered(self.directory).last_segment()
        if not numbers or numbers[-1] < delivered:
            # Someone removed segments. Their numbers must not come back: new windows would pass for delivered.
            return Position(delivered + 1, 0)
        end, damage = Position(numbers[-1], 0), None
        for block in read_segment(self.directory, end):
            end, damage = block.next, block.damage
        if damage is None:
            return end
        log.warning("%s; going on in a new segment", damage)
        return Position(end.segment + 1, 0)

    def _append(self, block: bytes) -> None:
        if self.end.offset >= self._segment_bytes:
            self._next_segment()
        if self._fd is None:
            path = segment_path(self.directory, self.end.segment)
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            _sync_directory(self.directory)
        try:
            rest = memoryview(block)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
            os.fsync(self._fd)
        except OSError:
            self._discard_torn_block(self._fd)
            raise

    def _discard_torn_block(self, fd: int) -> None:
        try:
            os.ftruncate(fd, self.end.offset)
        except OSError:
            self._next_segment()

    def _next_segment(self) -> None:
        self._close_segment()
        self.end = Position(self.end.segment + 1, 0)

    def _close_segment(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _sync_directory(directory: Path) -> None:
    """A new file survives a power cut only once its directory entry is on the disk."""
    fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class Delivered:
    """How far each server has received a store. Losing it is harmless: a window sent again overwrites itself."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "delivered.json"

    def position(self, server: str) -> Position:
        """Up to where ``server`` has everything."""
        return self._load().get(server, START)

    def last_segment(self) -> int:
        """The highest segment of which any server has received something; 0 where none has."""
        return max((position.segment for position in self._load().values()), default=0)

    def advance(self, server: str, position: Position) -> None:
        """Note that ``server`` has everything before ``position``; readers see the old file or the new one."""
        positions = self._load() | {server: position}
        text = json.dumps({name: place._asdict() for name, place in positions.items()}, indent=2)
        temporary = self._path.with_suffix(".tmp")
        try:
            temporary.write_text(text + "\n", encoding="utf-8")
            temporary.replace(self._path)
        except OSError as error:
            raise OutputError(f"{self._path}: cannot note what was delivered: {error.strerror}") from None

    def _load(self) -> dict[str, Position]:
        try:
            loaded = json.loads(self._path.read_text(encoding="utf-8"))
            return {server: Position(int(place["segment"]), int(place["offset"])) for server, place in loaded.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            log.warning("%s is unreadable: everything will be sent again, which changes nothing", self._path)
            return {}
