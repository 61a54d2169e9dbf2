"""Lines to standard output or to a file: whatever goes wrong becomes one line, and is not tried again at exit."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from typing import TextIO

from sensor.errors import OutputError

STDOUT = "-"


class ReaderGone(OutputError):
    """Nobody reads standard output any more (``| head``)."""


class Lines:
    """A file of lines, replacing what was there, or standard output for ``-``.

    After a failure it is closed: what the buffer still holds could not be written either.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: TextIO | None = None

    @property
    def name(self) -> str:
        """As messages call it."""
        return "standard output" if self._path == STDOUT else self._path

    def open(self) -> None:
        """Make the file; OutputError when that cannot be done."""
        with self._failures():
            if self._path == STDOUT:
                self._file = standard_output()
            else:
                self._file = open(self._path, "w", encoding="utf-8", errors="surrogateescape")  # noqa: SIM115

    def write(self, lines: Iterable[str]) -> None:
        """Write and flush."""
        if self._file is None:
            raise OutputError(f"{self.name}: closed after an earlier failure")
        with self._failures():
            self._file.writelines(lines)
            self._file.flush()

    def close(self) -> None:
        """Close the file; standard output stays open for others."""
        file, self._file = self._file, None
        if file is not None and self._path != STDOUT:
            file.close()

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._abandon()
            if isinstance(error, BrokenPipeError):
                raise ReaderGone(f"{self.name}: its reader has ended; the rest is not written") from None
            raise OutputError(f"{self.name}: cannot write: {error.strerror}; choose another place") from None

    def _abandon(self) -> None:
        file, self._file = self._file, None
        if self._path == STDOUT:
            abandon_standard_output()
        elif file is not None:
            with contextlib.suppress(OSError):
                file.close()


def standard_output() -> TextIO:
    """``sys.stdout``; OutputError where the process was started without one."""
    if sys.stdout is None:
        raise OutputError("standard output is closed; redirect it to a file, or to /dev/null")
    return sys.stdout


def abandon_standard_output() -> None:
    """Let what its buffer still holds go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def write(text: str) -> None:
    """Write to standard output."""
    lines = Lines(STDOUT)
    lines.open()
    lines.write([text])


@contextlib.contextmanager
def quiet_when_nobody_reads() -> Iterator[None]:
    """For commands that only print: a reader that has seen enough is no failure."""
    with contextlib.suppress(ReaderGone):
        yield
