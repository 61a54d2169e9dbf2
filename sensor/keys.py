"""Keys of 64 bits for what has several parts, by multipliers that are random: nobody can make two of them meet."""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np
import numpy.typing as npt

from sensor.grouping import group

Keys = npt.NDArray[np.uint64]

_ODD = np.array([secrets.randbits(64) | 1 for _ in range(5)], np.uint64)


def mix(*words: npt.NDArray[Any]) -> Keys:
    """Of each row one key of its numbers, at most five."""
    mixed = np.zeros(len(words[0]), np.uint64)
    for odd, word in zip(_ODD, words, strict=False):
        mixed = (mixed ^ word.astype(np.uint64)) * odd
        mixed ^= mixed >> np.uint64(29)
    return mixed


def distinct(keys: Keys) -> Keys:
    """The different ones of many keys, in their order; far faster than ``np.unique``."""
    return keys[group(keys).first]


def key_of(*words: object) -> int:
    """The key of names."""
    return hash(words) & 0xFFFFFFFFFFFFFFFF


class Places:
    """Where each key has its row, for keys that are asked for by the thousands."""

    def __init__(self) -> None:
        self._keys: Keys = np.zeros(0, np.uint64)
        self._rows: npt.NDArray[np.int64] = np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self._keys)

    def of(self, keys: Keys) -> npt.NDArray[np.int64]:
        """The row of each of these keys; -1 of one that has none."""
        if not len(self._keys):
            return np.full(len(keys), -1, np.int64)
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[at] == keys, self._rows[at], -1)

    def add(self, keys: Keys, rows: npt.NDArray[np.int64]) -> None:
        """Rows for keys, different ones, that have none yet."""
        order = np.argsort(keys)
        at = np.searchsorted(self._keys, keys[order])
        self._keys, self._rows = np.insert(self._keys, at, keys[order]), np.insert(self._rows, at, rows[order])

    def remove(self, rows: npt.NDArray[np.int64]) -> None:
        """Forget the keys of these rows."""
        kept = ~np.isin(self._rows, rows)
        self._keys, self._rows = self._keys[kept], self._rows[kept]
