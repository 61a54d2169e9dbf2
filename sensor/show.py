"""``vmsensor show``: the summary of a store, from the points in it."""

from __future__ import annotations

import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from sensor.errors import DamagedInputError
from sensor.sinks.blocks import Block, read_blocks
from sensor.sinks.lineprotocol import Point, decode
from sensor.summary import Summary, print_summary
from sensor.window import Column, Labels, Report, Table


def show(directory: Path, top: int) -> None:
    """Print the summary. Raises DamagedInputError at the end when part of the store could not be read."""
    summary, damaged = summarise(directory)
    where = f"From {directory}; send it on with: vmsensor push {shlex.quote(str(directory))}"
    print_summary(summary, [where], top)
    if damaged:
        raise DamagedInputError(f"{directory}: {damaged[0]}; everything else is in the summary")


def summarise(directory: Path) -> tuple[Summary, list[str]]:
    """The summary of a store's windows, and what is damaged in it."""
    summary, damaged = Summary(), list[str]()
    for report in stored_reports(directory, damaged):
        summary.add_report(report)
    return summary, damaged


def stored_reports(directory: Path, damaged: list[str]) -> Iterator[Report]:
    """The windows of a store, in writing order; what is damaged in it is added to the list.

    A window that was written more than once (a file read twice) counts as InfluxDB would keep it: of the points with
    the same series and time the last one.
    """
    # Once to know how often each window stands there, so that the second time only repeated ones have to be held.
    awaited = Counter(_window(block) for block in read_blocks(directory) if not block.damage)
    held: dict[tuple[int, int], list[Block]] = defaultdict(list)
    for block in read_blocks(directory):
        if block.damage:
            damaged.append(block.damage)
            continue
        window = _window(block)
        held[window].append(block)
        awaited[window] -= 1
        if awaited[window] <= 0:
            yield _report(held.pop(window))


def _window(block: Block) -> tuple[int, int]:
    return block.start_ns, block.end_ns


def _report(same: list[Block]) -> Report:
    """What the blocks of one window hold."""
    points = {(p.measurement, tuple(p.tags.items()), p.time_ns): p for block in same for p in decode(block.data)}
    return Report(*_window(same[0]), same[0].start_ns, tables_of(points.values()))


def tables_of(points: Iterable[Point]) -> list[Table]:
    """Points put together into one table a measurement; what a point does not have is null."""
    grouped: dict[str, list[Point]] = defaultdict(list)
    for point in points:
        grouped[point.measurement].append(point)
    return [_table(measurement, same) for measurement, same in grouped.items()]


def _table(measurement: str, points: list[Point]) -> Table:
    tags = sorted({tag for point in points for tag in point.tags})
    fields = sorted({name for point in points for name in point.fields})
    return Table(
        measurement,
        len(points),
        {tag: Labels.of(point.tags.get(tag, "") for point in points) for tag in tags},
        {name: _column([point.fields.get(name) for point in points]) for name in fields},
    )


def _column(values: list[object]) -> Column:
    if any(isinstance(value, str) for value in values):
        return Column(np.array(values, object))
    valid = np.array([value is not None for value in values], bool)
    return Column(np.array([0 if value is None else value for value in values]), valid)
