"""Rows that a detector remembers from window to window, bounded."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sensor.keys import Keys
from sensor.native import NumpyArray

Mask = npt.NDArray[np.bool_]
Index = npt.NDArray[np.intp]


class Ledger:
    """Rows that live across windows, by key; at most so many: of more, those of the oldest ``last_ns`` are dropped.

    The dtype has at least ``key`` (u8) and ``last_ns`` (i8); rows are in the order of their keys.
    """

    def __init__(self, dtype: np.dtype[Any], most: int) -> None:
        self.rows: NumpyArray = np.zeros(0, dtype)
        self.forgotten = 0
        self._most = most

    def place(self, keys: Keys) -> tuple[Index, Mask]:
        """Where these keys, different and ascending, are or would be, and whether they are there."""
        at = np.searchsorted(self.rows["key"], keys)
        there = at < len(self.rows)
        there[there] = self.rows["key"][at[there]] == keys[there]
        return at, there

    def at(self, keys: Keys) -> tuple[Index, Mask]:
        """The rows of these keys, different and ascending, new ones made where there were none, and which are new."""
        at, there = self.place(keys)
        new = ~there
        if new.any():
            rows = np.zeros(int(new.sum()), self.rows.dtype)
            rows["key"] = keys[new]
            self.rows = np.insert(self.rows, at[new], rows)
            at = at + np.cumsum(new) - new
        return at, new

    def keep(self, wanted: Mask) -> None:
        """Only these rows."""
        if not wanted.all():
            self.rows = self.rows[wanted]

    def bound(self) -> None:
        """Drop the oldest rows, if there are too many."""
        too_many = len(self.rows) - self._most
        if too_many > 0:
            wanted = np.ones(len(self.rows), bool)
            wanted[np.argpartition(self.rows["last_ns"], too_many)[:too_many]] = False
            self.rows = self.rows[wanted]
            self.forgotten += too_many
