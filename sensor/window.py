"""A window as the sinks get it: its report, points by column."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


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
