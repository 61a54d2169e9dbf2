"""The series budget: how many series the sensor may make in a day, and which are worth it.

A time-series database keeps an index of every combination of tags that it has ever seen; a port scan makes tens of
thousands in a minute. Here each combination is asked for before it is written. Which get in:

- those that were in already, today or the day before;
- while less than half of the budget is used, any, the heaviest first;
- up to eight tenths, those that come back (seen in an earlier window of the day): those of a scan mostly do not;
- up to nine tenths, those that are heavy at once;
- in the last tenth, the sums of what does not get in: ``other``, which the caller makes, so that no octet is missing.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sensor.keys import Keys, distinct
from sensor.native import order_rows
from sensor.window import Labels

Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

DAY_NS = 86400 * 10**9
HEAVY_OCTETS = 100_000
"""In one window: who moves so much is heavy at once."""

RESERVED = 64
"""For what is always written: the sensor itself, its top flows, ``other`` of each scope. At most a twentieth of all."""

_TENTHS = np.array([9, 8, 5])
"""Of the budget, for series that are heavy, that come back, that are new."""

_CERTAIN = np.iinfo(np.int64).max
_ODD = np.uint64(0x9E3779B97F4A7C15)
_MOST_NAMES = 1_000_000

log = logging.getLogger(__name__)


class SeriesBudget:
    """At most ``most`` series a day (UTC, by the windows' time). ``begin`` each window, then ask with ``admit``."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.folded = 0
        """Series of this window that did not get in."""
        self.folded_octets = 0
        """And what they carried, as far as they are directions of VM pairs."""
        self._seed = secrets.token_bytes(16)
        self._hashes: dict[str, int] = {}
        self._lists: dict[int, tuple[Sequence[str], Keys]] = {}
        """Of this window: a list of names, which many tags have in common, and the hashes of them."""
        self._day = -1
        self._used = 0
        self._known = np.zeros(0, np.uint64)
        self._before = np.zeros(0, np.uint64)
        self._seen = np.zeros(0, np.uint64)
        self._said = False

    @property
    def used(self) -> int:
        """Series of today so far, without those that are reserved."""
        return self._used

    def begin(self, start_ns: int) -> None:
        """A window begins; perhaps a day."""
        self.folded = self.folded_octets = 0
        self._lists.clear()
        day = start_ns // DAY_NS
        if day > self._day:
            self._day, self._used, self._said = day, 0, False
            self._before, self._known = self._known, np.zeros(0, np.uint64)
            self._seen = np.zeros(0, np.uint64)

    def keys(self, kind: str, *tags: Labels) -> Keys:
        """One key for each row of the tags; rows with other names have other keys."""
        keys = np.full(len(tags[0]), self._hash(kind), np.uint64)
        for tag in tags:
            keys = _mixed(keys, self._hashes_of(tag))
        return keys

    def knows(self, keys: Keys) -> Mask:
        """The rows whose series were made today."""
        return _is_in(keys, self._known)

    def admit(self, keys: Keys, octets: Ints, costs: Ints, *, are_sums: bool = False) -> Mask:
        """For each row, whether its series may be written; ``costs`` are how many they are. Keys differ.

        ``are_sums``: what has been put together already, and should not need to be put together further.
        """
        admitted = _is_in(keys, self._known)
        asking = np.flatnonzero(~admitted)
        if not len(asking):
            return admitted
        weight = np.where(_is_in(keys[asking], self._before), _CERTAIN, octets[asking])
        rank = np.where(weight >= HEAVY_OCTETS, 0, np.where(_is_in(keys[asking], self._seen), 1, 2))
        order = np.lexsort((-weight, rank))
        filled = self._used + np.cumsum(costs[asking][order])
        most = self.most - min(RESERVED, self.most // 20)
        fits = filled <= (most if are_sums else self.most * _TENTHS[rank[order]] // 10)
        # Behind the first that does not fit, nothing gets in: the lighter must not overtake the heavier.
        count = len(fits) if fits.all() else int(np.argmin(fits))
        chosen = asking[order[:count]]
        if count:
            self._used = int(filled[count - 1])
            self._known = distinct(np.concatenate([self._known, keys[chosen]]))
            admitted[chosen] = True
        self._note_refused(keys[asking[order[count:]]])
        return admitted

    def note_folded(self, series: int, octets: int = 0) -> None:
        """So much went into ``other``."""
        self.folded += series
        self.folded_octets += octets

    def to_json(self) -> dict[str, Any]:
        """What has to be kept over restarts, so that a day has one budget."""
        return {
            "day": int(self._day), "used": self._used, "seed": self._seed.hex(),
            "known": base64.b64encode(self._known.tobytes()).decode(),
            "before": base64.b64encode(self._before.tobytes()).decode(),
        }  # fmt: skip

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Take up what ``to_json`` gave; ValueError, TypeError or KeyError when it is something else."""
        seed = bytes.fromhex(kept["seed"])
        if len(seed) != len(self._seed):
            raise ValueError("the seed of the series has another length")
        known, before = (np.frombuffer(base64.b64decode(kept[name]), np.uint64) for name in ("known", "before"))
        self._day, self._used, self._seed = int(kept["day"]), int(kept["used"]), seed
        self._known, self._before = np.unique(known), np.unique(before)
        self._hashes.clear()
        self._lists.clear()

    def _note_refused(self, keys: Keys) -> None:
        """So that they are known when they come back; of at most as many as the budget has."""
        if not len(keys):
            return
        if not self._said:
            self._said = True
            log.warning(
                "%d of %d series of the day are used: light or new ones are summed into 'other' until tomorrow;"
                " --series-budget allows more", self._used, self.most,
            )  # fmt: skip
        seen = [self._seen, keys] if len(self._seen) < self.most else [keys]
        self._seen = distinct(np.concatenate(seen))

    def _hashes_of(self, tag: Labels) -> Keys:
        kept = self._lists.get(id(tag.names))
        if kept is None:
            kept = self._lists[id(tag.names)] = tag.names, np.array([self._hash(name) for name in tag.names], np.uint64)
        return kept[1][tag.codes]

    def _hash(self, name: str) -> int:
        """Keyed, so that nobody can choose names that meet."""
        found = self._hashes.get(name)
        if found is None:
            if len(self._hashes) >= _MOST_NAMES:
                self._hashes.clear()
            digest = hashlib.blake2b(name.encode("utf-8", "backslashreplace"), digest_size=8, key=self._seed).digest()
            found = self._hashes[name] = int.from_bytes(digest, "little")
        return found


def symmetric(one: Keys, other: Keys) -> Keys:
    """A key of two that does not depend on their order."""
    return _mixed(np.minimum(one, other), np.maximum(one, other))


def _mixed(keys: Keys, more: Keys) -> Keys:
    mixed = (keys ^ more) * _ODD
    result: Keys = (mixed ^ (mixed >> np.uint64(29))) + more
    return result


def _is_in(keys: Keys, ordered: Keys) -> Mask:
    if not len(ordered):
        return np.zeros(len(keys), np.bool_)
    order = order_rows(keys)  # looked up one after the other, they find their neighbours in the cache
    wanted = keys[order]
    at = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
    found = np.empty(len(keys), np.bool_)
    found[order] = ordered[at] == wanted
    return found
