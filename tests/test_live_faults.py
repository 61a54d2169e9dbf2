"""A live capture while things go wrong: no packet counts twice, none is missing outside of a gap that is said."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sensor.memory import Memory
from sensor.show import stored_reports
from tests.lab import Lab, wait_until
from tests.live import Sensor, workers_of
from tests.test_delivery_faults import small_disk
from tests.test_workers import udp_frame

pytestmark = pytest.mark.alone

SECOND = 1_000_000_000
SLACK_NS = 300_000_000
"""The interface is down a moment before the sensor knows, and up a moment before it captures again."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A SPAN port to send to."""
    with Lab(["web"]) as lab:
        yield lab


@pytest.fixture
def sensor(lab: Lab, tmp_path: Path) -> Sensor:
    """A sensor that is not running yet."""
    return Sensor(lab, tmp_path)


def address(number: int) -> str:
    """Of the sender of a datagram: each has its own, and so is a flow of its own."""
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


@contextmanager
def talk(lab: Lab, port: str = "span", every: float = 0.005) -> Iterator[dict[str, int]]:
    """Datagrams to the SPAN port as long as the block lasts; when each was sent, by its source."""
    sent: dict[str, int] = {}
    over = threading.Event()

    def run() -> None:
        with lab.switch.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
            wire.bind((port, 0))
            while not over.is_set() and len(sent) < 100_000:
                source = address(len(sent) + 1)
                sent[source] = time.time_ns()
                try:
                    wire.send(udp_frame(source, "10.255.0.1"))
                except OSError:  # the interface is going, and this one was not sent
                    del sent[source]
                time.sleep(every)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield sent
    finally:
        over.set()
        thread.join(10)


def points(path: Path, measurement: str) -> list[dict[str, Any]]:
    """What was written of a measurement."""
    read = [json.loads(line) for line in path.read_text().splitlines()]
    return [point for point in read if point["measurement"] == measurement]


def total(path: Path, field: str) -> int:
    """Of a field of the measurement of the sensor, over all windows."""
    return sum(point["fields"].get(field) or 0 for point in points(path, "sensor"))


def test_a_stop_in_the_middle_of_a_window(lab: Lab, sensor: Sensor, tmp_path: Path) -> None:
    """SIGTERM while packets come: what came before is in the windows, the last of them cut short; nothing is lost."""
    told = tmp_path / "points.jsonl"
    process = sensor.capture("--to", f"json:{told}", "--window", "10s", "--flows", str(sensor.flow_file))
    with talk(lab) as sent:
        time.sleep(1)
    ended = sensor.ended(process, signal.SIGTERM)
    assert ended.status == 0, ended.errors
    assert ended.received == len(sent) == total(told, "received")
    assert {flow["client_ip"]: flow["c2s_packets"] for flow in sensor.flows()} == dict.fromkeys(sent, 1)


def test_a_disk_that_is_full(lab: Lab, sensor: Sensor, tmp_path: Path) -> None:
    """The store's oldest windows go, which is said once and counted; what was learned is kept; the capture goes on."""
    with small_disk(tmp_path / "disk", 300 * 1024) as disk:
        sensor.directory = disk
        process = sensor.capture("--window", "200ms", "--to", "store", "--store-size", "1MiB")
        with talk(lab, every=0.002) as sent:
            wait_until(lambda: _removed(disk), "the oldest windows to go", timeout=40)
        ended = sensor.ended(process, signal.SIGTERM)
        kept = list(stored_reports(disk / "store", damaged := []))
        learned = Memory(disk / "store" / "memory.json").load()
    assert (ended.status, ended.received, damaged) == (0, len(sent), []), ended.errors
    assert learned
    assert ended.errors.count("the oldest windows are removed from now on") == 1
    windows = [report.start_ns for report in kept]
    assert windows == sorted(windows)
    assert windows[-1] - windows[0] == (len(windows) - 1) * 200_000_000  # the newest, without a hole


def _removed(disk: Path) -> bool:
    """Whether the first segment is gone."""
    store = disk / "store"
    return store.exists() and any(store.glob("0*.lp")) and not (store / "00000001.lp").exists()


@pytest.mark.proof
def test_an_interface_that_flaps(lab: Lab, sensor: Sensor, tmp_path: Path) -> None:
    """Down and up twenty times, for moments and for seconds: each packet counts once or was sent within a gap."""
    told = tmp_path / "points.jsonl"
    lab.switch.run(["ip", "link", "add", "name", "flap1", "type", "veth", "peer", "flap0", "netns", lab.tap.name])
    lab.switch.run(["ip", "link", "set", "dev", "flap1", "up"])
    lab.tap.run(["ip", "link", "set", "dev", "flap0", "up"])
    options = ("--to", f"json:{told}", "--window", "1s", "--workers", "2", "--flows", str(sensor.flow_file))
    process = sensor.start(*options, interface="flap0")
    lab.await_capture(process, rings=2)
    time.sleep(0.6)
    with talk(lab, "flap1") as sent:
        for flap in range(20):
            lab.tap.run(["ip", "link", "set", "dev", "flap0", "down"])
            time.sleep((0.0, 0.05, 0.5, 1.5)[flap % 4])
            lab.tap.run(["ip", "link", "set", "dev", "flap0", "up"])
            time.sleep((2.5, 0.2, 2.5, 1.0)[flap % 4])
        wait_until(lambda: len(workers_of(process.pid)) == 2, "the last resumption")
        lab.await_capture(process, rings=2)
        time.sleep(1.5)
    time.sleep(1.5)
    ended = sensor.ended(process, signal.SIGTERM)
    lab.switch.run(["ip", "link", "del", "dev", "flap1"])
    assert ended.status == 0, ended.errors
    packets: Counter[str] = Counter()
    for flow in sensor.flows():
        packets[flow["client_ip"]] += flow["c2s_packets"]
    assert set(packets.values()) == {1}
    assert set(packets) <= set(sent)
    assert ended.received == len(packets) == total(told, "received")
    gaps = [
        (point["fields"]["first_ns"], point["fields"]["first_ns"] + _milliseconds(point) * 1_000_000)
        for point in points(told, "event") if point["tags"]["kind"] == "capture_gap"
    ]  # fmt: skip
    assert len(gaps) == total(told, "interface_losses") >= 10
    outside = [
        source for source, at in sent.items()
        if source not in packets and not any(began - SLACK_NS <= at <= ended_ns + SLACK_NS for began, ended_ns in gaps)
    ]  # fmt: skip
    assert outside == []
    assert not [pid for pid in workers_of(process.pid) if Path(f"/proc/{pid}").exists()]


def _milliseconds(gap: dict[str, Any]) -> int:
    evidence = dict(pair.split("=") for pair in gap["fields"]["evidence"].split())
    return int(evidence["milliseconds"])


@pytest.mark.proof
def test_an_output_that_is_stuck_for_minutes(lab: Lab, sensor: Sensor, tmp_path: Path) -> None:
    """Its windows are counted as lost there and nowhere else; the store has all; the stop does not wait for ever."""
    pipe, told = tmp_path / "stuck.fifo", tmp_path / "points.jsonl"
    os.mkfifo(pipe)
    with open(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)):  # somebody has opened it, and never reads
        sinks = ("--to", "store", "--to", f"json:{pipe}", "--to", f"json:{told}")
        process = sensor.capture(*sinks, "--window", "500ms")
        with talk(lab) as sent:
            time.sleep(120)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=40)
        assert time.monotonic() - began < 25
    assert process.returncode == 7, errors
    assert f"received {len(sent)} = " in errors
    assert errors.count("windows are dropped there, other outputs go on") == 1
    assert total(told, "received") == len(sent)
    assert total(told, "output_lost_windows") > 100
    kept = list(stored_reports(tmp_path / "store", damaged := []))
    received = sum(int(report.table("sensor").fields["received"].values[0]) for report in kept)
    assert (received, damaged) == (len(sent), [])
