"""Points that a server refused for what they are, kept beside the store with its reason.

    # vmsensor-rejected server="http://influx:8086 traffic" lines=1 reason="partial write: field type conflict: ..."
    vm_traffic,src_vm=web-1 bytes=0.5 1700000000000000000

The file is line protocol: when the cause is gone, it can be written to the server as it is.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from sensor.errors import OutputError

MOST_OCTETS = 16 * 2**20
"""When the file has grown past this, it becomes ``rejected.old.lp``, in place of the one before."""

FILE_NAME = "rejected.lp"

log = logging.getLogger(__name__)


class Rejects:
    """The file, and how many points this process has put there."""

    def __init__(self, directory: Path, destination: str) -> None:
        self.path = directory / FILE_NAME
        self.points = 0
        self._destination = destination
        self._is_synced = True

    def add(self, lines: bytes, count: int, reason: str) -> None:
        """Keep ``count`` lines; they are on the disk once ``sync`` has returned. OutputError when they cannot be."""
        header = f"# vmsensor-rejected server={_quoted(self._destination)} lines={count} reason={_quoted(reason)}\n"
        try:
            if self.path.exists() and self.path.stat().st_size > MOST_OCTETS:
                self.path.replace(self.path.with_name("rejected.old.lp"))
            with self.path.open("ab") as file:
                file.write(header.encode("utf-8", "backslashreplace") + lines)
        except OSError as error:
            raise self._failure(error) from None
        if not self.points:
            log.warning("%s refuses points (%s); they are kept in %s", self._destination, reason, self.path)
        self.points += count
        self._is_synced = False

    def sync(self) -> None:
        """Before the window that they are of is noted as delivered."""
        if self._is_synced:
            return
        try:
            with self.path.open("ab") as file:
                os.fsync(file.fileno())
        except OSError as error:
            raise self._failure(error) from None
        self._is_synced = True

    def _failure(self, error: OSError) -> OutputError:
        return OutputError(f"{self.path}: cannot keep what the server refuses: {error.strerror}")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
