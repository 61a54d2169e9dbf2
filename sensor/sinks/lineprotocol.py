r"""InfluxDB line protocol, from columns and back.

    measurement,tag=value,... field=value,... timestamp

A report has up to 100,000 points of 25 fields, so no object is made per point: each column becomes a list of strings,
and rows are joined across the lists. Escaping and number formats equal influxdb-client's ``Point.to_line_protocol``,
which a property test proves. Two things do not survive it, as on every server: newline, tab and carriage return in
a name become the two characters ``\n``, ``\t``, ``\r``, and a backslash at the end of a tag value becomes a space.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

from sensor.errors import InputError
from sensor.window import Column, Report, Table, present

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


def encode(report: Report) -> bytes:
    """Every point of the report, a line each. Empty tags, null fields and points without any field are left out."""
    lines = [line for table in report.tables for line in _table_lines(table, report.time_ns)]
    # A lone surrogate (bytes from the wire that were no UTF-8) must not stop the sensor.
    return "".join(lines).encode("utf-8", "backslashreplace")


def _table_lines(table: Table, time_ns: int) -> list[str]:
    measurement = table.measurement.translate(_MEASUREMENT_ESCAPES)
    heads = _joined([[measurement] * table.rows, *_tag_columns(table)])
    bodies = _field_rows(table)
    # Each cell brings its own leading comma; the first one gives way to the space before the fields.
    times = table.times(time_ns)
    return [f"{head} {body[1:]} {time}\n" for head, body, time in zip(heads, bodies, times, strict=True) if body]


def _joined(columns: list[list[str]]) -> list[str]:
    return list(map("".join, zip(*columns, strict=True)))


def _tag_columns(table: Table) -> Iterator[list[str]]:
    for key, values in sorted(table.tags.items()):
        if key:
            # A few hundred names repeat over all rows: escape each once.
            cells = {value: _tag_cell(key, value) for value in set(values)}
            yield [cells[value] for value in values]


def _tag_cell(key: str, value: str) -> str:
    escaped = value.translate(_KEY_ESCAPES)
    # A backslash at the end would escape the separator that follows; this gives it a space to escape.
    padding = " " if escaped.endswith("\\") else ""
    return f",{key.translate(_KEY_ESCAPES)}={escaped}{padding}" if escaped else ""


def _field_rows(table: Table) -> list[str]:
    """The fields of each row, formatted by one template for all: Python's fastest way to write many integers."""
    if not table.fields:
        return [""] * table.rows
    templates, columns = zip(*(_field_cells(key, table.fields[key]) for key in sorted(table.fields)), strict=True)
    return list(map("".join(templates).__mod__, zip(*columns, strict=True)))


def _field_cells(key: str, column: Column) -> tuple[str, list[object]]:
    """What the column adds to the template, and what fills it in each row."""
    head = f",{key.translate(_KEY_ESCAPES)}="
    kind = column.values.dtype.kind
    values = column.values.tolist()
    mask = present(column)
    if kind in "iu" and mask.all():
        return head.replace("%", "%%") + "%di", values
    text = _TEXT[kind]
    return "%s", [head + text(value) if here else "" for value, here in zip(values, mask.tolist(), strict=True)]


def _integer_text(value: int) -> str:
    return f"{value}i"


def _float_text(value: float) -> str:
    return repr(value).removesuffix(".0")


def _bool_text(value: bool) -> str:
    return "true" if value else "false"


def _string_text(value: str) -> str:
    return f'"{value.translate(_STRING_ESCAPES)}"'


_TEXT: dict[str, Callable[..., str]] = {
    "i": _integer_text, "u": _integer_text, "f": _float_text, "b": _bool_text, "O": _string_text, "U": _string_text,
}  # fmt: skip
"""By the kind of the column's dtype, so that a field never changes its type between points."""


def split(data: bytes, limit: int) -> Iterator[bytes]:
    """``data`` in pieces of at most ``limit`` points, for servers that take no more at once."""
    if data.count(b"\n") <= limit:
        yield data
        return
    piece: list[bytes] = []
    for line in _lines(data):
        piece.append(line)
        if len(piece) == limit:
            yield b"".join(piece)
            piece = []
    if piece:
        yield b"".join(piece)


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


def decode(data: bytes) -> Iterator[Point]:
    """The points of line protocol as ``encode`` writes it; comments and blank lines are passed over."""
    for line in _lines(data):
        if line.isspace() or line.startswith(b"#"):
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
    """Lines with their end. Only a quoted string can hold a newline: a line without quotes needs no closer look."""
    start = 0
    while start < len(data):
        end = data.find(b"\n", start) + 1 or len(data)
        if data.find(b'"', start, end) >= 0 and data[start] != ord("#"):
            match = _POINT_LINE.match(data, start)
            end = match.end() if match else end
        yield data[start:end]
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
