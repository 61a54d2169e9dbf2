"""The series budget: bounded, the heaviest kept, and every sum as if there were none."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensor import native
from sensor.analysis.limits import DEFAULTS
from sensor.analysis.observer import Observer
from sensor.analysis.report import Reporter
from sensor.analysis.series import DAY_NS, HEAVY_OCTETS, SeriesBudget
from sensor.config import PRIVATE_NETWORKS
from sensor.identity.registry import Registry
from sensor.metrics import VM_TRAFFIC
from sensor.native import BIN, NumpyArray
from sensor.sinks.delivery import push
from sensor.sinks.servers import InfluxSettings
from sensor.sinks.spool import SpoolSink
from sensor.snapshot import Snapshot
from sensor.window import Report, Table
from tests.bigsite import DAY_START, Site
from tests.command import DEMO, OK, vmsensor
from tests.records import SECOND, counters, overflow, record, rows
from tests.servers import InfluxServer

SUMMED = [metric.name for metric in VM_TRAFFIC if metric.reduce in ("sum", "rate") or metric.name == "new_flows"]


class Sensor:
    """A reporter with a budget, fed one window of ten seconds after the other."""

    def __init__(self, most: int, budget: SeriesBudget | None = None) -> None:
        self.budget = budget or SeriesBudget(most)
        self._reporter = Reporter("tap", "mirror0", Registry(PRIVATE_NETWORKS), Observer(DEFAULTS), budget=self.budget)

    def report(self, records: Iterable[NumpyArray], start_ns: int = DAY_START) -> Report:
        """What it makes of a window."""
        counted = counters()
        snapshot = Snapshot(start_ns, start_ns + 10 * SECOND, np.concatenate(list(records)), np.zeros(0, BIN), counted)
        return self._reporter.report(snapshot)


def series_of(*reports: Report) -> set[tuple[Any, ...]]:
    """The different series among the points, those of every kind."""
    return {
        (table.measurement, *row) for report in reports for table in report.tables
        for row in zip(*table.tags.values(), strict=True)
    }  # fmt: skip


def sums(table: Table) -> dict[str, float]:
    """What is added up over a window."""
    found = rows(table)
    return {name: sum(row[name] or 0 for row in found) for name in SUMMED}


def talk(client: int, server: int, octets: int, port: int = 80, **fields: Any) -> NumpyArray:
    """A flow between two VMs, of as many octets each way."""
    return record(
        f"10.0.0.{client}", f"10.0.0.{server}", server_port=port, c2s_bytes=octets, s2c_bytes=octets, c2s_packets=2,
        s2c_packets=3, c2s_payload_bytes=octets // 2, s2c_payload_bytes=octets // 2, response_count=1,
        flags=native.HAS_PORTS | native.NEW | native.ANSWERED, role_source=native.ROLES.index("syn"),
        tcp_state=native.STATES.index("established"), **fields,
    )  # fmt: skip


@st.composite
def windows(draw: st.DrawFn) -> list[list[NumpyArray]]:
    """A few windows of flows between few VMs, in tenants and outside, on a few ports, perhaps with an overflow."""
    made = []
    for _ in range(draw(st.integers(1, 4))):
        flows = [
            record(
                f"10.0.0.{draw(st.integers(1, 5))}",
                draw(st.sampled_from(["10.0.0.3", "10.0.0.4", "198.51.100.1", "224.0.0.1"])),
                server_port=draw(st.sampled_from([80, 443, 5000, 5001, 5002])), vni=draw(st.sampled_from([None, 1, 2])),
                c2s_bytes=draw(st.integers(0, 3 * HEAVY_OCTETS)), s2c_bytes=draw(st.integers(0, 500)),
                c2s_packets=draw(st.integers(0, 9)), s2c_packets=1, c2s_data_packets=draw(st.integers(0, 5)),
                c2s_retransmissions=draw(st.integers(0, 2)), c2s_rtt_count=1, c2s_rtt_min_ns=5000, c2s_rtt_sum_ns=5000,
            )
            for _ in range(draw(st.integers(1, 12)))
        ]  # fmt: skip
        made.append(flows + [overflow(c2s_bytes=77, c2s_packets=1)] * draw(st.integers(0, 1)))
    return made


@settings(max_examples=80, deadline=None, derandomize=True)
@given(windows(), st.integers(10, 60))
def test_sums_are_those_without_a_budget(made: list[list[NumpyArray]], most: int) -> None:
    """Whatever is folded, each window's sums stay, no two points share a series, and a day's series are bounded."""
    bounded, free = Sensor(most), Sensor(10**9)
    reports = []
    for number, flows in enumerate(made):
        start_ns = DAY_START + number * 10 * SECOND
        report, whole = bounded.report(flows, start_ns), free.report(flows, start_ns)
        assert sums(report.table("vm_traffic")) == pytest.approx(sums(whole.table("vm_traffic")))
        for table in report.tables:
            tags = list(zip(*table.tags.values(), strict=True))
            assert len(set(tags)) == len(tags) or table.measurement == "event"
        reports.append(report)
    counted = {one for one in series_of(*reports) if one[0] in ("vm_traffic", "dependency", "event")}
    assert len(counted) <= most + 8  # 'other' of each scope, of pairs and of dependencies
    assert bounded.budget.used <= most


def test_within_the_budget_nothing_changes() -> None:
    """With room for all, the points are the same, and the sensor says how many series they are."""
    flows = [talk(1, server, 1000) for server in range(2, 30)]
    report, whole = Sensor(1000).report(flows), Sensor(10**9).report(flows)
    assert rows(report.table("vm_traffic")) == rows(whole.table("vm_traffic"))
    assert rows(report.table("dependency")) == rows(whole.table("dependency"))
    (own,) = rows(report.table("sensor"))
    pairs = [one for one in series_of(report) if one[0] in ("vm_traffic", "dependency", "event")]
    assert (own["series"], own["series_folded"], own["folded_bytes"]) == (len(pairs), 0, 0)


def test_the_heaviest_are_kept() -> None:
    """Of too many pairs those with most octets have points of their own; `other` has the rest of their tenant."""
    octets = {server: 1000 * server for server in range(2, 102)}
    report = Sensor(100).report([talk(1, server, size) for server, size in octets.items()])
    found = rows(report.table("vm_traffic"))
    named = {row["dst_vm"] for row in found if row["src_vm"] == "10.0.0.1"} - {"other"}
    heaviest = sorted(octets, key=lambda server: -octets[server])[: len(named)]
    assert 20 <= len(named) < 50
    assert named == {f"10.0.0.{server}" for server in heaviest}
    (other,) = [row for row in found if row["src_vm"] == "other"]
    folded = sum(size for server, size in octets.items() if server not in heaviest)
    assert (other["dst_vm"], other["service"], other["protocol"]) == ("other", "other", "other")
    assert (other["src_tenant"], other["dst_tenant"], other["scope"]) == ("default", "default", "east-west")
    assert (other["bytes"], other["flows"]) == (2 * folded, 100 - len(named))
    (own,) = rows(report.table("sensor"))
    assert own["folded_bytes"] == 2 * folded


def test_a_scan_does_not_cost_others_their_series(caplog: pytest.LogCaptureFixture) -> None:
    """A scan of thousands of ports is folded, said once; services that come back or are heavy still get in."""
    sensor = Sensor(400)
    usual = [talk(1, server, 5000) for server in range(2, 20)]
    sensor.report(usual)
    for number in range(1, 6):
        scan = [talk(99, 98, 60, port) for port in range(1000 * number, 1000 * number + 900)]
        report = sensor.report(usual + scan, DAY_START + number * 10 * SECOND)
    later = DAY_START + 100 * SECOND
    heavy = talk(50, 51, HEAVY_OCTETS)
    steady = talk(60, 61, 300)
    sensor.report([*usual, heavy, steady], later)
    report = sensor.report([*usual, heavy, steady], later + 10 * SECOND)
    named = {row["dst_vm"] for row in rows(report.table("vm_traffic"))}
    assert {f"10.0.0.{server}" for server in (*range(2, 20), 51, 61)} <= named
    assert sensor.budget.used < 400
    assert [one.levelno for one in caplog.records if "series of the day are used" in one.message] == [logging.WARNING]


def test_a_new_day_has_a_new_budget_and_knows_the_old_one() -> None:
    """What had a series yesterday is first in line today, before heavier newcomers."""
    sensor = Sensor(100)
    usual = [talk(1, server, 500) for server in range(2, 16)]
    sensor.report(usual)
    used = sensor.budget.used
    new = [talk(2, server, 5 * HEAVY_OCTETS) for server in range(20, 120)]
    report = sensor.report(new + usual, DAY_START + DAY_NS)
    named = {row["dst_vm"] for row in rows(report.table("vm_traffic")) if row["src_vm"] == "10.0.0.1"}
    assert named >= {f"10.0.0.{server}" for server in range(2, 16)}
    assert used < sensor.budget.used <= 100


def test_a_restart_does_not_begin_the_budget_anew() -> None:
    """What was used is kept over restarts, and the same series are known again."""
    first = Sensor(200)
    usual = [talk(1, server, 5000) for server in range(2, 40)]
    before = first.report(usual)
    again = SeriesBudget(200)
    again.restore(first.budget.to_json())
    second = Sensor(200, again)
    after = second.report(usual, DAY_START + 10 * SECOND)
    assert rows(after.table("vm_traffic")) == rows(before.table("vm_traffic"))
    assert second.budget.used == first.budget.used > 0


@pytest.mark.parametrize("kept", [{}, {"seed": "xx"}, {"seed": "00", "known": "", "before": "", "day": 0, "used": 0}])
def test_a_damaged_memory_is_refused(kept: dict[str, Any]) -> None:
    """What is no budget's is no budget's."""
    with pytest.raises((ValueError, KeyError)):
        SeriesBudget(10).restore(kept)


def test_the_summary_says_what_was_folded() -> None:
    """With a small budget: how much is in `other` stands beneath the table, and is said once while it happens."""
    done = vmsensor("read", DEMO, "--to", "table", "--series-budget", "20")
    assert done.returncode == OK
    beneath = " ".join(done.stdout.split())
    assert re.search(r"[\d.]+ MB are in other: light or new pairs beyond --series-budget", beneath)
    said = [line for line in done.stderr.splitlines() if "series of the day are used" in line]
    assert len(said) == 1
    whole = vmsensor("read", DEMO, "--to", "table")
    assert "series" not in whole.stdout + whole.stderr


def test_what_is_folded_twice_is_told_apart_by_scope() -> None:
    """With too little room even for a tenant's `other`, there is one for each scope, and the overflow is in its own."""
    flows = [talk(1, server, 500, vni=server) for server in range(2, 90)]
    flows += [
        record("198.51.100.1", f"10.0.0.{server}", vni=server, c2s_bytes=5, c2s_packets=1) for server in range(2, 90)
    ]
    flows.append(overflow(c2s_bytes=77, c2s_packets=1))
    found = rows(Sensor(10).report(flows).table("vm_traffic"))
    others = {row["scope"]: row["bytes"] for row in found if row["src_tenant"] == row["dst_tenant"] == "other"}
    assert set(others) >= {"east-west", "north-south"}
    assert sum(row["bytes"] for row in found) == 88 * 1000 + 88 * 5 + 77


@pytest.mark.proof
def test_a_day_of_ten_thousand_vms_and_a_scan_in_influxdb(tmp_path: Path) -> None:
    """In a real InfluxDB: fewer series than the budget, and each window's octets are those that the sensor saw."""
    most, site = 100_000, Site(10_000)
    reporter = Reporter("tap", "mirror0", Registry(PRIVATE_NETWORKS), Observer(DEFAULTS), budget=SeriesBudget(most))
    seen, scanned = {}, range(4, 8)
    with InfluxServer(tmp_path / "server") as server:
        server.start()
        database = server.create_database("day")
        spool = SpoolSink(tmp_path / "store")
        spool.open()
        for number in range(16):
            start_ns = DAY_START + number * 5400 * SECOND
            snapshot = site.window(start_ns, 3000 if number in scanned else 0, 10)
            spool.write(reporter.report(snapshot))
            seen[start_ns] = snapshot.counters.ip_bytes
        spool.close()
        push(tmp_path / "store", InfluxSettings(server.url, database, timeout=60))
        counts = server.query("SHOW SERIES EXACT CARDINALITY", database, 120)
        by_window = "SELECT SUM(bytes) AS bytes FROM vm_traffic WHERE time >= 0 GROUP BY time(5400s)"
        written = server.query(by_window, database, 120)
    cardinality = sum(int(str(row["count"])) for row in counts)
    in_database = {row["time"]: row["bytes"] for row in written if row["bytes"] is not None}
    print(f"{cardinality} series in InfluxDB, of {most}")
    assert in_database == seen
    assert 50_000 < cardinality <= most
