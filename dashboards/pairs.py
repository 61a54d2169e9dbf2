"""VM pairs: the matrix of who sends whom how much, how late, with what loss; and the same over time."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards.influxql import LOSS, TCP, THROUGHPUT, TRAFFIC, InfluxQL, round_trip_times, select
from dashboards.parts import LOSS_STEPS, board, matrix, series, traffic_variables

PAIR = '"src_vm", "dst_vm"'
NAME = "$tag_src_vm → $tag_dst_vm"


def pairs() -> Dashboard:
    """Each pair of the chosen VMs."""

    def cells(what: str, *more: str) -> InfluxQL:
        return InfluxQL(select(f"{what} AS value", "vm_traffic", *TRAFFIC, *more, by=PAIR))

    def lines(what: str, *more: str) -> InfluxQL:
        return InfluxQL(select(what, "vm_traffic", *TRAFFIC, *more, by=f"time, {PAIR}"), NAME)

    return (
        board("pairs", "vmsensor: VM pairs", "Rows send to columns. Choose a tenant or some VMs: a matrix of thousands"
              " is no use to anybody, and VMs of the same name in several tenants are one row.", *traffic_variables())
        .with_panel(matrix(
            "Octets", "IP octets that the VM of the row sent to the VM of the column in the chosen time.", "bytes",
            cells('sum("bytes")'), "src_vm", "dst_vm", "value"))
        .with_panel(series(
            "Throughput", "Bits of IP packets a second, each direction of each pair.", "bps", lines(THROUGHPUT), height=12))
        .with_panel(matrix(
            "Round-trip time, worst 95th percentile", "From the tap to the VM of the column and back: the worst window's"
            " 95th percentile. Empty where nothing was measured.", "µs", cells('max("rtt_p95_us")'), "src_vm", "dst_vm", "value"))
        .with_panel(series(
            "Round-trip time, median", "Median of the windows' medians, tap to receiver and back, each direction of each"
            " pair.", "µs", lines('median("rtt_p50_us")'), height=12))
        .with_panel(matrix(
            "TCP loss", "Segments lost of those that the VM of the row sent to the VM of the column, of the sums.", "percentunit",
            cells(LOSS, TCP), "src_vm", "dst_vm", "value", LOSS_STEPS))
        .with_panel(series(
            "TCP loss over time", "The same over time, of the sums of each interval.", "percentunit", lines(LOSS, TCP), height=12))
        .with_panel(series(
            "Round-trip time of all chosen pairs", "Over the chosen pairs: the shortest; the median of their medians; the worst"
            " 95th and 99th percentile of the interval.", "µs",
            *round_trip_times()))
        .with_panel(series(
            "Waiting and handshakes", "Waiting is what exceeds the shortest round-trip time: queues. A handshake is SYN"
            " to the ACK that ends it. Means over pairs and windows.", "µs",
            InfluxQL(select('mean("queueing_us")', "vm_traffic", *TRAFFIC, by="time"), "waiting"),
            InfluxQL(select('mean("handshake_us")', "vm_traffic", *TRAFFIC, by="time"), "handshake"),
            InfluxQL(select('mean("path_rtt_us")', "vm_traffic", *TRAFFIC, by="time"), "whole path, both halves")))
    )  # fmt: skip
