"""Quantiles of merged latency histograms."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sensor.grouping import sorted_rows
from sensor.native import BUCKET_MIDDLE_NS, BUCKETS

Floats = npt.NDArray[np.float64]


def merged_quantiles(
    group: npt.NDArray[np.int64], bucket: npt.NDArray[np.int64], count: npt.NDArray[np.int64], groups: int,
    wanted: tuple[float, ...],
) -> Floats:  # fmt: skip
    """Quantiles, in ns, of the histograms of ``groups`` groups: shape (groups, len(wanted)), NaN where one is empty.

    The bins of a histogram may come in any order and more than once.
    """
    result = np.full((groups, len(wanted)), np.nan)
    if not len(group):
        return result
    order, keys = sorted_rows(group * BUCKETS + bucket)
    owner = keys // BUCKETS
    first = np.flatnonzero(np.append(True, owner[1:] != owner[:-1]))
    last = np.append(first[1:], len(keys)) - 1
    running = np.cumsum(count[order]).astype(np.float64)
    before = np.append(0.0, running)[first]
    total = running[last] - before
    for column, quantile in enumerate(wanted):
        # The smallest bucket that holds at least this share of the samples.
        at = np.searchsorted(running, before + np.maximum(np.ceil(quantile * total), 1.0))
        result[owner[first], column] = BUCKET_MIDDLE_NS[keys[np.minimum(at, last)] % BUCKETS]
    return result
