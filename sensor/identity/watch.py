"""Where the inventory of now comes from: a file that is read again when it changes, or one that stays as it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from sensor.errors import SensorError
from sensor.identity.inventory import Inventory, load_inventory

_Look = tuple[int, int, int, int]


class FixedInventory:
    """An inventory that never changes; without one, none."""

    def __init__(self, inventory: Inventory | None = None) -> None:
        self._inventory = inventory if inventory is not None else Inventory()

    def current(self) -> Inventory:
        """The inventory."""
        return self._inventory


class WatchedInventory:
    """The inventory in a file, which may change while the sensor runs.

    Raises what ``load_inventory`` raises when the file is bad at the start. Later, what is wrong with it is handed to
    ``complain``, one line for each change, and the inventory that was good stays in force. ``reloads`` counts the times
    that a changed file was taken, ``failures`` those that it was not.
    """

    def __init__(self, path: Path, complain: Callable[[str], None]) -> None:
        self.reloads = 0
        self.failures = 0
        self._path = path
        self._complain = complain
        self._seen = _look(path)
        self._take()

    def current(self) -> Inventory:
        """The inventory of now: reads the file if it is another than at the last call, else only looks at it."""
        seen = _look(self._path)
        if seen != self._seen:
            self._seen = seen
            self._reload()
        return self._inventory

    def _reload(self) -> None:
        try:
            self._take()
        except SensorError as error:
            self.failures += 1
            self._complain(f"{error}; the inventory of {self._taken} stays in force")
        else:
            self.reloads += 1

    def _take(self) -> None:
        self._inventory = load_inventory(self._path)
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
