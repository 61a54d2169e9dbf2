"""What the flows of the benchmark's captures take in the sensor's table, when it holds most of them.

Counted is what is in use, by ``footprint.c``. What the table takes without any flow is not in it, nor what its pools
have taken ahead of need: the growth table's memory of a whole process has that.
"""

from __future__ import annotations

import argparse
import re
import subprocess
from typing import Any

from sensor.flowtable import FlowTable, TableOptions
from tests.bench.build import built_with_native
from tests.bench.traces import GROWTH, STANDARD, Traffic, made

WINDOW_NS = 10_000_000_000
MANY = (STANDARD, *(traffic for traffic in GROWTH if traffic.flows > STANDARD.flows))
"""With few flows, what a table has anyway would count for much."""

LINES = {"octets_per_flow": "all that a flow has", "octets_in_all": "all"}
"""What ``footprint`` calls them."""


def measured(part: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each number of flows."""
    return [account(traffic.smaller() if options.quick else traffic) for traffic in MANY]


def names(part: str) -> list[tuple[str, ...]]:
    """The traffic of each of its rows."""
    return [(traffic.name,) for traffic in MANY]


def account(traffic: Traffic) -> dict[str, Any]:
    """Octets at the moment at which they are most."""
    command = [built_with_native("footprint"), made(traffic)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    told = dict(re.findall(r"^ +(.+?) +([\d.]+)$", said, re.MULTILINE))
    alone = FlowTable(TableOptions(WINDOW_NS, max_flows=traffic.flows)).memory()
    return {
        "traffic": traffic.name,
        "most_flows": int(said.split()[0]),
        **{key: float(told[line]) for key, line in LINES.items()},
        "flow_alone": alone["flow"],
        "worst_flow": alone["worst_flow"],
    }
