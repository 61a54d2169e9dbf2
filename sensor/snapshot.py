"""A window as the flow table left it: what goes from the worker to the analysis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sensor.native import NumpyArray


@dataclass(frozen=True)
class Counters:
    """What the sensor did with packets, as differences over one window or sums over a run.

    ``received`` equals the sum of ``fates``: every packet ended in exactly one of them. ``dropped_kernel``
    and ``unread`` (left in the kernel's buffer) are None where the source cannot know (a file), ``dropped_nic`` where
    there is no interface.
    """

    received: int = 0
    ip_bytes: int = 0
    fates: dict[str, int] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)
    dropped_kernel: int | None = None
    dropped_nic: int | None = None
    unread: int | None = None


def added(counters: list[Counters]) -> Counters:
    """Sums; where no worker knows, nobody does."""

    def known(values: list[int | None]) -> int | None:
        told = [value for value in values if value is not None]
        return sum(told) if told else None

    def by_name(maps: list[Mapping[str, int]]) -> dict[str, int]:
        return {name: sum(one.get(name, 0) for one in maps) for name in dict.fromkeys(n for one in maps for n in one)}

    return Counters(
        sum(one.received for one in counters), sum(one.ip_bytes for one in counters),
        by_name([one.fates for one in counters]), by_name([one.notes for one in counters]),
        known([one.dropped_kernel for one in counters]), known([one.dropped_nic for one in counters]),
        known([one.unread for one in counters]),
    )  # fmt: skip


@dataclass(frozen=True)
class Snapshot:
    """One window as the flow table left it.

    ``records`` has dtype ``native.RECORD``, one row per active flow and possibly one overflow row; ``bins`` has dtype
    ``native.BIN``. ``revision`` is 0 until time has stepped back, and then a number that no window of this start
    has had before; it is added to the points' timestamp, in ns, so that no point overwrites another. ``notices`` has
    dtype ``native.NOTICE``: the packets that name VMs and switches. ``presence`` has dtype ``native.PRESENCE``: the
    network cards that were heard.
    """

    start_ns: int
    end_ns: int
    records: NumpyArray
    bins: NumpyArray
    counters: Counters
    revision: int = 0
    partial: bool = False
    notices: NumpyArray | None = None
    presence: NumpyArray | None = None

    @property
    def seconds(self) -> float:
        """Length of the window in seconds."""
        return (self.end_ns - self.start_ns) / 1e9


class Revisions:
    """Numbers for windows, given out in order, so that no two of the same start have the same."""

    def __init__(self) -> None:
        self._steps_back = 0
        self._last_start = self._newest_start = -1

    def next(self, start_ns: int) -> int:
        """0 while time goes on, then how often it has stepped back."""
        self._steps_back += start_ns <= self._last_start
        newest = start_ns > self._newest_start
        self._last_start, self._newest_start = start_ns, max(self._newest_start, start_ns)
        return 0 if newest else self._steps_back
