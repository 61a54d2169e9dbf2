"""Line protocol: equal to what influxdb-client's Point writes, and read back unchanged."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from influxdb_client.client.write.point import Point as ClientPoint

from sensor.errors import InputError
from sensor.sinks.lineprotocol import Point, decode, encode, split
from sensor.window import Column, Labels, Report, Table
from tests.reports import FIRST_START, make_report

# What needs escaping is rare in arbitrary text, so half of the letters come from here.
AWKWARD = st.sampled_from([" ", ",", "=", '"', "\\", "\n", "\t", "\r", "#", "%", "{", "ä", "é", "\u2028", "😀", "n"])
TEXT = st.text(AWKWARD | st.characters(exclude_categories=["Cs"]), max_size=8)
# A name that ends in a backslash would escape what follows it, in influxdb-client too. The sensor has no such names.
NAME = TEXT.filter(lambda name: name and not name.endswith("\\"))
MEASUREMENT = NAME.filter(lambda name: not name.startswith("#"))

VALUES = {
    "int64": st.integers(-(2**63), 2**63 - 1),
    "uint64": st.integers(0, 2**64 - 1),
    "float64": st.floats() | st.integers(-(10**6), 10**6).map(float),
    "bool": st.booleans(),
    "object": TEXT | st.none(),
}


def as_stored(name: str) -> str:
    """What every server keeps of a name: control characters as two characters each."""
    return name.replace("\n", r"\n").replace("\t", r"\t").replace("\r", r"\r")


KEYS = st.lists(NAME, max_size=3, unique_by=as_stored)


@st.composite
def columns(draw: st.DrawFn, rows: int) -> Column:
    """A column of any type, some of whose cells are null."""
    dtype = draw(st.sampled_from(sorted(VALUES)))
    values = np.empty(rows, dtype=dtype)
    values[:] = draw(st.lists(VALUES[dtype], min_size=rows, max_size=rows))
    mask = st.lists(st.booleans(), min_size=rows, max_size=rows).map(lambda cells: np.array(cells, dtype=np.bool_))
    return Column(values, draw(st.none() | mask))


@st.composite
def reports(draw: st.DrawFn) -> Report:
    """A report of a few tables with awkward names and values."""
    tables = []
    for _ in range(draw(st.integers(0, 2))):
        rows = draw(st.integers(0, 4))
        tags = {key: Labels.of(draw(st.lists(TEXT, min_size=rows, max_size=rows))) for key in draw(KEYS)}
        fields = {key: draw(columns(rows)) for key in draw(KEYS)}
        tables.append(Table(draw(MEASUREMENT), rows, tags, fields))
    return Report(0, 10, draw(st.integers(-(2**62), 2**62)), tables)


def field_of(column: Column, row: int) -> object:
    """The cell as influxdb-client takes it; None where it is null."""
    if column.valid is not None and not column.valid[row]:
        return None
    return column.values.tolist()[row]


def client_lines(report: Report) -> str:
    """The report as influxdb-client encodes it, one Point a row."""
    lines = []
    for table in report.tables:
        for row in range(table.rows):
            point = ClientPoint(table.measurement).time(report.time_ns)
            for key, values in table.tags.items():
                point.tag(key, values[row])
            for key, column in table.fields.items():
                point.field(key, field_of(column, row))
            lines.append(point.to_line_protocol())
    return "".join(line + "\n" for line in lines if line)


def points_of(report: Report) -> list[Point]:
    """What a server would hold after writing the report."""
    points = []
    for table in report.tables:
        for row in range(table.rows):
            tags = {as_stored(key): as_stored(values[row]) for key, values in table.tags.items() if values[row]}
            tags = {key: value[:-1] + " " if value.endswith("\\") else value for key, value in tags.items()}
            fields = {as_stored(key): field_of(column, row) for key, column in table.fields.items()}
            fields = {
                key: value
                for key, value in fields.items()
                if value is not None and not (isinstance(value, float) and not np.isfinite(value))
            }
            if fields:
                points.append(Point(as_stored(table.measurement), tags, fields, report.time_ns))
    return points


def test_a_table_becomes_these_lines() -> None:
    """The encoding of a small report, to be read by eye."""
    assert encode(make_report(window=2, rows=2)).decode().splitlines() == [
        rf"vm_traffic,dst_vm=db\,1\=a,sensor=tap\ 1,src_vm=web-0 "
        rf'bytes=2000i,detail="say \"0\"",new=true,rtt_p50_us=0.25,throughput_bps=0 {FIRST_START + 20_000_000_000}',
        rf"vm_traffic,dst_vm=db\,1\=a,sensor=tap\ 1,src_vm=web-1 "
        rf'bytes=2001i,detail="say \"1\"",new=false,throughput_bps=0.5 {FIRST_START + 20_000_000_000}',
    ]


@settings(deadline=timedelta(seconds=2))
@given(reports())
def test_encoding_equals_influxdb_client(report: Report) -> None:
    """Byte for byte what influxdb-client's Point writes, for any names, values and nulls."""
    assert encode(report).decode() == client_lines(report)


def test_every_kind_of_float_is_written_as_python_does() -> None:
    """Arbitrary bits, decimals, ratios, and all powers of two and ten with their neighbours: repr's digits."""
    chance = np.random.default_rng(11)
    powers = np.concatenate([np.ldexp(1.0, np.arange(-1074, 1024)), 10.0 ** np.arange(-323, 309)])
    values = np.concatenate(
        [
            powers, np.nextafter(powers, 0), np.nextafter(powers, np.inf), -powers, [0.0, -0.0],
            chance.integers(0, 2**63, 20_000).view(np.float64),
            10 ** chance.uniform(-20, 20, 20_000),
            np.round(chance.uniform(0, 1e6, 20_000), 4),
            chance.integers(0, 10**12, 20_000) / 1000,
            chance.integers(0, 1000, 20_000) / chance.integers(1, 1000, 20_000),
        ]
    )  # fmt: skip
    values = values[np.isfinite(values)]
    table = Table("m", len(values), {}, {"f": Column(values)})
    written = encode(Report(0, 10, 7, [table])).decode().splitlines()
    assert written == [f"m f={repr(value).removesuffix('.0')} 7" for value in values.tolist()]


def test_a_report_of_any_size_is_encoded_whole() -> None:
    """More lines than one piece holds, and a text longer than a piece, come out in order and complete."""
    rows = 20_000
    detail = np.array(["x" * (3_000_000 if row == 100 else row % 50) for row in range(rows)], object)
    fields = {"detail": Column(detail), "row": Column(np.arange(rows))}
    table = Table("event", rows, {"vm": Labels.of(str(row % 7) for row in range(rows))}, fields)
    lines = encode(Report(0, 10, 7, [table])).decode().splitlines()
    assert lines == [f'event,vm={row % 7} detail="{detail[row]}",row={row}i 7' for row in range(rows)]


@settings(deadline=timedelta(seconds=2))
@given(reports())
def test_decoding_is_the_inverse(report: Report) -> None:
    """Every point comes back with its values and their types; floats are the same to the last bit."""
    decoded, expected = list(decode(encode(report))), points_of(report)
    assert decoded == expected
    for point, origin in zip(decoded, expected, strict=True):
        assert {key: repr(value) for key, value in point.fields.items()} == {
            key: repr(value) for key, value in origin.fields.items()
        }


@settings(deadline=timedelta(seconds=2))
@given(reports(), st.integers(1, 3))
def test_splitting_keeps_points_whole(report: Report, limit: int) -> None:
    """Pieces hold whole points, no more than asked, and are the data when put together."""
    data = encode(report)
    pieces = list(split(data, limit))
    assert b"".join(pieces) == data
    assert [point for piece in pieces for point in decode(piece)] == list(decode(data))
    assert all(len(list(decode(piece))) <= limit for piece in pieces)


def test_a_point_without_fields_is_left_out() -> None:
    """A row that measured nothing is no point; a report of such rows is no data."""
    nothing = Column(np.array([1, 2]), np.array([False, False]))
    tags = {"vm": Labels.of(["a", "b"])}
    table = Table("vm_traffic", 2, tags, {"bytes": nothing, "rtt": Column(np.array([np.nan, np.inf]))})
    assert encode(Report(0, 10, 0, [table, Table("event", 2, tags, {})])) == b""


def test_a_lone_surrogate_is_written_visibly() -> None:
    """Text that cannot be UTF-8 does not stop the sensor."""
    table = Table("event", 1, {}, {"detail": Column(np.array(["host\udcff"], dtype=object))})
    assert encode(Report(0, 10, 7, [table])) == b'event detail="host\\udcff" 7\n'


def test_comments_and_blank_lines_are_passed_over() -> None:
    """What stands between the points of a segment does not disturb; the last line may lack its end."""
    data = b'# a "comment\n\nm,t=x f=1i 5\n   \n#\nm f=true 6'
    assert list(decode(data)) == [Point("m", {"t": "x"}, {"f": 1}, 5), Point("m", {}, {"f": True}, 6)]


@pytest.mark.parametrize("line", [b"m", b"m f=1i", b"m,t f=1i 5", b'm f="open 5', b"m f= 5", b"m  f=1 5", b",t=1 5"])
def test_a_malformed_line_is_named(line: bytes) -> None:
    """What is no line protocol is an input error that quotes the line."""
    with pytest.raises(InputError, match="not line protocol") as caught:
        list(decode(b"m f=1i 5\n" + line + b"\n"))
    assert line.decode() in str(caught.value)
