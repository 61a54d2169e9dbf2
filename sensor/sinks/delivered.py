"""How far each server has received a store."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from sensor.errors import OutputError
from sensor.sinks.blocks import START, Position

log = logging.getLogger(__name__)


class Delivered:
    """How far each server has received a store. Losing it is harmless: a window sent again overwrites itself."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "delivered.json"
        self._advanced: dict[str, Position] = {}
        """Also what a full disk has kept from being noted."""

    def position(self, server: str) -> Position:
        """Up to where ``server`` has everything."""
        return self._load().get(server, START)

    def last_segment(self) -> int:
        """The highest segment of which any server has received something; 0 where none has."""
        return max((position.segment for position in self._load().values()), default=0)

    def advance(self, server: str, position: Position) -> None:
        """Note that ``server`` has everything before ``position``; readers see the old file or the new one."""
        self._advanced[server] = position
        positions = self._load()
        text = json.dumps({name: place._asdict() for name, place in positions.items()}, indent=2)
        temporary = self._path.with_suffix(".tmp")
        try:
            temporary.write_text(text + "\n", encoding="utf-8")
            temporary.replace(self._path)
        except OSError as error:
            raise OutputError(f"{self._path}: cannot note what was delivered: {error.strerror}") from None

    def _load(self) -> dict[str, Position]:
        return self._noted() | self._advanced

    def _noted(self) -> dict[str, Position]:
        try:
            loaded = json.loads(self._path.read_text(encoding="utf-8"))
            return {server: Position(int(place["segment"]), int(place["offset"])) for server, place in loaded.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            log.warning("%s is unreadable: everything will be sent again, which changes nothing", self._path)
            return {}
