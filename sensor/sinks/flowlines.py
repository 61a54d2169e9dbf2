"""Finished flows as JSON lines, for ``--flows``."""

from __future__ import annotations

from sensor.config import Network
from sensor.flows import flow_lines
from sensor.native import NumpyArray
from sensor.output import Lines


class FlowWriter:
    """Writes one line a finished flow to a file, or to standard output where the path is ``-``."""

    def __init__(self, path: str, monitored: tuple[Network, ...]) -> None:
        self._lines = Lines(path)
        self._monitored = monitored

    def open(self) -> None:
        """Make or truncate the file."""
        self._lines.open()

    def write(self, records: NumpyArray) -> None:
        """Write some finished flows."""
        self._lines.write(flow_lines(records, self._monitored))

    def close(self) -> None:
        """Close the file."""
        self._lines.close()
