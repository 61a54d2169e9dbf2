"""What was read is shown again and pushed unchanged: the store is as good as the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pcaps.generator.files import pcap
from sensor.metrics import MEASUREMENTS
from sensor.show import summarise
from tests.command import DEMO, Done, vmsensor
from tests.needs import PCAPS
from tests.servers import InfluxServer
from tests.streams import SECOND, START, udp_frame


def table_of(done: Done) -> list[str]:
    """The summary's lines, without the one that says where the results are."""
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if "vmsensor show" not in line and "vmsensor push" not in line]


def read_into(store: Path, *files: object) -> Done:
    """Read files into a store, and print the table."""
    return vmsensor("read", *files, "--store", store)


@pytest.mark.parametrize("capture", ["demo", "icmp", "one-sided", "nested"])
def test_show_prints_what_read_printed(capture: str, tmp_path: Path) -> None:
    """The same table, to the letter."""
    store = tmp_path / "store"
    read = read_into(store, PCAPS / f"{capture}.pcap")
    assert table_of(vmsensor("show", store)) == table_of(read)


def test_show_of_a_capture_without_packets(tmp_path: Path) -> None:
    """No window, no traffic, no error."""
    store = tmp_path / "store"
    assert table_of(read_into(store, PCAPS / "empty.pcap")) == table_of(vmsensor("show", store))


def test_top(tmp_path: Path) -> None:
    """--top lists so many pairs and says how many it leaves out."""
    read_into(tmp_path / "store", DEMO)
    some, everything = (
        [line.split() for line in vmsensor("show", tmp_path / "store", "--top", count).stdout.splitlines()]
        for count in ("3", "1000")
    )
    assert some[2:5] == everything[2:5]
    assert some[5][:6] == ["29", "more", "pairs", "are", "not", "shown."]
    assert not any("more" in line for line in everything)


@pytest.mark.parametrize("count", ["-1", "0", "x"])
def test_top_of_nothing(count: str, tmp_path: Path) -> None:
    """A count of pairs is above zero."""
    read_into(tmp_path / "store", DEMO)
    assert vmsensor("show", tmp_path / "store", "--top", count).returncode == 2


def test_reading_twice_does_not_double(tmp_path: Path) -> None:
    """A file read again into the same store overwrites itself, as it would in InfluxDB."""
    store = tmp_path / "store"
    first = read_into(store, DEMO)
    read_into(store, DEMO)
    assert table_of(vmsensor("show", store)) == table_of(first)
    summary, damaged = summarise(store)
    assert (summary.received, summary.windows, damaged) == (5373, 6, [])


def test_two_files_add_up(tmp_path: Path) -> None:
    """Different times in one store are added, whether they were read at once or one after the other."""
    frames = [
        (START + i * SECOND + part * 3600 * SECOND, udp_frame("10.0.0.1", 40000, "10.0.0.2", 53, ident=i))
        for part in range(2) for i in range(30)
    ]  # fmt: skip
    (tmp_path / "a.pcap").write_bytes(pcap(frames[:30]))
    (tmp_path / "b.pcap").write_bytes(pcap(frames[30:]))
    at_once = read_into(tmp_path / "once", tmp_path / "a.pcap", tmp_path / "b.pcap")
    for name in ("a.pcap", "b.pcap"):
        read_into(tmp_path / "twice", tmp_path / name)
    assert table_of(vmsensor("show", tmp_path / "twice")) == table_of(at_once)
    assert summarise(tmp_path / "twice")[0].received == 60


def test_overlapping_files(tmp_path: Path) -> None:
    """Captures of the same time from several taps, read at once: every packet is in the store's sums."""
    for number in range(3):
        frames = [
            (START + (2 * number + i) * SECOND // 2, udp_frame("10.0.0.1", 1000 + number, "10.0.0.2", 53, ident=i))
            for i in range(200 + 200 * number)
        ]
        (tmp_path / f"{number}.pcap").write_bytes(pcap(frames))
    store = tmp_path / "store"
    read = read_into(store, *sorted(tmp_path.glob("*.pcap")))
    assert "received 1200 = 1200 in flows" in read.stderr
    assert summarise(store)[0].received == 1200
    assert [pair.packets for pair in summarise(store)[0].top(5)] == [1200]


def test_show_without_a_terminal_is_wide_and_plain(tmp_path: Path) -> None:
    """In a pipe, every column and no escape sequence."""
    read_into(tmp_path / "store", DEMO)
    said = vmsensor("show", tmp_path / "store", COLUMNS="40").stdout
    assert "\x1b" not in said
    heading = "from to tenant scope service throughput octets packets RTT min RTT p95 loss"
    assert said.splitlines()[1].split() == heading.split()


# ---- InfluxDB


def test_push_to_influxdb(influxdb: InfluxServer, tmp_path: Path) -> None:
    """Counts, sums and timestamps in a real InfluxDB are those of the points that the run itself wrote as JSON."""
    database, store, points = influxdb.create_database("pushed"), tmp_path / "store", tmp_path / "points.json"
    vmsensor("read", DEMO, "--to", f"store:{store}", "--to", f"json:{points}", "--sensor-name", "tap 1")
    pushed = vmsensor("push", store, "--influx-url", influxdb.url, "--influx-bucket", database)
    assert (pushed.returncode, pushed.stderr) == (0, "")
    expected = [json.loads(line) for line in points.read_text().splitlines()]
    assert pushed.stdout == f"6 windows, {len(expected)} points sent to {influxdb.url}\n"
    for measurement, (tags, metrics) in MEASUREMENTS.items():
        wanted = [
            {"time": point["time_ns"], **dict.fromkeys(tags), **point["tags"], **point["fields"]}
            for point in expected if point["measurement"] == measurement
        ]  # fmt: skip
        names = ["time", *tags, *(metric.name for metric in metrics)]
        stored = influxdb.query(f'SELECT * FROM "{measurement}"', database)
        found = [{name: row.get(name) for name in names} for row in stored]
        assert _sorted(found, tags) == _sorted(wanted, tags)


def _sorted(points: list[dict[str, Any]], tags: tuple[str, ...]) -> list[dict[str, Any]]:
    """Points in an order of their own."""
    return sorted(points, key=lambda point: (point["time"], *(str(point[tag]) for tag in tags)))


def test_push_sends_once(influxdb: InfluxServer, tmp_path: Path) -> None:
    """A second push has nothing to do; what is read afterwards is sent by the next."""
    database, store = influxdb.create_database("once"), tmp_path / "store"
    push = ("push", store, "--influx-url", influxdb.url, "--influx-bucket", database)
    read_into(store, DEMO)
    assert vmsensor(*push).stdout.startswith("6 windows, ")
    assert vmsensor(*push).stdout.startswith("0 windows, 0 points")
    read_into(store, PCAPS / "icmp.pcap")
    assert vmsensor(*push).stdout.startswith("1 windows, ")
    (row,) = influxdb.query("SELECT SUM(received) AS sum, COUNT(received) AS count FROM sensor", database)
    icmp = int(vmsensor("read", PCAPS / "icmp.pcap", "--to", "none").stderr.split()[1])
    assert (row["sum"], row["count"]) == (5373 + icmp, 7)
