"""Rows that have the same key, and what is made of a column over each group of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sensor import native

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_GREATEST = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Groups:
    """Groups in the order of their keys: the group of each row, and the first row of each group."""

    of_row: Ints
    first: Ints

    def __len__(self) -> int:
        return len(self.first)

    def sum(self, rows: Array) -> Ints:
        """Exact sums over each group of a value a row."""
        total = np.zeros(len(self), np.int64)
        if rows.any():  # most of what is counted is rare
            np.add.at(total, self.of_row, rows.astype(np.int64))
        return total

    def min(self, rows: Array, where: Mask) -> Ints:
        """The least value of each group among the rows that count; the greatest number there is where none does."""
        least = np.full(len(self), _GREATEST, np.int64)
        np.minimum.at(least, self.of_row[where], rows[where].astype(np.int64))
        return least

    def max(self, rows: Array, where: Mask) -> Ints:
        """The greatest value, not negative, of each group among the rows that count; 0 where none does."""
        most = np.zeros(len(self), np.int64)
        np.maximum.at(most, self.of_row[where], rows[where].astype(np.int64))
        return most


def group(keys: Array) -> Groups:
    """The groups of rows with integer keys."""
    return Groups(*native.group_rows(_unsigned(keys)))


def sorted_rows(keys: Array) -> tuple[Ints, Array]:
    """The rows in the order of their keys, and the keys in that order."""
    order = native.order_rows(_unsigned(keys))
    return order, keys[order]


def _unsigned(keys: Array) -> npt.NDArray[np.uint64]:
    """Numbers in the same order, none of them negative."""
    if keys.dtype.kind == "u" or not len(keys) or keys.min() >= 0:
        return np.asarray(keys, np.uint64)
    turned: npt.NDArray[np.uint64] = np.asarray(keys, np.int64).view(np.uint64) ^ np.uint64(1 << 63)
    return turned
