"""The flow record that other programs rely on: its fields, their types, and when they are null."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sensor import native
from sensor.metrics import DIRECTION, FLOW
from sensor.protocols import ICMP, ICMP6, SCTP, TCP, UDP
from tests.command import DEMO, records, vmsensor
from tests.needs import PCAPS
from tests.records import BOTH_SEEN, START, flow_of, record

WHO = {
    "start_ns", "end_ns", "protocol", "client_ip", "client_port", "server_ip", "server_port", "role_source",
    "client_mac", "server_mac", "vlan", "vni", "tunnel", "outer_src", "outer_dst", "tcp_state", "community_id",
    "client_vm", "server_vm", "client_tenant", "server_tenant", "scope",
}  # fmt: skip
TIMES = {
    "handshake_server_us", "handshake_client_us", "response_time_count", "response_time_avg_us", "response_time_max_us",
    "transit_min_us", "transit_avg_us", "transit_max_us",
}  # fmt: skip
EACH_WAY = {
    "packets", "bytes", "payload_bytes", "data_packets", "mirror_duplicates", "retransmissions", "spurious",
    "upstream_losses", "reordered", "unseen_bytes", "zero_windows", "keepalives", "loss_ratio", "rtt_count",
    "rtt_min_us", "rtt_avg_us", "rtt_max_us",
}  # fmt: skip
CONTRACT = WHO | TIMES | {f"{way}_{name}" for way in ("c2s", "s2c") for name in EACH_WAY}
"""The names that were promised; renaming one breaks somebody's program."""

ADDED_SENT = {"window_probes", "out_of_window", "unknown_causes", "unsure"}
TRANSIT = {"transit_min_us", "transit_avg_us", "transit_max_us"}
ADDED_EACH_WAY = ADDED_SENT | TRANSIT
ADDED = {"end_reason"} | {f"{way}_{name}" for way in ("c2s", "s2c") for name in ADDED_EACH_WAY}
"""What the record has beyond the promise."""

INTEGERS = {"packets", "bytes", "payload_bytes", "data_packets", "mirror_duplicates", "retransmissions", "spurious",
            "upstream_losses", "reordered", "unseen_bytes", "zero_windows", "keepalives", "rtt_count", "window_probes",
            "out_of_window", "unknown_causes", "start_ns", "end_ns", "client_port", "server_port", "vni",
            "response_time_count"}  # fmt: skip

PAYLOAD = {"payload_bytes", "data_packets"}
SENT = {"retransmissions", "upstream_losses", "reordered", "zero_windows", "keepalives", *ADDED_SENT}
BOTH = {"spurious", "unseen_bytes", "rtt_count"}
SAMPLES = {"loss_ratio", "rtt_min_us", "rtt_avg_us", "rtt_max_us", *TRANSIT}


def nulls(flow: dict[str, Any], way: str) -> set[str]:
    """Which of a direction's fields are null."""
    return {name[4:] for name, value in flow.items() if name.startswith(f"{way}_") and value is None}


@pytest.fixture(scope="module")
def demo() -> list[dict[str, Any]]:
    """The flow records of the demonstration."""
    done = vmsensor("read", DEMO, "--to", "none", "--flows", "-")
    assert done.returncode == 0, done.stderr
    return records(done)


# ---- names and types


def test_every_record_has_every_field(demo: list[dict[str, Any]]) -> None:
    """Promised fields and the additions; in every record, whatever its protocol, and in the same order."""
    assert demo
    assert {flow["protocol"] for flow in demo} >= {"tcp", "udp", "icmp"}
    for flow in demo:
        assert set(flow) == CONTRACT | ADDED
        assert list(flow) == list(demo[0])


def test_the_metric_table_names_them() -> None:
    """metrics.py describes each field of a direction and each time, and no other."""
    assert {metric.name for metric in DIRECTION} == EACH_WAY | ADDED_EACH_WAY
    assert {metric.name for metric in FLOW} == TIMES


def test_types(demo: list[dict[str, Any]]) -> None:
    """Counts are integers, times and ratios floats, names strings: never a number in quotes or the other way round."""
    for flow in demo:
        for name, value in flow.items():
            bare = name.removeprefix("c2s_").removeprefix("s2c_")
            if bare in INTEGERS:
                wanted: tuple[type, ...] = (int,)
            elif bare.endswith(("_us", "_ratio")):
                wanted = (float,)
            elif bare == "unsure":
                wanted = (bool,)
            else:
                wanted = (list,) if name == "vlan" else (str,)
            assert value is None or type(value) in wanted, (name, value)


def test_times_are_in_order(demo: list[dict[str, Any]]) -> None:
    """A flow does not end before it begins, and no latency is negative."""
    for flow in demo:
        assert flow["end_ns"] >= flow["start_ns"] > 1e18
        assert all(value >= 0 for name, value in flow.items() if name.endswith("_us") and value is not None)
        for way in ("c2s", "s2c"):
            if flow[f"{way}_rtt_count"]:
                assert flow[f"{way}_rtt_min_us"] <= flow[f"{way}_rtt_avg_us"] <= flow[f"{way}_rtt_max_us"]


def test_tunnel_fields_come_together() -> None:
    """A tunnelled flow says which tunnel and between whom; another says neither."""
    done = vmsensor("read", PCAPS / "vxlan.pcap", PCAPS / "plain.pcapng", "--to", "none", "--flows", "-")
    tunnels = set()
    for flow in records(done):
        tunnels.add(flow["tunnel"])
        assert (flow["tunnel"] is None) == (flow["outer_src"] is None) == (flow["outer_dst"] is None)
        assert flow["tunnel"] is not None or flow["vni"] is None
    assert tunnels == {"vxlan", None}


def test_each_record_is_one_line(demo: list[dict[str, Any]]) -> None:
    """JSON lines: compact, no NaN."""
    done = vmsensor("read", PCAPS / "plain.pcapng", "--to", "none", "--flows", "-")
    for line in done.stdout.splitlines():
        assert json.loads(line, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))
        assert ": " not in line.replace('"', "")


# ---- what is null


@pytest.mark.parametrize(
    ("protocol", "seen", "client_nulls", "server_nulls"),
    [
        (TCP, BOTH_SEEN, SAMPLES, SAMPLES),
        (TCP, native.SEEN["c2s"], SAMPLES | BOTH, SAMPLES | BOTH | SENT),
        (TCP, native.SEEN["s2c"], SAMPLES | BOTH | SENT, SAMPLES | BOTH),
        (UDP, BOTH_SEEN, SAMPLES | BOTH | SENT, SAMPLES | BOTH | SENT),
        (UDP, native.SEEN["c2s"], SAMPLES | BOTH | SENT, SAMPLES | BOTH | SENT),
        (SCTP, BOTH_SEEN, SAMPLES | BOTH | SENT | PAYLOAD, SAMPLES | BOTH | SENT | PAYLOAD),
        (ICMP, BOTH_SEEN, SAMPLES | BOTH | SENT | PAYLOAD, SAMPLES | BOTH | SENT | PAYLOAD),
        (50, native.SEEN["c2s"], SAMPLES | BOTH | SENT | PAYLOAD, SAMPLES | BOTH | SENT | PAYLOAD),
    ],
    ids=["tcp", "tcp-client", "tcp-server", "udp", "udp-client", "sctp", "icmp", "esp"],
)  # fmt: skip
def test_nulls_of_a_direction(protocol: int, seen: int, client_nulls: set[str], server_nulls: set[str]) -> None:
    """What the protocol does not have, or a missing direction hides, is null; the rest is a number, 0 included."""
    flow = flow_of(record(protocol=protocol, seen=seen))
    assert (nulls(flow, "c2s"), nulls(flow, "s2c")) == (client_nulls, server_nulls)


@pytest.mark.parametrize(
    ("protocol", "name", "ports"),
    [(TCP, "tcp", True), (UDP, "udp", True), (SCTP, "sctp", True), (ICMP, "icmp", False), (ICMP6, "icmp6", False),
     (50, "50", False), (0, "0", False), (255, "255", False)],
)  # fmt: skip
def test_protocols_and_ports(protocol: int, name: str, ports: bool) -> None:
    """A word for five protocols, the number as a string for all others; ports where the protocol has some."""
    flow = flow_of(record(protocol=protocol, client_port=8, server_port=0))
    assert flow["protocol"] == name
    assert (flow["client_port"], flow["server_port"]) == ((8, 0) if ports else (None, None))


def test_a_later_fragment_alone_has_no_ports() -> None:
    """Its ports were in a fragment that nobody saw."""
    flow = flow_of(record(protocol=UDP, flags=0, client_port=0, server_port=0))
    assert (flow["client_port"], flow["server_port"]) == (None, None)


@pytest.mark.parametrize(("protocol", "state"), [(TCP, "reset"), (UDP, None), (ICMP, None)])
def test_only_tcp_has_a_state(protocol: int, state: str | None) -> None:
    """Null elsewhere, not "none"."""
    assert flow_of(record(protocol=protocol, tcp_state=native.STATES.index("reset")))["tcp_state"] == state


def test_times_that_were_measured() -> None:
    """Nanoseconds stay visible in microseconds; means are of sums."""
    flow = flow_of(record(handshake_server_ns=123_457, handshake_client_ns=0, response_count=3, response_sum_ns=10,
                          response_max_ns=4_000_001, c2s_rtt_count=2, c2s_rtt_sum_ns=3001, c2s_rtt_min_ns=1000,
                          c2s_rtt_max_ns=2001))  # fmt: skip
    assert (flow["handshake_server_us"], flow["handshake_client_us"]) == (123.457, 0.0)
    assert [flow[f"response_time_{name}"] for name in ("count", "avg_us", "max_us")] == [3, 0.003, 4000.001]
    assert [flow[f"c2s_rtt_{which}_us"] for which in ("min", "avg", "max")] == [1.0, 1.5, 2.001]
    assert flow["c2s_rtt_avg_us"] == pytest.approx(1.5005, abs=0.001)


def test_transit_each_way_and_both() -> None:
    """Of each direction, and of all copies together, also where only one direction had some."""
    fields = {"c2s_transit_count": 2, "c2s_transit_sum_ns": 3500, "c2s_transit_min_ns": 500, "c2s_transit_max_ns": 3000}
    flow = flow_of(record(**fields, protocol=UDP))
    assert [flow[f"c2s_transit_{which}_us"] for which in ("min", "avg", "max")] == [0.5, 1.75, 3.0]
    assert [flow[f"transit_{which}_us"] for which in ("min", "avg", "max")] == [0.5, 1.75, 3.0]
    back = {"s2c_transit_count": 1, "s2c_transit_sum_ns": 9500, "s2c_transit_min_ns": 9500, "s2c_transit_max_ns": 9500}
    flow = flow_of(record(**fields, **back))
    assert [flow[f"transit_{which}_us"] for which in ("min", "avg", "max")] == [0.5, 4.333, 9.5]


@pytest.mark.parametrize(
    ("protocol", "seen", "count"),
    [(TCP, BOTH_SEEN, 0), (UDP, BOTH_SEEN, 0), (UDP, native.SEEN["c2s"], None), (ICMP, BOTH_SEEN, None)],
)
def test_responses_need_both_sides(protocol: int, seen: int, count: int | None) -> None:
    """No answer is a count of 0 where one would have been seen, else null; without answers no times."""
    flow = flow_of(record(protocol=protocol, seen=seen))
    assert flow["response_time_count"] == count
    assert (flow["response_time_avg_us"], flow["response_time_max_us"]) == (None, None)
    assert (flow["handshake_server_us"], flow["handshake_client_us"]) == (None, None)


def test_loss_ratio() -> None:
    """(retransmissions - spurious + upstream losses) / (data packets + upstream losses), each way by itself."""
    flow = flow_of(record(c2s_data_packets=8, c2s_retransmissions=3, c2s_spurious=1, c2s_upstream_losses=2,
                          s2c_data_packets=5))  # fmt: skip
    assert (flow["c2s_loss_ratio"], flow["s2c_loss_ratio"]) == ((3 - 1 + 2) / (8 + 2), 0.0)


# ---- who


def test_addresses_and_domain() -> None:
    """Everything that says who and where, in the forms that people write."""
    one = record("fd00::1", "2001:db8::2", vlan=(100, 200), vni=0, server_port=443, outer_ip_version=4,
                 tunnel=native.TUNNELS.index("vxlan"), outer_src=[192, 0, 2, 1] + [0] * 12,
                 outer_dst=[192, 0, 2, 2] + [0] * 12, client_mac=[2, 0, 0, 0, 0, 0xAB],
                 role_source=native.ROLES.index("syn"), end_reason=native.ENDS.index("idle"))  # fmt: skip
    flow = flow_of(one)
    expected = {
        "start_ns": START, "client_ip": "fd00::1", "server_ip": "2001:db8::2", "vlan": [100, 200], "vni": 0,
        "tunnel": "vxlan", "outer_src": "192.0.2.1", "outer_dst": "192.0.2.2", "client_mac": "02:00:00:00:00:ab",
        "server_mac": None, "role_source": "syn", "end_reason": "idle", "client_vm": "fd00::1", "server_vm": "external",
        "client_tenant": "vni0", "server_tenant": None, "scope": "north-south",
    }  # fmt: skip
    assert {name: flow[name] for name in expected} == expected


def test_nothing_around_the_packet() -> None:
    """No tag, no tunnel, no MAC: an empty list and nulls."""
    flow = flow_of(record())
    assert flow["vlan"] == []
    absent = ("vni", "tunnel", "outer_src", "outer_dst", "client_mac", "server_mac")
    assert [flow[name] for name in absent] == [None] * len(absent)
    assert (flow["client_tenant"], flow["server_tenant"], flow["scope"]) == ("default", "default", "east-west")
