"""Rows that have the same key, found with one sort, and what is made of a column over each group of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_GREATEST = np.iinfo(np.int64).max

_BITS = 63
"""Of a key and the number of its row, together in one signed integer."""


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
    order, ordered = sorted_rows(keys)
    begins = np.ones(len(keys), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=begins[1:])
    of_row = np.empty(len(keys), np.int64)
    of_row[order] = np.cumsum(begins) - 1
    return Groups(of_row, np.minimum.reduceat(order, np.flatnonzero(begins)) if len(keys) else of_row)


def sorted_rows(keys: Array) -> tuple[Ints, Array]:
    """The rows in the order of their keys, equals in any, and the keys in that order.

    With its row's number in the low bits a key is sorted as a plain number: several times faster than an argsort.
    """
    bits = len(keys).bit_length()
    if len(keys) and keys.min() >= 0 and int(keys.max()) < 1 << (_BITS - bits):
        packed = keys.astype(np.int64) << bits | np.arange(len(keys))
        packed.sort()
        return packed & ((1 << bits) - 1), packed >> bits
    order = np.argsort(keys)
    return order, keys[order]
