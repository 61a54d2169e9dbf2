"""TCP health: the cause of every segment that does not simply advance, and how far that can be trusted."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from dashboards.influxql import CONFIDENCE, TCP, TRAFFIC, InfluxQL, select
from dashboards.parts import RATIO_OF_TRUST_STEPS, board, matrix, number, series, stacked, traffic_variables

CAUSES = {
    "spurious": "needlessly resent", "upstream_losses": "lost before the tap", "reordered": "reordered, no loss",
    "out_of_window": "outside of the window", "unknown_causes": "cause unknown",
}  # fmt: skip


def tcp() -> Dashboard:
    """Causes, the mirror's own faults, confidence."""

    def over_time(what: str, alias: str) -> InfluxQL:
        return InfluxQL(select(what, "vm_traffic", *TRAFFIC, by="time"), alias)

    return (
        board("tcp", "vmsensor: TCP health", "Why segments did not simply advance: network, sender, receiver, or mirror.",
              *traffic_variables())
        .with_panel(stacked(
            "Segments by cause", "lost behind the tap: seen, and sent again for a reason. lost before the tap: only the"
            " resend was seen. needlessly resent: ACKed already, or named by a DSACK. reordered: overtaken, not lost.", "short",
            over_time('sum("retransmissions") - sum("spurious")', "lost behind the tap"),
            *(over_time(f'sum("{name}")', alias) for name, alias in CAUSES.items()), width=24, height=10))
        .with_panel(number(
            "Confidence", "How much of the loss figures rests on what the tap saw: 1 - segments whose fate it cannot tell"
            " / segments with data.", "percentunit", InfluxQL(select(CONFIDENCE, "vm_traffic", *TRAFFIC, TCP)),
            RATIO_OF_TRUST_STEPS, width=6))
        .with_panel(number(
            "RTT samples", "Round-trip times that the latencies rest on.", "short",
            InfluxQL(select('sum("rtt_count")', "vm_traffic", *TRAFFIC)), width=6))
        .with_panel(number(
            "Lost by the mirror", "Octets that the receiver ACKed although the mirror never showed them: no loss of the"
            " network.", "bytes", InfluxQL(select('sum("unseen_bytes")', "vm_traffic", *TRAFFIC)), width=6))
        .with_panel(number(
            "Mirror duplicates", "Copies that the mirror delivered again: left out of everything else.", "short",
            InfluxQL(select('sum("mirror_duplicates")', "vm_traffic", *TRAFFIC)), width=6))
        .with_panel(series(
            "Confidence over time", "How much of the loss figures rests on what the tap saw, by scope. Below 0.9 the loss figures say little.", "percentunit",
            InfluxQL(select(CONFIDENCE, "vm_traffic", *TRAFFIC, TCP, by='time, "scope"'), "$tag_scope")))
        .with_panel(series(
            "What the tap cannot tell", "Data segments whose fate is not known; flows of which only one direction was"
            " seen, the most of any window.", "short",
            over_time('sum("untold_segments")', "segments"), over_time('max("one_sided_flows")', "one-sided flows")))
        .with_panel(series(
            "Mirror loss and duplicates", "What the mirror dropped, and what it delivered twice.", "short",
            over_time('sum("unseen_bytes")', "octets lost by the mirror"),
            over_time('sum("mirror_duplicates")', "packets delivered twice")))
        .with_panel(series(
            "Through the virtual router", "From the first sighting of a packet to its copy behind a router or switch, where"
            " both are mirrored.", "µs",
            over_time('min("transit_min_us")', "shortest"), over_time('mean("transit_avg_us")', "mean of means"),
            over_time('max("transit_max_us")', "longest")))
        .with_panel(series(
            "Receive windows closed", "Packets in which the sender of them closed its receive window, by who did.", "short",
            InfluxQL(select('sum("zero_windows")', "vm_traffic", *TRAFFIC, by='time, "src_vm"'), "$tag_src_vm")))
        .with_panel(series(
            "Resends", "Segments seen before, needless ones included; and segments that carry data.", "short",
            over_time('sum("retransmissions")', "resent"), over_time('sum("data_packets")', "with data")))
        .with_row(Row("By pair"))
        .with_panel(matrix(
            "Confidence by pair", "Of the sender's loss figures.", "percentunit",
            InfluxQL(select(f"{CONFIDENCE} AS value", "vm_traffic", *TRAFFIC, TCP, by='"src_vm", "dst_vm"')),
            "src_vm", "dst_vm", "value", RATIO_OF_TRUST_STEPS, width=24))
    )  # fmt: skip
