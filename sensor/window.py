"""What flows through the Python half: a window's snapshot from the table, and the report made of it for the sinks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


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
    records: Array
    bins: Array
    counters: Counters
    revision: int = 0
    partial: bool = False
    notices: Array | None = None
    presence: Array | None = None

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


@dataclass(frozen=True)
class Column:
    """One field of a table. Where ``valid`` is given and False, the value was not measured: it is null, not zero."""

    values: Array
    valid: npt.NDArray[np.bool_] | None = None


def present(column: Column) -> npt.NDArray[np.bool_]:
    """True where the cell was measured: valid, not None and finite. Neither InfluxDB nor JSON can hold NaN or inf."""
    values = column.values
    if values.dtype.kind == "f":
        mask = np.isfinite(values)
    elif values.dtype.kind == "O":
        mask = np.array([value is not None for value in values.tolist()], dtype=np.bool_)
    else:
        mask = np.ones(len(values), dtype=np.bool_)
    return mask if column.valid is None else mask & column.valid


class Labels(Sequence[str]):
    """A tag, dictionary-encoded: row i has ``names[codes[i]]``, so that a name is handled once, not once a row."""

    def __init__(self, codes: npt.ArrayLike, names: Sequence[str]) -> None:
        self.codes: Array = np.asarray(codes, np.int64)
        self.names = names

    @classmethod
    def of(cls, values: Iterable[str]) -> Labels:
        """From the name of each row."""
        known: dict[str, int] = {}
        codes = [known.setdefault(value, len(known)) for value in values]
        return cls(codes, list(known))

    @classmethod
    def constant(cls, name: str, rows: int) -> Labels:
        """The same name in each row."""
        return cls(np.zeros(rows, np.int64), [name])

    def take(self, rows: Array) -> Labels:
        """These rows alone."""
        return Labels(self.codes[rows], self.names)

    def __len__(self) -> int:
        return len(self.codes)

    def __iter__(self) -> Iterator[str]:
        return map(self.names.__getitem__, self.codes.tolist())

    @overload
    def __getitem__(self, row: int) -> str: ...

    @overload
    def __getitem__(self, row: slice) -> Labels: ...

    def __getitem__(self, row: int | slice) -> str | Labels:
        return self.names[self.codes[row]] if isinstance(row, int) else Labels(self.codes[row], self.names)


@dataclass(frozen=True)
class Table:
    """Points of one measurement in one window, column-wise; every column has ``rows`` entries.

    ``tags`` hold names, where an empty one is left out. ``fields`` hold int64, float64, bool or object (str) values; a
    float that is NaN is null too. ``offsets`` are added to the report's time, in ns, where points of one window may
    have the same tags.
    """

    measurement: str
    rows: int
    tags: dict[str, Labels]
    fields: dict[str, Column]
    offsets: list[int] | None = None

    def times(self, time_ns: int) -> Array:
        """The timestamp of each row, in a report of this time."""
        if self.offsets is None:
            return np.full(self.rows, time_ns, np.int64)
        return np.array(self.offsets, np.int64) + time_ns


@dataclass(frozen=True)
class Report:
    """All points of one window. ``time_ns`` is the timestamp of each of them: the window's start."""

    start_ns: int
    end_ns: int
    time_ns: int
    tables: list[Table]
    partial: bool = False

    def table(self, measurement: str) -> Table:
        """The table of ``measurement``; KeyError when the window has none."""
        for table in self.tables:
            if table.measurement == measurement:
                return table
        raise KeyError(measurement)
