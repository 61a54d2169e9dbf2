"""Fields and tags that are deliberately on no dashboard, each with its reason. A test proves that all others are."""

FIELDS = {
    "vm_traffic.throughput_bps": "made of the sum of bytes, for any interval",
    "vm_traffic.loss_ratio": "made of the sums of its parts, for any interval",
    "vm_traffic.confidence": "made of the sums of its parts, for any interval",
    "vm_traffic.unseen_ratio": "its numerator, unseen_bytes, is shown; the ratio of a window cannot be put together",
    "sensor.mirror_duplicate_ratio": "its parts, fate_mirror_duplicate and received, are shown",
    "sensor.unseen_ratio": "its numerator, unseen_bytes, is shown",
    "sensor.one_sided_ratio": "its parts, one_sided_flows and flows, are shown",
    "sensor.nic_rx_dropped": "what of it was lost, nic_backlog, is shown; the rest was captured",
    "sensor.link_busy_ratio": "its parts, link_peak_bps and link_speed_bps, are shown",
    "sensor.confidence": "TCP health shows it by scope and pair",
}
