"""One VM: with whom it talks, how well, what it needs, who needs it, what happened to it."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from dashboards.influxql import LOSS, SENSOR, SERVICE, TCP, THROUGHPUT, InfluxQL, heaviest, select
from dashboards.parts import (
    LOSS_STEPS,
    board,
    linked,
    number,
    rows,
    sensor_variable,
    series,
    service_variable,
    stacked,
    tenant_variable,
    top_variable,
    unit_of,
    vm_variable,
)  # fmt: skip

SENDS = (SENSOR, SERVICE, "\"src_vm\" = '$vm'")
RECEIVES = (SENSOR, SERVICE, "\"dst_vm\" = '$vm'")


def vm() -> Dashboard:
    """Everything of the chosen VM."""
    return (
        board("vm", "vmsensor: VM", "One VM: its peers, how well it talks with them, what it needs and who needs it.",
              sensor_variable(), tenant_variable(), vm_variable(multi=False), service_variable(), top_variable())
        .with_panel(number("Sent", "IP octets that $vm sent.", "bytes",
                           InfluxQL(select('sum("bytes")', "vm_traffic", *SENDS)), width=6))
        .with_panel(number("Received", "IP octets that $vm was sent.", "bytes",
                           InfluxQL(select('sum("bytes")', "vm_traffic", *RECEIVES)), width=6))
        .with_panel(number("TCP loss, sending", "Of the segments that $vm sent, those that were lost.", "percentunit",
                           InfluxQL(select(LOSS, "vm_traffic", *SENDS, TCP)), LOSS_STEPS, width=6))
        .with_panel(number("TCP loss, receiving", "Of the segments that $vm was sent, those that were lost.", "percentunit",
                           InfluxQL(select(LOSS, "vm_traffic", *RECEIVES, TCP)), LOSS_STEPS, width=6))
        .with_panel(stacked("Sends to", "Bits a second, by receiver.", "bps",
                            InfluxQL(select(THROUGHPUT, "vm_traffic", *SENDS, by='time, "dst_vm"'), "$tag_dst_vm")))
        .with_panel(stacked("Receives from", "Bits a second, by sender.", "bps",
                            InfluxQL(select(THROUGHPUT, "vm_traffic", *RECEIVES, by='time, "src_vm"'), "$tag_src_vm")))
        .with_panel(series(
            "Round-trip time to peers", "Tap to the peer and back, median of the windows' medians. High to one peer: that"
            " peer or its way; high to all: this VM's own.", "µs",
            InfluxQL(select('median("rtt_p50_us")', "vm_traffic", *SENDS, by='time, "dst_vm"'), "$tag_dst_vm")))
        .with_panel(series(
            "Round-trip time to this VM", "Tap to $vm and back, median of the windows' medians, by who sends.", "µs",
            InfluxQL(select('median("rtt_p50_us")', "vm_traffic", *RECEIVES, by='time, "src_vm"'), "$tag_src_vm")))
        .with_panel(series(
            "Response time of this VM", "From the last octet of a request to the first of its answer: the worst window's"
            " 95th percentile, by service.", "µs",
            InfluxQL(select('max("response_p95_us")', "vm_traffic", *RECEIVES, by='time, "service"'), "$tag_service")))
        .with_panel(series(
            "Receive window closed", "Packets in which $vm closed its receive window: it does not keep up with what it"
            " is sent.", "short",
            InfluxQL(select('sum("zero_windows")', "vm_traffic", *SENDS, by='time, "dst_vm"'), "towards $tag_dst_vm")))
        .with_row(Row("Dependencies"))
        .with_panel(_edges("Needs", "Services that $vm uses: connections that were answered and that failed.",
                           "\"client_vm\" = '$vm'", "server_vm"))
        .with_panel(_edges("Is needed by", "Who uses services of $vm.", "\"server_vm\" = '$vm'", "client_vm"))
        .with_row(Row("Peers and events"))
        .with_panel(unit_of(linked(rows(
            "Peers", "Whom $vm sent most, by service.", InfluxQL(heaviest("octets", '"dst_vm", "service", $top', select(
                'sum("bytes") AS octets', "vm_traffic", *SENDS, by='"dst_vm", "service"'))), sort="top"),
            "dst_vm", "vm", "vm"), "top", "bytes"))
        .with_panel(rows(
            "Events", "Events whose subject is $vm, or which it is the object of; newest first.",
            InfluxQL(select('"kind", "severity", "state", "subject", "object", "detail"', "event", SENSOR,
                            "(\"subject\" = '$vm' OR \"object\" = '$vm')") + " ORDER BY time DESC LIMIT 200")))
    )  # fmt: skip


def _edges(title: str, description: str, whose: str, other: str) -> object:
    query = select(
        'sum("connections") AS connections, sum("failed") AS failed, max("response_p95_us") AS response_p95',
        "dependency", SENSOR, whose, by=f'"{other}", "service"',
    )  # fmt: skip
    panel = linked(rows(title, description, InfluxQL(query), sort="connections"), other, "vm", "vm")
    return unit_of(unit_of(panel, "response_p95", "µs"), "failed", "short", ((None, "text"), (1, "red")))
