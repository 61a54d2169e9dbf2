"""THE metric table: every number that users see, its unit, what it means, how it reduces, when it is null.

Flow records, points, the summary and the documentation follow from these rows. To add a metric of a direction: one
line in ``vms_half_t``, one increment in C, one row here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Reduce = Literal["sum", "min", "max", "mean", "quantile", "ratio", "count", "rate"]
Needs = Literal["any", "payload", "tcp", "tcp_sent", "tcp_both", "samples"]

NEEDS: dict[Needs, str] = {
    "any": "always there",
    "payload": "null unless TCP or UDP",
    "tcp": "null unless TCP",
    "tcp_sent": "null unless TCP, and unless this direction was seen",
    "tcp_both": "null unless TCP, and unless both directions were seen",
    "samples": "null when there was nothing to measure",
}


@dataclass(frozen=True)
class Metric:
    """One number.

    ``record`` is the field of ``vms_half_t`` that it sums, where it is that simple. ``needs`` says when it is null.
    """

    name: str
    unit: str
    help: str
    reduce: Reduce = "sum"
    needs: Needs = "any"
    record: str | None = None


DIRECTION: tuple[Metric, ...] = (
    Metric("packets", "packets", "Packets, mirror duplicates excluded.", record="packets"),
    Metric("bytes", "octets", "Octets of the innermost IP packets (IPFIX octetDeltaCount).", record="bytes"),
    Metric("payload_bytes", "octets", "TCP or UDP payload.", needs="payload", record="payload_bytes"),
    Metric("data_packets", "packets", "Packets that carry payload; a super-packet counts as its segments (by the MSS, "
           "or, where no SYN told it, of 1,448 octets beyond 8,960), a probe as none.", needs="payload",
           record="data_packets"),
    Metric("mirror_duplicates", "packets", "Copies that the mirror delivered again, counted nowhere else.",
           record="mirror_duplicates"),
    Metric("retransmissions", "segments", "Segments whose bytes had passed the tap before: lost behind it, or sent "
           "again needlessly.", needs="tcp_sent", record="retransmissions"),
    Metric("spurious", "segments", "Of those, the needless: ACKed when resent, or named by a DSACK (RFC 2883).",
           needs="tcp_both", record="spurious"),
    Metric("upstream_losses", "segments", "Segments that filled a hole late: lost before the tap, seen only as the "
           "resend.", needs="tcp_sent", record="upstream_losses"),
    Metric("reordered", "segments", "Segments that filled a hole sooner than a resend can come: no loss.",
           needs="tcp_sent", record="reordered"),
    Metric("unseen_bytes", "octets", "ACKed by the receiver, never seen at the tap: lost by the mirror.",
           needs="tcp_both", record="unseen_bytes"),
    Metric("zero_windows", "packets", "Packets in which this side closed its receive window.", needs="tcp_sent",
           record="zero_windows"),
    Metric("keepalives", "packets", "Keep-alive probes (RFC 9293 section 3.8.4).", needs="tcp_sent",
           record="keepalives"),
    Metric("window_probes", "packets", "Probes of a closed window (RFC 9293 section 3.8.6.1).", needs="tcp_sent",
           record="window_probes"),
    Metric("out_of_window", "segments", "Segments that the receiver's window does not allow: forged, corrupt or long "
           "out of date.", needs="tcp_sent", record="out_of_window"),
    Metric("unknown_causes", "segments", "Segments whose cause could not be told: from before the tap saw the "
           "direction, behind too many holes, or late though delivered.", needs="tcp_sent", record="unknown_causes"),
    Metric("unsure", "true or false", "The tap lost track of the sequence numbers for a while (fragments, too many "
           "holes at a time, a jump): the causes above are at least so many.", needs="tcp_sent"),
    Metric("loss_ratio", "ratio", "(retransmissions - spurious + upstream_losses) / (data_packets + "
           "upstream_losses).", "ratio", "samples"),
    Metric("rtt_count", "samples", "RTT samples: data to the ACK of exactly its end, with Karn's rule.",
           needs="tcp_both", record="rtt_count"),
    Metric("rtt_min_us", "us", "Shortest time tap -> receiver of this direction -> tap.", "min", "samples"),
    Metric("rtt_avg_us", "us", "Mean of the same.", "mean", "samples"),
    Metric("rtt_max_us", "us", "Longest of the same.", "max", "samples"),
    Metric("transit_min_us", "us", "Shortest time from a packet's first sighting to its copy: through the virtual "
           "router or switch between two mirrored places.", "min", "samples"),
    Metric("transit_avg_us", "us", "Mean of the same.", "mean", "samples"),
    Metric("transit_max_us", "us", "Longest of the same.", "max", "samples"),
)  # fmt: skip
"""Per direction of a flow record, with the prefix ``c2s_`` or ``s2c_``."""

FLOW: tuple[Metric, ...] = (
    Metric("handshake_server_us", "us", "SYN to SYN-ACK at the tap; null when the SYN was resent.", "mean", "samples"),
    Metric("handshake_client_us", "us", "SYN-ACK to the ACK that answers it at the tap; null when the SYN-ACK was "
           "resent, or that ACK was not seen.", "mean", "samples"),
    Metric("response_time_count", "samples", "Answers to requests; null also unless both directions were seen.",
           needs="payload"),
    Metric("response_time_avg_us", "us", "Last byte of a request to first byte of its answer: mean.", "mean",
           "samples"),
    Metric("response_time_max_us", "us", "The longest of these.", "max", "samples"),
    Metric("transit_min_us", "us", "Shortest transit of either direction.", "min", "samples"),
    Metric("transit_avg_us", "us", "Mean transit of both directions.", "mean", "samples"),
    Metric("transit_max_us", "us", "Longest transit of either direction.", "max", "samples"),
)  # fmt: skip
"""Of a flow record as a whole."""

VM_TRAFFIC: tuple[Metric, ...] = (
    Metric("bytes", "octets", "Octets of the innermost IP packets from src_vm to dst_vm.", record="bytes"),
    Metric("packets", "packets", "Packets, mirror duplicates excluded.", record="packets"),
    Metric("throughput_bps", "bit/s", "bytes x 8 / length of the window.", "rate"),
    Metric("flows", "flows", "Flows with traffic between the two in this window, either way.", "count"),
    Metric("new_flows", "flows", "Of those, begun in this window.", "count"),
    Metric("handshake_us", "us", "Mean of whole handshakes, both halves, completed in this window.", "mean",
           "samples"),
    Metric("rtt_count", "samples", "RTT samples that the latencies rest on.", needs="tcp_both", record="rtt_count"),
    Metric("rtt_min_us", "us", "Shortest RTT tap -> dst_vm -> tap: the base, the service part of the latency.",
           "min", "samples"),
    Metric("rtt_p50_us", "us", "Median of the same, from a histogram with at most 3.2 % error.", "quantile",
           "samples"),
    Metric("rtt_p95_us", "us", "95th percentile of the same.", "quantile", "samples"),
    Metric("rtt_p99_us", "us", "99th percentile of the same.", "quantile", "samples"),
    Metric("path_rtt_us", "us", "rtt_p50_us of both directions, added: the whole path.", "quantile", "samples"),
    Metric("queueing_us", "us", "Mean RTT minus rtt_min_us: the waiting part of the latency.", "mean", "samples"),
    Metric("response_p95_us", "us", "95th percentile of dst_vm's time from request to answer.", "quantile",
           "samples"),
    Metric("data_packets", "packets", "Packets that carry payload.", needs="payload", record="data_packets"),
    Metric("retransmissions", "segments", "Segments seen before.", needs="tcp", record="retransmissions"),
    Metric("spurious", "segments", "Of those, the needless.", needs="tcp", record="spurious"),
    Metric("upstream_losses", "segments", "Segments lost before the tap, seen only as the resend.", needs="tcp",
           record="upstream_losses"),
    Metric("reordered", "segments", "Segments that came out of order without loss.", needs="tcp",
           record="reordered"),
    Metric("loss_ratio", "ratio", "(retransmissions - spurious + upstream_losses) / (data_packets + "
           "upstream_losses), of the sums.", "ratio", "samples"),
    Metric("zero_windows", "packets", "Packets in which src_vm closed its receive window.", needs="tcp",
           record="zero_windows"),
    Metric("out_of_window", "segments", "Segments that the receiver's window does not allow.", needs="tcp",
           record="out_of_window"),
    Metric("unknown_causes", "segments", "Segments whose cause could not be told.", needs="tcp",
           record="unknown_causes"),
    Metric("mirror_duplicates", "packets", "Copies that the mirror delivered again.", record="mirror_duplicates"),
    Metric("transit_min_us", "us", "Shortest time from a packet's first sighting to its copy.", "min", "samples"),
    Metric("transit_avg_us", "us", "Mean of the same.", "mean", "samples"),
    Metric("transit_max_us", "us", "Longest of the same.", "max", "samples"),
    Metric("unseen_bytes", "octets", "ACKed, but lost by the mirror; of flows seen in both directions.",
           needs="tcp_both", record="unseen_bytes"),
    Metric("unseen_ratio", "ratio", "unseen_bytes / (TCP payload + unseen_bytes), of flows seen in both directions.",
           "ratio", "samples"),
    Metric("one_sided_flows", "flows", "TCP flows of which only one direction has been seen.", "count", "tcp"),
    Metric("untold_segments", "segments", "Data segments whose fate the tap cannot tell: of one-sided flows, of "
           "unknown cause, or unseen (unseen_bytes in segments of the usual size).", needs="tcp"),
    Metric("confidence", "ratio", "1 - untold_segments / data_packets, at least 0: how much of the loss figure rests "
           "on what the tap saw.", "ratio", "samples"),
)  # fmt: skip
"""Fields of measurement ``vm_traffic``: one point per direction of a VM pair, protocol and service, and window."""

FLOW_TOP: tuple[Metric, ...] = (
    Metric("client_ip", "", "Address of the client."),
    Metric("client_port", "", "Its port; null where there is none."),
    Metric("server_ip", "", "Address of the server."),
    Metric("server_port", "", "Its port; null where there is none."),
    Metric("protocol", "", "As in the flow record."),
    Metric("client_vm", "", "Name of the client's VM."),
    Metric("server_vm", "", "Name of the server's VM."),
    Metric("c2s_bytes", "octets", "From client to server in this window."),
    Metric("s2c_bytes", "octets", "From server to client in this window."),
    Metric("c2s_packets", "packets", "From client to server in this window."),
    Metric("s2c_packets", "packets", "From server to client in this window."),
)
"""Fields of measurement ``flow_top``: the flows with most octets in a window; tag ``rank`` counts from 1."""

DEPENDENCY: tuple[Metric, ...] = (
    Metric("connections", "count", "Connections begun in this window and answered; of UDP, flows with an answer."),
    Metric("failed", "count", "Attempts that failed: refused (RST), or given up without an answer."),
    Metric("flows", "flows", "Flows with answered requests in this window."),
    Metric("c2s_bytes", "octets", "From client to server in this window."),
    Metric("s2c_bytes", "octets", "From server to client in this window."),
    Metric("response_count", "samples", "Answers that the response times rest on."),
    Metric("response_avg_us", "us", "Mean of the server's time from request to answer.", "mean", "samples"),
    Metric("response_p95_us", "us", "95th percentile of the same.", "quantile", "samples"),
    Metric("rtt_avg_us", "us", "Mean RTT from the tap to the server and back, delayed ACKs included.",
           "mean", "samples"),
    Metric("handshake_us", "us", "Mean time from SYN to SYN-ACK at the tap: the way to the server and back alone.",
           "mean", "samples"),
    Metric("first_seen", "ns", "When the edge was first seen, ns since the epoch; also over restarts.", "min",
           needs="samples"),
)  # fmt: skip
"""Fields of measurement ``dependency``: one point per client VM, server VM and service with news in a window."""

EVENT: tuple[Metric, ...] = (
    Metric("subject", "", "Who does it: a VM, or the address of an outside host."),
    Metric("object", "", "To whom or what; may be empty."),
    Metric("state", "", "open, update, close; or fact for what has no duration."),
    Metric("detail", "", "One sentence with the evidence in words."),
    Metric("evidence", "", "The evidence in numbers, name=number, summed up since the event was opened."),
    Metric("count", "windows", "Windows in which it was found since it was opened."),
    Metric("first_ns", "ns", "When it began, ns since the epoch."),
    Metric("last_ns", "ns", "When it was last found."),
)
"""Fields of measurement ``event``: one point each time that an event is opened, changes or is closed."""

SENSOR: tuple[Metric, ...] = (
    Metric("received", "packets", "Packets that reached the table. The sum of all fate_ fields."),
    Metric("dropped_kernel", "packets", "Dropped for want of room in the kernel's buffer (libpcap ps_drop).",
           needs="samples"),
    Metric("dropped_nic", "packets", "Received by the interface and lost before the capture socket: the sum of "
           "nic_backlog, nic_rx_missed and nic_rx_fifo.", needs="samples"),
    Metric("fate_flow", "packets", "Counted in a flow."),
    Metric("fate_overflow", "packets", "Counted in the overflow entry: the table was full of busy flows."),
    Metric("fate_mirror_duplicate", "packets", "Copies of a packet counted before."),
    Metric("fate_arp", "packets", "ARP and RARP."),
    Metric("fate_not_ip", "packets", "Well-formed frames of another network protocol."),
    Metric("fate_unknown_link", "packets", "Of a link type that is not decoded."),
    Metric("fate_short_link", "packets", "End inside the link-layer headers."),
    Metric("fate_short_ip", "packets", "End inside the IP header or its extension headers."),
    Metric("fate_short_transport", "packets", "End before the ports."),
    Metric("fate_bad_version", "packets", "IP version field contradicts the layer below."),
    Metric("fate_bad_length", "packets", "IP header length or total length impossible."),
    Metric("ip_bytes", "octets", "Octets of all innermost IP packets: the sum over vm_traffic.bytes."),
    Metric("flows", "flows", "Flows with traffic in this window."),
    Metric("flows_started", "flows", "Flows begun in this window."),
    Metric("flows_evicted", "flows", "Removed while alive because the table was full."),
    Metric("records_folded", "flows", "Ended flows whose part of the window is only in 'other'."),
    Metric("fragments", "packets", "IP fragments."),
    Metric("orphan_fragments", "packets", "Later fragments whose first was not seen: in a flow without ports."),
    Metric("nested_too_deep", "packets", "More tunnels inside one another than are decoded."),
    Metric("short_tcp", "packets", "In their flow, but without a whole TCP header."),
    Metric("truncated", "packets", "In their flow, but cut before the end of the IP packet, by others than --snaplen."),
    Metric("time_backwards", "packets", "Older than one before them: counted in the open window."),
    Metric("samples_unbinned", "samples", "Latency samples that are in means but not in percentiles."),
    Metric("notices", "packets", "ARP, RARP, ND, DHCP, LLDP and CDP packets that were read for names."),
    Metric("notices_lost", "packets", "The same, more than 4096 in a window: not read for names."),
    Metric("notices_unreadable", "packets", "Of those that were read, the malformed."),
    Metric("mirror_switch", "", "The switch that feeds this mirror, as LLDP or CDP said last.", needs="samples"),
    Metric("mirror_port", "", "And its port.", needs="samples"),
    Metric("cards_lost", "count", "Network cards (MAC addresses) heard, but too many to be followed."),
    Metric("adapter_timestamps", "packets", "Stamped by the NIC, see --timestamps; the others by the host, or by "
           "whoever wrote the file."),
    Metric("scoreboards_missing", "segments", "TCP segments whose cause could not be followed for want of memory."),
    Metric("mirror_duplicate_ratio", "ratio", "Mirror duplicates / packets received.", "ratio", "samples"),
    Metric("unseen_bytes", "octets", "ACKed, but lost by the mirror; of flows seen in both directions."),
    Metric("unseen_ratio", "ratio", "unseen_bytes / (TCP payload + unseen_bytes), of flows seen in both directions.",
           "ratio", "samples"),
    Metric("one_sided_flows", "flows", "TCP flows of which only one direction has been seen."),
    Metric("one_sided_ratio", "ratio", "one_sided_flows / TCP flows.", "ratio", "samples"),
    Metric("rtt_count", "samples", "RTT samples taken in this window."),
    Metric("untold_segments", "segments", "As in vm_traffic, over all pairs."),
    Metric("confidence", "ratio", "1 - untold_segments / data segments, at least 0, over all pairs.", "ratio",
           "samples"),
    Metric("series", "series", "Series of VM pairs, dependencies and events that were made today (UTC) so far."),
    Metric("series_folded", "series", "Of this window, those that the series budget had no room for: in 'other'."),
    Metric("folded_bytes", "octets", "Octets that are in 'other' for want of a series."),
    Metric("spool_bytes", "octets", "Size of the store on the disk; null without one, like what follows.",
           needs="samples"),
    Metric("spool_windows", "windows", "Windows in the store that InfluxDB has not taken yet.", needs="samples"),
    Metric("spool_lag_s", "s", "From the end of the oldest of these to the end of the newest.", needs="samples"),
    Metric("spool_lost_windows", "windows", "Windows that a full disk, or a full store, has cost before InfluxDB had "
           "them.", needs="samples"),
    Metric("delivery_failures", "requests", "Attempts to write to InfluxDB that failed.", needs="samples"),
    Metric("rejected_points", "points", "Points that InfluxDB refused for what they are; kept in rejected.lp.",
           needs="samples"),
    Metric("output_lost_windows", "windows", "Windows that an output was too slow for; null for files.",
           needs="samples"),
    Metric("workers", "count", "Capture processes that run; null for files.", needs="samples"),
    Metric("interface_losses", "count", "Times that the interface went away or down; null for files.",
           needs="samples"),
    Metric("worker_deaths", "count", "Capture processes that died and were started again; null for files.",
           needs="samples"),
    Metric("windows_lost", "windows", "Windows of a worker that the supervisor was too busy to take; their packets are "
           "in the totals at the end alone."),
    Metric("flow_records_lost", "flows", "Finished flows that the supervisor was too busy to take: not in --flows."),
    Metric("nic_backlog", "packets", "No room in a processor's backlog: of these, which the kernel counts for all "
           "interfaces together, at most nic_rx_dropped; null for files, like what follows.", needs="samples"),
    Metric("nic_rx_dropped", "packets", "Netlink's rx_dropped: the same, losses of the driver, and frames that were "
           "captured but that no protocol of this host takes; so it is in no sum.", needs="samples"),
    Metric("nic_rx_missed", "packets", "Netlink's rx_missed_errors: no room in the receive ring.", needs="samples"),
    Metric("nic_rx_fifo", "packets", "Netlink's rx_fifo_errors: overflow in the NIC's own buffer.", needs="samples"),
    Metric("nic_rx_errors", "packets", "Netlink's rx_errors: came in damaged; not in dropped_nic.", needs="samples"),
    Metric("nic_driver_losses", "packets", "What the driver's own counters (ethtool -S) call dropped, missed or "
           "without buffer; it may be the same packets again, and is in no sum.", needs="samples"),
    Metric("link_speed_bps", "bit/s", "The link's speed, or --link-speed; null where neither is known.",
           needs="samples"),
    Metric("link_peak_bps", "bit/s", "The busiest second of the window, preambles and gaps between frames included.",
           needs="samples"),
    Metric("link_busy_ratio", "ratio", "link_peak_bps / link_speed_bps.", "ratio", "samples"),
)  # fmt: skip
"""Fields of measurement ``sensor``: one point a window."""

HEALTH_COUNTS = (
    "spool_lost_windows", "delivery_failures", "rejected_points", "output_lost_windows", "worker_deaths",
    "interface_losses", "nic_backlog", "nic_rx_dropped", "nic_rx_missed", "nic_rx_fifo",
    "nic_rx_errors", "nic_driver_losses",
)  # fmt: skip
"""Of the outputs' own figures, those that count up; a point has what was added since the point before it."""

HEALTH = (
    "spool_bytes", "spool_windows", "spool_lag_s", "workers", "link_speed_bps", "link_peak_bps", "link_busy_ratio",
    *HEALTH_COUNTS,
)  # fmt: skip
"""What outputs and workers say of themselves, as of the moment when the window is reported."""

MEASUREMENTS: dict[str, tuple[tuple[str, ...], tuple[Metric, ...]]] = {
    "vm_traffic": (
        ("sensor", "src_vm", "dst_vm", "src_tenant", "dst_tenant", "scope", "protocol", "service"),
        VM_TRAFFIC,
    ),
    "flow_top": (("sensor", "rank"), FLOW_TOP),
    "dependency": (
        ("sensor", "client_vm", "server_vm", "client_tenant", "server_tenant", "service", "scope"),
        DEPENDENCY,
    ),
    "event": (("sensor", "kind", "severity", "tenant"), EVENT),
    "sensor": (("sensor", "interface"), SENSOR),
}
"""Tags and fields of each measurement that is written."""
