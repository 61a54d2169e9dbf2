"""Queries in InfluxQL, which InfluxDB 1, 2 (by a DBRP mapping) and 3 understand alike.

Whatever is shown over a time of any length is made of sums: throughput of octets, loss of segments. Only percentiles
cannot be; of those the panels show the median or the worst of the windows, and say so.
"""

from __future__ import annotations

from dataclasses import dataclass

from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.dashboard import DataSourceRef

SOURCE = DataSourceRef(type_val="influxdb", uid="${datasource}")

THROUGHPUT = 'sum("bytes") * 8000 / $__interval_ms'
"""Bit/s over each interval: 8 bits an octet, 1000 ms a second."""

LOST = 'sum("retransmissions") - sum("spurious") + sum("upstream_losses")'
SENT = 'sum("data_packets") + sum("upstream_losses")'
LOSS = f"({LOST}) / ({SENT})"
CONFIDENCE = '1 - sum("untold_segments") / sum("data_packets")'

SENSOR = '"sensor" =~ /^$sensor$/'
SCOPE = '"scope" =~ /^$scope$/'
SERVICE = '"service" =~ /^$service$/'
TENANTS = '("src_tenant" =~ /^$tenant$/ OR "dst_tenant" =~ /^$tenant$/)'
VMS = '("src_vm" =~ /^$vm$/ OR "dst_vm" =~ /^$vm$/)'
CLIENT_SERVER_TENANTS = '("client_tenant" =~ /^$tenant$/ OR "server_tenant" =~ /^$tenant$/)'
CLIENT_SERVER_VMS = '("client_vm" =~ /^$vm$/ OR "server_vm" =~ /^$vm$/)'
TRAFFIC = (SENSOR, SCOPE, SERVICE, TENANTS, VMS)
TCP = "\"protocol\" = 'tcp'"
DEPENDENCY = (SENSOR, SCOPE, CLIENT_SERVER_TENANTS, CLIENT_SERVER_VMS)


def select(what: str, measurement: str, *where: str, by: str = "", fill: str = "null") -> str:
    """A query over the dashboard's time; ``by`` are tags, and ``time`` groups by the panel's interval."""
    query = f'SELECT {what} FROM "{measurement}" WHERE {" AND ".join(("$timeFilter", *where))}'
    if by:
        query += f" GROUP BY {by.replace('time', 'time($__interval)')}"
        if "time" in by:
            query += f" fill({fill})"
    return query


def heaviest(what: str, most: str, query: str) -> str:
    """Of a grouped query's rows, those with most of ``what``."""
    return f'SELECT top("{what}", {most}) FROM ({query})'


@dataclass
class InfluxQL(Dataquery):
    """A panel's query. ``alias`` names its series; without one it gives a table."""

    query: str
    alias: str = ""
    ref_id: str = "A"
    hide: bool = False

    def build(self) -> InfluxQL:
        """Itself: nothing is left to be put together."""
        return self

    def to_json(self) -> dict[str, object]:
        """As Grafana's InfluxDB data source takes it."""
        shape: dict[str, object] = {"resultFormat": "table"}
        if self.alias:
            shape = {"resultFormat": "time_series", "alias": self.alias}
        return {"datasource": SOURCE, "query": self.query, "rawQuery": True, "refId": self.ref_id, **shape}


def round_trip_times() -> tuple[InfluxQL, ...]:
    """Over the chosen pairs; percentiles of an interval are the worst window's."""
    shown = {
        'min("rtt_min_us")': "shortest", 'median("rtt_p50_us")': "median of medians",
        'max("rtt_p95_us")': "worst 95th percentile", 'max("rtt_p99_us")': "worst 99th percentile",
    }  # fmt: skip
    return tuple(InfluxQL(select(what, "vm_traffic", *TRAFFIC, by="time"), alias) for what, alias in shown.items())
