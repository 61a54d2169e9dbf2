"""Keys of 64 bits for what has several parts, by multipliers that are random: nobody can make two of them meet."""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]

_ODD = np.array([secrets.randbits(64) | 1 for _ in range(5)], np.uint64)


def mix(*words: npt.NDArray[Any]) -> Keys:
    """Of each row one key of its numbers, at most five."""
    mixed = np.zeros(len(words[0]), np.uint64)
    for odd, word in zip(_ODD, words, strict=False):
        mixed = (mixed ^ word.astype(np.uint64)) * odd
        mixed ^= mixed >> np.uint64(29)
    return mixed


def key_of(*words: object) -> int:
    """The key of names."""
    return hash(words) & 0xFFFFFFFFFFFFFFFF
