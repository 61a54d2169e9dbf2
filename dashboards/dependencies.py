"""Dependencies: which VM needs which service of which other, as a graph, and how well it is served."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards.influxql import DEPENDENCY, InfluxQL, select
from dashboards.parts import (
    board,
    graph,
    linked,
    rows,
    scope_variable,
    sensor_variable,
    series,
    tenant_variable,
    unit_of,
    vm_variable,
)  # fmt: skip

EDGE = '"client_vm", "server_vm", "server_tenant", "service"'
NAME = "$tag_client_vm → $tag_server_vm $tag_service"


def dependencies() -> Dashboard:
    """Told from answered requests: what is scanned or refused is needed by nobody."""
    table = rows(
        "Dependencies", "Each client VM and service of a server VM: connections answered and failed, octets each way,"
        " answers, and how long they took.", InfluxQL(select(
            'sum("connections") AS connections, sum("failed") AS failed, max("flows") AS flows, sum("c2s_bytes") AS sent,'
            ' sum("s2c_bytes") AS answered, sum("response_count") AS responses, mean("response_avg_us") AS response_mean,'
            ' max("response_p95_us") AS response_p95, mean("rtt_avg_us") AS rtt, mean("handshake_us") AS handshake,'
            ' min("first_seen") / 1000000 AS first_seen', "dependency", *DEPENDENCY, by=EDGE)), width=24, sort="connections",
    )  # fmt: skip
    for column, unit in {"sent": "bytes", "answered": "bytes", "response_mean": "µs", "response_p95": "µs", "rtt": "µs",
                         "handshake": "µs", "first_seen": "dateTimeAsIso"}.items():  # fmt: skip
        table = unit_of(table, column, unit)
    table = unit_of(table, "failed", "short", ((None, "text"), (1, "red")))
    return (
        board("dependencies", "vmsensor: dependencies", "Who needs whom. An edge is there because a request was answered.",
              sensor_variable(), tenant_variable(), vm_variable(), scope_variable())
        .with_panel(graph(
            "Who needs whom", "From client to server; the numbers of an edge are connections answered and failed in the"
            " chosen time. VMs of the same name in several tenants are one node: choose a tenant where that matters, and a"
            " VM where this is too much.", InfluxQL(
                'SELECT "client_vm" AS source, "server_vm" AS target, "service" AS detail__service, "server_tenant" AS'
                " detail__server_tenant, mainstat, secondarystat FROM (" + select(
                    'sum("connections") AS mainstat, sum("failed") AS secondarystat', "dependency", *DEPENDENCY, by=EDGE) + ")")))
        .with_panel(series(
            "Response time", "95th percentile of a window's answers, the worst of the interval.", "µs",
            InfluxQL(select('max("response_p95_us")', "dependency", *DEPENDENCY, by=f"time, {EDGE}"), NAME)))
        .with_panel(series(
            "Failed attempts", "Refused, or given up without an answer.", "short",
            InfluxQL(select('sum("failed")', "dependency", *DEPENDENCY, by=f"time, {EDGE}"), NAME)))
        .with_panel(linked(linked(table, "client_vm", "vm", "vm"), "server_vm", "vm", "vm"))
    )  # fmt: skip
