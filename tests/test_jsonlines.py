"""JSON lines: every point as one object, and clear errors when nobody or nothing takes them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sensor.errors import OutputError
from sensor.sinks.jsonlines import JsonLinesSink
from tests.needs import ROOT
from tests.reports import make_report


def test_each_point_is_one_object(tmp_path: Path) -> None:
    """Tags without value are left out, what was not measured is null, and numbers keep their types."""
    path = tmp_path / "points.json"
    sink = JsonLinesSink(path)
    sink.open()
    sink.write(make_report(0, rows=2))
    sink.write(make_report(1, rows=1, partial=True))
    sink.close()
    points = [json.loads(line) for line in path.read_text().splitlines()]
    start = make_report(0).start_ns
    assert points[1] == {
        "measurement": "vm_traffic",
        "time_ns": start,
        "start_ns": start,
        "end_ns": start + 10_000_000_000,
        "partial": False,
        "tags": {"sensor": "tap 1", "src_vm": "web-1", "dst_vm": "db,1=a"},
        "fields": {
            "bytes": 1,
            "throughput_bps": 0.5,
            "rtt_p50_us": None,
            "loss_ratio": None,
            "new": False,
            "detail": 'say "1"',
        },
    }
    assert [type(value) for value in points[0]["fields"].values()] == [int, float, float, type(None), bool, str]
    assert [(point["fields"]["bytes"], point["partial"]) for point in points] == [(0, False), (1, False), (1000, True)]


def test_a_window_can_be_read_as_soon_as_it_is_written(tmp_path: Path) -> None:
    """Nothing waits in a buffer for the next window."""
    path = tmp_path / "points.json"
    sink = JsonLinesSink(path)
    sink.open()
    sink.write(make_report(0, rows=4))
    lines = len(path.read_text().splitlines())
    sink.close()
    assert lines == 4


def test_a_dash_is_standard_output(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Standard output gets the points and stays open for others."""
    sink = JsonLinesSink("-")
    sink.open()
    sink.write(make_report(3, rows=1))
    sink.close()
    print("still open")
    lines = capfdbinary.readouterr().out.splitlines()
    assert json.loads(lines[0])["fields"]["bytes"] == 3000
    assert lines[1] == b"still open"


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    """Opening fails at once, in one line."""
    with pytest.raises(OutputError, match="No such file or directory") as caught:
        JsonLinesSink(tmp_path / "missing" / "points.json").open()
    assert str(tmp_path / "missing" / "points.json") in str(caught.value)


def test_a_full_disk_is_one_clear_error() -> None:
    """What does not fit is refused with the reason; closing afterwards is quiet, later windows are refused."""
    sink = JsonLinesSink("/dev/full")
    sink.open()
    with pytest.raises(OutputError, match="/dev/full: cannot write: No space left on device"):
        sink.write(make_report(0))
    with pytest.raises(OutputError, match="/dev/full"):
        sink.write(make_report(1))
    sink.close()


def test_a_reader_that_ends_is_one_clear_error() -> None:
    """Behind `| head` the sink says what happened, and the interpreter adds no complaint of its own when it exits."""
    program = (
        "from sensor.errors import OutputError\n"
        "from sensor.sinks.jsonlines import JsonLinesSink\n"
        "from tests.reports import make_report\n"
        "sink = JsonLinesSink('-')\n"
        "sink.open()\n"
        "try:\n"
        "    for window in range(1000):\n"
        "        sink.write(make_report(window, rows=100))\n"
        "except OutputError as error:\n"
        "    sink.close()\n"
        "    raise SystemExit(str(error))\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        message = process.stderr.read()
    assert message == "standard output: its reader has ended; the rest is not written\n"
    assert process.returncode == 1
