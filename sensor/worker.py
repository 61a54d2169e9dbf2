"""One capture process: source -> table -> snapshots. ``read`` runs the same worker in its own process.

A worker hands on messages, in order: Snapshot for each window, Finished for flows that have ended, and at the end
Done, which carries the sums of the whole run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sensor.flowtable import FlowTable
from sensor.snapshot import Counters, Revisions, Snapshot
from sensor.sources import Progress, Source

if TYPE_CHECKING:
    from sensor.native import NumpyArray

LATENESS_NS = 500_000_000
"""How long packets may take from the wire to the table; a silent window is closed no earlier."""

DRAIN_SECONDS = 0.3
"""How long a live worker goes on after the stop: the kernel hands over its last block of packets a little later."""


@dataclass(frozen=True)
class Finished:
    """Records of finished flows, life-long sums."""

    records: NumpyArray


@dataclass(frozen=True)
class Done:
    """The run is over."""

    counters: Counters


Message = Snapshot | Finished | Done


class Worker:
    """Runs a source into a table until the source ends or ``stop`` says so.

    ``clock`` is the wall clock that closes windows while the wire is silent; None for a file, whose packets alone
    make the time. ``over`` is called when nothing is polled any more, before the last messages. Where nobody will look
    at windows, ``is_looked_at`` is False, and none are handed on.
    """

    def __init__(
        self,
        source: Source,
        table: FlowTable,
        emit: Callable[[Message], None],
        stop: Callable[[], bool] = lambda: False,
        clock: Callable[[], int] | None = None,
        over: Callable[[], None] = lambda: None,
        is_looked_at: bool = True,
    ) -> None:
        self._source = source
        self._table = table
        self._emit = emit
        self._stop = stop
        self._clock = clock
        self._over = over
        self._is_looked_at = is_looked_at
        self._reported = Counters()
        self._revisions = Revisions()

    def run(self) -> None:
        """The whole job. The last, partial window is handed on as well, also when the source fails."""
        if self._clock:
            self._table.tick(self._clock())
        try:
            self._poll_until(self._stop)
            if self._clock:
                self._poll_until(deadline(DRAIN_SECONDS))
        finally:
            self._finish()

    def _poll_until(self, stop: Callable[[], bool]) -> None:
        while not stop():
            progress = self._source.poll(self._table)
            if progress is Progress.END:
                return
            if progress is Progress.HELD:
                self._make_room()
            elif self._clock and progress is Progress.IDLE:
                self._keep_time(self._clock())

    def _make_room(self) -> None:
        if not self._hand_on_finished():
            self._roll(partial=False)

    def _keep_time(self, now_ns: int) -> None:
        """Close the window by the wall clock: no packet comes to do it."""
        window = self._table.window()
        if window and now_ns >= window[1] + LATENESS_NS:
            self._roll(partial=False)
        self._table.tick(now_ns - LATENESS_NS)
        self._hand_on_finished()

    def _finish(self) -> None:
        self._over()
        while self._table.finish():
            self._hand_on_finished()
        while self._hand_on_finished():
            pass
        self._roll(partial=True)
        self._emit(Done(self._counters()))

    def _hand_on_finished(self) -> bool:
        if not self._table.keeps_finished:
            return False
        records = self._table.take_finished()
        if len(records):
            self._emit(Finished(records))
        return bool(len(records))

    def _roll(self, partial: bool) -> None:
        window = self._table.window()
        if window is None:
            return
        if not self._is_looked_at:
            self._table.drop_window()
            return
        notices, presence = self._table.take_notices(), self._table.take_presence()
        records, bins = self._table.roll()
        total = self._counters()
        counters, self._reported = minus(total, self._reported), total
        revision = self._revisions.next(window[0])
        self._emit(Snapshot(*window, records, bins, counters, revision, partial, notices, presence))

    def _counters(self) -> Counters:
        counted = self._table.counters()
        fates = {name.removeprefix("fate_"): n for name, n in counted.items() if name.startswith("fate_")}
        notes = {n: v for n, v in counted.items() if not n.startswith("fate_") and n not in ("received", "ip_bytes")}
        drops = self._source.drops()
        return Counters(
            counted["received"], counted["ip_bytes"], fates, notes, dropped_kernel=drops.kernel, unread=drops.unread
        )


def minus(total: Counters, before: Counters) -> Counters:
    """What was counted since ``before``."""

    def difference(a: int | None, b: int | None) -> int | None:
        return None if a is None else a - (b or 0)

    return Counters(
        total.received - before.received,
        total.ip_bytes - before.ip_bytes,
        {name: count - before.fates.get(name, 0) for name, count in total.fates.items()},
        {name: count - before.notes.get(name, 0) for name, count in total.notes.items()},
        difference(total.dropped_kernel, before.dropped_kernel),
        difference(total.dropped_nic, before.dropped_nic),
        total.unread,
    )


def deadline(seconds: float | None) -> Callable[[], bool]:
    """True once so many seconds have passed; never when None."""
    if seconds is None:
        return lambda: False
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end
