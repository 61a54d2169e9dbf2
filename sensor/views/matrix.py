"""``vmsensor matrix``: the traffic matrix as a table, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path

from sensor.analysis.matrix import METRICS, By, Matrix, Name, Pairs, PairSums, matrix_of
from sensor.config import Settings
from sensor.errors import InputError
from sensor.output import write
from sensor.readback import each_report
from sensor.stopping import Stop
from sensor.summary import console_for_people, latency, scaled
from sensor.window import Report

MOST_IN_TABLE = 8
"""Ends in a table, if not asked otherwise: what fits a terminal."""


def print_matrix(
    source: Path, settings: Settings, metric: str, by: By, tenant: str | None, span: str, form: str, top: int | None,
    stop: Stop,
) -> None:  # fmt: skip
    """Print one matrix of the whole time, or one of each window."""
    total = PairSums(by, tenant)

    def take(report: Report) -> None:
        if span == "all":
            total.add(report)
            return
        one = PairSums(by, tenant)
        one.add(report)
        write("".join(_text(one, metric, form, top)))

    damage = each_report(source, settings, take, stop)
    if span == "all":
        if total.start_ns is None:
            raise InputError(f"{source}: holds no window; choose a capture, or a store that a sensor has written")
        write("".join(_text(total, metric, form, top)))
    if damage:
        raise damage


def _text(sums: PairSums, metric: str, form: str, top: int | None) -> Iterator[str]:
    pairs = sums.pairs()
    if form == "json":
        yield json.dumps(_object(sums, pairs, metric, top), allow_nan=False) + "\n"
        return
    if form == "csv":
        yield from _csv(sums, matrix_of(pairs, metric, top))
        return
    yield _table(sums, matrix_of(pairs, metric, top or MOST_IN_TABLE), metric, len(pairs.names))


def _object(sums: PairSums, pairs: Pairs, metric: str, top: int | None) -> dict[str, object]:
    matrix = matrix_of(pairs, metric, top)
    return {
        "start_ns": sums.start_ns,
        "end_ns": sums.end_ns,
        "metric": metric,
        "unit": METRICS[metric][0],
        "names": [{"tenant": tenant, "vm": vm or None} for tenant, vm in matrix.names],
        "matrix": [[_number(cell) for cell in row] for row in matrix.cells.tolist()],
        "pairs": list(_pairs(pairs)),
    }


def _pairs(pairs: Pairs) -> Iterator[dict[str, object]]:
    """Each pair with B, T, L and P."""
    columns = {
        "bytes": "bytes", "throughput_bps": "throughput", "latency_base_us": "rtt", "latency_waiting_us": "waiting",
        "loss_ratio": "loss",
    }  # fmt: skip
    for i, (src, dst) in enumerate(zip(pairs.src.tolist(), pairs.dst.tolist(), strict=True)):
        (src_tenant, src_vm), (dst_tenant, dst_vm) = pairs.names[src], pairs.names[dst]
        yield {
            "src_tenant": src_tenant, "src_vm": src_vm or None, "dst_tenant": dst_tenant, "dst_vm": dst_vm or None,
            **{name: _number(float(pairs.values[metric][i])) for name, metric in columns.items()},
        }  # fmt: skip


def _number(value: float) -> float | int | None:
    if math.isnan(value):
        return None
    return int(value) if value.is_integer() else value


def _csv(sums: PairSums, matrix: Matrix) -> Iterator[str]:
    """A line of names, then a line for each end; what was not measured is empty."""
    file = io.StringIO()
    lines = csv.writer(file, lineterminator="\n")
    lines.writerow(["start_ns", "end_ns", "from", *map(label, matrix.names)])
    for name, row in zip(matrix.names, matrix.cells.tolist(), strict=True):
        cells = ("" if (number := _number(cell)) is None else number for cell in row)
        lines.writerow([sums.start_ns, sums.end_ns, label(name), *cells])
    yield file.getvalue()


def label(name: Name) -> str:
    """``tenant/vm``, or the tenant alone; what is outside has one name."""
    tenant, vm = name
    return tenant if not vm or vm == tenant else f"{tenant}/{vm}"


def _table(sums: PairSums, matrix: Matrix, metric: str, of: int) -> str:
    from rich.markup import escape
    from rich.table import Table as RichTable

    console = console_for_people()
    title = f"{metric}: {METRICS[metric][1]}, over {sums.seconds:,.0f} s"
    table = RichTable(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    # Names are long and columns are narrow: a number stands for each.
    table.add_column("from", no_wrap=True)
    table.add_column("to", justify="right", no_wrap=True)
    for number in range(1, len(matrix.names) + 1):
        table.add_column(str(number), justify="right", no_wrap=True)
    for number, (name, row) in enumerate(zip(matrix.names, matrix.cells.tolist(), strict=True), 1):
        table.add_row(escape(label(name)), str(number), *(_cell(metric, cell) for cell in row))
    with console.capture() as text:
        console.print(table)
        if of > len(matrix.names):
            console.print(f"[dim]{of - len(matrix.names):,} more with less traffic; --top shows more.[/dim]")
    return text.get()


def _cell(metric: str, value: float) -> str:
    if math.isnan(value) or (value == 0 and metric in ("bytes", "throughput")):
        return "-"
    if metric in ("rtt", "waiting"):
        return latency(value)
    if metric == "loss":
        return f"{value:.2%}"
    return scaled(value, "B" if metric == "bytes" else "bit/s")
