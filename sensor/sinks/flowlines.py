"""Finished flows as JSON lines, for ``--flows``."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import IO

from sensor.config import Network
from sensor.errors import OutputError
from sensor.flows import flow_lines
from sensor.native import NumpyArray


class FlowWriter:
    """Writes one line a finished flow to a file, or to standard output where the path is ``-``."""

    def __init__(self, path: str, monitored: tuple[Network, ...]) -> None:
        self._path = path
        self._monitored = monitored
        self._file: IO[str] | None = None

    def open(self) -> None:
        """Make or truncate the file."""
        if self._path == "-":
            self._file = sys.stdout
            return
        try:
            self._file = open(self._path, "w", encoding="utf-8")  # noqa: SIM115 - closed by close()
        except OSError as error:
            raise OutputError(f"{self._path}: cannot write the flows: {error.strerror}") from None

    def write(self, records: NumpyArray) -> None:
        """Write some finished flows."""
        if self._file is None:
            return
        try:
            self._file.writelines(flow_lines(records, self._monitored))
            self._file.flush()
        except OSError as error:
            self._abandon()
            raise OutputError(f"{self._name}: cannot write the flows: {error.strerror}") from None

    def close(self) -> None:
        """Close the file."""
        file, self._file = self._file, None
        if file is not None and self._path != "-":
            file.close()

    @property
    def _name(self) -> str:
        return "standard output" if self._path == "-" else self._path

    def _abandon(self) -> None:
        """What is still in the buffer cannot be written; Python must not try it again at exit."""
        file, self._file = self._file, None
        if self._path == "-":
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        elif file is not None:
            with contextlib.suppress(OSError):
                file.close()
