"""Which cells of a column hold a value; the same answer for every encoding."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sensor.window import Column


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
