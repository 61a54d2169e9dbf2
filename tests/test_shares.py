"""Several processes read the same files: what they say together is what one says."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import dpkt
import numpy as np
import pytest

from pcaps.generator.files import Frame, pcap
from sensor.analysis.report import TOP_FLOWS
from sensor.config import Settings, build
from sensor.native import OVERFLOW, RECORD, NumpyArray
from sensor.runner import Alone
from sensor.shares import Common, Shares
from sensor.snapshot import Snapshot
from sensor.stopping import Stop
from sensor.worker import Done, Finished, Message
from tests.command import DAMAGED, INPUT, USAGE, command, complaint, environment, records, vmsensor
from tests.needs import PCAPS, SHARED_CAPTURES, need_shared
from tests.streams import MILLISECOND, SECOND, START, batch, table_of, tcp_frame, udp_frame

WORKER = 10
"""The exit status when one of them dies."""

PACKETS = 200_000
"""Of the long capture."""

OURS = sorted(path for path in PCAPS.rglob("*.pcap*") if path.is_file())
THEIRS = sorted(SHARED_CAPTURES.glob("*.pcap*")) if SHARED_CAPTURES.is_dir() else []
NO_STOP = Stop()
ONE_CARD = bytes.fromhex("020000000002020000000001")
"""MAC addresses of a frame's receiver and sender."""


def told(paths: list[Path], workers: int, **changed: Any) -> tuple[list[Message], str | None]:
    """What reading the files comes to, and what is said of damage."""
    settings: Settings = replace(build("read", {"to": ("none",), "flows": "-"}), workers=workers, **changed)
    reading = (Alone if workers == 1 else Shares)(settings, list(map(str, paths)), None, NO_STOP)
    messages: list[Message] = []
    try:
        reading.run(messages.append)
    finally:
        reading.close()
    return messages, str(reading.damage) if reading.damage else None


def rows(records: NumpyArray) -> list[Any]:
    """Each record with all its fields but the flow's number."""
    names = [name for name in RECORD.names or () if name != "flow_id"]
    return list(zip(*(map(str, records[name].tolist()) for name in names), strict=True))


def flows_of(window: Snapshot) -> list[Any]:
    """A window's records in their order, each with its bins; those that one packet ended in an order of their own."""
    bins: list[list[Any]] = [[] for _ in window.records]
    for record, *rest in window.bins[["record", "histogram", "bucket", "count"]].tolist():
        bins[record].append(tuple(rest))
    places = window.records["place"].tolist()
    of_flows = [place for place, flags in zip(places, window.records["flags"], strict=True) if not flags & OVERFLOW]
    assert of_flows == sorted(of_flows)
    return sorted(zip(places, rows(window.records), map(sorted, bins), strict=True))


def said(messages: list[Message]) -> Iterator[Any]:
    """Everything that the messages say, comparable: windows with all that is in them, finished flows, totals."""
    for window in (message for message in messages if isinstance(message, Snapshot)):
        yield window.start_ns, window.end_ns, window.revision, window.partial, window.counters
        yield flows_of(window)
        yield [str(notice) for notice in window.notices.tolist()] if window.notices is not None else None
        yield [str(card) for card in window.presence.tolist()] if window.presence is not None else None
    yield sorted(row for message in messages if isinstance(message, Finished) for row in rows(message.records))
    yield [message.counters for message in messages if isinstance(message, Done)]


def assert_the_same(paths: list[Path], workers: int, **changed: Any) -> list[Message]:
    """One and several say the same; each flow has a number of its own. What several said."""
    alone, together = told(paths, 1, **changed), told(paths, workers, **changed)
    for one, several in zip(said(alone[0]), said(together[0]), strict=True):
        assert several == one
    assert together[1] == alone[1]
    for window in (message for message in together[0] if isinstance(message, Snapshot)):
        assert len(np.unique(window.records["flow_id"])) == len(window.records)
    return together[0]


@pytest.mark.proof
@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_several_say_what_one_says(path: Path, workers: int) -> None:
    """Windows, records, bins, counters, notices, cards, finished flows, totals, damage: of every capture here."""
    assert_the_same([path], workers)


@pytest.mark.proof
@pytest.mark.parametrize("workers", [2, 3])
def test_several_say_what_one_says_of_captures_of_others(workers: int) -> None:
    """The same of captures that other projects test with, hostile ones among them."""
    need_shared()
    assert len(THEIRS) > 50
    for path in THEIRS:
        assert_the_same([path], workers)


@pytest.mark.parametrize("name", ["demo", "cause-mirror-duplicate", "fragments-ipv4", "vxlan"])
def test_several_files_are_one_stream(name: str, tmp_path: Path) -> None:
    """What goes on in the next file, flows, copies, fragments, windows, is one, as in the whole file."""
    whole = PCAPS / f"{name}.pcap"
    octets = whole.read_bytes()
    with whole.open("rb") as file:
        sizes = [16 + len(frame) for _, frame in dpkt.pcap.Reader(file)]
    ends = [24, *(24 + np.cumsum(sizes)).tolist()]
    cuts = [ends[len(sizes) * part // 5] for part in range(6)]
    pieces = [tmp_path / f"{part}.pcap" for part in range(5)]
    for piece, (begin, end) in zip(pieces, pairwise(cuts), strict=True):
        piece.write_bytes(octets[:24] + octets[begin:end])
    several, alone = told(pieces, 3, window=SECOND), told([whole], 1, window=SECOND)
    assert list(said(several[0])) == list(said(alone[0]))


def seldom_copied() -> list[Frame]:
    """A mirror that copies about one of 256 packets: some surely; others are segments that look like one before.

    Whether these are copies depends on how many certain ones there have been so far, among all packets.
    """
    chance, time_ns, next_copy = random.Random(3), START, 0
    filler = [udp_frame(f"10.1.0.{i % 40}", 5000, "10.2.0.1", 53, ident=i + 1) for i in range(1000)]
    frames = []
    for number in range(40_000):
        time_ns += 20_000
        pair, place = divmod(number, 400)
        frames.append((time_ns, filler[number % 1000]))
        if place < 10:
            segment = tcp_frame(f"10.3.{pair}.1", 1000, f"10.4.{pair}.2", 80, seq=1 + 10 * place, payload=b"0123456789")
            frames += [(time_ns + 5000 + i * 500_000, segment) for i in range(1 + (place == 9))]
        if number >= next_copy:
            datagram = udp_frame("10.5.0.1", 7, "10.5.0.2", 9, ident=1 + number)
            frames += [(time_ns + 7000, datagram), (time_ns + 8000, datagram)]
            next_copy = number + chance.randrange(100, 300) + 12_000 * (pair % 40 == 9)
    return sorted(frames, key=lambda frame: frame[0])


def test_whether_the_mirror_copies_is_known_of_all(tmp_path: Path) -> None:
    """Each worker judges by the certain copies of all of them, of the packets before, no more and no less."""
    path = tmp_path / "seldom.pcap"
    path.write_bytes(pcap(seldom_copied()))
    messages = assert_the_same([path], 3)
    finished = np.concatenate([message.records for message in messages if isinstance(message, Finished)])
    copied = finished["c2s_mirror_duplicates"][finished["protocol"] == 6]
    assert 10 < np.count_nonzero(copied) < 90  # of a hundred: some are judged so, others otherwise


def crowd(flows: int) -> list[Frame]:
    """Many flows that begin at once and fall silent at once; packets after that; then time steps back.

    All from one card: 20,000 of them would not all be remembered, and which are not depends on a table's secret.
    """
    frames = [
        (START + i, udp_frame(f"10.0.{i >> 8}.{i & 255}", 1000 + i % 7, f"10.9.{i % 5}.9", 53, ident=i + 1))
        for i in range(flows)
    ]
    later = [(START + 100 * SECOND + i, udp_frame("10.0.0.1", 5, "10.8.8.8", 53, ident=i + 1)) for i in range(3)]
    back = [(START + i * SECOND, udp_frame(f"10.1.0.{i}", 6, "10.8.8.8", 53, ident=i + 1)) for i in range(200)]
    return [(at, ONE_CARD + frame[12:]) for at, frame in (*frames, *later, *back)]


def test_a_crowd_that_falls_silent_ends_at_once(tmp_path: Path) -> None:
    """More flows than wait for their record otherwise: all end as idle at the packet that shows it, in any share."""
    path = tmp_path / "crowd.pcap"
    path.write_bytes(pcap(crowd(20_000)))
    messages = assert_the_same([path], 3)
    finished = [message.records for message in messages if isinstance(message, Finished)]
    assert sum(map(len, finished)) == 20_000 + 1 + 200
    assert max(map(len, finished)) <= 8192


def test_the_order_is_the_same_every_time() -> None:
    """Records, numbers of flows included, come in the same order however the processes run."""
    first, second = (told([PCAPS / "demo.pcap"], 3)[0] for _ in range(2))
    assert [type(message) for message in first] == [type(message) for message in second]
    for one, other in zip(first, second, strict=True):
        if isinstance(one, (Snapshot, Finished)):
            assert isinstance(other, (Snapshot, Finished))
            assert one.records["flow_id"].tolist() == other.records["flow_id"].tolist()
            assert rows(one.records) == rows(other.records)


def test_every_worker_has_its_share() -> None:
    """None counts nothing, none counts all."""
    messages, _ = told([PCAPS / "demo.pcap"], 3)
    records = np.concatenate([message.records for message in messages if isinstance(message, Finished)])
    assert set((records["flow_id"] >> np.uint64(56)).tolist()) == {0, 1, 2}


def test_what_no_flow_counted_is_one_row(tmp_path: Path) -> None:
    """A table that is full in each share: still one overflow row a window, and every packet in one fate."""
    path = tmp_path / "crowd.pcap"
    path.write_bytes(pcap(crowd(400)[:400]))
    messages, _ = told([path], 2, max_flows=10)
    (window,) = (message for message in messages if isinstance(message, Snapshot))
    is_overflow = window.records["flags"] & OVERFLOW > 0
    assert is_overflow.tolist() == [False] * (len(window.records) - 1) + [True]
    assert int(window.records["c2s_packets"].sum()) == window.counters.received == 400


# ---- as a user starts it


def test_the_outputs_are_the_same(tmp_path: Path) -> None:
    """Points, summary, flow records and the line of totals of the demo, and of what libpcap has to read."""
    for capture, options in (("demo.pcap", ()), ("demo.pcap", ("--filter", "tcp")), ("gzipped.pcap.gz", ()),
                             ("plain.pcapng", ())):  # fmt: skip
        outputs = []
        for workers in (1, 2):
            points = tmp_path / f"{workers}.jsonl"
            sinks = ("--to", "table", "--to", f"json:{points}", "--flows", "-", "--workers", str(workers))
            done = vmsensor("read", PCAPS / capture, *sinks, *options, cwd=tmp_path)
            assert done.returncode == 0, done.stderr
            lines = [line for line in done.stdout.splitlines() if not line.startswith("{")]
            kept = [line.replace(points.name, "") for line in lines]
            flows = [line for line in done.stdout.splitlines() if line.startswith("{")]
            outputs.append((points.read_text(), kept, sorted(flows), done.stderr))
        assert outputs[0] == outputs[1]


def test_what_is_equal_stands_in_the_same_order(tmp_path: Path) -> None:
    """Flows of as many octets, more of them than are told: the same ones at the same ranks, whoever counted them."""
    path = tmp_path / "equal.pcap"
    path.write_bytes(pcap(crowd(60)[:60]))
    ranks = []
    for workers in (1, 2, 3, 5):
        points = tmp_path / "points.jsonl"
        done = vmsensor("read", path, "--to", f"json:{points}", "--workers", str(workers), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        told = [json.loads(line) for line in points.read_text().splitlines()]
        ranks.append([point["fields"] for point in told if point["measurement"] == "flow_top"])
    assert len(ranks[0]) == TOP_FLOWS
    assert ranks[1:] == [ranks[0]] * 3


def test_damage_is_said_once() -> None:
    """All workers meet it; one line says so, with the status of damage."""
    done = vmsensor("read", PCAPS / "cut.pcap", "--to", "none", "--workers", "3")
    assert "everything before that was counted" in complaint(done, DAMAGED)


def test_what_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    """Streams can be read once only; a file that is not there is said before anything starts."""
    os.mkfifo(tmp_path / "fifo")
    for stream in ("-", tmp_path / "fifo"):
        done = vmsensor("read", stream, "--to", "none", "--workers", "2", stdin=b"")
        assert "a stream can be read by one process only" in complaint(done, USAGE)
    done = vmsensor("read", PCAPS / "demo.pcap", tmp_path / "absent", "--to", "none", "--workers", "2")
    assert "absent" in complaint(done, INPUT)


@pytest.fixture
def long_capture(tmp_path: Path) -> Path:
    """More than the workers can read before somebody interferes, as nobody takes what they tell."""
    path = tmp_path / "long.pcap"
    frames = [tcp_frame(f"10.0.{i % 60}.{i % 250}", 1000, "10.9.9.9", 80, ident=i + 1) for i in range(3000)]
    path.write_bytes(pcap([(START + i * 2 * MILLISECOND, frames[i % 3000]) for i in range(PACKETS)]))
    return path


def started(capture: Path, *options: str) -> subprocess.Popen[str]:
    """A read by two processes, of which it has told the first window."""
    process = subprocess.Popen(
        command("read", capture, "--workers", "2", "--window", "1s", "--to", "json:-", *options),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())
    return process


def children_of(pid: int) -> list[int]:
    """The processes that it has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def await_end(pids: list[int]) -> None:
    """Wait until none of them runs."""
    for _ in range(200):
        if not any(is_running(pid) for pid in pids):
            return
        time.sleep(0.05)
    raise AssertionError(f"still there: {[pid for pid in pids if is_running(pid)]}")


def is_running(pid: int) -> bool:
    """True unless it has gone, or waits to be reaped by somebody else's init."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_worker_that_dies_ends_the_run(long_capture: Path) -> None:
    """One line, a status of its own, and nobody stays behind."""
    process = started(long_capture)
    workers = children_of(process.pid)
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == WORKER, errors
    (line,) = errors.splitlines()
    assert "worker 2 of 2 died by SIGKILL" in line
    await_end(workers)


def test_nobody_outlives_a_parent_that_is_killed(long_capture: Path) -> None:
    """The workers end with it."""
    process = started(long_capture)
    workers = children_of(process.pid)
    process.kill()
    process.communicate(timeout=30)
    await_end(workers)


def test_an_interrupted_read_ends_at_one_packet(long_capture: Path, tmp_path: Path) -> None:
    """Whatever was counted by then was counted of all shares alike: as one worker counts the beginning of the file."""
    process = started(long_capture, "--flows", str(tmp_path / "flows"))
    for pid in (*children_of(process.pid), process.pid):  # as a terminal does: to all of them
        os.kill(pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    received = int(errors.split("received ")[1].split()[0])
    assert 0 < received < PACKETS
    interrupted = [json.loads(line) for line in (tmp_path / "flows").read_text().splitlines()]
    assert sum(flow["c2s_packets"] + flow["s2c_packets"] for flow in interrupted) == received
    last = max(flow["end_ns"] for flow in interrupted)
    assert last == START + (received - 1) * 2 * MILLISECOND


def test_nobody_goes_beyond_the_common_end() -> None:
    """A worker hears of the end before each step, and the end is beyond all steps that have begun."""
    common, tables = Common(2), [table_of(), table_of()]
    assert not common.has_ended(0, tables[0])
    common.end()
    assert not common.has_ended(1, tables[1])
    frames = [(START + i, udp_frame("10.0.0.1", 1, "10.0.0.2", 53, ident=i + 1)) for i in range(9000)]
    for number, table in enumerate(tables):
        assert not common.has_ended(number, table)
        table.ingest(*batch(frames), 0, 1)
        assert common.has_ended(number, table)
    assert len({table.passed for table in tables}) == 1


def test_records_of_the_command_line_are_flows() -> None:
    """--flows - works as ever."""
    done = vmsensor("read", PCAPS / "demo.pcap", "--to", "none", "--flows", "-", "--workers", "3")
    assert len(records(done)) == 76
