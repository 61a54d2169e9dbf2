"""Packets at the best rate of the machine: what was offered is what was received and what was lost by name, exactly.

The plain suite takes seconds of it, `make proof` a minute, and a flood beside conversations whose metrics are known.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.blaster import Sent, Wire, conversations, sent
from tests.live import Ended, Sensor, workers_of
from tests.needs import missing, need_tool

pytestmark = pytest.mark.alone

FLOWS = 1000
SETTLE_SECONDS = 0.5
"""The kernel hands over a block that is not full after 0.1 s, and a sensor that was behind catches up."""

SECONDS = 5
"""Of a run that looks for drops at a rate."""

FLOOD_SYNS, FLOOD_FLOWS, FLOOD_SHARE, FLOOD_RATE = 5_000_000, 100, 50, 100_000
"""So many SYNs, beside so many conversations, so many SYNs to each of their packets, at a rate without a drop."""
MAX_FLOWS = 100_000


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    """A fast sender and a tap."""
    with Wire() as wire:
        yield wire


@pytest.fixture
def sensor(wire: Wire, tmp_path: Path) -> Sensor:
    """A sensor that is not running yet."""
    return Sensor(wire, tmp_path)


def worker_of(process: subprocess.Popen[str]) -> int:
    """The capture process."""
    (worker,) = workers_of(process.pid)
    return worker


@contextmanager
def asleep(pid: int) -> Iterator[None]:
    """A process that does not run."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def finished(sensor: Sensor, process: subprocess.Popen[str]) -> Ended:
    """The sensor, stopped once it has read all."""
    time.sleep(SETTLE_SECONDS)
    ended = sensor.ended(process, signal.SIGTERM)
    assert ended.status == 0, ended.errors
    return ended


def assert_exact(ended: Ended, made: Sent) -> None:
    """Every packet that was offered is in one number, and the interface's is what the sender was refused."""
    assert ended.dropped_nic == made.refused
    assert ended.received + ended.dropped_kernel == made.taken
    assert sum(int(part.split()[0]) for part in ended.totals[2].split(" + ")) == ended.received


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.proof)])
def test_best_rate_is_counted_exactly(wire: Wire, sensor: Sensor, workers: int) -> None:
    """As fast as it can be sent for three seconds: received and dropped are what was sent, with several workers too."""
    process = sensor.start("--to", "none", "--workers", str(workers))
    wire.await_capture(process, rings=workers)
    time.sleep(SETTLE_SECONDS)  # several have to join their group first
    made = wire.blast(seconds=3, flows=FLOWS)
    assert_exact(finished(sensor, process), made)


@pytest.mark.proof
def test_full_buffer_is_counted_exactly(wire: Wire, sensor: Sensor) -> None:
    """While the worker sleeps its buffer overflows: what had no room is the kernel's drops."""
    process = sensor.capture("--to", "none", "--buffer-size", "1MiB")
    with asleep(worker_of(process)):
        made = wire.blast(packets=200_000, flows=FLOWS)
    ended = finished(sensor, process)
    assert ended.dropped_kernel > 100_000
    assert_exact(ended, made)


@pytest.mark.proof
def test_full_backlog_is_counted_exactly(wire: Wire, sensor: Sensor) -> None:
    """What a slow processor cannot take off the wire is lost before the socket: the interface's drops."""
    if len(os.sched_getaffinity(0)) < 2:
        missing("needs two processors")
    process = sensor.capture("--to", "none")
    with wire.slow_backlog():
        made = wire.blast(packets=200_000, flows=FLOWS)
        time.sleep(SETTLE_SECONDS)
    ended = finished(sensor, process)
    assert ended.dropped_nic > 0
    assert_exact(ended, made)


def test_captured_frames_are_not_lost(wire: Wire, sensor: Sensor) -> None:
    """QinQ, and what else the host's own stack has no use for, is in the interface's rx_dropped: it was not lost."""
    tags = "88a80064 81000005"
    frame = bytes.fromhex(f"020000000002 020000000001 {tags} 0800 4500002800000000401100000a0000010a000002")
    process = sensor.capture("--to", "none")
    with wire.sender.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
        out.bind(("out0", 0))
        for _ in range(100):
            out.send(frame + bytes(40))
    ended = finished(sensor, process)
    assert (ended.received, ended.dropped_nic) == (100, 0)


def test_conversations_have_the_metrics_that_they_were_sent_with(wire: Wire, sensor: Sensor) -> None:
    """Packets, octets and RTT samples of each conversation, beside SYNs, are those that the sender made."""
    flows, syns = 20, 9
    process = sensor.capture("--to", f"json:{sensor.directory / 'windows'}", "--window", "1s")
    made = wire.blast(packets=20_011, rate=20_000, flows=flows, syns=syns)
    ended = finished(sensor, process)
    assert (ended.received, made.refused) == (made.offered, 0)
    assert measured(sensor.directory / "windows", flows) == expected(made, flows, syns)


Metrics = dict[tuple[str, str], tuple[int, ...]]
"""Packets, octets and RTT samples from one VM to another."""
MEASURED = ("packets", "bytes", "rtt_count")


def expected(made: Sent, flows: int, syns: int) -> Metrics:
    """Each conversation has a client of its own."""
    ends = [(f"10.1.0.{1 + number}", f"10.2.0.{1 + number % 50}") for number in range(flows)]
    both: Metrics = {}
    for (client, server), told in zip(ends, conversations(made.offered, flows, syns), strict=True):
        both[client, server], both[server, client] = told.client, told.server
    return both


def measured(windows: Path, flows: int) -> Metrics:
    """The sums over all windows."""
    sums: Counter[tuple[str, str, str]] = Counter()
    with windows.open() as lines:
        for row in map(json.loads, lines):
            tags = row["tags"]
            if row["measurement"] == "vm_traffic" and tags["service"] == "https":
                sums.update({(tags["src_vm"], tags["dst_vm"], name): row["fields"][name] or 0 for name in MEASURED})
    pairs = {(source, target) for source, target, _ in sums}
    assert len(pairs) == 2 * flows
    return {pair: tuple(sums[(*pair, name)] for name in MEASURED) for pair in pairs}


@pytest.mark.proof
def test_a_minute_at_the_best_rate(wire: Wire, sensor: Sensor) -> None:
    """The same for sixty seconds, with windows in between."""
    process = sensor.capture("--to", "none")
    made = wire.blast(seconds=60, flows=FLOWS)
    ended = finished(sensor, process)
    print(f"\n{made.rate:,.0f} packets/s for {made.seconds:.0f} s; {ended.errors.splitlines()[-1]}")
    assert_exact(ended, made)


def tcpdump_drops(wire: Wire, rate: int) -> int:
    """What ``tcpdump -w /dev/null`` loses at a rate. Its buffer is smaller than the sensor's: each has its default."""
    need_tool("tcpdump")
    process = wire.tap.popen(["tcpdump", "-i", wire.span_interface, "-w", "/dev/null"])
    wire.await_capture(process)
    made = wire.blast(seconds=SECONDS, rate=rate, flows=FLOWS)
    time.sleep(SETTLE_SECONDS)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=15)[1]
    match = re.search(r"(\d+) packets dropped by kernel", said)
    assert match is not None, said
    return int(match[1]) + made.refused


def sensor_drops(wire: Wire, sensor: Sensor, rate: int) -> tuple[Sent, int]:
    """What was sent, and how much of it the sensor lost."""
    process = sensor.capture("--to", "none")
    made = wire.blast(seconds=SECONDS, rate=rate, flows=FLOWS)
    ended = finished(sensor, process)
    assert_exact(ended, made)
    return made, ended.dropped_kernel + ended.dropped_nic


@pytest.mark.proof
def test_no_drop_where_tcpdump_has_none(wire: Wire, sensor: Sensor) -> None:
    """At the highest of the rates at which ``tcpdump -w /dev/null`` loses nothing, the sensor loses nothing either.

    The rates are the best without anybody who captures, and its halves. Other programs may take the processor at any
    time: where the sensor has drops, it has failed only if tcpdump, run again at once, still has none.
    """
    best = wire.blast(seconds=1, flows=FLOWS).rate
    for rate in (int(best / part) for part in (1, 2, 4, 8)):
        if tcpdump_drops(wire, rate):
            continue
        made, dropped = sensor_drops(wire, sensor, rate)
        print(f"\nat {made.rate:,.0f} packets/s, {rate:,} asked for: tcpdump dropped 0, the sensor {dropped}")
        if not dropped:
            return
        assert tcpdump_drops(wire, rate), f"at {rate:,} packets/s the sensor dropped {dropped}, tcpdump none"
    pytest.fail("neither is without drops at any rate")


@pytest.mark.proof
def test_a_flood_beside_conversations(wire: Wire, sensor: Sensor) -> None:
    """Five million SYNs, each of another address: the conversations keep exact metrics, and memory stays bounded."""
    windows = sensor.directory / "windows"
    process = sensor.capture("--to", f"json:{windows}", "--window", "2s", "--max-flows", str(MAX_FLOWS))
    worker = worker_of(process)
    packets = FLOOD_SYNS + FLOOD_SYNS // FLOOD_SHARE
    sender = wire.blasting(packets=packets, rate=FLOOD_RATE, flows=FLOOD_FLOWS, syns=FLOOD_SHARE)
    time.sleep(packets / FLOOD_RATE / 5)  # the table has long been full
    full = most_memory(worker)
    made = sent(sender)
    end = most_memory(worker)
    ended = finished(sensor, process)
    print(f"\n{made.rate:,.0f} packets/s; the worker had at most {full:,} KiB after a fifth, {end:,} KiB at the end")
    assert (made.offered, ended.received) == (packets, packets)
    assert_exact(ended, made)
    assert measured(windows, FLOOD_FLOWS) == expected(made, FLOOD_FLOWS, FLOOD_SHARE)
    assert end < 1.1 * full


def most_memory(pid: int) -> int:
    """The most that a process has had in memory so far, in KiB."""
    match = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match is not None
    return int(match[1])
