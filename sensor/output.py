"""Standard output: whatever goes wrong there becomes one line, and is not tried again when the interpreter exits."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from sensor.errors import OutputError


class ReaderGone(OutputError):
    """Nobody reads standard output any more (``| head``)."""


def standard_output() -> TextIO:
    """``sys.stdout``; OutputError where the process was started without one."""
    if sys.stdout is None:
        raise OutputError("standard output is closed; redirect it to a file, or to /dev/null")
    return sys.stdout


@contextmanager
def failures_of_standard_output() -> Iterator[None]:
    """Turn what the system says of standard output into an OutputError."""
    try:
        yield
    except OSError as error:
        abandon()
        if isinstance(error, BrokenPipeError):
            raise ReaderGone("standard output: its reader has ended; the rest is not written") from None
        raise OutputError(f"standard output: cannot write: {error.strerror}; choose another place") from None


def write(text: str) -> None:
    """Write and flush."""
    file = standard_output()
    with failures_of_standard_output():
        file.write(text)
        file.flush()


@contextmanager
def quiet_when_nobody_reads() -> Iterator[None]:
    """For commands that only print: a reader that has seen enough (``| head``) is no failure."""
    with suppress(ReaderGone):
        yield


def abandon() -> None:
    """Let what the buffer still holds go nowhere, or it would fail once more when the interpreter exits."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
