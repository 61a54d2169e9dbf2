"""Finished flows as JSON lines, for ``--flows``."""

from __future__ import annotations

import contextlib
from typing import IO

from sensor.config import Network
from sensor.errors import OutputError
from sensor.flows import flow_lines
from sensor.native import NumpyArray
from sensor.output import failures_of_standard_output, standard_output


class FlowWriter:
    """Writes one line a finished flow to a file, or to standard output where the path is ``-``."""

    def __init__(self, path: str, monitored: tuple[Network, ...]) -> None:
        self._path = path
        self._monitored = monitored
        self._file: IO[str] | None = None

    def open(self) -> None:
        """Make or truncate the file."""
        if self._path == "-":
            self._file = standard_output()
            return
        try:
            self._file = open(self._path, "w", encoding="utf-8")  # noqa: SIM115 - closed by close()
        except OSError as error:
            raise OutputError(f"{self._path}: cannot write the flows: {error.strerror}") from None

    def write(self, records: NumpyArray) -> None:
        """Write some finished flows."""
        if self._file is None:
            return
        lines = flow_lines(records, self._monitored)
        if self._path == "-":
            with failures_of_standard_output():
                self._file.writelines(lines)
                self._file.flush()
            return
        try:
            self._file.writelines(lines)
            self._file.flush()
        except OSError as error:
            self._abandon(self._file)
            raise OutputError(f"{self._path}: cannot write the flows: {error.strerror}") from None

    def close(self) -> None:
        """Close the file."""
        file, self._file = self._file, None
        if file is not None and self._path != "-":
            file.close()

    def _abandon(self, file: IO[str]) -> None:
        """What is still in the buffer cannot be written; Python must not try it again at exit."""
        self._file = None
        with contextlib.suppress(OSError):
            file.close()
