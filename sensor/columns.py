"""Records read by column: a field of many long records is looked at again and again, and should lie together."""

from __future__ import annotations

from typing import Any

import numpy as np

from sensor.native import NumpyArray, copy_fields

_asked_for: set[str] = set()
"""Fields of the records so far: they are asked for of the next ones as well, and copied all in one go."""


class Columns(np.ndarray[Any, np.dtype[Any]]):
    """Records, to be read only; a field that was asked for once is kept by itself."""

    _columns: dict[str, NumpyArray] | None = None
    """None of what was selected from them: that is as any array."""

    def __getitem__(self, key: Any) -> Any:
        if self._columns is None or not isinstance(key, str):
            return super().__getitem__(key)
        if key not in self._columns:
            names = self.dtype.names or ()
            if key not in names:
                return super().__getitem__(key)
            _asked_for.add(key)
            columns = copy_fields(
                self.view(np.ndarray), [name for name in names if name in _asked_for - self._columns.keys()]
            )
            for column in columns.values():
                column.flags.writeable = False
            self._columns.update(columns)
        return self._columns[key]


def by_column(records: NumpyArray) -> NumpyArray:
    """The same records."""
    columns = records.view(Columns)
    columns._columns = {}
    return columns
