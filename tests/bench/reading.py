"""Capture files, read by programs side by side: every part of the benchmark that is a table of traffic and reader."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Sequence
from typing import Any

from tests.bench.contenders import BARE, READERS, SENSOR, STORE, Contender, contenders, sensor, yardstick
from tests.bench.measure import Runs, one_core, run, warm
from tests.bench.traces import GROWTH, KINDS, ONE_PACKET, STANDARD, Traffic, made

READ: dict[str, tuple[Sequence[Traffic], bool]] = {
    "start": ((ONE_PACKET,), True),
    "readers": ((STANDARD,), True),
    "growth": (GROWTH, False),
    "kinds": (KINDS, False),
}
"""Of each part: its traffic, and whether all read it, or the sensor and its yardstick alone."""


def measured(part: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of a part."""
    kinds, all_of_them = READ[part]
    readers = contenders() if all_of_them else [yardstick(), sensor()]
    rows = []
    for traffic in kinds:
        rows += side_by_side(traffic.smaller() if options.quick else traffic, readers, options.repetitions)
    return rows


def names(part: str) -> list[tuple[str, ...]]:
    """Traffic and reader of each of its rows."""
    kinds, all_of_them = READ[part]
    return [(traffic.name, reader) for traffic in kinds for reader in (READERS if all_of_them else (BARE, SENSOR))]


def side_by_side(traffic: Traffic, readers: Sequence[Contender], repetitions: int) -> list[dict[str, Any]]:
    """One row a reader, of runs that took turns."""
    warm(made(traffic))
    runs = {reader.name: Runs() for reader in readers if reader.absent is None}
    print(f"{traffic.name}: {', '.join(runs)} ", end="", flush=True)
    try:
        with one_core():
            for repetition in range(repetitions):
                for reader in readers:
                    if reader.absent is None and repetition < reader.most:
                        one_run(traffic, reader, runs[reader.name])
                print(".", end="", flush=True)
    finally:
        shutil.rmtree(STORE, ignore_errors=True)
        print(flush=True)
    return [row(traffic, reader, runs.get(reader.name)) for reader in readers]


def one_run(traffic: Traffic, reader: Contender, runs: Runs) -> None:
    """A reader that missed packets is not compared with the others."""
    shutil.rmtree(STORE, ignore_errors=True)
    printed = run(reader.name, reader.command(traffic), runs)
    if reader.counted is not None:
        said = re.search(reader.counted, printed)
        if said is None or int(said[1]) != traffic.packets:
            sys.exit(f"bench: {reader.name} counted {said[1] if said else 'none'} of {traffic.packets} packets")


def row(traffic: Traffic, reader: Contender, runs: Runs | None) -> dict[str, Any]:
    """What is kept of them."""
    named = {"traffic": traffic.name, "reader": reader.name}
    if runs is None:
        return {**named, "skipped": reader.absent}
    return {
        **named,
        "packets": traffic.packets,
        "flows": traffic.held if reader.keeps_flows else None,
        "file_octets": traffic.path.stat().st_size,
        "wall_s": runs.wall_s,
        "cpu_s": runs.cpu_s,
        "peak_kib": runs.peak_kib,
    }
