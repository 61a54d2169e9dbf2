"""The windows of several workers put together into one."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from sensor.native import OVERFLOW, NumpyArray
from sensor.snapshot import Revisions, Snapshot, added

WORKER_BITS = 8
"""Of a flow's number: which worker's it is."""

MOST_CARDS = 200_000
"""Remembered over windows, with when each was heard last."""

_NEVER = np.iinfo(np.int64).max

MOST_MISSING = 100
"""Times of which something is missing that are remembered."""

LATEST_SECONDS = 5.0
"""A worker that is so late with a window is not waited for; what it has then comes by itself."""


class Merger:
    """Takes each worker's snapshots, hands out one a window once every worker that runs has told its part.

    Windows come out in the order of time; one that comes too late, or after time has stepped back, comes by itself with
    a revision of its own, so that it overwrites nothing.
    """

    def __init__(self, workers: int, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._reached: dict[int, int] = {}
        """The start of the newest window of each worker that runs; -1 before its first."""
        self._waiting: dict[int, list[Snapshot]] = {}
        self._handed_out = -1
        self._revisions = Revisions()
        self._cards = Cards()
        self.dark_ns: int | None = None
        """Since when nothing can come, for want of a carrier; None while something can."""
        self._missing: deque[tuple[int, int]] = deque(maxlen=MOST_MISSING)
        for worker in range(workers):
            self.began(worker)

    def began(self, worker: int) -> None:
        """It runs, and is waited for."""
        self._reached[worker] = -1

    def ended(self, worker: int) -> Iterator[Snapshot]:
        """It is not waited for any more."""
        self._reached.pop(worker, None)
        yield from self._ready()

    def misses(self, since_ns: int, until_ns: int) -> None:
        """What a worker had to tell of this time is lost: no window of it is whole."""
        self._missing.append((since_ns, until_ns))

    def take(self, worker: int, snapshot: Snapshot) -> Iterator[Snapshot]:
        """A part of a window; the windows that are whole now."""
        part = numbered(snapshot, worker)
        stepped_back = snapshot.start_ns < self._reached.get(worker, -1)
        if snapshot.start_ns <= self._handed_out or stepped_back:
            yield self._hand_out([part])
            return
        self._reached[worker] = snapshot.start_ns
        self._waiting.setdefault(snapshot.start_ns, []).append(part)
        yield from self._ready()

    def overdue(self) -> Iterator[Snapshot]:
        """Windows that have waited long enough."""
        latest_ns = int((self._clock() - LATEST_SECONDS) * 1e9)
        while self._waiting and self._waiting[min(self._waiting)][0].end_ns < latest_ns:
            yield replace(self._next(), partial=True)

    def rest(self) -> Iterator[Snapshot]:
        """What is left at the end."""
        while self._waiting:
            yield self._next()

    def _ready(self) -> Iterator[Snapshot]:
        while self._waiting and all(reached >= min(self._waiting) for reached in self._reached.values()):
            yield self._next()

    def _next(self) -> Snapshot:
        start_ns = min(self._waiting)
        self._handed_out = start_ns
        return self._hand_out(self._waiting.pop(start_ns))

    def _hand_out(self, parts: list[Snapshot]) -> Snapshot:
        start_ns = parts[0].start_ns
        presence = [part.presence for part in parts if part.presence is not None]
        whole = merged(parts, self._revisions.next(start_ns), self._cards.merged(presence) if presence else None)
        misses = any(since < whole.end_ns and whole.start_ns < until for since, until in self._missing)
        misses = misses or (self.dark_ns is not None and self.dark_ns < whole.end_ns)
        return replace(whole, partial=whole.partial or misses)


class Cards:
    """The network cards of a window, of which several workers may each have heard a part.

    A card was silent as long as no worker heard it. Each worker tells only its longest silence, so that the silence
    that all of them have in common is at least as long as what is found; none is ever made up.
    """

    def __init__(self) -> None:
        self._last_ns: dict[bytes, int] = {}

    def merged(self, parts: list[NumpyArray]) -> NumpyArray:
        """One row a card, by address."""
        cards = np.concatenate(parts)
        if not len(cards):
            return cards
        addresses = np.ascontiguousarray(cards["mac"]).view("V6").reshape(-1)
        keys, first, of_row = np.unique(addresses, return_index=True, return_inverse=True)
        of_row = of_row.reshape(-1)
        result: NumpyArray = cards[first].copy()
        began = np.where(cards["gap_ns"] > 0, cards["gap_end_ns"] - cards["gap_ns"], _NEVER)
        began = np.maximum(began, self._heard_before(keys)[of_row])
        np.minimum.at(result["first_ns"], of_row, cards["first_ns"])
        np.maximum.at(result["last_ns"], of_row, cards["last_ns"])
        result["packets"] = np.bincount(of_row, cards["packets"], len(result))
        start, end = np.zeros(len(result), np.int64), np.full(len(result), _NEVER)
        np.maximum.at(start, of_row, began)
        np.minimum.at(end, of_row, np.where(cards["gap_ns"] > 0, cards["gap_end_ns"], 0))
        result["gap_ns"] = np.maximum(end - start, 0)
        result["gap_end_ns"] = np.where(result["gap_ns"] > 0, end, 0)
        self._note(keys, result["last_ns"])
        return result

    def _heard_before(self, keys: NumpyArray) -> NumpyArray:
        return np.array([self._last_ns.get(key.tobytes(), 0) for key in keys], np.int64)

    def _note(self, keys: NumpyArray, last_ns: NumpyArray) -> None:
        if len(self._last_ns) > MOST_CARDS:
            self._last_ns.clear()
        self._last_ns.update(zip((key.tobytes() for key in keys), last_ns.tolist(), strict=True))


def numbered(snapshot: Snapshot, worker: int) -> Snapshot:
    """The snapshot with flow numbers that no other worker has."""
    return replace(snapshot, records=numbered_records(snapshot.records, worker))


def numbered_records(records: NumpyArray, worker: int) -> NumpyArray:
    """Records with the worker in the highest bits of their flow's number."""
    records["flow_id"] |= np.uint64(worker) << np.uint64(64 - WORKER_BITS)
    return records


def merged(parts: list[Snapshot], revision: int, presence: NumpyArray | None = None) -> Snapshot:
    """One snapshot of several of the same window."""
    counts = [len(part.records) - _has_overflow(part.records) for part in parts]
    flows = [part.records[:count] for part, count in zip(parts, counts, strict=True)]
    overflow = np.concatenate([part.records[count:] for part, count in zip(parts, counts, strict=True)])
    bins = np.concatenate([part.bins for part in parts])
    offsets = np.cumsum([0, *counts[:-1]])  # bins are of flows, which stand first
    bins["record"] += np.repeat(offsets, [len(part.bins) for part in parts]).astype(bins["record"].dtype)
    notices = [part.notices for part in parts if part.notices is not None]
    return Snapshot(
        parts[0].start_ns, parts[0].end_ns, np.concatenate([*flows, _one_overflow(overflow)]), bins,
        added([part.counters for part in parts]), revision, any(part.partial for part in parts),
        np.concatenate(notices) if notices else None, presence,
    )  # fmt: skip


def of_shares(parts: list[Snapshot]) -> Snapshot:
    """What one process would have told of a window; a part of each of those that read the same packets, in order."""
    parts = [numbered(part, worker) for worker, part in enumerate(parts)]
    cards = np.concatenate([part.presence for part in parts if part.presence is not None])
    return in_order(merged(parts, parts[0].revision, np.sort(cards, order="mac") if len(cards) else cards))


def in_order(window: Snapshot) -> Snapshot:
    """Flows and bins of several shares in the order in which a single table would have told them.

    That is the order of the packets that put them there. Of flows that are equal in what is asked, their octets for
    example, outputs tell the first ones.
    """
    records, bins = window.records, window.bins
    count = len(records) - _has_overflow(records)
    order = np.arange(len(records))  # the overflow stays where it is, behind them
    order[:count] = np.lexsort((records["end_ns"][:count], records["place"][:count]))  # one packet can end many flows
    place = np.empty(len(records), bins["record"].dtype)
    place[order] = np.arange(len(records), dtype=place.dtype)
    bins["record"] = place[bins["record"]]
    return replace(window, records=records[order], bins=bins[np.argsort(bins["record"], kind="stable")])


def _has_overflow(records: NumpyArray) -> bool:
    """A table puts it last."""
    return len(records) > 0 and bool(records["flags"][-1] & OVERFLOW)


def _one_overflow(rows: NumpyArray) -> NumpyArray:
    """The sum of the rows of several tables, as one table has it: a single row, or none."""
    total: NumpyArray = rows[:1].copy()
    if not len(rows):
        return total
    total["flow_id"] = 0
    for name in (name for name in rows.dtype.names or () if name.startswith("c2s_") and "transit" not in name):
        total[name] = rows[name].sum()
    timed = rows[rows["c2s_rtt_count"] > 0]
    if len(timed):
        total["c2s_rtt_min_ns"], total["c2s_rtt_max_ns"] = timed["c2s_rtt_min_ns"].min(), timed["c2s_rtt_max_ns"].max()
    return total
