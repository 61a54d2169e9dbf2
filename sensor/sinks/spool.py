"""The embedded store: a directory that keeps every window, within bounds of size and age.

    DIR/00000001.lp ...     append-only segments of blocks, see blocks.py
    DIR/delivered.json      per server, the position up to which it has everything
    DIR/rejected.lp         points that a server refused, each with its reason
    DIR/vmsensor.lock       held by the one process that writes here

It is the default destination, and the spool in front of InfluxDB. When it is full, or the disk is, the oldest segment
goes first. Of a disk that was full, it leaves others the room of a segment.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sensor.errors import OutputError
from sensor.sinks.blocks import (
    START,
    Block,
    Position,
    headers_of,
    pack,
    read_segment,
    segment_numbers,
    segment_path,
)
from sensor.sinks.delivered import Delivered
from sensor.sinks.lock import StoreLock
from sensor.window import Report

SEGMENT_BYTES = 16 * 1024 * 1024
"""A segment that has grown past this is followed by a new one."""

SEGMENTS_AT_LEAST = 8
"""Into so many a small store is divided: as a whole segment goes at a time, the rest should be worth keeping."""

Sync = Literal["window", "segment", "never"]
_REVISIONS = 1_000_000
"""More points of one series than a window ever has, each 1 ns after the one before it."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SpoolLimits:
    """What a store may take, and when it is told to the disk.

    ``most_age_ns`` is counted from the window that is written, not from the clock; None: however old. ``sync`` says
    what a power cut can cost: nothing that was written (``window``), the open segment (``segment``), or what the
    kernel had not written of itself (``never``). The end of the process, however it ends, costs nothing.
    """

    most_bytes: int = 10 * 2**30
    most_age_ns: int | None = None
    sync: Sync = "window"
    segment_bytes: int = SEGMENT_BYTES

    @property
    def segment(self) -> int:
        """Octets after which a segment is followed by the next."""
        return min(self.segment_bytes, max(self.most_bytes // SEGMENTS_AT_LEAST, 1))


class SpoolSink:
    """Appends each window to a store as one block; by default it is on the disk before ``write`` returns.

    ``live`` says that windows come as the clock goes: then one that begins when a stored one began is the rest of it,
    after a restart, and gets times of its own. (A capture file that is read again writes the same points again.)
    What a full disk left no room for is counted in ``lost_windows``, and ``close`` raises it.
    """

    name = "store"

    def __init__(
        self,
        directory: str | Path,
        limits: SpoolLimits | None = None,
        *,
        live: bool = False,
    ) -> None:
        self.directory = Path(directory)
        self.end = START
        """Everything before this has been written; another thread may read up to it."""
        self.last = START
        """Where the last window was written."""
        self.lost_windows = 0
        self.octets = 0
        """Of all segments."""
        self.removed: Callable[[int, list[Block]], None] = lambda segment, windows: None
        """Told the number of a segment that had to go, and its windows."""
        self._limits = limits or SpoolLimits()
        self._live = live
        self._lock = StoreLock(self.directory)
        self._sizes: dict[int, int] = {}
        self._ends_ns: dict[int, int] = {}
        self._last: Block | None = None
        self._said_full = False
        self._was_disk_full = False
        self._fd: int | None = None

    def open(self) -> None:
        """Make the directory where it is missing, and become its only writer."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{self.directory}: cannot make the store: {error.strerror}") from None
        self._lock.acquire()
        self.end = self._end_on_disk()
        self._sizes = {
            number: segment_path(self.directory, number).stat().st_size for number in segment_numbers(self.directory)
        }
        self.octets = sum(self._sizes.values())

    def write(self, report: Report) -> None:
        """Append the report. Where the disk is full, older segments make room; OutputError when the disk fails."""
        block = pack(self._in_its_own_time(report))
        size = sum(map(len, block))
        self._remove_old(report.end_ns, size)
        self._leave_room(size)
        if self.end.offset >= self._limits.segment:
            self._next_segment()
        while True:
            try:
                self._append(block)
                break
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise OutputError(f"{self.directory}: cannot write to the store: {error.strerror}") from None
                self._was_disk_full = True
                if not self._remove_oldest("the disk is full"):
                    self._lose(error)
                    return
        self.last, self.end = self.end, self.end.plus(size)
        self.octets += size
        self._sizes[self.end.segment] = self.end.offset
        self._ends_ns[self.end.segment] = report.end_ns

    def health(self) -> dict[str, int | float]:
        """Its size, and what it lost."""
        return {"spool_bytes": self.octets, "spool_lost_windows": self.lost_windows}

    def close(self) -> None:
        """Let others write; OutputError when windows were lost."""
        self._close_segment()
        self._lock.release()
        if self.lost_windows:
            raise OutputError(f"{self.directory}: {self.lost_windows} windows are lost: the disk is full; make room")

    # ---- where to go on

    def _end_on_disk(self) -> Position:
        """Behind the last block, or in a new segment where the last one ends in damage."""
        numbers = segment_numbers(self.directory)
        delivered = Delivered(self.directory).last_segment()
        if not numbers or numbers[-1] < delivered:
            # Someone removed segments. Their numbers must not come back: new windows would pass for delivered.
            return Position(delivered + 1, 0)
        end, damage = Position(numbers[-1], 0), None
        for block in read_segment(self.directory, end):
            end, damage = block.next, block.damage
            self._last = block if block.damage is None else self._last
        if damage is None:
            return end
        log.warning("%s; going on in a new segment", damage)
        return Position(end.segment + 1, 0)

    def _in_its_own_time(self, report: Report) -> Report:
        """The report, with later times where an earlier run has already written points of this window."""
        last = self._last
        if not self._live or last is None or report.start_ns != last.start_ns or not last.data:
            return report
        later_ns = [int(time) - last.start_ns for time in re.findall(rb" (\d{1,19})$", last.data, re.MULTILINE)]
        latest_ns = max((ns for ns in later_ns if 0 <= ns < _REVISIONS), default=0)
        return replace(report, time_ns=report.time_ns + latest_ns + 1)

    # ---- making room

    def _remove_old(self, now_ns: int, size: int) -> None:
        """Keep to the bounds before ``size`` octets more are written."""
        while self.octets + size > self._limits.most_bytes and self._remove_oldest("it has reached --store-size"):
            pass
        if self._limits.most_age_ns is not None:
            while self._oldest_end_ns() < now_ns - self._limits.most_age_ns and self._remove_oldest(None):
                pass

    def _leave_room(self, size: int) -> None:
        """For what else is kept on a disk that has been full, what the sensor has learned above all."""
        while self._was_disk_full and self._free() < self._limits.segment + size:
            if not self._remove_oldest("the disk is full"):
                return

    def _free(self) -> float:
        """Octets; without end where that is not known: writing will say what is wrong."""
        try:
            return shutil.disk_usage(self.directory).free
        except OSError:
            return math.inf

    def _oldest_end_ns(self) -> int:
        """When the last window of the oldest segment ended."""
        oldest = min(self._sizes, default=self.end.segment)
        if oldest not in self._ends_ns:
            self._ends_ns[oldest] = max(
                (block.end_ns for block in headers_of(self.directory, Position(oldest, 0))), default=0
            )
        return self._ends_ns[oldest]

    def _remove_oldest(self, cause: str | None) -> bool:
        """Remove the oldest segment; False where only the one that is being written is left."""
        oldest = min(self._sizes, default=self.end.segment)
        if oldest >= self.end.segment:
            return False
        windows = list(headers_of(self.directory, Position(oldest, 0)))
        try:
            segment_path(self.directory, oldest).unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{self.directory}: cannot remove old windows: {error.strerror}") from None
        self.octets -= self._sizes.pop(oldest)
        self._ends_ns.pop(oldest, None)
        self.removed(oldest, windows)
        if cause and not self._said_full:
            self._said_full = True
            log.warning("%s: the oldest windows are removed from now on: %s", self.directory, cause)
        return True

    def _lose(self, error: OSError) -> None:
        if not self.lost_windows:
            log.warning("%s: windows are lost: %s; make room on the disk", self.directory, error.strerror)
        self.lost_windows += 1

    # ---- the open segment

    def _append(self, block: Sequence[bytes | memoryview]) -> None:
        if self._fd is None:
            path = segment_path(self.directory, self.end.segment)
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            if self._limits.sync != "never":
                _sync_directory(self.directory)
        try:
            for part in block:
                _write_all(self._fd, part)
            if self._limits.sync == "window":
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
        if self._fd is None:
            return
        try:
            if self._limits.sync == "segment":
                os.fsync(self._fd)
        except OSError as error:
            raise OutputError(f"{self.directory}: cannot write to the store: {error.strerror}") from None
        finally:
            os.close(self._fd)
            self._fd = None


def _write_all(fd: int, octets: bytes | memoryview) -> None:
    rest = memoryview(octets)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _sync_directory(directory: Path) -> None:
    """A new file survives a power cut only once its directory entry is on the disk."""
    fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
