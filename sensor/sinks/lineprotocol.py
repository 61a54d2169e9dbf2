r"""InfluxDB line protocol, from columns and back.

    measurement,tag=value,... field=value,... timestamp

A report has up to 100,000 points of 30 fields, so no object is made per point: here each name is escaped once, and
``native/lines.c`` writes the rows. Escaping and number formats equal influxdb-client's ``Point.to_line_protocol``,
which a property test proves. Two things do not survive it, as on every server: newline, tab and carriage return in
a name become the two characters ``\n``, ``\t``, ``\r``, and a backslash at the end of a tag value becomes a space.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from sensor.errors import InputError
from sensor.native import Cells, LineBuffer, Numbers
from sensor.window import Column, Labels, Report, Table, present

FieldValue = int | float | bool | str

_CONTROL = {"\n": r"\n", "\t": r"\t", "\r": r"\r"}
_MEASUREMENT_ESCAPES = str.maketrans({",": r"\,", " ": r"\ ", **_CONTROL})
_KEY_ESCAPES = str.maketrans({",": r"\,", "=": r"\=", " ": r"\ ", **_CONTROL})
_STRING_ESCAPES = str.maketrans({'"': r"\"", "\\": r"\\"})


class Point(NamedTuple):
    """One decoded line."""

    measurement: str
    tags: dict[str, str]
    fields: dict[str, FieldValue]
    time_ns: int


def written(report: Report) -> LineBuffer:
    """Every point of the report, a line each. Empty tags, null fields and points without any field are left out."""
    lines = LineBuffer()
    for table in report.tables:
        _write(table, report.time_ns, lines)
    return lines


def encode(report: Report) -> bytes:
    """The same in one piece."""
    return b"".join(written(report).pieces)


def _write(table: Table, time_ns: int, lines: LineBuffer) -> None:
    tags = [_tag_column(key, table.tags[key]) for key in sorted(table.tags) if key]
    fields = [_field_column(key, table.fields[key]) for key in sorted(table.fields)]
    lines.write(_octets(table.measurement.translate(_MEASUREMENT_ESCAPES)), tags, fields, table.times(time_ns))


def _octets(text: str) -> bytes:
    # A lone surrogate (bytes from the wire that were no UTF-8) must not stop the sensor.
    return text.encode("utf-8", "backslashreplace")


def _tag_column(key: str, labels: Labels) -> Cells:
    used = np.zeros(len(labels.names), np.bool_)
    used[labels.codes] = True  # a window's table of names may hold many more than this column
    pairs = zip(labels.names, used.tolist(), strict=True)
    return Cells([_tag_cell(key, name) if here else b"" for name, here in pairs], labels.codes)


@lru_cache(maxsize=2**16)  # the names of one window are those of the next
def _tag_cell(key: str, value: str) -> bytes:
    escaped = value.translate(_KEY_ESCAPES)
    # A backslash at the end would escape the separator that follows; this gives it a space to escape.
    padding = " " if escaped.endswith("\\") else ""
    return _octets(f",{key.translate(_KEY_ESCAPES)}={escaped}{padding}") if escaped else b""


def _field_column(key: str, column: Column) -> Cells | Numbers:
    """By the kind of the column's dtype, so that a field never changes its type between points."""
    head = f",{key.translate(_KEY_ESCAPES)}="
    if column.values.dtype.kind not in "OU":
        return Numbers(_octets(head), column.values, column.valid)
    pairs = zip(column.values.tolist(), present(column).tolist(), strict=True)
    cells = [_octets(f'{head}"{text.translate(_STRING_ESCAPES)}"') if here else b"" for text, here in pairs]
    return Cells(cells, np.arange(len(cells)))


def split(data: bytes, limit: int) -> Iterator[bytes]:
    """``data`` in pieces of at most ``limit`` points, for servers that take no more at once."""
    begin = 0
    for number, end in enumerate(_line_ends(data), 1):
        if number % limit == 0 and end < len(data):
            yield data[begin:end]
            begin = end
    yield data[begin:]


# A backslash escapes only what needs it; before anything else, another backslash too, it stands for itself.
_NAME = rb"[^\\,= \n]*(?:\\(?:[,= ]|(?![,= ]))[^\\,= \n]*)*"
_MEASUREMENT = rb"[^\\, \n]*(?:\\(?:[, ]|(?![, ]))[^\\, \n]*)*"
_VALUE = rb'(?:"[^"\\]*(?:\\.[^"\\]*)*"|[^," \n]+)'
_FIELD = rb"%b=%b" % (_NAME, _VALUE)
_POINT_LINE = re.compile(
    rb"(%b)((?:,%b=%b)*) (%b(?:,%b)*) (-?\d+)(?:\n|\Z)" % (_MEASUREMENT, _NAME, _NAME, _FIELD, _FIELD), re.DOTALL
)
_TAGS = re.compile(rb",(%b)=(%b)" % (_NAME, _NAME))
_FIELDS = re.compile(rb"(%b)=(%b),?" % (_NAME, _VALUE), re.DOTALL)
_ESCAPED_IN_NAME = re.compile(r"\\([,= ])")
_ESCAPED_IN_MEASUREMENT = re.compile(r"\\([, ])")
_ESCAPED_IN_STRING = re.compile(r'\\(["\\])')


def decode(data: bytes, only: tuple[str, ...] = ()) -> Iterator[Point]:
    """The points of line protocol as ``encode`` writes it; comments and blank lines are passed over.

    ``only``: names of measurements; the others' lines are passed over as well, which is much faster.
    """
    wanted = tuple(f"{name},".encode() for name in only)
    for line in _lines(data):
        if line.isspace() or line.startswith(b"#") or (wanted and not line.startswith(wanted)):
            continue
        match = _POINT_LINE.fullmatch(line)
        if match is None:
            raise InputError(f"not line protocol: {line[:80]!r}")
        measurement, tags, fields, time_ns = match.groups()
        yield Point(
            _ESCAPED_IN_MEASUREMENT.sub(r"\1", measurement.decode()),
            {_name(key): _name(value) for key, value in _TAGS.findall(tags)},
            {_name(key): _field_value(value.decode()) for key, value in _FIELDS.findall(fields)},
            int(time_ns),
        )


def _lines(data: bytes) -> Iterator[bytes]:
    """Lines with their end."""
    start = 0
    for end in _line_ends(data):
        yield data[start:end]
        start = end


def _line_ends(data: bytes) -> Iterator[int]:
    """Where each line ends. Only a quoted string can hold a newline: a line without quotes needs no closer look."""
    start, quote = 0, data.find(b'"')
    while start < len(data):
        end = data.find(b"\n", start) + 1 or len(data)
        if 0 <= quote < end:
            match = _POINT_LINE.match(data, start) if data[start] != ord("#") else None
            end = match.end() if match else end
            quote = data.find(b'"', end)
        yield end
        start = end


@lru_cache(maxsize=10_000)
def _name(escaped: bytes) -> str:
    return _ESCAPED_IN_NAME.sub(r"\1", escaped.decode())


def _field_value(text: str) -> FieldValue:
    if text.startswith('"'):
        return _ESCAPED_IN_STRING.sub(r"\1", text[1:-1])
    if text in ("true", "false"):
        return text == "true"
    return int(text[:-1]) if text.endswith("i") else float(text)
