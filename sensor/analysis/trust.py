"""How much of a loss figure rests on what the tap saw: leaky mirrors, flows seen one way only, causes not told.

A data segment is *told* when its fate could be seen: that needs the acknowledgments of the other side. What is not told
is counted in segments, so that it adds up over windows and pairs like the losses themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sensor import native
from sensor.analysis.groups import rows_of
from sensor.analysis.quantiles import Floats
from sensor.protocols import TCP

Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sides:
    """Which TCP records were seen in both directions, and which in one only."""

    both: Mask
    one: Mask


def sides(records: native.NumpyArray) -> Sides:
    """Tell TCP records by the directions that were seen since the flow began."""
    all_seen = native.SEEN["c2s"] | native.SEEN["s2c"]
    both = records["flags"] & all_seen == all_seen
    tcp = (records["protocol"] == TCP) & (records["flags"] & native.OVERFLOW == 0)
    return Sides(tcp & both, tcp & ~both)


def trust_parts(records: native.NumpyArray) -> dict[str, Ints]:
    """What trust is made of, a row for each direction of each record: sums of them make that of a group."""
    told = sides(records)
    both, one = np.tile(told.both, 2), np.tile(told.one, 2)
    data = rows_of(records, "data_packets").astype(np.int64)
    unknown = np.minimum(rows_of(records, "unknown_causes"), data)
    return {
        "data": np.where(both | one, data, 0),
        "payload": np.where(both, rows_of(records, "payload_bytes"), 0).astype(np.int64),
        "segments": np.where(both, data, 0),
        "unseen": np.where(both, rows_of(records, "unseen_bytes"), 0).astype(np.int64),
        "unjudged": np.where(one, data, np.where(both, unknown, 0)),
    }


def untold_segments(parts: dict[str, Ints]) -> Ints:
    """Data segments whose fate is not known; those unseen are taken for as long as those seen, or for one."""
    length = np.maximum(ratio(parts["payload"], parts["segments"]), 1.0)
    unseen = np.where(parts["unseen"] > 0, np.ceil(parts["unseen"] / np.where(np.isnan(length), np.inf, length)), 0)
    result: Ints = parts["unjudged"] + np.maximum(unseen, parts["unseen"] > 0).astype(np.int64)
    return result


def confidence(parts: dict[str, Ints]) -> Floats:
    """Between 0 and 1; NaN where there was no data."""
    untold, data = untold_segments(parts), parts["data"]
    share = np.maximum(1 - ratio(untold, data), 0)
    result: Floats = np.where(np.isnan(share) & (untold > 0), 0.0, share)
    return result


def ratio(part: npt.NDArray[np.generic], whole: npt.NDArray[np.generic]) -> Floats:
    """One by the other; NaN where the whole is zero."""
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Floats = np.where(np.asarray(whole) > 0, np.divide(part, whole), np.nan)
    return result
