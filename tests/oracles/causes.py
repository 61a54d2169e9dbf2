"""Prints the table of TCP causes: the sensor against tshark over all captures, with the reason of each difference.

    python -m tests.oracles.causes [PART OF A CAPTURE'S NAME]

A single number is what both say. Of two, the first is tshark's and the second the sensor's.
"""

from __future__ import annotations

import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.oracles import program
from tests.oracles.alone import alone
from tests.oracles.captures import CAPTURES, by_tshark, name, read_ahead
from tests.oracles.cause_list import Entries, content, differences, entries, flow_names, proposal
from tests.oracles.cause_table import METRICS, Row, counted, table

HEADINGS = ("resent", "spurious", "disorder", "gap", "unseen", "keepalive", "zero window")
FLOW_WIDTH, CELL_WIDTH = 60, 12
TEXT_WIDTH = 118


def cell(metric: str, row: Row) -> str:
    """What both say of a metric; nothing where both say nothing."""
    said = counted(metric, row.tshark)
    return f"{said}:{row.sensor}" if said != row.sensor else str(said or "")


def line(flow: str, cells: Iterable[str], reasons: str) -> str:
    """One direction of a flow."""
    return f"{flow:<{FLOW_WIDTH}}{''.join(f'{text:<{CELL_WIDTH}}' for text in cells)}{reasons}".rstrip()


def reasons(flow: str, listed: Entries) -> str:
    """The rules that the list names for a flow, with their frames."""
    frames: dict[str, list[int]] = {}
    for (of, _), entry in listed.items():
        for rule, named in entry.frames.items() if of == flow else ():
            frames[rule] = sorted({*frames.get(rule, ()), *named})
    return "; ".join(f"{rule} {', '.join(map(str, named))}" for rule, named in frames.items())


def lines_of(capture: Path) -> list[str]:
    """A line for each direction of a flow of which either says something."""
    rows, listed = table(capture), entries(capture)
    lines = []
    for way, flow in flow_names(rows).items():
        cells = [cell(metric, rows.get((way, metric), Row())) for metric in METRICS]
        if any(cells):
            lines.append(line(f"  {flow}", cells, reasons(flow, listed)))
    return lines


def totals(captures: Iterable[Path]) -> Iterator[str]:
    """What tshark says, what it says of each flow alone, and what the sensor says, over all captures."""
    sums: dict[str, Counter[str]] = {"tshark": Counter(), "tshark, each flow alone": Counter(), "sensor": Counter()}
    for (_, metric), row in (item for capture in captures for item in table(capture).items()):
        sums["tshark"][metric] += counted(metric, row.tshark)
        sums["tshark, each flow alone"][metric] += counted(metric, row.alone)
        sums["sensor"][metric] += row.sensor
    return (line(f"  {who}", (str(said[metric]) for metric in METRICS), "") for who, said in sums.items())


def report(captures: list[Path]) -> Iterator[str]:
    """The whole table."""
    lines = {name(capture): lines_of(capture) for capture in captures if table(capture)}
    yield line("", HEADINGS, "why, and in which frames")
    for capture, of_flows in lines.items():
        yield from ([capture, *of_flows] if of_flows else ())
    yield from (line("all captures", HEADINGS, ""), *totals(captures), "")
    quiet = ", ".join(capture for capture, of_flows in lines.items() if not of_flows)
    yield paragraph("Neither says anything of the TCP flows in", quiet or "no other capture")
    for rule, definition in content()["rules"].items():
        yield paragraph(rule, definition)


def paragraph(head: str, body: str) -> str:
    """A text with its head, broken into lines."""
    return textwrap.fill(f"{head}: {body}", TEXT_WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def unexplained(capture: Path) -> list[str]:
    """Lines for the list, of the differences that it lacks, with the rules that hold for their packets."""
    listed = entries(capture)
    return [
        f'[captures."{name(capture)}"."{flow}"]\n{proposal(capture, metric, way, row).line(metric)}'
        for (flow, metric), (way, row) in differences(capture).items()
        if (flow, metric) not in listed
    ]


if __name__ == "__main__":
    wanted = [capture for capture in CAPTURES if sys.argv[1:] == [] or sys.argv[1] in name(capture)]
    read_ahead(wanted, by_tshark, program.run, alone)
    print("\n".join(report(wanted)))
