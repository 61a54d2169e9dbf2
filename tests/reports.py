"""Small reports with known numbers, for the tests of the sinks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sensor.sinks.spool import SpoolSink
from sensor.window import Column, Labels, Report, Table

SECOND = 1_000_000_000
FIRST_START = 1_700_000_000 * SECOND
"""Start of window 0; windows are ten seconds long."""


def make_report(window: int = 0, rows: int = 3, *, partial: bool = False) -> Report:
    """Window number ``window`` with ``rows`` points, whose values can be told from window and row.

    ``bytes`` is 1000 x window + row, ``rtt_p50_us`` is null in every odd row, ``loss_ratio`` is null everywhere.
    """
    start = FIRST_START + window * 10 * SECOND
    row = np.arange(rows)
    tags = {
        "sensor": Labels.constant("tap 1", rows),
        "src_vm": Labels.of(f"web-{number}" for number in range(rows)),
        "dst_vm": Labels.constant("db,1=a", rows),
        "service": Labels.constant("", rows),
    }
    fields = {
        "bytes": Column(1000 * window + row.astype(np.int64)),
        "throughput_bps": Column(row * 0.5),
        "rtt_p50_us": Column(row + 0.25, row % 2 == 0),
        "loss_ratio": Column(np.full(rows, np.nan)),
        "new": Column(row == 0),
        "detail": Column(np.array([f'say "{number}"' for number in range(rows)], dtype=object)),
    }
    return Report(start, start + 10 * SECOND, start, [Table("vm_traffic", rows, tags, fields)], partial)


def keep(store: Path, reports: list[Report]) -> None:
    """Put the reports into a store, as a sensor without a server does."""
    sink = SpoolSink(store)
    sink.open()
    for report in reports:
        sink.write(report)
    sink.close()
