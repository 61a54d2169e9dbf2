"""Records read by column: a field of many long records is looked at again and again, and should lie together."""

from __future__ import annotations

from typing import Any

import numpy as np

from sensor.native import NumpyArray


class Columns(np.ndarray[Any, np.dtype[Any]]):
    """Records, to be read only; a field that was asked for once is kept by itself."""

    _columns: dict[str, NumpyArray] | None = None
    """None of what was selected from them: that is as any array."""

    def __getitem__(self, key: Any) -> Any:
        if self._columns is None or not isinstance(key, str):
            return super().__getitem__(key)
        column = self._columns.get(key)
        if column is None:
            column = self._columns[key] = np.array(super().__getitem__(key), subok=False)
            column.flags.writeable = False
        return column


def by_column(records: NumpyArray) -> NumpyArray:
    """The same records."""
    columns = records.view(Columns)
    columns._columns = {}
    return columns
