"""The ring as a source: the same flows as through libpcap, to the nanosecond, and the same endings."""

from __future__ import annotations

import mmap
import os
import signal
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sensor.flowtable import FlowTable, Ring, RingState
from tests.lab import Lab
from tests.live import Sensor, workers_of
from tests.ringblocks import block
from tests.streams import START, table_of, tcp_frame, without_length
from tests.test_workers import REPLAYED, frames, overlay, send, summed, udp_frame

KINDS = ("ring", "libpcap")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A SPAN port to replay into, with room for the longest frames."""
    with Lab(["web"]) as lab:
        lab.take_jumbo_frames()
        yield lab


def test_both_sources_say_the_same(lab: Lab, tmp_path: Path) -> None:
    """Of captures of every kind, tags and tunnels included, replayed to both at a time."""
    sensors = {kind: Sensor(lab, tmp_path / kind) for kind in KINDS}
    for sensor in sensors.values():
        sensor.directory.mkdir()
    running = {
        kind: sensor.start("--to", "none", "--flows", str(sensor.flow_file), "--source", kind, "--keep-duplicates")
        for kind, sensor in sensors.items()
    }
    lab.await_capture(running["ring"], rings=2)
    sent = [frame for name in REPLAYED for frame in frames(name)] + list(overlay(50))
    send(lab, sent)
    time.sleep(0.3)
    ended = {kind: sensors[kind].ended(process, signal.SIGTERM) for kind, process in running.items()}
    assert [one.status for one in ended.values()] == [0, 0], ended
    assert {one.received for one in ended.values()} == {len(sent)}
    assert {one.totals[2] for one in ended.values()} == {ended["ring"].totals[2]}
    flows = {kind: sensor.flows() for kind, sensor in sensors.items()}
    assert summed(flows["ring"]) == summed(flows["libpcap"])
    tags = {kind: sorted(str(flow["vlan"]) for flow in found) for kind, found in flows.items()}
    assert tags["ring"] == tags["libpcap"]
    assert any(flow["vlan"] for flow in flows["ring"])
    assert any(flow["start_ns"] % 1000 for flow in flows["ring"])
    assert not any(flow["start_ns"] % 1000 for flow in flows["libpcap"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 999, 1500])
def test_so_many_packets_and_no_more(lab: Lab, tmp_path: Path, kind: str, count: int) -> None:
    """``--packets`` is exact, whatever a block or a batch holds; the rest is said to be unread."""
    sensor = Sensor(lab, tmp_path)
    process = sensor.capture("--to", "none", "--source", kind, "--packets", str(count))
    send(lab, [udp_frame("10.0.0.1", "10.1.0.1")] * 2000)
    ended = sensor.ended(process)
    assert (ended.status, ended.received) == (0, count)
    assert ended.unread <= 2000 - count


@pytest.mark.parametrize("size", ["64KiB", "1MiB", "300MiB"])
def test_buffers_of_all_sizes(lab: Lab, tmp_path: Path, size: str) -> None:
    """From the smallest on; a frame that is longer than the snap length takes no more than that."""
    sensor = Sensor(lab, tmp_path)
    process = sensor.capture("--to", "none", "--source", "ring", "--buffer-size", size, "--snaplen", "60")
    send(lab, [udp_frame("10.0.0.1", "10.1.0.1", data=bytes(7000))] * 50)
    time.sleep(0.3)
    ended = sensor.ended(process, signal.SIGTERM)
    assert (ended.status, ended.received, ended.dropped_kernel) == (0, 50, 0), ended.errors


def test_what_an_offload_left_without_a_length_is_as_long_as_on_the_wire(lab: Lab, tmp_path: Path) -> None:
    """Whatever of it the snap length leaves."""
    sensor = Sensor(lab, tmp_path)
    process = sensor.capture("--to", "none", "--source", "ring", "--snaplen", "60", "--flows", str(sensor.flow_file))
    send(lab, [without_length(tcp_frame("10.0.0.1", 1000, "10.1.0.1", 80, payload=bytes(7000)))])
    time.sleep(0.3)
    assert sensor.ended(process, signal.SIGTERM).status == 0
    (flow,) = sensor.flows()
    assert (flow["c2s_bytes"], flow["c2s_payload_bytes"]) == (7040, 7000)


def test_few_packets_wait_for_a_worker_that_stands_still(lab: Lab, tmp_path: Path) -> None:
    """Each read timeout takes a block of the ring, however little is in it: there are enough for many seconds."""
    sensor = Sensor(lab, tmp_path)
    process = sensor.capture("--to", "none", "--source", "ring")
    (worker,) = workers_of(process.pid)
    os.kill(worker, signal.SIGSTOP)
    for _ in range(80):
        send(lab, [udp_frame("10.0.0.1", "10.1.0.1")])
        time.sleep(0.11)
    os.kill(worker, signal.SIGCONT)
    time.sleep(0.3)
    ended = sensor.ended(process, signal.SIGTERM)
    assert (ended.status, ended.received, ended.dropped_kernel) == (0, 80, 0), ended.errors


def test_what_is_sent_is_left_out(lab: Lab, tmp_path: Path) -> None:
    """Unless it is asked for: a mirror port only receives."""
    found = {}
    for direction in ("in", "both"):
        sensor = Sensor(lab, tmp_path)
        process = sensor.capture("--to", "none", "--source", "ring", "--direction", direction)
        with lab.tap.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
            out.bind(("span0", 0))
            for _ in range(5):
                out.send(udp_frame("10.0.0.1", "10.1.0.1"))
        send(lab, [udp_frame("10.0.0.1", "10.1.0.1")] * 3)
        time.sleep(0.3)
        found[direction] = sensor.ended(process, signal.SIGTERM).received
    assert found == {"in": 3, "both": 8}


def handed_over(packets: int) -> tuple[Ring, FlowTable]:
    """A ring of two blocks, the first of which has these packets, and a table for them."""
    size = 1 << 16
    memory = mmap.mmap(-1, 2 * size)
    memory[:size] = block([(0, START + i, udp_frame("10.0.0.1", "10.1.0.1")) for i in range(packets)], size)
    return Ring(memory, size), table_of()


def test_naps_go_on_while_packets_flow() -> None:
    """Without a nap one look is all; with it, until a nap brings nothing, or somebody wants the worker."""
    silent, wanted = os.pipe(), os.pipe()
    os.close(wanted[1])
    turns = {"no nap": (0, -1), "silence": (1_000_000, silent[0]), "wanted": (1_000_000, wanted[0])}
    found = {}
    for name, (nap_ns, wake) in turns.items():
        ring, table = handed_over(3)
        state = table.ingest_ring(ring, 100, nap_ns, wake)
        found[name] = (state, ring.packets, table.ingest_ring(ring, 100))
        ring.close()
    for descriptor in (*silent, wanted[0]):
        os.close(descriptor)
    assert found == {
        "no nap": (RingState.FLOWING, 3, RingState.IDLE),
        "silence": (RingState.IDLE, 3, RingState.IDLE),
        "wanted": (RingState.FLOWING, 3, RingState.IDLE),
    }


def test_a_nap_does_not_pass_over_the_number_that_was_asked_for() -> None:
    """The rest of the block is left for the next look."""
    ring, table = handed_over(5)
    looks = [(table.ingest_ring(ring, 2, 1_000_000), ring.packets) for _ in range(3)]
    ring.close()
    assert looks == [(RingState.MORE, 2), (RingState.MORE, 4), (RingState.IDLE, 5)]


def test_frames_that_are_not_ethernet_are_for_libpcap(lab: Lab, tmp_path: Path) -> None:
    """Chosen by itself; the ring, where it was asked for, says so; and a filter has libpcap take over."""
    lab.tap.run(["ip", "tuntap", "add", "dev", "tun9", "mode", "tun"])
    lab.tap.run(["ip", "link", "set", "dev", "tun9", "up"])
    sensor = Sensor(lab, tmp_path)
    asked = sensor.ended(sensor.start("--to", "none", "--source", "ring", interface="tun9"))
    assert (asked.status, "tun9: its frames are not Ethernet; choose --source libpcap" in asked.complaint()) == (
        5,
        True,
    )
    assert sensor.ended(sensor.capture("--to", "none", interface="tun9"), signal.SIGTERM).status == 0
    lab.tap.run(["ip", "link", "del", "dev", "tun9"])
    filtered = sensor.ended(sensor.start("--to", "none", "--source", "ring", "--filter", "tcp"))
    assert (filtered.status, "--filter is libpcap's" in filtered.complaint()) == (2, True)


def test_a_tag_that_the_kernel_took_off_is_in_its_place(lab: Lab, tmp_path: Path) -> None:
    """Of each protocol that tags have, and of short frames."""
    sensor = Sensor(lab, tmp_path)
    process = sensor.capture("--to", "none", "--source", "ring", "--flows", str(sensor.flow_file))
    plain = udp_frame("10.0.0.1", "10.1.0.1")
    for number, protocol in enumerate((0x8100, 0x88A8)):
        tag = struct.pack("!HH", protocol, 100 + number)
        send(lab, [plain[:12] + tag + plain[12:], b"\xff" * 12 + tag + b"\x08\x06" + bytes(8)])
    time.sleep(0.3)
    ended = sensor.ended(process, signal.SIGTERM)
    assert (ended.status, ended.received) == (0, 4), ended.errors
    assert sorted(flow["vlan"] for flow in sensor.flows()) == [[100], [101]]
