"""The main job, live: VMs talk through a real kernel, a real mirror port feeds the sensor, a real InfluxDB answers."""

from __future__ import annotations

import json
import re
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.lab import BOTH, Lab, wait_until
from tests.live import Ended, Influx, Sensor
from tests.needs import need_tool
from tests.transfers import THINK_SECONDS, Transfer, transfers

SECOND = 1_000_000_000
IPERF_BYTES = 40 << 20
IPERF_COOKIE = 37  # what iperf3 sends first on every connection to name the test


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Three VMs on a switch with a SPAN port."""
    with Lab(["web", "app", "db"]) as lab:
        yield lab


@pytest.fixture(scope="module")
def influx(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Influx:
    """A server beside the sensor."""
    return Influx(lab.tap, tmp_path_factory.mktemp("influxd"))


@dataclass(frozen=True)
class Run:
    """One measured run and everything that others know about it."""

    ended: Ended
    flows: list[dict[str, Any]]
    mirrored: int
    transfers: list[Transfer]
    iperf: dict[str, Any]
    began_ns: int
    ended_ns: int

    def flow(self, *ends: object) -> dict[str, Any]:
        """The flow record of a connection; exactly one has to be there."""
        names = ("client_ip", "client_port", "server_ip", "server_port")
        (found,) = (flow for flow in self.flows if tuple(flow[name] for name in names) == ends)
        return found


@pytest.fixture(scope="module")
def run(lab: Lab, influx: Influx, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Connections of all sizes over IPv4 and IPv6, then a bulk transfer, in several windows of one second."""
    sensor = Sensor(lab, tmp_path_factory.mktemp("run"))
    options = influx.options(influx.create("run"), "1s")
    web, app, db = map(lab.vm, ("web", "app", "db"))
    before, began_ns = lab.span_counters().rx_packets, time.time_ns()
    process = sensor.capture("--flows", str(sensor.flow_file), *options)
    with lab.mirror():
        made = transfers(web, app, socket.AF_INET, 8080, count=10, seed=1)
        time.sleep(1)  # the next ones fall into another window
        made += transfers(app, db, socket.AF_INET6, 5432, count=10, seed=2)
        bulk = iperf(lab)
    after = lab.span_counters().rx_packets
    ended = sensor.ended(process, signal.SIGTERM)
    return Run(ended, sensor.flows(), after - before, made, bulk, began_ns, time.time_ns())


def iperf(lab: Lab) -> dict[str, Any]:
    """iperf3's own report of a bulk transfer from web to db."""
    server = lab.vm("db").popen([need_tool("iperf3"), "--server", "--one-off"])
    listening = f":{5201:04X} "
    wait_until(lambda: listening in Path(f"/proc/{server.pid}/net/tcp6").read_text(), "iperf3 to listen")
    bulk = ["iperf3", "--client", lab.vm("db").ipv4, "--bytes", str(IPERF_BYTES), "--affinity", "0,0", "--json"]
    report: dict[str, Any] = json.loads(lab.vm("web").run(bulk).stdout)
    server.communicate(timeout=5)
    return report


def test_every_mirrored_packet_is_counted_once(run: Run) -> None:
    """What the sensor received is what the kernel counted on the SPAN port, and each packet has one fate."""
    assert run.ended.status == 0
    received, fates, dropped_kernel, dropped_nic, unread = run.ended.totals.groups()
    assert int(received) == run.mirrored
    assert sum(map(int, re.findall(r"\d+", fates))) == run.mirrored
    assert (dropped_kernel, dropped_nic, unread) == ("0", "0", None)


def test_flow_records_equal_the_kernels_account(run: Run) -> None:
    """Per direction, payload and segments of every connection are what the sockets themselves report."""
    for transfer in run.transfers:
        flow = run.flow(*transfer.ends)
        assert (flow["protocol"], flow["role_source"], flow["tcp_state"]) == ("tcp", "syn", "closed")
        for side, account in (("c2s", transfer.client_account), ("s2c", transfer.server_account)):
            assert flow[f"{side}_payload_bytes"] == account.payload_bytes
            assert flow[f"{side}_data_packets"] == account.data_segments
            assert flow[f"{side}_retransmissions"] <= account.retransmissions
            assert flow[f"{side}_mirror_duplicates"] == flow[f"{side}_unseen_bytes"] == 0


def test_every_connection_is_one_flow(run: Run) -> None:
    """There are as many TCP flows between two VMs as connections were opened, iperf3's control connection included."""
    opened = Counter((transfer.client[0], transfer.server) for transfer in run.transfers)
    opened["10.77.0.1", ("10.77.0.3", 5201)] = 2
    tcp = [flow for flow in run.flows if flow["protocol"] == "tcp"]
    assert Counter((flow["client_ip"], (flow["server_ip"], flow["server_port"])) for flow in tcp) == opened


def test_latency_lies_within_what_the_sockets_saw(run: Run) -> None:
    """Handshake, round trips and response times at the tap are positive and no longer than the ends' own."""
    for transfer in run.transfers:
        flow = run.flow(*transfer.ends)
        halves = flow["handshake_server_us"], flow["handshake_client_us"]
        assert transfer.started_ns <= flow["start_ns"] <= transfer.established_ns
        assert min(halves) > 0
        assert sum(halves) <= (transfer.established_ns - transfer.started_ns) / 1000
        for side, account, half in zip(
            ("c2s", "s2c"), (transfer.client_account, transfer.server_account), halves, strict=True
        ):
            # The kernel's minimum includes the handshake; both clocks may be cut to whole microseconds.
            assert 0 < min(half, flow[f"{side}_rtt_min_us"]) <= account.min_rtt_us + 2
            assert flow[f"{side}_rtt_count"] > 0
        assert flow["response_time_count"] == transfer.exchanges
        assert flow["response_time_avg_us"] >= THINK_SECONDS * 1e6


def test_bulk_transfer_agrees_with_iperf(run: Run) -> None:
    """At the speed of the machine too, nothing is lost on the way to the flow record."""
    (connected,), ends = run.iperf["start"]["connected"], run.iperf["end"]
    flow = run.flow("10.77.0.1", connected["local_port"], "10.77.0.3", 5201)
    sent, received = ends["sum_sent"]["bytes"], ends["sum_received"]["bytes"]
    resent = ends["sum_sent"]["retransmits"] * run.iperf["start"]["tcp_mss_default"]
    # What iperf3 has given to its socket when the server stops reading is no longer sent.
    assert received + IPERF_COOKIE <= flow["c2s_payload_bytes"] <= sent + IPERF_COOKIE + resent
    assert received > IPERF_BYTES / 2
    assert flow["c2s_unseen_bytes"] == 0


def test_influx_holds_the_received_packets(run: Run, influx: Influx) -> None:
    """The `sensor` points of all windows add up to the interface's counter."""
    (row,) = influx.query("run", "SELECT sum(received) AS received, sum(dropped_kernel) AS dropped FROM sensor")
    assert (row["received"], row["dropped"]) == (run.mirrored, 0)


def test_influx_holds_the_traffic_of_each_pair(run: Run, influx: Influx) -> None:
    """Bytes and packets of `vm_traffic`, summed over the windows, equal the flow records in both directions."""
    expected: Counter[tuple[str, str, str]] = Counter()
    for flow in run.flows:
        for source, target, side in (("client_vm", "server_vm", "c2s"), ("server_vm", "client_vm", "s2c")):
            for field in ("bytes", "packets"):
                expected[flow[source], flow[target], field] += flow[f"{side}_{field}"]
    statement = "SELECT sum(bytes) AS bytes, sum(packets) AS packets FROM vm_traffic GROUP BY src_vm, dst_vm"
    rows = influx.query("run", statement)
    stored = {(row["src_vm"], row["dst_vm"], field): row[field] for row in rows for field in ("bytes", "packets")}
    flows = [run.flow(*transfer.ends) for transfer in run.transfers]
    talkers = {(flow["client_vm"], flow["server_vm"]) for flow in flows}
    assert len(talkers) == 2
    for client, server in talkers:
        for field in ("bytes", "packets"):
            assert stored[client, server, field] == expected[client, server, field] > 0
            assert stored[server, client, field] == expected[server, client, field] > 0


def test_windows_are_aligned_and_without_gaps(run: Run, influx: Influx) -> None:
    """Each second of the run has one `sensor` point at its start, and traffic is in those windows only."""
    times = [row["time"] for row in influx.query("run", "SELECT received FROM sensor")]
    assert times == list(range(times[0], times[-1] + 1, SECOND))
    assert times[0] % SECOND == 0
    assert run.began_ns - SECOND < times[0] <= run.transfers[0].started_ns
    assert run.transfers[-1].established_ns - SECOND < times[-1] <= run.ended_ns
    traffic = {row["time"] for row in influx.query("run", "SELECT bytes FROM vm_traffic")}
    assert traffic <= set(times)
    assert len(traffic) >= 2


def test_everything_mirrored_twice_counts_once(lab: Lab, sensor: Sensor) -> None:
    """When both directions of the ports are mirrored, the second copies are told apart and change no number."""
    before = lab.span_counters().rx_packets
    process = sensor.capture("--flows", str(sensor.flow_file), "--to", "none")
    with lab.mirror(BOTH):
        made = transfers(lab.vm("web"), lab.vm("app"), socket.AF_INET, 8080, count=4, seed=3)
        made += transfers(lab.vm("web"), lab.vm("app"), socket.AF_INET6, 8080, count=4, seed=4)
    mirrored = lab.span_counters().rx_packets - before
    assert sensor.ended(process, signal.SIGTERM).received == mirrored
    flows = {(f["client_ip"], f["client_port"], f["server_ip"], f["server_port"]): f for f in sensor.flows()}
    for transfer in made:
        flow = flows[transfer.ends]
        for side, account in (("c2s", transfer.client_account), ("s2c", transfer.server_account)):
            assert flow[f"{side}_payload_bytes"] == account.payload_bytes
            assert flow[f"{side}_retransmissions"] <= account.retransmissions
            assert flow[f"{side}_mirror_duplicates"] == flow[f"{side}_packets"]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_stopping_writes_the_last_window(lab: Lab, influx: Influx, sensor: Sensor, name: str) -> None:
    """A signal in the middle of a long window ends the capture with status 0, and its packets are in InfluxDB."""
    database = influx.create(f"stopped_by_{name.lower()}")
    before = lab.span_counters().rx_packets
    process = sensor.capture(*influx.options(database, "5m"))
    with lab.mirror():
        transfers(lab.vm("web"), lab.vm("db"), socket.AF_INET, 5432, count=2, seed=5)
    ended = sensor.ended(process, signal.Signals[name])
    rows = influx.query(database, "SELECT received FROM sensor")
    assert ended.status == 0
    assert ended.received == sum(row["received"] for row in rows) == lab.span_counters().rx_packets - before > 0
    assert all(row["time"] % (300 * SECOND) == 0 for row in rows)


def test_silent_wire_still_closes_windows(lab: Lab, influx: Influx, sensor: Sensor) -> None:
    """Without a single packet, the wall clock closes windows: each has a `sensor` point that says zero."""
    database = influx.create("silent")
    began_ns = time.time_ns()
    ended = sensor.ended(sensor.start(*influx.options(database, "1s"), "--duration", "3s"))
    ended_ns = time.time_ns()
    rows = influx.query(database, "SELECT received FROM sensor")
    times = [row["time"] for row in rows]
    assert (ended.status, ended.received) == (0, 0)
    assert len(rows) >= 3
    assert began_ns - SECOND < times[0] <= times[-1] <= ended_ns
    assert times == list(range(times[0], times[-1] + 1, SECOND))
    assert times[0] % SECOND == 0
    assert {row["received"] for row in rows} == {0}
    assert influx.query(database, "SELECT bytes FROM vm_traffic") == []
