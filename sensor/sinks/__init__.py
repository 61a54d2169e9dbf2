"""Where reports go: one file per destination behind one protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from sensor.window import Report


class Sink(Protocol):
    """A destination of finished windows.

    Constructing one does nothing; ``open`` claims files, threads and connections, and ``close`` gives them back. A
    failure is a ``SensorError`` with one line to show. ``close`` may follow a failed ``open`` or ``write``.
    """

    name: str

    def open(self) -> None:
        """Get ready to write; fail now rather than at the first window."""

    def write(self, report: Report) -> None:
        """Take one window. The report is shared with other sinks and must not be changed."""

    def health(self) -> Mapping[str, int | float]:
        """What it says of itself, by the names of the fields of measurement ``sensor``; from any thread."""

    def close(self) -> None:
        """Finish what was taken; raise if some of it could not be kept or delivered."""
