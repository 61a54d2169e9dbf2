"""Finished flows as JSON lines, for ``--flows``."""

from __future__ import annotations

from sensor.flows import flow_lines
from sensor.identity.registry import Registry
from sensor.native import NumpyArray
from sensor.output import Lines


class FlowWriter:
    """Writes one line a finished flow to a file, or to standard output where the path is ``-``."""

    def __init__(self, path: str, registry: Registry) -> None:
        self._lines = Lines(path)
        self._registry = registry

    def open(self) -> None:
        """Make or truncate the file."""
        self._lines.open()

    def write(self, records: NumpyArray) -> None:
        """Write some finished flows."""
        self._lines.write(flow_lines(records, self._registry))

    def close(self) -> None:
        """Close the file."""
        self._lines.close()
