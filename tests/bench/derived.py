"""What follows from what was measured: medians, rates, ratios within one run, octets a flow. Nothing of it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from tests.bench.contenders import BARE, TCPDUMP
from tests.bench.tables import Row

MANY_FLOWS = 100_000
"""Of fewer than these, one could not tell what they take from what else a program takes."""


def reading(rows: Sequence[Row], start: Sequence[Row]) -> list[Row]:
    """Rows of traffic and reader.

    The ratio is to the bare loop over the same traffic; the octets of a flow are what the peak is above that of one
    packet, ``start``, over the flows that the traffic has, or the sensor's table has room for.
    """
    bare = {row["traffic"]: rate(row) for row in rows if row["reader"] == BARE}
    idle = {row["reader"]: row["peak_kib"] for row in start if "skipped" not in row}
    return [row if "skipped" in row else _read(row, bare[row["traffic"]], idle.get(row["reader"])) for row in rows]


def rate(row: Row) -> int:
    """Packets per second, of the median of the repetitions."""
    return round(row["packets"] / median(row["wall_s"]))


def spread(row: Row) -> float | None:
    """How far repetitions lie apart, over their median; None for only one."""
    wall = row["wall_s"]
    return (max(wall) - min(wall)) / median(wall) if len(wall) > 1 else None


def _read(row: Row, bare: int, idle_kib: int | None) -> Row:
    flows, per_second = row["flows"] or 0, rate(row)
    above = row["peak_kib"] - idle_kib if idle_kib and flows >= MANY_FLOWS else None
    return {
        **row,
        "packets_per_second": per_second,
        "ns_per_packet": 1e9 / per_second,
        "ratio": per_second / bare,
        "spread": spread(row),
        "cpu": median(row["cpu_s"]),
        "peak_mib": row["peak_kib"] / 1024,
        "octets_per_flow": None if above is None else 1024 * above / flows,
    }


def start(rows: Sequence[Row]) -> list[Row]:
    """Rows of one packet, in milliseconds."""
    return [
        row
        if "skipped" in row
        else {
            **row,
            "wall_ms": 1e3 * median(row["wall_s"]),
            "cpu_ms": 1e3 * median(row["cpu_s"]),
            "spread": spread(row),
            "peak_mib": row["peak_kib"] / 1024,
        }
        for row in rows
    ]


def live(rows: Sequence[Row]) -> list[Row]:
    """Rows of live capture; the ratio is to tcpdump, which looks into no packet."""
    cost = {row["program"]: row["cpu_ns_per_packet"] for row in rows if "skipped" not in row}
    yardstick = cost.get(TCPDUMP)
    return [
        {**row, "ratio": cost[row["program"]] / yardstick} if yardstick and row["program"] in cost else row
        for row in rows
    ]
