"""From records to points: sums are exact, quantiles are close, what was not measured is null, names stay few."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensor import native
from sensor.analysis.quantiles import merged_quantiles
from sensor.config import PRIVATE_NETWORKS, parse_network
from sensor.identity.parties import SCOPES, resolve
from sensor.metrics import MEASUREMENTS, SENSOR, VM_TRAFFIC
from sensor.protocols import ICMP, SCTP, TCP, UDP
from sensor.services import EPHEMERAL_LOWEST, service_name
from sensor.window import Report
from tests.needs import need_shared
from tests.oracles import program
from tests.oracles.captures import right
from tests.oracles.community_id import community_id as id_of_packet
from tests.oracles.flows import whole
from tests.records import BOTH_SEEN, bins, bucket_of, counters, flow_of, overflow, pair, record, report_of, rows

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
        family = [a for a in ADDRESSES if (":" in a) == draw(st.booleans())]
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


TCP_ONLY = {"retransmissions", "spurious", "upstream_losses", "reordered", "zero_windows", "unseen_bytes", "loss_ratio"}
MEASURED = {name for name in (m.name for m in VM_TRAFFIC) if name.endswith("_us")}


@pytest.mark.parametrize(
    ("protocol", "seen", "nulls"),
    [
        (TCP, BOTH_SEEN, MEASURED),
        (TCP, native.SEEN["c2s"], MEASURED | {"unseen_bytes"}),
        (UDP, BOTH_SEEN, MEASURED | TCP_ONLY),
        (ICMP, BOTH_SEEN, MEASURED | TCP_ONLY | {"data_packets"}),
        (SCTP, BOTH_SEEN, MEASURED | TCP_ONLY | {"data_packets"}),
        (50, BOTH_SEEN, MEASURED | TCP_ONLY | {"data_packets"}),
    ],
    ids=["tcp", "one-sided", "udp", "icmp", "sctp", "esp"],
)
def test_nulls(protocol: int, seen: int, nulls: set[str]) -> None:
    """What has no meaning for the protocol, or could not be measured, is null; everything else is a number."""
    one = record(protocol=protocol, seen=seen, c2s_packets=3, c2s_data_packets=2, c2s_bytes=99)
    row = pair(report_of(one), "10.0.0.1", "10.0.0.2")
    assert {name for name, value in row.items() if value is None} == nulls


def test_one_sided_flows_add_nothing_to_unseen() -> None:
    """Beside a flow seen in both directions, one seen in one direction only cannot tell what the mirror lost."""
    known = record(c2s_packets=1, c2s_unseen_bytes=10)
    unknown = record(client_port=2, seen=native.SEEN["c2s"], c2s_packets=1, c2s_unseen_bytes=5000)
    assert pair(report_of(known, unknown), "10.0.0.1", "10.0.0.2")["unseen_bytes"] == 10


# ---- names


@given(st.integers(0, 65535), st.sampled_from(["tcp", "udp", "sctp"]))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_a_service_is_a_name_a_low_port_or_dynamic(port: int, protocol: str) -> None:
    """An ephemeral port never becomes a tag."""
    name = service_name(protocol, port)
    assert name == "dynamic" or not name.isdecimal() or (int(name) == port < EPHEMERAL_LOWEST)


def test_services() -> None:
    """Names, numbers, and what has no ports."""
    assert service_name("tcp", 443) == "https"
    assert service_name("tcp", 12345) == "12345"
    assert service_name("tcp", 51000) == "dynamic"
    assert service_name("icmp", None) == "icmp"
    found = report_of(record(protocol=ICMP, client_port=8, server_port=0, c2s_packets=1)).table("vm_traffic")
    assert (found.tags["service"], found.tags["protocol"]) == (["icmp"], ["icmp"])


def test_peers_on_ephemeral_ports_are_one_service() -> None:
    """A thousand flows between ephemeral ports are one row for each direction."""
    many = [record(client_port=40000 + i, server_port=50000 + i, c2s_packets=1, s2c_packets=1) for i in range(1000)]
    report = report_of(*many)
    assert [(row["service"], row["flows"]) for row in rows(report.table("vm_traffic"))] == [("dynamic", 1000)] * 2


def test_outsiders_are_one_vm() -> None:
    """However many addresses talk to a VM from outside, they are `external`."""
    many = [record(f"198.51.{i}.7", "10.0.0.9", server_port=443, c2s_packets=1, c2s_bytes=i) for i in range(50)]
    row = pair(report_of(*many), "external", "10.0.0.9")
    assert (row["flows"], row["bytes"], row["scope"]) == (50, sum(range(50)), "north-south")
    assert (row["src_tenant"], row["dst_tenant"]) == ("external", "default")


def test_flows_between_outsiders_count_once() -> None:
    """Both ends are the same name; a flow between them is still one flow."""
    row = pair(report_of(record("192.0.2.1", "198.51.100.1", c2s_packets=2, s2c_packets=3, flags=native.NEW)),
               "external", "external")  # fmt: skip
    assert (row["packets"], row["flows"], row["new_flows"], row["scope"]) == (5, 1, 1, "unknown")


def test_a_vm_that_talks_to_itself_has_no_doubled_path() -> None:
    """Both directions are one row: its RTT samples are of both halves already, and no path can be told from them."""
    one = record("10.0.0.1", "10.0.0.1", c2s_packets=1, s2c_packets=1, c2s_rtt_count=1, s2c_rtt_count=1,
                 c2s_rtt_min_ns=5000, s2c_rtt_min_ns=5000, c2s_rtt_sum_ns=5000, s2c_rtt_sum_ns=5000)  # fmt: skip
    samples = bins((0, "rtt_c2s", bucket_of(5000), 1), (0, "rtt_s2c", bucket_of(5000), 1))
    row = pair(report_of(one, bins=samples), "10.0.0.1", "10.0.0.1")
    assert (row["flows"], row["packets"]) == (1, 2)


def test_tenants_are_domains() -> None:
    """VNI before VLAN before nothing; VLAN tags beside a VNI belong to the underlay, and VLAN 0 is only a priority."""
    domains = {"vni7": {"vni": 7, "vlan": (99,)}, "vni0": {"vni": 0}, "vlan10": {"vlan": (10,)}, "default": {},
               "vlan10.20": {"vlan": (10, 20)}, "vlan30": {"vlan": (0, 30)}}  # fmt: skip
    report = report_of(*[record(c2s_packets=i + 1, **domain) for i, domain in enumerate(domains.values())])
    found = {row["src_tenant"]: row["packets"] for row in rows(report.table("vm_traffic")) if row["packets"]}
    assert found == {tenant: i + 1 for i, tenant in enumerate(domains)}


def test_overlapping_addresses_stay_apart() -> None:
    """The same two addresses in two tenants are four VMs and four rows."""
    report = report_of(*[record(vni=vni, c2s_bytes=vni, s2c_bytes=1, c2s_packets=1, s2c_packets=1) for vni in (5, 6)])
    assert report.table("vm_traffic").rows == 4
    for vni in (5, 6):
        row = pair(report, "10.0.0.1", "10.0.0.2", src_tenant=f"vni{vni}")
        assert (row["bytes"], row["dst_tenant"], row["scope"]) == (vni, f"vni{vni}", "east-west")


def test_a_domain_that_only_differs_in_the_underlay_is_one_tenant() -> None:
    """A VNI carried in two underlay VLANs: one row, added up."""
    report = report_of(*[record(vni=5, vlan=(vlan,), c2s_packets=1, s2c_packets=1) for vlan in (100, 200)])
    assert pair(report, "10.0.0.1", "10.0.0.2")["packets"] == 2


@pytest.mark.parametrize(
    ("client", "server", "scope"),
    [
        ("10.0.0.1", "10.0.0.2", "east-west"),
        ("10.0.0.1", "192.168.7.1", "east-west"),
        ("10.0.0.1", "192.0.2.1", "north-south"),
        ("192.0.2.1", "10.0.0.1", "north-south"),
        ("192.0.2.1", "198.51.100.1", "unknown"),
        ("fd00::1", "fe80::1", "east-west"),
        ("fd00::1", "2001:db8::1", "north-south"),
    ],
)
def test_scopes(client: str, server: str, scope: str) -> None:
    """Where a flow runs, by what is monitored."""
    parties = resolve(record(client, server), PRIVATE_NETWORKS)
    assert SCOPES[parties.scope[0]] == scope


def test_monitored_prefixes_decide() -> None:
    """What is a VM is the user's word: a public prefix can be, a private address need not."""
    networks = (parse_network("192.0.2.0/25"), parse_network("2001:db8::/32"))
    one = np.concatenate([record("192.0.2.127", "10.0.0.1"), record("192.0.2.128", "10.0.0.1")])
    parties = resolve(one, networks)
    names = [(parties.names[c], parties.names[s]) for c, s in zip(parties.client, parties.server, strict=True)]
    assert names == [("192.0.2.127", "external"), ("external", "external")]
    six = resolve(record("2001:db8::5", "fd00::1"), networks)
    assert (six.names[six.client[0]], six.names[six.server[0]]) == ("2001:db8::5", "external")


def test_the_overflow_entry_is_other() -> None:
    """What had no place in the table is exact, nameless, and no flow."""
    row = pair(report_of(overflow(c2s_packets=7, c2s_bytes=700, c2s_payload_bytes=1)), "other", "other")
    assert (row["packets"], row["bytes"], row["flows"], row["scope"], row["service"]) == (7, 700, 0, "unknown", "other")
    assert (row["src_tenant"], row["dst_tenant"]) == ("other", "other")


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
    one = record(c2s_packets=5, c2s_bytes=900, s2c_bytes=100, c2s_unseen_bytes=1000)
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
    table = report_of(record(c2s_packets=1, c2s_bytes=1)).table(measurement)
    tags, metrics = MEASUREMENTS[measurement]
    assert set(table.tags) == set(tags)
    assert list(table.fields) == [metric.name for metric in metrics]


def test_no_counter_is_forgotten() -> None:
    """Whatever the flow table counts is a field of measurement `sensor`."""
    counted = {name for name in native.COUNTERS.names or () if name != "fate"} | {f"fate_{f}" for f in native.FATES}
    assert counted <= {metric.name for metric in SENSOR}


# ---- Community ID

# The baseline of https://github.com/corelight/community-id-spec: protocol, source, destination, ports or type and code.
BASELINE = [
    (58, "fe80::200:86ff:fe05:80da", "fe80::260:97ff:fe07:69ea", 135, 136, "1:dGHyGvjMfljg6Bppwm3bg0LO8TY="),
    (58, "fe80::260:97ff:fe07:69ea", "fe80::200:86ff:fe05:80da", 135, 136, "1:zavyT/cezQr1fmImYCwYnMXbgck="),
    (58, "3ffe:501:1800:2345::2", "3ffe:507:0:1:200:86ff:fe05:80da", 3, 0, "1:2ObVBgIn28oZvibYZhZMBgh7WdQ="),
    (58, "3ffe:501:410:0:2c0:dfff:fe47:33e", "3ffe:507:0:1:200:86ff:fe05:80da", 1, 4, "1:hLZd0XGWojozrvxqE0dWB1iM6R0="),
    (58, "3ffe:507:0:1:200:86ff:fe05:80da", "3ffe:501:0:1001::2", 128, 129, "1:+TW+HtLHvV1xnGhV1lv7XoJrqQg="),
    (58, "fe80::200:86ff:fe05:80da", "ff02::2", 133, 134, "1:hO+sN4H+MG5MY/8hIrXPqc4ZQz0="),
    (58, "fe80::260:97ff:fe07:69ea", "ff02::1", 134, 133, "1:pkvHqCL88/tg1k4cPigmZXUtL00="),
    (1, "192.168.0.89", "192.168.0.1", 8, 0, "1:X0snYXpgwiv9TZtqg64sgzUn6Dk="),
    (1, "10.0.0.1", "10.0.0.2", 11, 0, "1:YHxtAirCG//0OzkcVAukqKQN9xM="),
    (6, "2001:470:e5bf:dead:4957:2174:e82c:4887", "2607:f8b0:400c:c03::1a", 63943, 25, "1:/qFaeAR+gFe1KYjMzVDsMv+wgU4="),
    (132, "192.168.170.8", "192.168.170.56", 7, 7, "1:MP2EtRCAUIZvTw6MxJHLV7N7JDs="),
    (6, "128.232.110.120", "66.35.250.204", 34855, 80, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
    (17, "192.168.1.52", "8.8.8.8", 54585, 53, "1:d/FP5EW3wiY1vCndhwleRRKHowQ="),
    (46, "10.1.12.1", "10.1.12.2", None, None, "1:KHlLkgoJW7ifUTyTSgyVfkFHzKw="),
]
ONE_WAY = {"1:2ObVBgIn28oZvibYZhZMBgh7WdQ=", "1:hLZd0XGWojozrvxqE0dWB1iM6R0=", "1:YHxtAirCG//0OzkcVAukqKQN9xM="}


@pytest.mark.parametrize(("protocol", "src", "dst", "sport", "dport", "expected"), BASELINE)
def test_published_community_ids(protocol: int, src: str, dst: str, sport: Any, dport: Any, expected: str) -> None:
    """The identifiers of the specification; whichever side is the client, unless the ICMP type is one-way."""
    flags = 0 if sport is None else native.HAS_PORTS
    ends = {"client_port": sport or 0, "server_port": dport or 0}
    assert flow_of(record(src, dst, protocol=protocol, flags=flags, **ends))["community_id"] == expected
    if expected not in ONE_WAY:
        ends = {"client_port": dport or 0, "server_port": sport or 0}
        assert flow_of(record(dst, src, protocol=protocol, flags=flags, **ends))["community_id"] == expected


SHARED = ("zeek-communityid-icmp.pcap", "zeek-communityid-icmp6.pcap", "zeek-communityid-ipv6.pcap",
          "zeek-communityid-sctp.pcap", "zeek-communityid-tcp.pcap", "zeek-communityid-udp.pcap", "zeek-http-vlan-0.pcap",
          "zeek-ipv4-fragmented-1.pcap", "tcpdump-geneve-gcp.pcap")  # fmt: skip


@pytest.mark.parametrize("name", SHARED)
def test_community_ids_of_real_captures(name: str) -> None:
    """Other people's captures: the records' identifiers are those of an independent decoder."""
    capture = need_shared() / name
    assert {flow["community_id"] for flow in program.run(capture).records} == {id_of_packet(p) for p in whole(right(capture))}


# ---- through the sinks' eyes


def test_a_report_is_plain_enough_for_json() -> None:
    """Whatever is in the rows can be written: no numpy value hides in a tag."""
    report: Report = report_of(record(c2s_packets=1, c2s_bytes=5), overflow(c2s_packets=1))
    for table in report.tables:
        assert json.loads(json.dumps(rows(table))) == rows(table)
