"""How much faster several processes read a capture than one: whole processes, taking turns, on all cores there are."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from statistics import median
from typing import Any

from tests.bench.contenders import why_no_sensor
from tests.bench.measure import Runs, run, warm
from tests.bench.tables import Row
from tests.bench.traces import STANDARD, made

WORKERS = (1, 2)


def measured(part: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each number of workers; CPU time and memory are of all its processes."""
    if absent := why_no_sensor():
        return [{"workers": str(count), "skipped": absent} for count in WORKERS]
    traffic = STANDARD.smaller() if options.quick else STANDARD
    warm(made(traffic))
    command = [sys.executable, "-m", "sensor", "read", str(traffic.path), "--to", "none", "--workers"]
    runs = {count: Runs() for count in WORKERS}
    for _ in range(options.repetitions):
        for count in WORKERS:
            run(f"vmsensor --workers {count}", [*command, str(count)], runs[count])
    return [
        {"workers": str(count), "packets": traffic.packets, "wall_s": taken.wall_s, "cpu_s": taken.cpu_s}
        for count, taken in runs.items()
    ]


def names(part: str) -> list[tuple[str, ...]]:
    """How many workers each of its rows has."""
    return [(str(count),) for count in WORKERS]


def derived(rows: Sequence[Row]) -> list[Row]:
    """The speed-up is over one worker; a worker's part of the CPU time is of what one alone takes."""
    wall = {row["workers"]: median(row["wall_s"]) for row in rows if "skipped" not in row}
    cpu = {row["workers"]: median(row["cpu_s"]) for row in rows if "skipped" not in row}
    return [
        row
        if "skipped" in row
        else {
            **row,
            "packets_per_second": row["packets"] / wall[row["workers"]],
            "speed_up": wall["1"] / wall[row["workers"]],
            "cpu": cpu[row["workers"]],
            "cpu_each": cpu[row["workers"]] / int(row["workers"]) / cpu["1"],
        }
        for row in rows
    ]
