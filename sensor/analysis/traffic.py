"""Measurement ``vm_traffic``: a window's flows as directed VM pairs. Ratios are made of sums, after grouping."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sensor import native
from sensor.analysis.fold import within
from sensor.analysis.groups import PairGroups, ends_of, group_pairs, rows_of, with_traffic
from sensor.analysis.outside import Naming, name_outsiders
from sensor.analysis.quantiles import Floats, merged_quantiles
from sensor.analysis.series import SeriesBudget
from sensor.analysis.trust import confidence, ratio, sides, trust_parts, untold_segments
from sensor.identity.parties import SCOPES, Parties
from sensor.metrics import VM_TRAFFIC
from sensor.protocols import TCP, UDP
from sensor.snapshot import Snapshot
from sensor.window import Column, Labels, Table

Mask = npt.NDArray[np.bool_]


def vm_traffic(
    snapshot: Snapshot,
    parties: Parties,
    sensor: str,
    budget: SeriesBudget | None = None,
    naming: Naming | None = None,
) -> Table:
    """One row for each direction of a VM pair, protocol and service that had traffic in the window.

    What the budget has no series for is put together in ``other``, before anything is measured of it.
    """
    records = snapshot.records
    ends = ends_of(records, parties)
    groups = group_pairs(name_outsiders(ends, records, naming) if naming else ends)
    if budget is not None:
        groups = within(budget, groups, records)
    columns = {**_counts(records, groups), **_latencies(snapshot, groups), **_transits(records, groups)}
    columns["throughput_bps"] = Column(columns["bytes"].values * 8 / snapshot.seconds)
    rows = np.flatnonzero(_has_news(columns))
    fields = {metric.name: _take(columns[metric.name], rows) for metric in VM_TRAFFIC}
    return Table("vm_traffic", len(rows), _tags(groups, sensor, rows), fields)


def _has_news(columns: dict[str, Column]) -> Mask:
    """Groups in which anything was counted or measured; a late ACK or copy brings news of a window before."""
    news = np.zeros(len(columns["bytes"].values), bool)
    for metric in VM_TRAFFIC:
        values = columns[metric.name].values
        if metric.record:
            news |= values > 0
        elif metric.needs == "samples":
            news |= np.isfinite(values)
    return news


def _take(column: Column, rows: npt.NDArray[np.intp]) -> Column:
    return Column(column.values[rows], None if column.valid is None else column.valid[rows])


def _tags(groups: PairGroups, sensor: str, rows: npt.NDArray[np.intp]) -> dict[str, Labels]:
    src, dst, service, ends = groups.src[rows], groups.dst[rows], groups.service[rows], groups.ends
    return {
        "sensor": Labels.constant(sensor, len(rows)),
        "src_vm": Labels(src, ends.names),
        "dst_vm": Labels(dst, ends.names),
        "src_tenant": Labels(src, ends.tenants),
        "dst_tenant": Labels(dst, ends.tenants),
        "scope": Labels(groups.scope[rows], SCOPES),
        "protocol": Labels(service, [protocol for protocol, _ in ends.services]),
        "service": Labels(service, [name for _, name in ends.services]),
    }


def _counts(records: native.NumpyArray, groups: PairGroups) -> dict[str, Column]:
    """Everything that is a plain sum, with what makes it null."""
    is_tcp = _holds(records, groups, (TCP,))  # not by the group's name: 'other' holds all kinds
    payload = _holds(records, groups, (TCP, UDP))
    two_sided = np.tile(sides(records).both, 2)
    valid = {"any": None, "payload": payload, "tcp": is_tcp, "tcp_both": is_tcp & (groups.sum(two_sided) > 0)}
    columns = {}
    for metric in VM_TRAFFIC:
        if metric.record:
            rows = rows_of(records, metric.record)
            if metric.needs == "tcp_both":
                rows = np.where(two_sided, rows, 0)
            columns[metric.name] = Column(groups.sum(rows), valid[metric.needs])
    is_flow = with_traffic(records)
    columns["flows"] = Column(groups.sum(_once_a_group(is_flow, groups)))
    columns["new_flows"] = Column(groups.sum(_once_a_group(is_flow & (records["flags"] & native.NEW != 0), groups)))
    columns["loss_ratio"] = Column(_loss_ratio(columns), is_tcp)
    columns.update(_trust(records, groups, is_tcp))
    return columns


def _holds(records: native.NumpyArray, groups: PairGroups, protocols: tuple[int, ...]) -> Mask:
    """Groups with a flow of these protocols."""
    found: Mask = groups.sum(np.tile(np.isin(records["protocol"], protocols), 2)) > 0
    return found


def _trust(records: native.NumpyArray, groups: PairGroups, is_tcp: Mask) -> dict[str, Column]:
    """What a reader needs in order to know how much a group's losses rest on."""
    parts = {name: groups.sum(rows) for name, rows in trust_parts(records).items()}
    return {
        "one_sided_flows": Column(groups.sum(_once_a_group(sides(records).one, groups)), is_tcp),
        "unseen_ratio": Column(ratio(parts["unseen"], parts["payload"] + parts["unseen"]), is_tcp),
        "untold_segments": Column(untold_segments(parts), is_tcp),
        "confidence": Column(confidence(parts), is_tcp),
    }


def _once_a_group(records: Mask, groups: PairGroups) -> Mask:
    """Rows that count records: both directions, but only one where both fall into the same group (a VM with itself)."""
    there, back = np.split(groups.of_row, 2)
    return np.concatenate([records, records & (there != back)])


def _loss_ratio(columns: dict[str, Column]) -> Floats:
    """Lost segments / sent segments; NaN where no data was sent. A DSACK of the last window may come in this one."""
    upstream = columns["upstream_losses"].values
    lost = np.maximum(columns["retransmissions"].values - columns["spurious"].values, 0) + upstream
    return ratio(lost, columns["data_packets"].values + upstream)


def _latencies(snapshot: Snapshot, groups: PairGroups) -> dict[str, Column]:
    records = snapshot.records
    count = groups.sum(rows_of(records, "rtt_count"))
    rtt_min_ns = groups.min(rows_of(records, "rtt_min_ns"), rows_of(records, "rtt_count") > 0)
    rtt_min = np.where(count > 0, rtt_min_ns / 1e3, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        rtt_mean = np.where(count > 0, groups.sum(rows_of(records, "rtt_sum_ns")) / count / 1e3, np.nan)
    rtt = _quantiles(snapshot, groups, {"rtt_c2s": 0, "rtt_s2c": 1}, (0.5, 0.95, 0.99))
    response = _quantiles(snapshot, groups, {"response": 0}, (0.95,))
    return {
        "handshake_us": Column(_handshakes(records, groups)),
        "rtt_min_us": Column(rtt_min),
        "rtt_p50_us": Column(rtt[:, 0]),
        "rtt_p95_us": Column(rtt[:, 1]),
        "rtt_p99_us": Column(rtt[:, 2]),
        "path_rtt_us": Column(rtt[:, 0] + rtt[groups.reverse, 0]),
        "queueing_us": Column(rtt_mean - rtt_min),
        "response_p95_us": Column(response[:, 0]),
    }


def _quantiles(snapshot: Snapshot, groups: PairGroups, histograms: dict[str, int], wanted: tuple[float, ...]) -> Floats:
    """Quantiles in us of some histograms, each of which belongs to direction 0 (c2s) or 1 of its record."""
    bins, records = snapshot.bins, len(snapshot.records)
    direction = np.full(len(native.HISTOGRAMS), -1, np.int64)
    for name, index in histograms.items():
        direction[native.HISTOGRAMS.index(name)] = index
    direction_of_bin = direction[bins["histogram"]]
    used = np.flatnonzero(direction_of_bin >= 0)
    group = groups.of_row[bins["record"][used] + direction_of_bin[used] * records]
    bucket, count = bins["bucket"][used].astype(np.int64), bins["count"][used].astype(np.int64)
    return merged_quantiles(group, bucket, count, len(groups), wanted) / 1e3


def _handshakes(records: native.NumpyArray, groups: PairGroups) -> Floats:
    """Mean of whole handshakes, from client to server only; NaN where there was none."""
    server, client = records["handshake_server_ns"], records["handshake_client_ns"]
    done = (server != native.ABSENT) & (client != native.ABSENT)
    nothing = np.zeros(len(records), np.int64)
    total = groups.sum(np.concatenate([np.where(done, server + client, 0), nothing]))
    count = groups.sum(np.concatenate([done, nothing]))
    return ratio(total, count) / 1e3


def _transits(records: native.NumpyArray, groups: PairGroups) -> dict[str, Column]:
    """Times from the first sighting of a packet to its copy; NaN where there was no copy."""
    count = groups.sum(rows_of(records, "transit_count"))
    total = groups.sum(rows_of(records, "transit_sum_ns"))
    sampled = rows_of(records, "transit_count") > 0
    least = groups.min(rows_of(records, "transit_min_ns"), sampled)
    most = groups.max(rows_of(records, "transit_max_ns"), sampled)
    return {
        "transit_min_us": Column(np.where(count > 0, least / 1e3, np.nan)),
        "transit_avg_us": Column(ratio(total, count) / 1e3),
        "transit_max_us": Column(np.where(count > 0, most / 1e3, np.nan)),
    }
