"""From records to points: sums are exact, quantiles are close, what was not measured is null, names stay few."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensor import native
from sensor.analysis.eventbook import Event
from sensor.analysis.observer import event_table
from sensor.analysis.quantiles import merged_quantiles
from sensor.flowtable import FATES
from sensor.metrics import MEASUREMENTS, SENSOR, VM_TRAFFIC
from sensor.protocols import ICMP, SCTP, TCP, UDP
from sensor.window import Report
from tests.records import BOTH_SEEN, bins, bucket_of, counters, overflow, pair, record, report_of, rows

# ---- quantiles

WORST = 1 / 31
"""The middle of a bucket is within 1/32 of a duration in it, measured in that duration: 1/31 of the true one."""


@pytest.mark.parametrize("seed", range(5))
def test_quantiles_are_close(seed: int) -> None:
    """Against numpy over the samples themselves, for several groups at once, bins in any order and merged."""
    chance = np.random.default_rng(seed)
    samples = [chance.lognormal(chance.uniform(8, 18), chance.uniform(0.1, 2), size) for size in (1, 2, 50, 4000)]
    low = np.array([native.lib.vms_bucket_low_ns(bucket) for bucket in range(native.BUCKETS)])
    group = np.concatenate([np.full(len(values), number * 2) for number, values in enumerate(samples)])
    bucket = np.searchsorted(low, np.concatenate(samples).astype(np.int64), side="right") - 1
    order = chance.permutation(len(group))
    wanted = (0.5, 0.95, 0.99)
    found = merged_quantiles(group[order], bucket[order], np.ones(len(group), np.int64), 8, wanted)
    for number, values in enumerate(samples):
        true = np.quantile(np.floor(values), wanted, method="inverted_cdf")
        assert np.abs(found[number * 2] / true - 1).max() <= 0.033
    assert np.isnan(found[1::2]).all()


def test_quantiles_of_nothing() -> None:
    """No samples, no quantiles."""
    nothing = np.zeros(0, np.int64)
    assert np.isnan(merged_quantiles(nothing, nothing, nothing, 3, (0.5,))).all()


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 60), st.integers(1, 5)), min_size=1, max_size=30))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_merging_is_adding(parts: list[tuple[int, int, int]]) -> None:
    """A bin of n is n bins of one."""
    once = [np.array(column, np.int64) for column in zip(*parts, strict=True)]
    again = [np.repeat(column, once[2]) for column in once]
    again[2] = np.ones(len(again[0]), np.int64)
    found = [merged_quantiles(*columns, 3, (0.5, 0.95)) for columns in (once, again)]
    np.testing.assert_array_equal(found[0], found[1])


# ---- sums

SUMMED = [metric for metric in VM_TRAFFIC if metric.record]
ADDRESSES = ("10.0.0.1", "10.0.0.2", "10.0.0.3", "192.0.2.1", "198.51.100.1", "fd00::1", "2001:db8::1")


@st.composite
def some_records(draw: st.DrawFn) -> native.NumpyArray:
    """Records with random counts: a few hosts, domains, protocols and services, and perhaps the overflow entry."""
    chance = np.random.default_rng(draw(st.integers(0, 2**32)))
    parts = []
    for _ in range(draw(st.integers(0, 12))):
        six = draw(st.booleans())
        family = [address for address in ADDRESSES if (":" in address) == six]
        parts.append(
            record(
                draw(st.sampled_from(family)), draw(st.sampled_from(family)),
                protocol=draw(st.sampled_from([TCP, TCP, UDP, ICMP, SCTP, 50])),
                server_port=draw(st.sampled_from([53, 80, 443, 40000])),
                vlan=draw(st.sampled_from([(), (10,), (10, 20)])), vni=draw(st.sampled_from([None, 7])),
                seen=draw(st.sampled_from([BOTH_SEEN, native.SEEN["c2s"], native.SEEN["s2c"]])),
                flags=native.HAS_PORTS | draw(st.sampled_from([0, native.NEW])),
            )
        )  # fmt: skip
    if draw(st.booleans()):
        parts.append(overflow())
    result = np.concatenate(parts) if parts else np.zeros(0, native.RECORD)
    for side in ("c2s", "s2c"):
        for metric in SUMMED:
            column = result[f"{side}_{metric.record}"]
            column[:] = chance.integers(0, 2 if chance.random() < 0.5 else 2**31, len(result)).astype(column.dtype)
    return result


@given(some_records())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_sums_over_rows_are_sums_over_records(records: native.NumpyArray) -> None:
    """Nothing is lost and nothing counted twice between the flow table and the points, whatever is null."""
    report = report_of(records)
    table = {t.measurement: t for t in report.tables}.get("vm_traffic")
    for metric in SUMMED:
        counted = records
        if metric.needs == "tcp_both":
            counted = records[(records["flags"] & BOTH_SEEN == BOTH_SEEN) & (records["protocol"] == TCP)]
        in_records = sum(int(counted[f"{side}_{metric.record}"].sum()) for side in ("c2s", "s2c"))
        in_rows = int(table.fields[metric.name].values.sum()) if table else 0
        assert in_rows == in_records, metric.name


@given(some_records())
@settings(max_examples=50, deadline=None, derandomize=True)
def test_each_pair_is_one_row(records: native.NumpyArray) -> None:
    """No two points of a window have the same tags: one would overwrite the other."""
    for table in report_of(records).tables:
        tags = list(zip(*table.tags.values(), strict=True))
        assert len(set(tags)) == len(tags) == table.rows
        assert all(isinstance(tag, str) for row in tags for tag in row)


def test_a_direction_with_only_late_news() -> None:
    """A copy, a DSACK or an ACK's RTT sample can come in a window in which the direction itself sent nothing."""
    late = record(c2s_mirror_duplicates=1, c2s_spurious=1, c2s_rtt_count=1, c2s_rtt_min_ns=5000, c2s_rtt_sum_ns=5000,
                  s2c_packets=1, s2c_bytes=40)  # fmt: skip
    row = pair(report_of(late, bins=bins((0, "rtt_c2s", bucket_of(5000), 1))), "10.0.0.1", "10.0.0.2")
    assert (row["mirror_duplicates"], row["spurious"], row["rtt_min_us"], row["packets"]) == (1, 1, 5.0, 0)
    assert row["rtt_p50_us"] == pytest.approx(5, rel=WORST)


# ---- what the rows say


def test_both_directions_of_a_pair() -> None:
    """Two flows of the same pair, service and protocol are two rows: there and back."""
    one = record(c2s_bytes=1000, c2s_packets=10, s2c_bytes=4000, s2c_packets=8, flags=native.HAS_PORTS | native.NEW)
    two = record(client_port=40001, c2s_bytes=500, c2s_packets=5, s2c_bytes=1000, s2c_packets=2)
    report = report_of(one, two, seconds=10)
    there, back = pair(report, "10.0.0.1", "10.0.0.2"), pair(report, "10.0.0.2", "10.0.0.1")
    assert report.table("vm_traffic").rows == 2
    assert (there["bytes"], there["packets"], there["throughput_bps"]) == (1500, 15, 1200.0)
    assert (back["bytes"], back["packets"], back["throughput_bps"]) == (5000, 10, 4000.0)
    assert [(row["flows"], row["new_flows"]) for row in (there, back)] == [(2, 1), (2, 1)]
    assert (there["service"], there["protocol"], there["sensor"]) == ("http", "tcp", "tap")


def test_a_vm_as_client_and_as_server() -> None:
    """Flows that the two open to each other on the same service are added up by direction of the packets."""
    one = record("10.0.0.1", "10.0.0.2", c2s_bytes=1, s2c_bytes=20, c2s_packets=1, s2c_packets=1)
    two = record("10.0.0.2", "10.0.0.1", c2s_bytes=300, s2c_bytes=4000, c2s_packets=1, s2c_packets=1)
    report = report_of(one, two)
    assert pair(report, "10.0.0.1", "10.0.0.2")["bytes"] == 4001
    assert pair(report, "10.0.0.2", "10.0.0.1")["bytes"] == 320


def test_loss_is_a_ratio_of_sums() -> None:
    """Not a mean of ratios: a flow of 2 segments and one of 1000."""
    small = record(c2s_packets=2, c2s_data_packets=2, c2s_retransmissions=1)
    large = record(client_port=2, c2s_packets=1000, c2s_data_packets=995, c2s_upstream_losses=5, c2s_spurious=1,
                   c2s_retransmissions=1)  # fmt: skip
    row = pair(report_of(small, large), "10.0.0.1", "10.0.0.2")
    assert row["loss_ratio"] == (2 - 1 + 5) / (997 + 5)


def test_loss_of_nothing_is_null() -> None:
    """Without a data segment there is no ratio; a DSACK alone makes no negative one."""
    assert pair(report_of(record(c2s_packets=3)), "10.0.0.1", "10.0.0.2")["loss_ratio"] is None
    late = record(c2s_packets=1, c2s_data_packets=1, c2s_spurious=1)
    assert pair(report_of(late), "10.0.0.1", "10.0.0.2")["loss_ratio"] == 0


def test_latencies() -> None:
    """Base and waiting part, quantiles of each way, and both halves' medians added for the whole path."""
    one = record(c2s_packets=9, s2c_packets=9, c2s_rtt_count=4, c2s_rtt_min_ns=100_000, c2s_rtt_sum_ns=600_000,
                 s2c_rtt_count=1, s2c_rtt_min_ns=40_000, s2c_rtt_sum_ns=40_000,
                 handshake_server_ns=110_000, handshake_client_ns=41_000)  # fmt: skip
    samples = bins((0, "rtt_c2s", bucket_of(100_000), 3), (0, "rtt_c2s", bucket_of(300_000), 1),
                   (0, "rtt_s2c", bucket_of(40_000), 1), (0, "response", bucket_of(2e6), 1))  # fmt: skip
    report = report_of(one, bins=samples)
    there, back = pair(report, "10.0.0.1", "10.0.0.2"), pair(report, "10.0.0.2", "10.0.0.1")
    assert (there["rtt_min_us"], there["queueing_us"], there["handshake_us"]) == (100.0, 50.0, 151.0)
    assert there["rtt_p50_us"] == pytest.approx(100, rel=WORST)
    assert there["rtt_p99_us"] == pytest.approx(300, rel=WORST)
    assert there["response_p95_us"] == pytest.approx(2000, rel=WORST)
    assert there["path_rtt_us"] == back["path_rtt_us"] == there["rtt_p50_us"] + back["rtt_p50_us"]
    assert (back["rtt_min_us"], back["queueing_us"]) == (40.0, 0.0)
    assert (back["handshake_us"], back["response_p95_us"]) == (None, None)


def test_half_a_handshake_is_none() -> None:
    """A mean of handshakes holds whole ones only."""
    half = record(c2s_packets=1, handshake_server_ns=900_000)
    whole_one = record(client_port=2, c2s_packets=1, handshake_server_ns=100_000, handshake_client_ns=50_000)
    assert pair(report_of(half), "10.0.0.1", "10.0.0.2")["handshake_us"] is None
    assert pair(report_of(half, whole_one), "10.0.0.1", "10.0.0.2")["handshake_us"] == 150.0


def test_an_rtt_of_one_way_makes_no_path() -> None:
    """Half a path is not a whole one."""
    one = record(c2s_packets=1, s2c_packets=1, c2s_rtt_count=1, c2s_rtt_min_ns=5000, c2s_rtt_sum_ns=5000)
    row = pair(report_of(one, bins=bins((0, "rtt_c2s", bucket_of(5000), 1))), "10.0.0.1", "10.0.0.2")
    assert row["rtt_p50_us"] is not None
    assert row["path_rtt_us"] is None


TCP_ONLY = {
    "retransmissions", "spurious", "upstream_losses", "reordered", "zero_windows", "out_of_window", "unknown_causes",
    "unseen_bytes", "unseen_ratio", "loss_ratio", "rtt_count", "one_sided_flows", "untold_segments", "confidence",
}  # fmt: skip
TWO_SIDED = {"unseen_bytes", "unseen_ratio", "rtt_count"}
MEASURED = {name for name in (m.name for m in VM_TRAFFIC) if name.endswith("_us")}


@pytest.mark.parametrize(
    ("protocol", "seen", "nulls"),
    [
        (TCP, BOTH_SEEN, MEASURED),
        (TCP, native.SEEN["c2s"], MEASURED | TWO_SIDED),
        (UDP, BOTH_SEEN, MEASURED | TCP_ONLY),
        (ICMP, BOTH_SEEN, MEASURED | TCP_ONLY | {"data_packets"}),
        (SCTP, BOTH_SEEN, MEASURED | TCP_ONLY | {"data_packets"}),
        (50, BOTH_SEEN, MEASURED | TCP_ONLY | {"data_packets"}),
    ],
    ids=["tcp", "one-sided", "udp", "icmp", "sctp", "esp"],
)
def test_nulls(protocol: int, seen: int, nulls: set[str]) -> None:
    """What has no meaning for the protocol, or could not be measured, is null; everything else is a number."""
    one = record(
        protocol=protocol, seen=seen, c2s_packets=3, c2s_data_packets=2, c2s_bytes=99, c2s_payload_bytes=9
    )  # fmt: skip
    row = pair(report_of(one), "10.0.0.1", "10.0.0.2")
    assert {name for name, value in row.items() if value is None} == nulls


def test_one_sided_flows_add_nothing_to_unseen() -> None:
    """Beside a flow seen in both directions, one seen in one direction only cannot tell what the mirror lost."""
    known = record(c2s_packets=1, c2s_unseen_bytes=10)
    unknown = record(client_port=2, seen=native.SEEN["c2s"], c2s_packets=1, c2s_unseen_bytes=5000)
    assert pair(report_of(known, unknown), "10.0.0.1", "10.0.0.2")["unseen_bytes"] == 10


# ---- how much a figure rests on


def test_a_sound_mirror_gives_full_confidence() -> None:
    """Seen both ways, nothing missed, every cause told."""
    one = record(c2s_packets=9, c2s_data_packets=8, c2s_payload_bytes=800, c2s_retransmissions=2, c2s_rtt_count=3)
    row = pair(report_of(one), "10.0.0.1", "10.0.0.2")
    assert (row["confidence"], row["untold_segments"], row["unseen_ratio"], row["rtt_count"]) == (1.0, 0, 0.0, 3)


def test_what_the_mirror_missed_lowers_confidence() -> None:
    """Unseen bytes count as segments of the usual size, and the way back is judged by itself."""
    leaky = record(c2s_packets=9, c2s_data_packets=8, c2s_payload_bytes=800, c2s_unseen_bytes=200, s2c_data_packets=4,
                   s2c_packets=4, s2c_payload_bytes=40)  # fmt: skip
    row = pair(report_of(leaky), "10.0.0.1", "10.0.0.2")
    assert (row["confidence"], row["untold_segments"], row["unseen_ratio"]) == (0.75, 2, 0.2)
    assert pair(report_of(leaky), "10.0.0.2", "10.0.0.1")["confidence"] == 1.0


def test_one_sided_flows_and_unknown_causes_lower_confidence() -> None:
    """Without the other side's ACKs nothing of a flow's data is told; an unknown cause is one segment."""
    whole = record(c2s_packets=6, c2s_data_packets=6, c2s_payload_bytes=600, c2s_unknown_causes=1)
    half = record(client_port=2, seen=native.SEEN["c2s"], c2s_packets=2, c2s_data_packets=2, c2s_payload_bytes=200)
    report = report_of(whole, half)
    row = pair(report, "10.0.0.1", "10.0.0.2")
    assert (row["one_sided_flows"], row["untold_segments"], row["confidence"]) == (1, 3, 1 - 3 / 8)
    (own,) = rows(report.table("sensor"))
    assert (own["one_sided_flows"], own["one_sided_ratio"], own["confidence"]) == (1, 0.5, 1 - 3 / 8)


def test_confidence_is_never_below_none() -> None:
    """A mirror that shows only ACKs leaves no confidence; without data there is none to speak of."""
    row = pair(report_of(record(c2s_packets=1, s2c_packets=9, c2s_unseen_bytes=90000)), "10.0.0.1", "10.0.0.2")
    assert (row["confidence"], row["unseen_ratio"]) == (0.0, 1.0)
    assert pair(report_of(record(c2s_packets=1)), "10.0.0.1", "10.0.0.2")["confidence"] is None


def test_transit_over_a_pairs_flows() -> None:
    """Least, mean and greatest over all copies of a direction, not a mean of means."""
    one = record(c2s_packets=1, c2s_transit_count=1, c2s_transit_sum_ns=9000, c2s_transit_min_ns=9000,
                 c2s_transit_max_ns=9000)  # fmt: skip
    two = record(client_port=2, c2s_packets=3, c2s_transit_count=3, c2s_transit_sum_ns=6000, c2s_transit_min_ns=1000,
                 c2s_transit_max_ns=3500)  # fmt: skip
    report = report_of(one, two, record(client_port=3, c2s_packets=1, s2c_packets=1))
    row = pair(report, "10.0.0.1", "10.0.0.2")
    assert (row["transit_min_us"], row["transit_avg_us"], row["transit_max_us"]) == (1.0, 3.75, 9.0)
    assert pair(report, "10.0.0.2", "10.0.0.1")["transit_min_us"] is None


# ---- the other measurements


def test_top_flows() -> None:
    """The heaviest first, ranks from 1, the five-tuple in fields, the overflow entry not among them."""
    many = [record(client_port=i + 1, c2s_bytes=i * 10, s2c_bytes=i, c2s_packets=1, s2c_packets=2) for i in range(15)]
    table = report_of(*many, overflow(c2s_bytes=10**9, c2s_packets=1)).table("flow_top")
    found = rows(table)
    assert [row["rank"] for row in found] == [str(i) for i in range(1, 11)]
    assert [row["client_port"] for row in found] == list(range(15, 5, -1))
    assert set(table.tags) == {"sensor", "rank"}
    assert found[0] == {
        "sensor": "tap", "rank": "1", "client_ip": "10.0.0.1", "client_port": 15, "server_ip": "10.0.0.2",
        "server_port": 80, "protocol": "tcp", "client_vm": "10.0.0.1", "server_vm": "10.0.0.2",
        "c2s_bytes": 140, "s2c_bytes": 14, "c2s_packets": 1, "s2c_packets": 2,
    }  # fmt: skip


def test_a_top_flow_without_ports() -> None:
    """Ports that are not there are null, not 0; port 0 is 0."""
    for protocol, expected in ((ICMP, None), (UDP, 0)):
        found = report_of(record(protocol=protocol, client_port=0, server_port=0, c2s_bytes=9, c2s_packets=1))
        (row,) = rows(found.table("flow_top"))
        assert (row["client_port"], row["server_port"]) == (expected, expected)


def test_the_sensors_own_numbers() -> None:
    """Fates, drops that nobody knows, ratios of sums; flows without the overflow entry."""
    one = record(c2s_packets=5, c2s_payload_bytes=900, s2c_payload_bytes=100, c2s_unseen_bytes=1000)
    (row,) = rows(report_of(one, overflow(c2s_packets=3), counted=counters(flow=5, overflow=3, arp=2)).table("sensor"))
    assert (row["received"], row["fate_flow"], row["fate_overflow"], row["fate_arp"], row["flows"]) == (10, 5, 3, 2, 1)
    assert (row["dropped_kernel"], row["dropped_nic"]) == (None, None)
    assert (row["mirror_duplicate_ratio"], row["unseen_ratio"]) == (0.0, 0.5)
    assert (row["sensor"], row["interface"]) == ("tap", "mirror0")


def test_a_silent_window() -> None:
    """No traffic: one point of the sensor, ratios null, nothing else."""
    report = report_of()
    assert [table.measurement for table in report.tables] == ["sensor"]
    (row,) = rows(report.table("sensor"))
    assert (row["received"], row["mirror_duplicate_ratio"], row["unseen_ratio"]) == (0, None, None)


@pytest.mark.parametrize("measurement", MEASUREMENTS)
def test_tables_are_the_metric_tables(measurement: str) -> None:
    """Every row of metrics.py is written, and nothing else: tags and fields."""
    if measurement == "event":
        table = event_table([Event("port_scan", "warning", "shop", "a", "b", "open", "", 1, 2, 1, {})], "tap")
    else:
        talk = {name: 1 for name in ("c2s_packets", "s2c_packets", "c2s_bytes", "c2s_payload_bytes", "response_count")}
        answered = record(
            role_source=native.ROLES.index("syn"), tcp_state=native.STATES.index("established"),
            flags=native.HAS_PORTS | native.ANSWERED | native.NEW, s2c_payload_bytes=1, **talk,
        )  # fmt: skip
        table = report_of(answered, observed=True).table(measurement)
    tags, metrics = MEASUREMENTS[measurement]
    assert set(table.tags) == set(tags)
    assert set(table.fields) == {metric.name for metric in metrics}


def test_no_counter_is_forgotten() -> None:
    """Whatever the flow table counts is a field of measurement `sensor`."""
    counted = {name for name in native.COUNTERS.names or () if name != "fate"} | {f"fate_{f}" for f in FATES}
    assert counted <= {metric.name for metric in SENSOR}


# ---- through the sinks' eyes


def test_a_report_is_plain_enough_for_json() -> None:
    """Whatever is in the rows can be written: no numpy value hides in a tag."""
    report: Report = report_of(record(c2s_packets=1, c2s_bytes=5), overflow(c2s_packets=1))
    for table in report.tables:
        assert json.loads(json.dumps(rows(table))) == rows(table)
