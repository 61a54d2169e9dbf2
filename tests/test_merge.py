"""The windows of several workers put together into one, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from sensor.merge import Cards, Merger
from sensor.native import BIN, PRESENCE, RECORD
from sensor.snapshot import Counters, Snapshot
from tests.streams import SECOND


def snapshot(start: int, flows: int = 0, received: int = 0, presence: Any = None, partial: bool = False) -> Snapshot:
    """A part of the window that begins at this second."""
    records = np.zeros(flows, RECORD)
    records["flow_id"] = np.arange(flows)
    bins = np.zeros(flows, BIN)
    bins["record"] = np.arange(flows)
    counters = Counters(received, 0, {"flow": received}, {"fragments": 1}, 2, None)
    return Snapshot(start * SECOND, (start + 1) * SECOND, records, bins, counters, 0, partial, None, presence)


def test_a_window_waits_for_all_workers() -> None:
    """Parts come out as one when the last worker has told its own; records keep bins, flows numbers apart."""
    merger = Merger(2)
    assert list(merger.take(0, snapshot(1, flows=2, received=5))) == []
    assert list(merger.take(0, snapshot(2))) == []
    (whole,) = merger.take(1, snapshot(1, flows=3, received=7))
    assert (whole.start_ns, whole.counters.received, whole.counters.notes["fragments"]) == (SECOND, 12, 2)
    assert (whole.counters.dropped_kernel, whole.counters.dropped_nic) == (4, None)
    assert whole.bins["record"].tolist() == [0, 1, 2, 3, 4]
    assert len(np.unique(whole.records["flow_id"])) == 5
    assert [one.start_ns for one in merger.take(1, snapshot(2))] == [2 * SECOND]


def test_nobody_waits_for_the_dead_or_the_slow() -> None:
    """A worker that has ended, or one that is five seconds late, holds up no window; its part comes by itself."""
    now = [98.0]
    merger = Merger(2, clock=lambda: now[0])
    list(merger.take(0, snapshot(94, received=1)))
    assert list(merger.overdue()) == []
    now[0] = 101.0
    (overdue,) = merger.overdue()
    assert overdue.counters.received == 1
    (late,) = merger.take(1, snapshot(94, received=2))
    assert (late.counters.received, late.revision) == (2, 1)
    list(merger.take(0, snapshot(95)))
    assert [one.start_ns // SECOND for one in merger.ended(1)] == [95]


def test_time_that_steps_back_overwrites_nothing() -> None:
    """Windows of a time that was there before come by themselves, each with a revision of its own."""
    merger = Merger(2)
    for start in (10, 11):
        list(merger.take(0, snapshot(start)))
        list(merger.take(1, snapshot(start)))
    again = [one.revision for worker in (0, 1) for one in merger.take(worker, snapshot(5))]
    assert again == [1, 2]
    assert [one.start_ns // SECOND for one in merger.rest()] == []


def card(mac: int, first: float, last: float, gap: float = 0.0, gap_end: float = 0.0) -> Any:
    """A network card that one worker heard."""
    one = np.zeros(1, PRESENCE)
    one["mac"][0, 5], one["packets"] = mac, 1
    for name, value in (("first_ns", first), ("last_ns", last), ("gap_ns", gap), ("gap_end_ns", gap_end)):
        one[name] = round(value * SECOND)
    return one


def test_a_card_is_silent_when_no_worker_hears_it() -> None:
    """Of the workers' silences what they have in common is left; what another has heard before ends one."""
    cards = Cards()
    both = cards.merged([card(1, 1, 9, gap=5, gap_end=8), card(1, 2, 6, gap=3, gap_end=6)])
    assert (both["first_ns"][0], both["last_ns"][0], both["packets"][0]) == (SECOND, 9 * SECOND, 2)
    assert (both["gap_ns"][0], both["gap_end_ns"][0]) == (3 * SECOND, 6 * SECOND)
    later = cards.merged([card(1, 12, 13, gap=10, gap_end=12)])
    assert (later["gap_ns"][0], later["gap_end_ns"][0]) == (3 * SECOND, 12 * SECOND)
    apart = cards.merged([card(2, 1, 9, gap=2, gap_end=4), card(2, 1, 9, gap=2, gap_end=8), card(3, 1, 2)])
    assert apart["gap_ns"].tolist() == [0, 0]
    assert [int(mac[5]) for mac in apart["mac"]] == [2, 3]
