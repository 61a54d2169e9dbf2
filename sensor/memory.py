"""What is kept over restarts: names learned from the wire, the lives of VMs, dependencies. A file of JSON."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sensor.errors import OutputError

VERSION = 2

log = logging.getLogger(__name__)


class Memory:
    """The file; without a path, nothing is kept."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def load(self) -> dict[str, Any]:
        """The parts that were kept, by name; empty, with a warning, when the file is damaged."""
        if self._path is None:
            return {}
        try:
            kept = json.loads(self._path.read_text(encoding="utf-8"))
            if kept["version"] != VERSION:
                raise ValueError(f"version {kept['version']} is not {VERSION}")
            return dict(kept)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.warning("%s: what was learned before cannot be read (%s); it is learned anew", self._path, error)
            return {}

    def save(self, parts: dict[str, Any]) -> None:
        """Replace the file; readers see the old one or the new one. OutputError when it cannot be written."""
        if self._path is None:
            return
        with self._explained(self._path):
            temporary = _beside(self._path)
            with temporary.open("w", encoding="utf-8") as file:
                json.dump({"version": VERSION, **parts}, file, separators=(",", ":"))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)

    def check(self) -> None:
        """OutputError when it could not be saved."""
        if self._path is None:
            return
        with self._explained(self._path):
            temporary = _beside(self._path)
            temporary.touch()
            temporary.unlink()

    @staticmethod
    @contextlib.contextmanager
    def _explained(path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(
                f"{path}: cannot keep what was learned: {error.strerror}; choose another --memory"
            ) from None


def _beside(path: Path) -> Path:
    """Where it is written before it takes the place of the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(path.name + ".tmp")
