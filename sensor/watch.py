"""What an operator's file says now: read again when it changes, while what was good stays in force."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from sensor.errors import SensorError

Value = TypeVar("Value")
Handed = TypeVar("Handed", covariant=True)

_Look = tuple[int, int, int, int]

_ANEW: _Look = (-1, -1, -1, -1)
"""No file looks like this, nor does one that is not there."""


class Source(Protocol[Handed]):
    """Hands out the value of now. Called once a window, so it returns at once, and does not raise."""

    def current(self) -> Handed:
        """The value; the same object while nothing has changed."""

    def again(self) -> None:
        """Look anew at the next call, also where nothing seems to have changed. From any thread."""


class Fixed(Generic[Value]):
    """A value that never changes."""

    def __init__(self, value: Value) -> None:
        self._value = value

    def current(self) -> Value:
        """The value."""
        return self._value

    def again(self) -> None:
        """There is nothing to look at."""


class WatchedFile(Generic[Value]):
    """The value in a file, which may change while the sensor runs.

    Raises what ``load`` raises when the file is bad at the start. Later, what is wrong with it is handed to
    ``complain``, one line for each change, and the value that was good stays in force. ``what`` names it in that line.
    ``reloads`` counts the times that a changed file was taken, ``failures`` those that it was not.
    """

    def __init__(self, path: Path, load: Callable[[Path], Value], what: str, complain: Callable[[str], None]) -> None:
        self.reloads = 0
        self.failures = 0
        self._path = path
        self._load = load
        self._what = what
        self._complain = complain
        self._seen: _Look | None = _look(path)
        self._take()

    def current(self) -> Value:
        """The value of now: reads the file if it is another than at the last call, else only looks at it."""
        seen = _look(self._path)
        if seen != self._seen:
            self._seen = seen
            self._reload()
        return self._value

    def again(self) -> None:
        """Read the file at the next call."""
        self._seen = _ANEW

    def _reload(self) -> None:
        try:
            self._take()
        except SensorError as error:
            self.failures += 1
            self._complain(f"{error}; the {self._what} of {self._taken} stays in force")
        else:
            self.reloads += 1

    def _take(self) -> None:
        self._value = self._load(self._path)
        self._taken = time.strftime("%H:%M:%S")


def _look(path: Path) -> _Look | None:
    """What changes with a file, taken before it is read, so that a change meanwhile shows at the next look.

    The time of the last change of status tells of a file that could not be read and now can. None: there is no file.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
