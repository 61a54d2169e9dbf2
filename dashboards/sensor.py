"""Sensor health: where every packet went, what was lost on the way, and whether the database keeps up."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from dashboards.influxql import SENSOR, InfluxQL, select
from dashboards.parts import ANY_IS_BAD, board, number, rows, sensor_variable, series, stacked, tag_values

WHERE = (SENSOR, '"interface" =~ /^$interface$/')
FATES = {
    "flow": "in flows", "overflow": "overflow: table full", "mirror_duplicate": "mirror duplicate", "arp": "ARP",
    "not_ip": "not IP", "unknown_link": "unknown link type", "short_link": "cut in the link header",
    "short_ip": "cut in the IP header", "short_transport": "cut before the ports", "bad_version": "bad IP version",
    "bad_length": "bad IP length",
}  # fmt: skip


def sensor() -> Dashboard:
    """Every counter that the sensor keeps of itself."""

    def lines(**names: str) -> list[InfluxQL]:
        return [InfluxQL(select(f'sum("{name}")', "sensor", *WHERE, by="time"), alias) for name, alias in names.items()]

    def level(name: str, alias: str, by: str = 'time, "sensor"') -> InfluxQL:
        return InfluxQL(select(f'max("{name}")', "sensor", *WHERE, by=by), f"$tag_sensor {alias}")

    def total(what: str) -> InfluxQL:
        return InfluxQL(select(what, "sensor", *WHERE))

    return (
        board("sensor", "vmsensor: sensor health", "Can the other dashboards be believed? Every packet is in exactly one"
              " line of the first panel.", sensor_variable(),
              tag_values("interface", "Interface", "Interfaces, or files.",
                         f'SHOW TAG VALUES FROM "sensor" WITH KEY = "interface" WHERE {SENSOR}'))
        .with_panel(number("Received", "Packets that reached the sensor's table.", "short", total('sum("received")'), width=6))
        .with_panel(number(
            "Dropped", "By the kernel for want of buffer, or by the NIC: the sensor never saw these.", "short",
            total('sum("dropped_kernel") + sum("dropped_nic")'), ANY_IS_BAD, width=6))
        .with_panel(number(
            "Lag", "How far the database was behind at most: from the end of the oldest window that it had not taken to the newest.", "s",
            total('max("spool_lag_s")'), ((None, "green"), (60, "yellow"), (600, "red")), width=6))
        .with_panel(number(
            "Windows lost", "Windows that a full disk, a full store or a slow output cost.", "short",
            total('sum("spool_lost_windows")'), ANY_IS_BAD, width=6))
        .with_panel(stacked(
            "Where every packet went", "Each packet ends in exactly one of these; together they are what was received.",
            "short", *lines(**{f"fate_{name}": alias for name, alias in FATES.items()}), width=24, height=10))
        .with_panel(series(
            "Lost before the sensor", "dropped by the kernel: the sensor was too slow, or the buffer too small. The rest"
            " are the interface's own counters: no room in a processor's backlog, in the receive ring, in the NIC's"
            " buffer; damaged by the cable; and what the NIC's driver counts, perhaps the same packets again.", "short",
            *lines(dropped_kernel="kernel", nic_backlog="backlog", nic_rx_missed="ring", nic_rx_fifo="NIC's buffer",
                   nic_rx_errors="damaged", nic_driver_losses="driver")))
        .with_panel(series(
            "Load of the link", "The busiest second of a window, and what the link carries. Near it, the switch drops what"
            " of the mirror does not fit, and nobody counts that.", "bps",
            level("link_peak_bps", "busiest second"), level("link_speed_bps", "link")))
        .with_panel(series(
            "The mirror", "What the mirror lost and doubled, and which flows it shows in one direction only.", "short",
            *lines(unseen_bytes="octets lost by the mirror", fate_mirror_duplicate="packets delivered twice",
                   one_sided_flows="one-sided flows", untold_segments="segments that cannot be told")))
        .with_row(Row("The way to the database"))
        .with_panel(series(
            "Spool: windows waiting", "Windows in the store that the database has not taken yet.", "short",
            level("spool_windows", "waiting")))
        .with_panel(series(
            "Spool: lag", "How far the database is behind.", "s", level("spool_lag_s", "lag")))
        .with_panel(series(
            "Spool: size", "Of the store on the sensor's disk.", "bytes", level("spool_bytes", "on the disk")))
        .with_panel(series(
            "Spool: what did not get through", "Failed attempts to write; points that the database refused for what they"
            " are (kept in rejected.lp); windows that a full disk or a slow output cost.", "short",
            *lines(delivery_failures="failed attempts", rejected_points="points refused",
                   spool_lost_windows="windows lost: disk or store full", output_lost_windows="windows lost: slow output",
                   windows_lost="windows lost: busy supervisor", flow_records_lost="flow records lost")))
        .with_panel(series(
            "Series", "Series made today, of the series budget; reset at midnight UTC.", "short", level("series", "series")))
        .with_panel(series(
            "Folded into other", "What the series budget had no room for: series of a window, and octets.", "short",
            *lines(series_folded="series", folded_bytes="octets")))
        .with_row(Row("The flow table"))
        .with_panel(series(
            "Flows", "Flows with traffic in a window, the most of any; flows begun.", "short",
            level("flows", "with traffic"), *lines(flows_started="begun")))
        .with_panel(series(
            "Flow table under pressure", "evicted: removed while alive because the table was full. folded: their part of the"
            " window is only in `other`.", "short",
            *lines(flows_evicted="evicted", records_folded="folded", scoreboards_missing="TCP segments not followed")))
        .with_panel(series(
            "Workers", "Capture processes that run, the most of any window, and those that died and were started again: what"
            " they had of their open window is lost; and how often the interface went away or down.", "short",
            level("workers", "running"), *lines(worker_deaths="died", interface_losses="interface lost")))
        .with_panel(series(
            "Stamped by the NIC", "Packets whose timestamps are the NIC's, of those that were received.", "short",
            *lines(received="received", adapter_timestamps="stamped by the NIC")))
        .with_panel(series(
            "Odd packets", "Counted where they belong, but worth a look.", "short",
            *lines(fragments="fragments", orphan_fragments="fragments without their first", nested_too_deep="too many tunnels",
                   short_tcp="cut TCP headers", truncated="cut payloads", time_backwards="time stepped back")))
        .with_panel(series(
            "Names from the wire", "Packets that name VMs and switches: read, too many to be read, malformed; and network"
            " cards too many to be followed.", "short",
            *lines(notices="read", notices_lost="not read", notices_unreadable="malformed", cards_lost="cards lost")))
        .with_panel(series(
            "Samples", "RTT samples taken; latency samples that are in means but not in percentiles; IP octets seen.", "short",
            *lines(rtt_count="RTT samples", samples_unbinned="not in percentiles", ip_bytes="IP octets")))
        .with_panel(rows(
            "Fed by", "The switch port that feeds each mirror, as LLDP or CDP said last.",
            InfluxQL(select('last("mirror_switch") AS switch, last("mirror_port") AS port', "sensor", *WHERE,
                            by='"sensor", "interface"'))))
    )  # fmt: skip
