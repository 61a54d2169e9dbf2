"""What a flow takes in the sensor's table, by the table's own account, while it counts the benchmark's captures.

Everything is in it: both directions of TCP, scoreboards, holes, histogram bins, the flow's share of the index. What the
table takes without any flow is not.
"""

from __future__ import annotations

import argparse
from typing import Any

from sensor.native import FileState, FlowTable, MappedFile, TableOptions
from tests.bench.traces import GROWTH, STANDARD, Traffic, made

WINDOW_NS = 10_000_000_000
MANY = (STANDARD, *(traffic for traffic in GROWTH if traffic.flows > STANDARD.flows))
"""Memory comes in pieces of megabytes: with few flows that is all one would see."""


def measured(part: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each number of flows."""
    return [account(traffic.smaller() if options.quick else traffic) for traffic in MANY]


def names(part: str) -> list[tuple[str, ...]]:
    """The traffic of each of its rows."""
    return [(traffic.name,) for traffic in MANY]


def account(traffic: Traffic) -> dict[str, Any]:
    """Octets when the table holds most flows."""
    table = FlowTable(TableOptions(WINDOW_NS, max_flows=traffic.flows))
    bare = FlowTable(TableOptions(WINDOW_NS, max_flows=1)).memory()["resident"]
    most = table.memory()
    with made(traffic).open("rb") as opened:
        file = MappedFile(opened.fileno())
        while (state := table.ingest_file(file)) in (FileState.MORE, FileState.HELD):
            if (now := table.memory())["flows_in_use"] > most["flows_in_use"]:
                most = now
            if state is FileState.HELD:
                table.roll()
        file.close()
    return {
        "traffic": traffic.name,
        "most_flows": most["flows_in_use"],
        "octets": most["resident"] - bare,
        "flow_alone": most["flow"],
        "worst_flow": most["worst_flow"],
    }
