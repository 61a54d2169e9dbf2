"""Reports as JSON lines: one object a point, for jq and for programs that want the numbers without a database."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from sensor.output import Lines
from sensor.window import Column, Report, present


class JsonLinesSink:
    """Writes to a file, replacing it, or to standard output for ``-``; flushes after each window."""

    name = "json"

    def __init__(self, path: str | Path) -> None:
        self._lines = Lines(str(path))

    def open(self) -> None:
        """Create the file."""
        self._lines.open()

    def write(self, report: Report) -> None:
        """Write every point of the window."""
        self._lines.write(_lines(report))

    def health(self) -> Mapping[str, int | float]:
        """Nothing to say."""
        return {}

    def close(self) -> None:
        """Close the file; standard output stays open for others."""
        self._lines.close()


def _lines(report: Report) -> Iterator[str]:
    for table in report.tables:
        tags = _rows(table.tags, table.rows)
        fields = _rows({key: _values(column) for key, column in table.fields.items()}, table.rows)
        for tag_set, field_set, time_ns in zip(tags, fields, table.times(report.time_ns).tolist(), strict=True):
            yield _line(report, table.measurement, time_ns, tag_set, field_set)


def _line(report: Report, measurement: str, time_ns: int, tags: dict[str, object], fields: dict[str, object]) -> str:
    point = {
        "measurement": measurement,
        "time_ns": time_ns,
        "start_ns": report.start_ns,
        "end_ns": report.end_ns,
        "partial": report.partial,
        "tags": {key: value for key, value in tags.items() if value},
        "fields": fields,
    }
    return json.dumps(point, allow_nan=False) + "\n"


def _rows(columns: Mapping[str, Sequence[object]], rows: int) -> Iterator[dict[str, object]]:
    """Columns turned into one dict a row."""
    if not columns:
        return iter([{} for _ in range(rows)])
    return (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))


def _values(column: Column) -> list[object]:
    """Python values; None where nothing was measured."""
    values = column.values.tolist()
    return [value if here else None for value, here in zip(values, present(column).tolist(), strict=True)]
