"""Events: attacks, policy, the life of VMs and dependencies."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards.influxql import SENSOR, InfluxQL, select
from dashboards.parts import ANY_IS_BAD, board, number, rows, sensor_variable, stacked, tag_values, unit_of

WHERE = (SENSOR, '"kind" =~ /^$kind$/', '"severity" =~ /^$severity$/', '"tenant" =~ /^$tenant$/')
OPENED = "(\"state\" = 'open' OR \"state\" = 'fact')"


def events() -> Dashboard:
    """What happened, newest first."""

    def opened(severity: str) -> InfluxQL:
        return InfluxQL(select('count("detail")', "event", *WHERE, OPENED, f"\"severity\" = '{severity}'"))

    table = rows(
        "Events", "Each time that an event was opened, changed or closed; newest first. The evidence is summed up since it"
        " was opened; `count` are the windows in which it was found.", InfluxQL(select(
            '"severity", "kind", "tenant", "state", "subject", "object", "detail", "evidence", "count", "first_ns" / 1000000'
            ' AS first, "last_ns" / 1000000 AS last', "event", *WHERE) + " ORDER BY time DESC LIMIT 500"), width=24, height=14,
    )  # fmt: skip
    return (
        board("events", "vmsensor: events", "Attacks, broken policy, the life of VMs and of dependencies.",
              sensor_variable(),
              tag_values("tenant", "Tenant", "Whom the event concerns.",
                         f'SHOW TAG VALUES FROM "event" WITH KEY = "tenant" WHERE {SENSOR}'),
              tag_values("kind", "Kind", "What it is, for example port_scan.",
                         f'SHOW TAG VALUES FROM "event" WITH KEY = "kind" WHERE {SENSOR}'),
              tag_values("severity", "Severity", "info, warning or critical.",
                         f'SHOW TAG VALUES FROM "event" WITH KEY = "severity" WHERE {SENSOR}'))
        .with_panel(number("Critical", "Opened in the chosen time.", "short", opened("critical"), ANY_IS_BAD, width=8))
        .with_panel(number("Warnings", "Opened in the chosen time.", "short", opened("warning"), ((None, "green"), (1, "yellow")),
                           width=8))
        .with_panel(number("Information", "Opened in the chosen time, facts included.", "short", opened("info"), width=8))
        .with_panel(stacked(
            "Opened, by kind", "How many events of each kind began.", "short",
            InfluxQL(select('count("detail")', "event", *WHERE, OPENED, by='time, "kind"'), "$tag_kind"), width=24))
        .with_panel(unit_of(unit_of(table, "first", "dateTimeAsIso"), "last", "dateTimeAsIso"))
    )  # fmt: skip
