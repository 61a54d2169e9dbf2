"""Tenant to tenant: who crosses into whom."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards.influxql import LOSS, SCOPE, SENSOR, TCP, TENANTS, THROUGHPUT, InfluxQL, heaviest, select
from dashboards.parts import (
    board,
    matrix,
    number,
    rows,
    scope_variable,
    sensor_variable,
    series,
    stacked,
    tenant_variable,
    top_variable,
    unit_of,
)  # fmt: skip

WHERE = (SENSOR, SCOPE, TENANTS)
PAIR = '"src_tenant", "dst_tenant"'
CROSSING = "\"scope\" = 'inter-tenant'"


def tenants() -> Dashboard:
    """The tenants, and `external` for the outside."""
    return (
        board("tenants", "vmsensor: tenants", "Traffic between tenants, and with the outside.",
              sensor_variable(), tenant_variable(), scope_variable(), top_variable())
        .with_panel(matrix(
            "Octets, tenant to tenant", "IP octets that the tenant of the row sent to the tenant of the column;"
            " `external` is the outside, `other` what the series budget put together.", "bytes",
            InfluxQL(select('sum("bytes") AS value', "vm_traffic", *WHERE, by=PAIR)), "src_tenant", "dst_tenant", "value"))
        .with_panel(stacked(
            "Throughput by sending tenant", "Bits of IP packets a second.", "bps",
            InfluxQL(select(THROUGHPUT, "vm_traffic", *WHERE, by='time, "src_tenant"'), "$tag_src_tenant"), height=12))
        .with_panel(series(
            "Crossing from tenant to tenant", "Bits a second between VMs of different tenants: should this be?", "bps",
            InfluxQL(select(THROUGHPUT, "vm_traffic", *WHERE, CROSSING, by=f"time, {PAIR}"),
                     "$tag_src_tenant → $tag_dst_tenant")))
        .with_panel(unit_of(rows(
            "Pairs that cross", "VMs of different tenants that talk, the heaviest first.",
            InfluxQL(heaviest("octets", '"src_tenant", "src_vm", "dst_tenant", "dst_vm", $top', select(
                'sum("bytes") AS octets', "vm_traffic", *WHERE, CROSSING, by='"src_tenant", "src_vm", "dst_tenant", "dst_vm"'))),
            sort="top"), "top", "bytes"))
        .with_panel(series(
            "TCP loss by sending tenant", "Segments lost of those sent, of the sums of each interval.", "percentunit",
            InfluxQL(select(LOSS, "vm_traffic", *WHERE, TCP, by='time, "src_tenant"'), "$tag_src_tenant")))
        .with_panel(series(
            "Flows by sending tenant", "Flows with traffic in a window, the most of any window; the sum over pairs and"
            " services of the tenant.", "short",
            InfluxQL(select('max("flows")', "vm_traffic", *WHERE, by='time, "src_tenant"'), "$tag_src_tenant")))
        .with_panel(number(
            "Octets across tenants", "IP octets between VMs of different tenants in the chosen time.", "bytes",
            InfluxQL(select('sum("bytes")', "vm_traffic", *WHERE, CROSSING)), width=24))
    )  # fmt: skip
