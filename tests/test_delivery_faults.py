"""Whatever the server, the network or the disk does: each window is in the database once, or counted as lost."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate
from pathlib import Path

import numpy as np
import pytest

from sensor.errors import DeliveryError, OutputError
from sensor.sinks.blocks import read_blocks
from sensor.sinks.delivery import Sent, push
from sensor.sinks.influxsink import InfluxSink
from sensor.sinks.refusals import seconds_to_wait
from sensor.sinks.servers import InfluxSettings
from sensor.sinks.spool import SpoolLimits, SpoolSink
from sensor.window import Column, Labels, Report, Table
from tests.faults import Answer, faulty
from tests.needs import missing, need_root, need_tool
from tests.reports import SECOND, keep, make_report
from tests.servers import InfluxServer, VictoriaServer
from tests.test_influx import expected_totals, influx_sink, totals, wait_until


@pytest.fixture
def own_influxdb(tmp_path: Path) -> Iterator[InfluxServer]:
    """A running InfluxDB, with database ``traffic``, that the test may kill."""
    with InfluxServer(tmp_path / "server") as server:
        server.start()
        server.create_database("traffic")
        yield server


@pytest.mark.parametrize(
    "answers",
    [
        [(500, {}, b'{"error":"timeout"}')] * 3,
        [(503, {"Retry-After": "0"}, b"")] * 2,
        [(429, {"Retry-After": "1"}, b"slow down")],
        [(401, {}, b'{"error":"authorization failed"}')] * 2,
        [(413, {}, b'{"error":"Request Entity Too Large"}')],
        [(500, {}, b"<html>" + b"x" * 10_000), (401, {}, b""), (429, {}, b""), (413, {}, b"")],
    ],
    ids=["500", "503", "429", "401", "413", "all of them"],
)
def test_refusals_cost_nothing(influxdb: InfluxServer, tmp_path: Path, answers: list[Answer]) -> None:
    """After any of these answers the sink comes back, and the database has each window once."""
    database = influxdb.create_database(f"refusals-{time.monotonic_ns()}")
    with faulty(influxdb.url) as faults:
        faults.answers.extend(answers)
        sink = influx_sink(tmp_path, InfluxSettings(faults.url, database))
        sink.open()
        for window in range(6):
            sink.write(make_report(window, 40))
        wait_until(lambda: sink.pending_windows == 0)
        sink.close()
    assert totals(influxdb, database) == expected_totals(range(6), 40)


@pytest.mark.parametrize("status", [500, 503, 429, 401])
def test_refusals_of_the_newer_interface_cost_nothing(
    victoriametrics: VictoriaServer, tmp_path: Path, status: int
) -> None:
    """The same by way of influxdb-client, as InfluxDB 2 is written: nothing is retried behind the sink's back."""
    with faulty(victoriametrics.url) as faults:
        faults.answers.extend([(status, {"Retry-After": "0"}, b'{"message":"not now"}')] * 2)
        sink = influx_sink(tmp_path, InfluxSettings(faults.url, "any"))
        sink.open()
        name = f"tap-{status}"
        reports = [make_report(window) for window in range(3)]
        for report in reports:
            report.tables[0].tags["sensor"] = Labels.constant(name, 3)
            sink.write(report)
        wait_until(lambda: sink.pending_windows == 0)
        sink.close()
        assert (faults.writes, sink.health()["delivery_failures"]) == (3 + 2, 2)
    exported = victoriametrics.export(f'vm_traffic_bytes{{sensor="{name}"}}')
    octets = sum(value for line in exported for value in line["values"])  # type: ignore[attr-defined]
    assert octets == expected_totals(range(3))[1]


def test_the_server_says_when_to_come_back(influxdb: InfluxServer, tmp_path: Path) -> None:
    """Retry-After is waited for, however impatient the sink is; what it means, in seconds or as a date."""
    database = influxdb.create_database("retry-after")
    with faulty(influxdb.url) as faults:
        faults.answers.append((429, {"Retry-After": "2"}, b""))
        sink = influx_sink(tmp_path, InfluxSettings(faults.url, database))
        sink.open()
        began = time.monotonic()
        sink.write(make_report(0))
        wait_until(lambda: sink.pending_windows == 0)
        took = time.monotonic() - began
        sink.close()
        assert (faults.writes, sink.health()["delivery_failures"]) == (2, 1)
    assert 2 <= took < 5
    assert [seconds_to_wait(text) for text in ("", "7", "soon", "-1", formatdate(0))] == [0, 7, 0, 0, 0]
    assert 50 < seconds_to_wait(formatdate(time.time() + 60, usegmt=True)) <= 60


def test_a_server_of_small_requests_gets_small_requests(influxdb: InfluxServer, tmp_path: Path) -> None:
    """413 halves the requests until they are taken, and no later window begins anew; not a line is missing."""
    database = influxdb.create_database("small")
    keep(tmp_path, [make_report(window, 1000) for window in range(3)])
    with faulty(influxdb.url) as faults:
        faults.largest = 4000
        assert push(tmp_path, InfluxSettings(faults.url, database)) == Sent(windows=3, lines=3000)
        refused = 3000 / 125 + 3
        assert faults.writes <= 2 * refused
    assert totals(influxdb, database) == expected_totals(range(3), 1000)


def test_a_line_too_large_for_the_server_is_kept_aside(influxdb: InfluxServer, tmp_path: Path) -> None:
    """What is refused even alone goes to rejected.lp, and everything else arrives."""
    database = influxdb.create_database("huge")
    chance = np.random.default_rng(3)
    huge = "".join(map(chr, chance.integers(65, 90, 9000)))
    report = make_report(0)
    event = Table("event", 1, {"kind": Labels.of(["x"])}, {"detail": Column(np.array([huge], object))})
    keep(tmp_path, [Report(report.start_ns, report.end_ns, report.time_ns, [*report.tables, event])])
    with faulty(influxdb.url) as faults:
        faults.largest = 4000
        assert push(tmp_path, InfluxSettings(faults.url, database)) == Sent(windows=1, lines=4, rejected=1)
    assert totals(influxdb, database) == expected_totals(range(1))
    kept = (tmp_path / "rejected.lp").read_text().splitlines()
    assert len(kept) == 2
    assert kept[0].startswith(f'# vmsensor-rejected server="{faults.url} huge" lines=1 reason="Request Entity')
    assert huge in kept[1]


def mixed_report(window: int, bad: set[int], rows: int = 60) -> Report:
    """A window of which the rows in ``bad`` have bytes as a float."""
    report = make_report(window, rows)
    good, wrong = (np.array([(row in bad) == is_bad for row in range(rows)]) for is_bad in (False, True))
    values = report.tables[0].fields["bytes"].values
    tables = [
        Table("vm_traffic", int(rows_of.sum()), {name: tag.take(np.flatnonzero(rows_of)) for name, tag in
              report.tables[0].tags.items()}, {"bytes": Column(values[rows_of].astype(kind))})
        for rows_of, kind in ((good, np.int64), (wrong, np.float64))
    ]  # fmt: skip
    return Report(report.start_ns, report.end_ns, report.time_ns, tables)


def test_bad_lines_are_isolated_with_their_reason(influxdb: InfluxServer, tmp_path: Path) -> None:
    """Of lines that a real server refuses in part, the bad ones are in rejected.lp, the others in the database."""
    database = influxdb.create_database("partial")
    keep(tmp_path, [make_report(0), mixed_report(1, {5, 6, 40}), make_report(2)])
    sent = push(tmp_path, InfluxSettings(influxdb.url, database))
    assert (sent.windows, sent.rejected) == (3, 3)
    assert push(tmp_path, InfluxSettings(influxdb.url, database)) == Sent()
    count, octets = expected_totals(range(0, 3, 2))
    good = [row for row in range(60) if row not in (5, 6, 40)]
    assert totals(influxdb, database) == (count + len(good), octets + sum(1000 + row for row in good))
    text = (tmp_path / "rejected.lp").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert [line.partition("src_vm=")[2].partition(" ")[0] for line in lines] == ["web-5", "web-6", "web-40"]
    assert "field type conflict" in text


def test_a_window_that_is_refused_whole_costs_one_request(influxdb: InfluxServer, tmp_path: Path) -> None:
    """A server that says it has dropped every line is not asked again for each of them."""
    database = influxdb.create_database("old")
    influxdb.query(f'ALTER RETENTION POLICY autogen ON "{database}" DURATION 1h SHARD DURATION 1h')
    keep(tmp_path, [make_report(0, 500)])
    with faulty(influxdb.url) as faults:
        assert push(tmp_path, InfluxSettings(faults.url, database)) == Sent(windows=1, lines=500, rejected=500)
        assert faults.writes == 1
    assert "beyond retention policy" in (tmp_path / "rejected.lp").read_text()


def test_looking_for_bad_lines_has_an_end(influxdb: InfluxServer, tmp_path: Path) -> None:
    """A server that complains of everything without saying what costs a bounded number of requests, and no line."""
    database = influxdb.create_database("endless")
    keep(tmp_path, [make_report(0, 3000)])
    with faulty(influxdb.url) as faults:
        faults.answers.extend([(400, {}, b'{"error":"partial write: something is wrong"}')] * 10_000)
        assert push(tmp_path, InfluxSettings(faults.url, database)).rejected == 3000
        assert faults.writes < 1100
    assert sum(not line.startswith("#") for line in (tmp_path / "rejected.lp").read_text().splitlines()) == 3000


def test_another_bad_request_is_no_reason_to_give_lines_up(influxdb: InfluxServer, tmp_path: Path) -> None:
    """A 400 that is not about lines (a proxy's, a wrong setting's) leaves the window in the store."""
    database = influxdb.create_database("bad-request")
    keep(tmp_path, [make_report(0)])
    with faulty(influxdb.url) as faults:
        faults.answers.append((400, {}, b"<html>Bad Request</html>"))
        with pytest.raises(DeliveryError, match=r"does not accept the data \(400: .*1 window is kept"):
            push(tmp_path, InfluxSettings(faults.url, database))
        assert push(tmp_path, InfluxSettings(faults.url, database)) == Sent(windows=1, lines=3)
    assert not (tmp_path / "rejected.lp").exists()


def test_an_answer_that_gets_lost_changes_nothing(influxdb: InfluxServer, tmp_path: Path) -> None:
    """The server has taken a batch and nobody knows: it is sent again, and is there once."""
    database = influxdb.create_database("cut")
    with faulty(influxdb.url) as faults:
        faults.cut = 3
        sink = influx_sink(tmp_path, InfluxSettings(faults.url, database))
        sink.open()
        for window in range(5):
            sink.write(make_report(window, 200))
        wait_until(lambda: sink.pending_windows == 0)
        sink.close()
        assert faults.writes == 5 + 3
    assert totals(influxdb, database) == expected_totals(range(5), 200)


def test_the_server_is_killed_in_the_middle_of_a_write(own_influxdb: InfluxServer, tmp_path: Path) -> None:
    """SIGKILL between taking a batch and answering, three times under load: in the end each window is there once."""
    server, windows = own_influxdb, 30
    with faulty(server.url) as faults:
        sink = influx_sink(tmp_path / "store", InfluxSettings(faults.url, "traffic"))
        sink.open()
        for window in range(windows):
            if window % 10 == 5:
                faults.before_answer = server.kill
                sink.write(make_report(window, 500))
                wait_until(lambda: not server.runs)
                faults.before_answer = lambda: None
                sink.write(make_report(window + 1, 500))
                server.start()
            elif window % 10 != 6:
                sink.write(make_report(window, 500))
        wait_until(lambda: sink.pending_windows == 0)
        sink.close()
    assert totals(server, "traffic") == expected_totals(range(windows), 500)


def test_a_stopped_server_comes_back_under_load(own_influxdb: InfluxServer, tmp_path: Path) -> None:
    """While the server is down, and while it hangs, windows go on; depth and lag say so, and then it catches up."""
    sink = influx_sink(tmp_path / "store", InfluxSettings(own_influxdb.url, "traffic", timeout=0.5))
    sink.open()
    stops = {10: own_influxdb.stop, 20: own_influxdb.start, 30: own_influxdb.freeze, 40: own_influxdb.thaw}
    depths = []
    for window in range(50):
        stops.get(window, lambda: None)()
        sink.write(make_report(window, 200))
        depths.append((sink.health()["spool_windows"], sink.health()["spool_lag_s"]))
        time.sleep(0.02)
    assert depths[19][0] >= 9
    assert depths[19][1] >= 80
    wait_until(lambda: sink.pending_windows == 0)
    assert (sink.health()["spool_windows"], sink.health()["spool_lag_s"]) == (0, 0)
    assert sink.health()["delivery_failures"] > 0
    sink.close()
    assert totals(own_influxdb, "traffic") == expected_totals(range(50), 200)


def test_the_store_keeps_to_its_size(influxdb: InfluxServer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With no server, the oldest windows go when the store is full: counted, said once, and never more than it may."""
    limit = 64 * 1024
    sink = InfluxSink(SpoolSink(tmp_path, SpoolLimits(limit)), InfluxSettings("http://127.0.0.1:9", "x"), grace=0.1)
    sink.open()
    for window in range(200):
        sink.write(make_report(window, 10))
        assert sum(path.stat().st_size for path in tmp_path.glob("0*.lp")) <= limit
    kept = [block.start_ns for block in read_blocks(tmp_path)]
    health = sink.health()
    assert kept == [make_report(window).start_ns for window in range(200 - len(kept), 200)]
    assert len(kept) > 20
    assert (health["spool_windows"], health["spool_lost_windows"]) == (len(kept), 200 - len(kept))
    assert health["spool_bytes"] <= limit
    assert caplog.text.count("the oldest windows are removed from now on") == 1
    with pytest.raises(DeliveryError, match=f"{len(kept)} windows are kept"):
        sink.close()
    database = influxdb.create_database("bounded")
    assert push(tmp_path, InfluxSettings(influxdb.url, database)).windows == len(kept)


def test_the_store_keeps_to_its_age(tmp_path: Path) -> None:
    """Segments whose newest window is older than the limit go; age counts from the window that is written."""
    sink = SpoolSink(tmp_path, SpoolLimits(most_age_ns=100 * SECOND, segment_bytes=1))
    sink.open()
    for window in range(30):
        sink.write(make_report(window))
    sink.close()
    assert [block.start_ns for block in read_blocks(tmp_path)] == [make_report(w).start_ns for w in range(19, 30)]
    again = SpoolSink(tmp_path, SpoolLimits(most_age_ns=50 * SECOND, segment_bytes=1))
    again.open()
    again.write(make_report(30))
    again.close()
    assert [block.start_ns for block in read_blocks(tmp_path)] == [make_report(w).start_ns for w in range(25, 31)]


@contextmanager
def small_disk(directory: Path, octets: int) -> Iterator[Path]:
    """A file system of its own, of so many octets."""
    need_root()
    directory.mkdir()
    command = [need_tool("mount"), "-t", "tmpfs", "-o", f"size={octets}", "tmpfs", str(directory)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        missing("cannot mount a small tmpfs here")
    try:
        yield directory
    finally:
        subprocess.run([need_tool("umount"), "--lazy", str(directory)], check=True)  # a test that fails has it open


def test_a_full_disk_costs_the_oldest_windows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """On a real full disk the sensor goes on with the newest windows; what had to go is counted and said once."""
    with small_disk(tmp_path / "disk", 256 * 1024) as disk:
        sink = InfluxSink(
            SpoolSink(disk, SpoolLimits(segment_bytes=8192)), InfluxSettings("http://127.0.0.1:9", "x"), grace=0.1
        )
        sink.open()
        for window in range(300):
            sink.write(make_report(window, 20))
        blocks = list(read_blocks(disk))
        kept = [block.start_ns for block in blocks if block.damage is None]
        assert kept == [make_report(window).start_ns for window in range(300 - len(kept), 300)]
        assert len(kept) > 20
        assert all(block.damage is None for block in blocks)
        assert sink.health()["spool_lost_windows"] == 300 - len(kept)
        assert caplog.text.count("removed from now on: the disk is full") == 1
        (disk / "learned").write_bytes(bytes(8192))  # a segment's room is left to others
        with pytest.raises(DeliveryError, match="windows are kept"):
            sink.close()


def test_a_disk_that_does_not_say_what_is_free_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After it was full once: leaving room to others costs no window."""
    sink = SpoolSink(tmp_path / "store", SpoolLimits(segment_bytes=1))
    sink.open()
    sink._was_disk_full = True
    monkeypatch.setattr(shutil, "disk_usage", gone)
    for window in range(3):
        sink.write(make_report(window))
    sink.close()
    assert [block.start_ns for block in read_blocks(tmp_path / "store")] == [make_report(w).start_ns for w in range(3)]


def gone(place: Path) -> None:
    """What a directory that was removed has to say."""
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def fill(path: Path) -> None:
    """Write to a file until the disk is full."""
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(1000)):
            pass


def test_a_disk_that_others_have_filled_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where even the oldest windows make no room, new ones are lost, counted and said once, until there is room."""
    with small_disk(tmp_path / "disk", 64 * 1024) as disk:
        sink = SpoolSink(disk / "store")
        sink.open()
        sink.write(make_report(0))
        filling = disk / "other"
        fill(filling)
        for window in range(1, 4):
            sink.write(make_report(window, 50))
        filling.unlink()
        sink.write(make_report(4))
        assert [block.start_ns for block in read_blocks(disk / "store")] == [make_report(w).start_ns for w in (0, 4)]
        assert caplog.text.count("windows are lost") == 1
        assert sink.health()["spool_lost_windows"] == 3
        with pytest.raises(OutputError, match="3 windows are lost: the disk is full"):
            sink.close()


def test_a_restart_within_a_window_overwrites_nothing(influxdb: InfluxServer, tmp_path: Path) -> None:
    """Three live runs that each saw a part of the same window: the database has all parts."""
    database = influxdb.create_database("restart")
    for _ in range(3):
        sink = SpoolSink(tmp_path, live=True)
        sink.open()
        sink.write(make_report(0, partial=True))
        sink.close()
    push(tmp_path, InfluxSettings(influxdb.url, database))
    count, octets = expected_totals(range(1))
    assert totals(influxdb, database) == (3 * count, 3 * octets)


@pytest.mark.parametrize("sync", ["window", "segment", "never"])
def test_every_way_of_syncing_keeps_every_window(tmp_path: Path, sync: str) -> None:
    """What differs is what a power cut may cost; without one, nothing does."""
    sink = SpoolSink(tmp_path, SpoolLimits(sync=sync, segment_bytes=1000))  # type: ignore[arg-type]
    sink.open()
    for window in range(10):
        sink.write(make_report(window))
    sink.close()
    assert [block.start_ns for block in read_blocks(tmp_path)] == [make_report(w).start_ns for w in range(10)]
