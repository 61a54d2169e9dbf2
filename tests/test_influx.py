"""Delivery to real servers: what arrives equals what was sent, exactly once, whatever the server does meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from sensor.errors import DeliveryError, InputError, OutputError
from sensor.sinks.batches import BATCH_LINES
from sensor.sinks.delivery import Sent, push
from sensor.sinks.influxsink import InfluxSink
from sensor.sinks.servers import InfluxSettings, ServerKind, detect
from sensor.sinks.spool import SpoolSink
from sensor.window import Column, Labels, Report, Table
from tests.reports import keep, make_report
from tests.servers import InfluxServer, VictoriaServer


def influx_sink(store: Path, settings: InfluxSettings, grace: float = 5.0) -> InfluxSink:
    """The sink under test, impatient."""
    return InfluxSink(SpoolSink(store), settings, grace=grace, first_delay=0.02, longest_delay=0.1)


def wait_until(condition: Callable[[], bool]) -> None:
    """Give a background thread ten seconds."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in ten seconds"
        time.sleep(0.01)


def totals(server: InfluxServer, database: str) -> tuple[object, object]:
    """How many points the database holds, and the sum of their bytes."""
    rows = server.query("SELECT COUNT(bytes) AS count, SUM(bytes) AS sum FROM vm_traffic", database)
    return (rows[0]["count"], rows[0]["sum"]) if rows else (0, None)


def expected_totals(windows: range, rows: int = 3) -> tuple[int, int]:
    """What ``totals`` gives when each window has arrived once."""
    return rows * len(windows), sum(1000 * window + row for window in windows for row in range(rows))


@pytest.fixture
def lone_influxdb(tmp_path: Path) -> Iterator[InfluxServer]:
    """An InfluxDB that the test itself starts, stops and freezes."""
    with InfluxServer(tmp_path / "server") as server:
        yield server


def test_influxdb_holds_what_was_written(influxdb: InfluxServer, tmp_path: Path) -> None:
    """Points, tags, field types and timestamps in InfluxDB 1.6 are those of the reports."""
    database = influxdb.create_database("written")
    settings = InfluxSettings(influxdb.url, database)
    assert detect(settings).kind is ServerKind.INFLUXDB_1
    sink = influx_sink(tmp_path, settings)
    sink.open()
    for window in range(4):
        sink.write(make_report(window))
    sink.close()
    assert sink.pending_windows == 0
    assert totals(influxdb, database) == expected_totals(range(4))
    rows = influxdb.query("SELECT * FROM vm_traffic WHERE src_vm = 'web-1'", database)
    assert rows == [
        {
            "time": make_report(window).time_ns,
            "bytes": 1000 * window + 1,
            "detail": 'say "1"',
            "dst_vm": "db,1=a",
            "new": False,
            "rtt_p50_us": None,
            "sensor": "tap 1",
            "src_vm": "web-1",
            "throughput_bps": 0.5,
        }
        for window in range(4)
    ]
    types = {row["fieldKey"]: row["fieldType"] for row in influxdb.query("SHOW FIELD KEYS", database)}
    assert types == {
        "bytes": "integer",
        "detail": "string",
        "new": "boolean",
        "rtt_p50_us": "float",
        "throughput_bps": "float",
    }


def test_a_retention_policy_can_be_named(influxdb: InfluxServer, tmp_path: Path) -> None:
    """database/policy writes to that policy, as InfluxDB 1.8 and 2 read it."""
    database = influxdb.create_database("policies")
    influxdb.query(f'CREATE RETENTION POLICY "long" ON "{database}" DURATION INF REPLICATION 1')
    keep(tmp_path, [make_report(0)])
    push(tmp_path, InfluxSettings(influxdb.url, f"{database}/long"))
    assert totals(influxdb, database) == (0, None)
    assert influxdb.query("SELECT COUNT(bytes) FROM long.vm_traffic", database)[0]["count"] == 3


def test_victoriametrics_holds_what_was_written(victoriametrics: VictoriaServer, tmp_path: Path) -> None:
    """Through influxdb-client: every number, label and timestamp is in VictoriaMetrics, to the millisecond it keeps."""
    settings = InfluxSettings(victoriametrics.url, "any")
    assert detect(settings).kind is ServerKind.VICTORIAMETRICS
    sink = influx_sink(tmp_path, settings)
    sink.open()
    for window in range(4):
        sink.write(make_report(window))
    sink.close()
    mine = '{sensor="tap 1"}'  # other tests write there too
    series = {line["metric"]["src_vm"]: line for line in victoriametrics.export(f"vm_traffic_bytes{mine}")}  # type: ignore[index]
    assert sorted(series) == ["web-0", "web-1", "web-2"]
    for row in range(3):
        found = series[f"web-{row}"]
        assert found["values"] == [1000 * window + row for window in range(4)]
        assert found["timestamps"] == [make_report(window).time_ns // 1_000_000 for window in range(4)]
        assert found["metric"] == {
            "__name__": "vm_traffic_bytes",
            "sensor": "tap 1",
            "src_vm": f"web-{row}",
            "dst_vm": "db,1=a",
        }
    rtt = victoriametrics.export(f"vm_traffic_rtt_p50_us{mine}")
    assert sorted(sum(line["values"]) for line in rtt) == [4 * 0.25, 4 * 2.25]  # type: ignore[arg-type]


def test_a_large_window_arrives_in_batches(influxdb: InfluxServer, tmp_path: Path) -> None:
    """More points than one request takes are all there, each once."""
    database = influxdb.create_database("large")
    rows = 2 * BATCH_LINES + 7
    keep(tmp_path, [make_report(0, rows)])
    assert push(tmp_path, InfluxSettings(influxdb.url, database)) == Sent(windows=1, lines=rows)
    assert totals(influxdb, database) == expected_totals(range(1), rows)


def test_windows_stay_until_push_delivers_them_once(lone_influxdb: InfluxServer, tmp_path: Path) -> None:
    """With the server down nothing is lost and the error says where it is; push sends it, and a second time nothing."""
    store, settings = tmp_path / "my store", InfluxSettings(lone_influxdb.url, "traffic")
    sink = influx_sink(store, settings)
    sink.open()
    for window in range(5):
        sink.write(make_report(window))
    with pytest.raises(DeliveryError, match=r"cannot be reached \(Connection refused\)") as caught:
        sink.close()
    assert f"5 windows are kept in {store}, to send later with: vmsensor push '{store}'" in str(caught.value)
    assert "\n" not in str(caught.value)

    with pytest.raises(DeliveryError, match="5 windows are kept"):
        push(store, settings)
    lone_influxdb.start()
    with pytest.raises(DeliveryError, match="has no database traffic; make it with: influx -execute 'CREATE DATABASE"):
        push(store, settings)
    lone_influxdb.create_database("traffic")
    seen: list[int] = []
    assert push(store, settings, lambda block: seen.append(block.lines)) == Sent(windows=5, lines=15)
    assert seen == [3] * 5
    assert push(store, settings) == Sent()
    assert totals(lone_influxdb, "traffic") == expected_totals(range(5))


def test_the_sink_catches_up_when_the_server_comes(
    lone_influxdb: InfluxServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What an earlier run left and what came while the server was down is delivered in the background, said once."""
    store, settings = tmp_path / "store", InfluxSettings(lone_influxdb.url, "traffic")
    keep(store, [make_report(window) for window in range(3)])
    sink = influx_sink(store, settings)
    sink.open()
    sink.write(make_report(3))
    assert sink.pending_windows == 4
    wait_until(lambda: "cannot be reached" in caplog.text)
    lone_influxdb.start()
    lone_influxdb.create_database("traffic")
    wait_until(lambda: sink.pending_windows == 0)
    sink.write(make_report(4))
    wait_until(lambda: sink.pending_windows == 0)
    lone_influxdb.stop()
    sink.write(make_report(5))
    lone_influxdb.start()
    sink.close()
    assert totals(lone_influxdb, "traffic") == expected_totals(range(6))
    assert caplog.text.count("takes data again") == caplog.text.count("windows are kept in") > 0


def test_a_hanging_server_holds_nothing_up(lone_influxdb: InfluxServer, tmp_path: Path) -> None:
    """With the server stopped in its tracks, writing goes on at once, closing is bounded, and no window is lost."""
    store, settings = tmp_path / "store", InfluxSettings(lone_influxdb.url, "traffic", timeout=30.0)
    lone_influxdb.start()
    lone_influxdb.create_database("traffic")
    sink = influx_sink(store, settings, grace=0.5)
    sink.open()
    sink.write(make_report(0))
    wait_until(lambda: sink.pending_windows == 0)
    lone_influxdb.freeze()
    began = time.monotonic()
    for window in range(1, 20):
        sink.write(make_report(window))
    written = time.monotonic()
    with pytest.raises(DeliveryError, match="19 windows are kept"):
        sink.close()
    assert written - began < 10
    assert time.monotonic() - written < 10
    with pytest.raises(DeliveryError, match=r"no answer within 0\.3 s"):
        push(store, InfluxSettings(lone_influxdb.url, "traffic", timeout=0.3))
    lone_influxdb.thaw()
    assert push(store, settings).windows == 19
    assert totals(lone_influxdb, "traffic") == expected_totals(range(20))


def test_refused_data_is_set_aside(influxdb: InfluxServer, tmp_path: Path) -> None:
    """A field whose type the database has otherwise is set aside with the reason; other servers may take it."""
    database, other = influxdb.create_database("conflict"), influxdb.create_database("other")
    start = make_report(0).start_ns
    floats = Table("vm_traffic", 1, {"src_vm": Labels.of(["web-0"])}, {"bytes": Column(np.array([0.5]))})
    keep(tmp_path / "floats", [Report(start, start + 10, start, [floats])])
    push(tmp_path / "floats", InfluxSettings(influxdb.url, database))
    keep(tmp_path / "store", [make_report(0)])
    assert push(tmp_path / "store", InfluxSettings(influxdb.url, database)) == Sent(windows=1, lines=3, rejected=3)
    assert "field type conflict" in (tmp_path / "store" / "rejected.lp").read_text()
    assert push(tmp_path / "store", InfluxSettings(influxdb.url, other)) == Sent(windows=1, lines=3)


def test_push_goes_on_behind_damage(influxdb: InfluxServer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A torn window is counted and named; all others arrive."""
    database = influxdb.create_database("damage")
    keep(tmp_path, [make_report(0), make_report(1)])
    segment = tmp_path / "00000001.lp"
    segment.write_bytes(segment.read_bytes()[:-5])
    keep(tmp_path, [make_report(2)])
    caplog.clear()
    assert push(tmp_path, InfluxSettings(influxdb.url, database)) == Sent(windows=2, lines=6, damaged=1)
    assert str(segment) in caplog.text
    assert totals(influxdb, database) == (6, 0 + 1 + 2 + 2000 + 2001 + 2002)


def test_push_leaves_a_running_sensor_alone(influxdb: InfluxServer, tmp_path: Path) -> None:
    """The store of a running sensor is refused; what is no store is an input error and stays untouched."""
    settings = InfluxSettings(influxdb.url, influxdb.create_database("busy"))
    sink = SpoolSink(tmp_path / "store")
    sink.open()
    with pytest.raises(OutputError, match="in use by another vmsensor"):
        push(tmp_path / "store", settings)
    sink.close()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="not a vmsensor store"):
        push(tmp_path / "empty", settings)
    assert list((tmp_path / "empty").iterdir()) == []
