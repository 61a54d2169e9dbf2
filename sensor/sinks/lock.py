"""One process owns a store: it writes there, delivers from it and removes what is old."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from sensor.errors import OutputError
from sensor.sinks.blocks import LOCK_NAME


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
