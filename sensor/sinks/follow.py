"""A store followed while a sensor writes it: from near its end, without a lock, and never the whole of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from sensor.errors import InputError
from sensor.sinks.blocks import START, Block, Position, read_segment, segment_numbers, segment_path

HISTORY = 2
"""Segments that are read at first: events that are open were written in windows before the newest."""


class Follower:
    """Hands on what has been added to a store. The store may be missing, be emptied, or be made anew meanwhile."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._at = START
        """Behind the last whole window."""
        self._looked_at: tuple[int, ...] = ()

    def fresh(self) -> Iterator[Block]:
        """The whole windows since the last call. One that is half written comes with a later call.

        While nothing has changed it costs three calls of the kernel.
        """
        state = self._state()
        if state == self._looked_at:
            return
        numbers = self._numbers()
        if self._at == START or self._is_another_store(numbers):
            self._at = Position(min(numbers[-HISTORY:], default=0), 0)
        for number in numbers:
            if number >= self._at.segment:
                yield from self._read(Position(number, self._at.offset if number == self._at.segment else 0))
        self._looked_at = state  # of before the reading: what came during it is looked for again

    def _read(self, start: Position) -> Iterator[Block]:
        """Damage is passed over only when a whole window follows: until then it is one that is being written."""
        for block in read_segment(self.directory, start):
            if block.damage is None:
                self._at = block.next
                yield block

    def _state(self) -> tuple[int, ...]:
        """Another one when segments have come or gone, or the one that is written, or its successor, has grown."""
        try:
            changed_ns = self.directory.stat().st_mtime_ns
        except OSError:
            changed_ns = -1
        return changed_ns, self._size(self._at.segment), self._size(self._at.segment + 1)

    def _size(self, number: int) -> int:
        try:
            return segment_path(self.directory, number).stat().st_size
        except OSError:
            return -1

    def _numbers(self) -> list[int]:
        if self.directory.exists() and not self.directory.is_dir():
            raise InputError(f"{self.directory}: not a directory; name the one given to --store or --to store:DIR")
        if self.directory.is_dir() and not os.access(self.directory, os.R_OK | os.X_OK):
            raise InputError(f"{self.directory}: may not be read; run as root, or as the user that the sensor runs as")
        return segment_numbers(self.directory)

    def _is_another_store(self, numbers: list[int]) -> bool:
        """Nothing stands where the last window ended."""
        if not numbers:
            return True
        return numbers[-1] < self._at.segment or 0 <= self._size(self._at.segment) < self._at.offset
