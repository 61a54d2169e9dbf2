"""Points of five minutes from those of a window, as InfluxDB 1.x (continuous queries) and 2.x (tasks) make them.

Each field is put together as ``metrics.py`` says. What is a sum stays one, so that throughput and loss over any time
are made of sums, from five-minute points as from ten-second ones; ratios and rates are therefore not kept at all. Of
percentiles the worst window's is kept: percentiles of percentiles would be numbers of nothing.
"""

from __future__ import annotations

from sensor.metrics import MEASUREMENTS, Metric

LONG_SUFFIX = "_5m"

DOWNSAMPLED = ("vm_traffic", "dependency", "sensor")
"""Events are few and are kept as they are; top flows are of their window."""

CONTINUOUS_QUERIES = {measurement: f"vmsensor_{measurement}_5m" for measurement in DOWNSAMPLED}
LATE = "15m"
"""So long after their time, points still get into the five-minute ones of themselves."""

_FUNCTIONS = {"sum": "sum", "count": "max", "min": "min", "max": "max", "mean": "mean", "quantile": "max"}
_TEXT = ("mirror_switch", "mirror_port")
_LEVELS = ("spool_bytes", "spool_windows", "spool_lag_s", "series", "workers")
"""Sizes of something, which do not add up over time."""


def long_name(database: str) -> str:
    """The database, or the bucket, of the five-minute points: one of its own, which dashboards can be pointed at."""
    return database + LONG_SUFFIX


def reduction(metric: Metric) -> str | None:
    """``sum``, ``min``, ``max`` or ``mean``; None of what is not kept."""
    if metric.name in _TEXT:
        return None
    return "max" if metric.name in _LEVELS else _FUNCTIONS.get(metric.reduce)


def fields_by_reduction(measurement: str) -> dict[str, list[str]]:
    """The fields that are kept, by how they are put together."""
    kept: dict[str, list[str]] = {}
    for metric in MEASUREMENTS[measurement][1]:
        how = reduction(metric)
        if how:
            kept.setdefault(how, []).append(metric.name)
    return kept


def continuous_query(database: str, policy: str, measurement: str) -> str:
    """InfluxQL that makes InfluxDB 1.x fill the long database from a policy of another one."""
    fields = ", ".join(
        f'{how}("{name}") AS "{name}"' for how, names in fields_by_reduction(measurement).items() for name in names
    )
    source, target = f'"{database}"."{policy}"."{measurement}"', f'"{long_name(database)}"."autogen"."{measurement}"'
    return (
        f'CREATE CONTINUOUS QUERY "{CONTINUOUS_QUERIES[measurement]}" ON "{database}" RESAMPLE FOR {LATE} BEGIN '
        f"SELECT {fields} INTO {target} FROM {source} GROUP BY time(5m), * END"
    )


def task(bucket: str, long_bucket: str, measurement: str) -> str:
    """Flux that makes InfluxDB 2 do the same: a task that runs every five minutes over the last quarter of an hour."""
    parts = [
        f"""
data
    |> filter(fn: (r) => contains(value: r._field, set: {_flux_list(names)}))
    |> aggregateWindow(every: 5m, fn: {how}, createEmpty: false, timeSrc: "_start")
    |> to(bucket: "{long_bucket}")
"""
        for how, names in fields_by_reduction(measurement).items()
    ]
    return f"""import "date"

option task = {{name: "{CONTINUOUS_QUERIES[measurement]}", every: 5m, offset: 30s}}

data = from(bucket: "{bucket}")
    |> range(start: date.truncate(t: -{LATE}, unit: 5m), stop: date.truncate(t: now(), unit: 5m))
    |> filter(fn: (r) => r._measurement == "{measurement}")
{"".join(parts)}"""


def _flux_list(names: list[str]) -> str:
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"
