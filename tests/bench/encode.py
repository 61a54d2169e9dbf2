"""Line protocol: the sensor's encoder beside influxdb-client's ``Point``, over the same points in the same run.

The window is that of ``enrich``; lines a second of CPU time, medians of several runs. The Points are given tags and
fields ready to use, without what is null.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from typing import Any

import numpy as np
from influxdb_client.client.write.point import Point

from sensor.analysis.report import Reporter
from sensor.config import PRIVATE_NETWORKS
from sensor.identity.registry import Registry
from sensor.sinks.lineprotocol import encode, written
from sensor.watch import Fixed
from sensor.window import Report, Table, present
from tests.bench.enrich import RUNS, cpu_seconds, inventory, window

POINTS = 10_000
"""Rows that are given to ``Point``, which takes its time."""
OURS, THEIRS = "lines of vm_traffic by the sensor", "the same by influxdb-client"


def with_points(table: Table, time_ns: int) -> bytes:
    """The first rows of the table as influxdb-client encodes them."""
    rows = min(table.rows, POINTS)
    tags = {name: list(labels)[:rows] for name, labels in table.tags.items()}
    fields = {
        name: [v if here else None for v, here in zip(column.values.tolist(), present(column).tolist(), strict=True)]
        for name, column in table.fields.items()
    }
    lines = []
    for row in range(rows):
        point = Point(table.measurement).time(time_ns)
        for name, names in tags.items():
            point.tag(name, names[row])
        for name, values in fields.items():
            if values[row] is not None:
                point.field(name, values[row])
        lines.append(point.to_line_protocol())
    return "".join(f"{line}\n" for line in lines).encode()


def first_rows(table: Table, rows: int) -> Table:
    """The table cut to so many rows."""
    wanted = np.arange(min(rows, table.rows))
    fields = {name: type(c)(c.values[wanted], None if c.valid is None else c.valid[wanted])
              for name, c in table.fields.items()}  # fmt: skip
    return Table(table.measurement, len(wanted), {name: tag.take(wanted) for name, tag in table.tags.items()}, fields)


def names(part: str) -> list[tuple[str, ...]]:
    """Its rows."""
    return [(OURS,), (THEIRS,)]


def measured(part: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Both, which must write the same."""
    snapshot, runs = window(), 1 if options.quick else RUNS
    report = Reporter("bench", "mirror0", Registry(PRIVATE_NETWORKS, Fixed(inventory()))).report(snapshot)
    table = report.table("vm_traffic")
    whole = Report(report.start_ns, report.end_ns, report.time_ns, [table])
    cut = Report(report.start_ns, report.end_ns, report.time_ns, [first_rows(table, POINTS)])
    if encode(cut) != with_points(table, report.time_ns):
        sys.exit("bench: the sensor and influxdb-client encode the same points differently")
    ours = table.rows / statistics.median(cpu_seconds(lambda: written(whole)) for _ in range(runs))
    theirs = POINTS / statistics.median(cpu_seconds(lambda: with_points(table, report.time_ns)) for _ in range(runs))
    return [
        {"what": OURS, "value": round(ours), "unit": "lines/s of CPU"},
        {"what": THEIRS, "value": round(theirs), "unit": "lines/s of CPU"},
    ]
