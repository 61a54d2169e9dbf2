"""What was measured, as tables: the same columns on the terminal and on the page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """A title, the key of a row, and how its value is written. What a row does not have is a dash."""

    title: str
    key: str
    form: Callable[[Any], str] | None = None

    def cell(self, row: Row) -> str:
        """What stands there."""
        value = row.get(self.key)
        return "-" if value is None else self.form(value) if self.form else str(value)


def whole(value: float) -> str:
    """With thousands marked."""
    return f"{value:,.0f}"


def places(count: int) -> Callable[[float], str]:
    """So many decimals, and thousands marked."""
    return lambda value: f"{value:,.{count}f}"


def percent(value: float) -> str:
    """A share."""
    return f"{100 * value:.0f} %"


def amount(value: float) -> str:
    """Whole when it is, else with three decimals."""
    return whole(value) if value == int(value) else f"{value:,.3f}"


READING = (
    Column("traffic", "traffic"),
    Column("reader", "reader"),
    Column("packets/s", "packets_per_second", whole),
    Column("ns/packet", "ns_per_packet", places(1)),
    Column("x bare loop", "ratio", places(3)),
    Column("spread", "spread", percent),
    Column("CPU s", "cpu", places(2)),
    Column("peak MiB", "peak_mib", places(1)),
    Column("octets/flow", "octets_per_flow", whole),
)
START = (
    Column("reader", "reader"),
    Column("ms", "wall_ms", places(0)),
    Column("CPU ms", "cpu_ms", places(0)),
    Column("spread", "spread", percent),
    Column("peak MiB", "peak_mib", places(1)),
)
FLOW = (
    Column("traffic", "traffic"),
    Column("flows at a time", "most_flows", whole),
    Column("octets/flow", "octets_per_flow", places(1)),
    Column("with histograms and memory of copies", "octets_in_all", places(1)),
    Column("a flow alone", "flow_alone", whole),
    Column("the most one can take", "worst_flow", whole),
)
SCALING = (
    Column("workers", "workers"),
    Column("packets/s", "packets_per_second", whole),
    Column("speed-up", "speed_up", places(2)),
    Column("CPU s, of all", "cpu", places(2)),
    Column("of each, over that of one alone", "cpu_each", places(2)),
)
LINES = (Column("what", "what"), Column("measured", "value", amount), Column("unit", "unit"))
LIVE = (
    Column("program", "program"),
    Column("packets/s", "rate", whole),
    Column("sent", "offered", whole),
    Column("received", "received", whole),
    Column("dropped", "dropped", whole),
    Column("CPU ns/packet", "cpu_ns_per_packet", whole),
    Column("x tcpdump", "ratio", places(2)),
    Column("peak MiB", "peak_mib", places(1)),
)
TEXT_KEYS = ("traffic", "reader", "workers", "program", "what", "unit", "asked", "verdict")


def cells(columns: Sequence[Column], rows: Iterable[Row]) -> list[list[str]]:
    """The table, a list a row. One that was skipped says why where its first number would stand."""
    lines = []
    for row in rows:
        line = [column.cell(row) for column in columns]
        if "skipped" in row:
            line[[column.key in TEXT_KEYS for column in columns].index(False)] = f"skipped: {row['skipped']}"
        lines.append(line)
    return lines


def terminal(columns: Sequence[Column], rows: Iterable[Row]) -> str:
    """Aligned, numbers to the right."""
    lines = [[column.title for column in columns], *cells(columns, rows)]
    shapes = [
        f"{'<' if column.key in TEXT_KEYS else '>'}{max(map(len, line))}"
        for column, line in zip(columns, zip(*lines, strict=True), strict=True)
    ]
    return "\n".join("  ".join(map(format, line, shapes)).rstrip() for line in lines)


def markdown(columns: Sequence[Column], rows: Iterable[Row]) -> str:
    """For the page."""
    rule = ["---" if column.key in TEXT_KEYS else "---:" for column in columns]
    lines = [[column.title for column in columns], rule, *cells(columns, rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
