"""Overview: how much, how fast, with what loss; who talks most; what the sensor says of itself and of attacks."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from dashboards.influxql import (
    LOSS,
    LOST,
    SENSOR,
    TCP,
    THROUGHPUT,
    TRAFFIC,
    InfluxQL,
    heaviest,
    round_trip_times,
    select,
)
from dashboards.parts import (
    ANY_IS_BAD,
    LOSS_STEPS,
    board,
    linked,
    number,
    rows,
    series,
    stacked,
    top_variable,
    traffic_variables,
    unit_of,
    words,
)  # fmt: skip


def overview() -> Dashboard:
    """The first page."""
    return (
        board("overview", "vmsensor: overview", "What the mirror shows of the traffic between VMs.",
              *traffic_variables(), top_variable())
        .with_panel(words(
            "Traffic between VMs as a mirror port shows it. **Octets are IP octets**, copies that the mirror delivers"
            " twice are left out; *absent is not zero*: a number that could not be measured is a gap. More:"
            " **VM pairs** (matrix), **VM**, **tenants**, **dependencies**, **events**, **TCP health**, **sensor health**."
        ))
        .with_panel(number(
            "Octets", "IP octets of all traffic in the chosen time, copies of the mirror left out.", "bytes",
            InfluxQL(select('sum("bytes")', "vm_traffic", *TRAFFIC))))
        .with_panel(number(
            "Packets", "Packets, copies of the mirror left out.", "short",
            InfluxQL(select('sum("packets")', "vm_traffic", *TRAFFIC))))
        .with_panel(number(
            "New flows", "Flows begun in the chosen time, by either side; a flow counts once for each direction's row.",
            "short", InfluxQL(select('sum("new_flows")', "vm_traffic", *TRAFFIC))))
        .with_panel(number(
            "TCP loss", "Segments lost of those sent: (resent - needlessly resent + lost before the tap) / sent, made of"
            " the sums over the chosen time. What only the mirror lost is not in it.", "percentunit",
            InfluxQL(select(LOSS, "vm_traffic", *TRAFFIC, TCP)), LOSS_STEPS))
        .with_panel(number(
            "Open warnings", "Events of severity warning or critical that were opened in the chosen time.", "short",
            InfluxQL(select('count("state")', "event", SENSOR, '"severity" != \'info\'', '"state" = \'open\'')), ANY_IS_BAD))
        .with_panel(number(
            "Lost by mirror or sensor", "Packets that the kernel or the NIC dropped, as the sensor's own counters say.",
            "short", InfluxQL(select('sum("dropped_kernel") + sum("dropped_nic")', "sensor", SENSOR)), ANY_IS_BAD))
        .with_panel(stacked(
            "Throughput by scope", "Bits of IP packets a second. east-west stays within a tenant, inter-tenant crosses"
            " into another one, north-south goes outside.", "bps",
            InfluxQL(select(THROUGHPUT, "vm_traffic", *TRAFFIC, by='time, "scope"'), "$tag_scope")))
        .with_panel(stacked(
            "Throughput by service", "Bits a second by the service of the server's port, either way; `other` is what the"
            " series budget put together.", "bps",
            InfluxQL(select(THROUGHPUT, "vm_traffic", *TRAFFIC, by='time, "service"'), "$tag_service")))
        .with_panel(series(
            "Round-trip time", "From the tap to the receiver and back, over all pairs: the shortest, the median of the"
            " pairs' medians, and the worst pair's 95th and 99th percentile of the interval.", "µs",
            *round_trip_times()))
        .with_panel(series(
            "TCP loss by scope", "Segments lost of those sent, of the sums of each interval. A hundredth of it cripples a"
            " bulk transfer.", "percentunit",
            InfluxQL(select(LOSS, "vm_traffic", *TRAFFIC, TCP, by='time, "scope"'), "$tag_scope")))
        .with_panel(_talkers())
        .with_panel(unit_of(unit_of(rows(
            "Heaviest flows", "The heaviest flow of each window, as the sensor keeps ten of them with their addresses and"
            " ports.", InfluxQL(select(
                '"client_ip", "client_port", "server_ip", "server_port", "protocol", "client_vm", "server_vm", "c2s_bytes",'
                ' "s2c_bytes", "c2s_packets", "s2c_packets"', "flow_top", SENSOR, '"rank" = \'1\'') + " ORDER BY time DESC LIMIT 100")),
            "c2s_bytes", "bytes"), "s2c_bytes", "bytes"))
        .with_row(Row("What was lost where"))
        .with_panel(series(
            "Segments lost", "Where TCP segments were lost: behind the tap (seen, and sent again), or before it (only the"
            " resend was seen).", "short",
            InfluxQL(select('sum("retransmissions") - sum("spurious")', "vm_traffic", *TRAFFIC, by="time"), "behind the tap"),
            InfluxQL(select('sum("upstream_losses")', "vm_traffic", *TRAFFIC, by="time"), "before the tap")))
        .with_panel(unit_of(linked(rows(
            "Pairs with most losses", "Senders by segments lost in the chosen time.",
            InfluxQL(heaviest("lost", '"src_vm", "dst_vm", $top', select(f"{LOST} AS lost", "vm_traffic", *TRAFFIC, TCP,
                                                               by='"src_vm", "dst_vm"')))),
            "src_vm", "vm", "vm"), "top", "short"))
    )  # fmt: skip


def _talkers() -> object:
    inner = select('sum("bytes") AS octets', "vm_traffic", *TRAFFIC, by='"src_vm", "dst_vm"')
    panel = rows(
        "Heaviest pairs", "Who sent whom most in the chosen time. A click on a VM shows it alone.",
        InfluxQL(heaviest("octets", '"src_vm", "dst_vm", $top', inner)), sort="top",
    )  # fmt: skip
    return unit_of(linked(linked(panel, "src_vm", "vm", "vm"), "dst_vm", "vm", "vm"), "top", "bytes")
