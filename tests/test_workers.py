"""Several workers on one interface: each flow in one of them, windows put together, one that dies is replaced."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import struct
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import dpkt
import pytest

from sensor import workers
from sensor.config import build, parse_cpus
from sensor.errors import InterfaceError
from sensor.merge import LATEST_SECONDS
from sensor.stopping import Stop
from sensor.workers import HUNG_SECONDS, STOP_SECONDS
from tests.command import USAGE, complaint, vmsensor
from tests.lab import Lab, wait_until
from tests.live import Sensor, workers_of
from tests.needs import PCAPS

REPLAYED = (
    "demo", "vxlan", "geneve", "gre", "nvgre", "ip-in-ip", "qinq", "vlan", "ipv6", "ipv6-extensions", "fragments-ipv4",
    "fragments-ipv6", "mpls", "nested", "icmp", "sctp", "cause-mirror-duplicate",
)  # fmt: skip
"""Flows of every kind, bare and in tunnels, whose two directions must not come apart."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A SPAN port to replay into."""
    with Lab(["web"]) as lab:
        lab.take_jumbo_frames()
        yield lab


def frames(name: str) -> list[bytes]:
    """The frames of a capture."""
    with (PCAPS / f"{name}.pcap").open("rb") as file:
        return [frame for _, frame in dpkt.pcap.Reader(file)]


def udp_frame(source: str, target: str, sport: int = 5000, dport: int = 53, data: bytes = b"x" * 30) -> bytes:
    """A datagram."""
    udp = dpkt.udp.UDP(sport=sport, dport=dport, data=data)
    udp.ulen = len(udp)
    ip = dpkt.ip.IP(src=socket.inet_aton(source), dst=socket.inet_aton(target), p=17, data=udp)
    ip.len = len(ip)
    ethernet = dpkt.ethernet.Ethernet(src=b"\x02\0\0\0\0\1", dst=b"\x02\0\0\0\0\2", type=0x0800, data=ip)
    return bytes(ethernet)


def overlay(flows: int) -> Iterator[bytes]:
    """Questions and answers in VXLAN, whose outer source port each host chooses for itself (RFC 7348 section 4)."""
    chance = random.Random(5)
    for number in range(flows):
        vms = (f"10.9.{number // 200}.{1 + number % 200}", "10.9.9.9")
        hosts = (f"192.168.7.{1 + number % 20}", "192.168.7.99")
        for there in (True, False):
            (source, target), (near, far) = (vms, hosts) if there else (vms[::-1], hosts[::-1])
            ports = (40000 + number, 53) if there else (53, 40000 + number)
            inner = udp_frame(source, target, *ports)
            header = struct.pack("!II", 0x08000000, 5100 << 8)
            yield udp_frame(near, far, chance.randrange(49152, 65536), 4789, header + inner)


def ip_frame(source: str, target: str, protocol: int, data: bytes) -> bytes:
    """Any IPv4 packet."""
    ip = dpkt.ip.IP(src=socket.inet_aton(source), dst=socket.inet_aton(target), p=protocol, data=data)
    ip.len = len(ip)
    ethernet = dpkt.ethernet.Ethernet(src=b"\x02\0\0\0\0\1", dst=b"\x02\0\0\0\0\2", type=0x0800, data=ip)
    return bytes(ethernet)


def erspan_ii(switch: str, inner: bytes) -> bytes:
    """The frame as a switch sends it to the sensor."""
    header = struct.pack("!HHI", 0x1000, 0x88BE, 1) + struct.pack("!HHI", 0x1000, 7, 0)
    return ip_frame(switch, SENSOR, 47, header + inner)


def erspan_iii(switch: str, inner: bytes) -> bytes:
    """The same in type III, with a subheader."""
    header = struct.pack("!HHI", 0x1000, 0x22EB, 1) + struct.pack("!HHIHH", 0x2000, 7, 0, 0, 1) + bytes(8)
    return ip_frame(switch, SENSOR, 47, header + inner)


def cloud(card: str, inner: bytes) -> bytes:
    """The frame as a cloud's traffic mirroring sends it, from the network card that was mirrored."""
    return udp_frame(card, SENSOR, 49152 + len(inner), 4789, struct.pack("!II", 0x08000000, 4242 << 8) + inner)


SENSOR = "172.31.0.9"
MIRRORS = {"erspan ii": erspan_ii, "erspan iii": erspan_iii, "cloud": cloud}


def talks(flows: int) -> Iterator[tuple[int, bytes]]:
    """Questions, which are of direction 0, and answers, the insides of overlays among them."""
    for number in range(flows):
        vms, ports = (f"10.1.{number // 200}.{1 + number % 200}", f"10.2.0.{1 + number % 7}"), (40000 + number, 53)
        yield 0, udp_frame(*vms, *ports)
        yield 1, udp_frame(*vms[::-1], *ports[::-1])
    for number, frame in enumerate(overlay(flows)):
        yield number % 2, frame


def told(lab: Lab, directory: Path, workers: int, sent: list[bytes], *options: str) -> tuple[list[dict[str, Any]], str]:
    """The flows that so many workers tell of these frames, and the line of totals."""
    directory.mkdir()
    sensor = Sensor(lab, directory)
    process = sensor.start("--flows", str(sensor.flow_file), "--to", "none", "--workers", str(workers), *options)
    lab.await_capture(process, rings=workers)
    time.sleep(0.6)
    send(lab, sent)
    ended = sensor.ended(process, signal.SIGTERM)
    assert (ended.status, ended.received) == (0, len(sent)), ended.errors
    return sensor.flows(), ended.errors


@pytest.mark.parametrize("mirror", MIRRORS)
def test_both_directions_meet_when_the_mirror_itself_is_a_tunnel(lab: Lab, tmp_path: Path, mirror: str) -> None:
    """Each direction is mirrored where it enters, and has its own outer addresses: the flows are whole all the same."""
    sent = [MIRRORS[mirror](f"172.16.{way}.{1 + i % 5}", frame) for i, (way, frame) in enumerate(talks(60))]
    alone, together = (told(lab, tmp_path / str(workers), workers, sent)[0] for workers in (1, 3))
    assert len(together) == len(alone) == 120
    assert one_sided(together) == one_sided(alone) == 0
    assert summed(together) == summed(alone)


@pytest.mark.parametrize("mirror", MIRRORS)
def test_copies_meet_however_they_come(lab: Lab, tmp_path: Path, mirror: str) -> None:
    """A packet that comes bare, and again from two places of a tunnelling mirror, is known to any worker."""
    sent = []
    for number, (_, frame) in enumerate(talks(40)):
        copies = (MIRRORS[mirror](f"172.16.{place}.{1 + number % 5}", frame) for place in (2, 3))
        sent += [frame, *copies]
    patient = ("--duplicate-horizon", "10s")  # a busy machine may send the copies of a packet 10 ms apart
    alone, together = (told(lab, tmp_path / str(workers), workers, sent, *patient)[1] for workers in (1, 3))
    copies_known = re.search(r"(\d+) mirror_duplicate", alone)
    assert together == alone
    assert copies_known
    assert int(copies_known[1]) > 300


def send(lab: Lab, sent: list[bytes], port: str = "span") -> None:
    """Put frames on the wire to the SPAN port, in their order, no faster than any machine can take them."""
    with lab.switch.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((port, 0))
        for number, frame in enumerate(sent):
            wire.send(frame)
            if number % 50 == 49:
                time.sleep(0.002)


SUMMED = ("c2s_packets", "s2c_packets", "c2s_bytes", "s2c_bytes")


def summed(flows: list[dict[str, Any]]) -> dict[tuple[object, ...], tuple[int, ...]]:
    """Packets and octets each way, by who talked with whom where: the captures use the same addresses in turn."""
    ends = ("client_ip", "client_port", "server_ip", "server_port", "protocol", "vni", "role_source")
    sums: dict[tuple[object, ...], tuple[int, ...]] = {}
    for flow in flows:
        key = (*(flow[name] for name in ends), *flow["vlan"])
        so_far = sums.get(key, (0,) * len(SUMMED))
        sums[key] = tuple(total + flow[name] for total, name in zip(so_far, SUMMED, strict=True))
    return sums


def one_sided(flows: list[dict[str, Any]]) -> int:
    """How many flows lack a direction."""
    return sum(not flow["c2s_packets"] or not flow["s2c_packets"] for flow in flows)


def test_both_directions_of_every_flow_meet(lab: Lab, tmp_path: Path) -> None:
    """What three workers say of the flows of many captures, tunnels included, is what one says beside them."""
    sensors = {count: Sensor(lab, tmp_path / str(count)) for count in (1, 3)}
    running = {}
    for count, sensor in sensors.items():
        sensor.directory.mkdir()
        options = ("--flows", str(sensor.flow_file), "--to", "none", "--keep-duplicates")
        running[count] = sensor.start(*options, "--workers", str(count))
    lab.await_capture(running[3], rings=4)
    time.sleep(0.6)  # a worker joins the group a moment after its ring is there
    sent = [frame for name in REPLAYED for frame in frames(name)] + list(overlay(200))
    send(lab, sent)
    ended = {count: sensors[count].ended(process, signal.SIGTERM) for count, process in running.items()}
    assert [(one.status, one.received) for one in ended.values()] == [(0, len(sent))] * 2, ended
    alone, together = (sensors[count].flows() for count in (1, 3))
    assert summed(together) == summed(alone)
    assert one_sided(together) == one_sided(alone)
    assert len(alone) > 100
    assert {flow["tunnel"] for flow in sensors[3].flows()} >= {None, "vxlan", "geneve", "gre", "nvgre", "ipip"}


def test_all_workers_have_work_and_windows_are_one(lab: Lab, sensor: Sensor, tmp_path: Path) -> None:
    """Many pairs spread over the workers; each window has one point of the sensor, and sums that add up."""
    points = tmp_path / "points.jsonl"
    process = sensor.start("--to", f"json:{points}", "--window", "1s", "--workers", "2", "--series-budget", "100000")
    lab.await_capture(process, rings=2)
    time.sleep(0.6)
    crowd = [udp_frame(f"10.0.{i // 250}.{1 + i % 250}", f"10.1.{i % 7}.{1 + i % 99}") for i in range(1000)]
    for _ in range(3):
        send(lab, crowd)
        time.sleep(0.7)
    workers = {pid: _cpu_ticks(pid) for pid in workers_of(process.pid)}
    ended = sensor.ended(process, signal.SIGTERM)
    assert ended.received == 3000, ended.errors
    written = [json.loads(line) for line in points.read_text().splitlines()]
    own = [point for point in written if point["measurement"] == "sensor"]
    assert len({point["start_ns"] for point in own}) == len(own) >= 3
    assert sum(point["fields"]["received"] for point in own) == 3000
    for point in own:
        pairs = [p for p in written if p["measurement"] == "vm_traffic" and p["start_ns"] == point["start_ns"]]
        assert sum(p["fields"]["bytes"] for p in pairs) == point["fields"]["ip_bytes"]
    assert len(workers) == 2


def _cpu_ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11])


def test_a_worker_that_is_killed_is_replaced(lab: Lab, sensor: Sensor, tmp_path: Path) -> None:
    """The others go on, the gap is said, a new one joins, no packet is counted twice, and nothing is left behind."""
    points = tmp_path / "points.jsonl"
    process = sensor.start("--to", f"json:{points}", "--window", "1s", "--workers", "2")
    lab.await_capture(process, rings=2)
    time.sleep(0.6)
    crowd = [udp_frame(f"10.0.0.{1 + i % 200}", f"10.1.0.{1 + i % 99}") for i in range(400)]
    send(lab, crowd)
    time.sleep(2.0)  # their window is told
    victim, survivor = workers_of(process.pid)
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{victim}").exists(), "the victim and its socket to be gone")
    send(lab, crowd)  # all of it to the one that is left
    wait_until(lambda: len(workers_of(process.pid)) == 2, "a new worker", timeout=10)
    lab.await_capture(process, rings=2)
    time.sleep(0.8)
    send(lab, crowd)
    replaced = workers_of(process.pid)
    ended = sensor.ended(process, signal.SIGTERM)
    assert ended.status == 0, ended.errors
    assert survivor in replaced
    assert victim not in replaced
    assert re.search(r"span0: the capture process \d died by SIGKILL; what it had of its open window", ended.errors)
    assert re.search(r"span0: worker \d captures again", ended.errors)
    assert ended.received == 3 * len(crowd)
    told = [json.loads(line) for line in points.read_text().splitlines()]
    own = [point["fields"] for point in told if point["measurement"] == "sensor"]
    assert sum(fields["received"] for fields in own) == ended.received
    assert sum(fields["worker_deaths"] for fields in own) == 1
    assert {fields["workers"] for fields in own} <= {1, 2}
    (gap,) = gaps_of(told)
    assert re.match(
        r"a part of the packets, one worker's of 2, is missing on span0 for \d+\.\d s: the capture process", gap
    )
    assert any(point["partial"] for point in told[:-1])
    assert not [pid for pid in (*replaced, victim) if Path(f"/proc/{pid}").exists()]


def gaps_of(points: list[dict[str, Any]]) -> list[str]:
    """What the events say of times in which packets are missing."""
    events = [point for point in points if point["measurement"] == "event" and point["tags"]["kind"] == "capture_gap"]
    return [str(point["fields"]["detail"]) for point in events]


def test_the_death_of_the_only_worker_is_a_gap(lab: Lab, sensor: Sensor, tmp_path: Path) -> None:
    """From the last window that was told to the next process nothing was captured: an event, and no window is whole."""
    points = tmp_path / "points.jsonl"
    process = sensor.capture("--to", f"json:{points}", "--window", "1s")
    crowd = [udp_frame(f"10.0.0.{1 + i % 200}", "10.1.0.1") for i in range(200)]
    send(lab, crowd)
    time.sleep(2.0)
    (victim,) = workers_of(process.pid)
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: victim not in workers_of(process.pid) != [], "a new worker", timeout=10)
    lab.await_capture(process)
    time.sleep(0.3)
    send(lab, crowd)
    time.sleep(3.0)
    ended = sensor.ended(process, signal.SIGTERM)
    assert (ended.status, ended.received) == (0, 2 * len(crowd)), ended.errors
    told = [json.loads(line) for line in points.read_text().splitlines()]
    (gap,) = gaps_of(told)
    length = re.fullmatch(r"nothing was captured on span0 for (\d+\.\d) s: the capture process died", gap)
    assert length
    assert 1.0 <= float(length[1]) < 10
    first = min(point["start_ns"] for point in told if point["fields"].get("worker_deaths"))
    assert all(point["partial"] for point in told if point["start_ns"] == first)


def test_a_worker_that_stands_still_is_killed(lab: Lab, sensor: Sensor, tmp_path: Path) -> None:
    """Its windows go out in part meanwhile; then another takes its place, and the gap is said."""
    points = tmp_path / "points.jsonl"
    process = sensor.start("--to", f"json:{points}", "--window", "1s", "--workers", "2")
    lab.await_capture(process, rings=2)
    time.sleep(2.0)
    victim, survivor = workers_of(process.pid)
    os.kill(victim, signal.SIGSTOP)
    wait_until(lambda: victim not in workers_of(process.pid), "the victim to be killed", timeout=HUNG_SECONDS + 20)
    wait_until(lambda: len(workers_of(process.pid)) == 2, "a new worker", timeout=10)
    lab.await_capture(process, rings=2)
    time.sleep(2.0)
    ended = sensor.ended(process, signal.SIGTERM)
    assert ended.status == 0, ended.errors
    assert survivor not in workers_of(process.pid)
    assert re.search(r"span0: worker \d stands still, and is killed", ended.errors)
    told = [json.loads(line) for line in points.read_text().splitlines()]
    (gap,) = gaps_of(told)
    length = re.match(r"a part of the packets, one worker's of 2, is missing on span0 for (\d+\.\d) s", gap)
    assert length
    assert float(length[1]) > HUNG_SECONDS
    assert sum(point["partial"] for point in told if point["measurement"] == "sensor") > HUNG_SECONDS - LATEST_SECONDS


class Mute:
    """A keeper whose workers never say anything."""

    def __init__(self) -> None:
        self.ended: list[float] = []
        self._kept: list[int] = []

    def start(self, worker: int, up: Connection, control: Connection) -> None:
        """Keep the worker's ends open, as it would."""
        self._kept += [os.dup(up.fileno()), os.dup(control.fileno())]

    def end(self, worker: int, patience: float = 5.0) -> int:
        """It had to be killed."""
        self.ended.append(patience)
        for descriptor in self._kept:
            os.close(descriptor)
        return -signal.SIGKILL


def test_a_worker_that_never_begins_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is killed, once, without patience, and the capture ends with one line."""
    monkeypatch.setattr(workers, "HUNG_SECONDS", 1.0)
    keeper: Any = Mute()
    nobody: Any = None
    with (
        workers.Workers(build("capture", {}), "span0", keeper, Stop(), (nobody, nobody), nobody) as mute,
        pytest.raises(InterfaceError, match="span0: the capture process died by SIGKILL"),
    ):
        mute.await_ready()
    assert keeper.ended == [0.0]


def test_a_worker_that_stands_still_does_not_keep_the_capture_from_ending(lab: Lab, sensor: Sensor) -> None:
    """Nobody waits for it longer than some seconds; the other one's packets are all told."""
    process = sensor.start("--to", "none", "--window", "1s", "--workers", "2")
    lab.await_capture(process, rings=2)
    time.sleep(0.6)
    crowd = [udp_frame(f"10.0.0.{1 + i % 200}", f"10.1.0.{1 + i % 99}") for i in range(400)]
    victim, _ = workers_of(process.pid)
    os.kill(victim, signal.SIGSTOP)
    send(lab, crowd)
    begun = time.monotonic()
    ended = sensor.ended(process, signal.SIGTERM)
    assert time.monotonic() - begun < STOP_SECONDS + 5
    assert ended.status == 0, ended.errors
    assert re.search(r"the capture process \d died by SIGKILL; what it had not told is lost", ended.errors)
    assert 0 < ended.received < len(crowd)
    assert not Path(f"/proc/{victim}").exists()


def test_an_interface_that_comes_back_is_captured_again(lab: Lab, sensor: Sensor, tmp_path: Path) -> None:
    """Removed and made again, then down and up: the capture resumes by itself; gaps are events; totals are right."""
    points, crowd = tmp_path / "points.jsonl", [udp_frame(f"10.0.0.{1 + i}", "10.1.0.1") for i in range(100)]

    def make() -> None:
        lab.switch.run(["ip", "link", "add", "name", "gone1", "type", "veth", "peer", "gone0", "netns", lab.tap.name])
        lab.switch.run(["ip", "link", "set", "dev", "gone1", "up"])
        lab.tap.run(["ip", "link", "set", "dev", "gone0", "up"])

    def back() -> None:
        lab.await_capture(process, rings=2)
        time.sleep(0.8)
        send(lab, crowd, "gone1")

    make()
    options = ("--to", f"json:{points}", "--window", "1s", "--workers", "2")
    process = sensor.start(*options, interface="gone0")
    back()
    time.sleep(0.5)
    lab.switch.run(["ip", "link", "del", "dev", "gone1"])
    wait_until(lambda: workers_of(process.pid) == [], "the workers to notice")
    make()
    back()
    time.sleep(0.5)
    lab.tap.run(["ip", "link", "set", "dev", "gone0", "down"])
    wait_until(lambda: workers_of(process.pid) == [], "the workers to notice")
    lab.tap.run(["ip", "link", "set", "dev", "gone0", "up"])
    back()
    time.sleep(2)
    ended = sensor.ended(process, signal.SIGTERM)
    lab.switch.run(["ip", "link", "del", "dev", "gone1"])
    assert ended.status == 0, ended.errors
    assert ended.received == 3 * len(crowd)
    assert ended.errors.count("waiting until it is back") == ended.errors.count("gone0: captures again") == 2
    told = [json.loads(line) for line in points.read_text().splitlines()]
    gaps = [point for point in told if point["measurement"] == "event" and point["tags"]["kind"] == "capture_gap"]
    assert [point["fields"]["subject"] for point in gaps] == ["gone0"] * 2
    assert all(point["fields"]["detail"].startswith("nothing was captured on gone0 for ") for point in gaps)
    own = [point["fields"] for point in told if point["measurement"] == "sensor"]
    assert sum(fields["interface_losses"] for fields in own) == 2


def test_a_link_without_a_carrier_is_a_gap(lab: Lab, sensor: Sensor, tmp_path: Path) -> None:
    """The interface stays up, and nothing can come: it is said, the windows are not whole, and it goes on by itself."""
    points, crowd = tmp_path / "points.jsonl", [udp_frame(f"10.0.0.{1 + i}", "10.1.0.1") for i in range(100)]
    process = sensor.capture("--to", f"json:{points}", "--window", "1s")
    time.sleep(2.5)
    send(lab, crowd)
    time.sleep(3.0)  # the gap is said to begin with the look before, up to a second early: not in the packets' window
    lab.switch.run(["ip", "link", "set", "dev", "span", "down"])
    time.sleep(4.0)
    lab.switch.run(["ip", "link", "set", "dev", "span", "up"])
    time.sleep(2.5)
    send(lab, crowd)
    time.sleep(2.5)
    ended = sensor.ended(process, signal.SIGTERM)
    assert (ended.status, ended.received) == (0, 2 * len(crowd)), ended.errors
    assert "span0: the link is down: no carrier; nothing is captured until it is back" in ended.errors
    assert "span0: the link is up again" in ended.errors
    told = [json.loads(line) for line in points.read_text().splitlines()]
    (gap,) = gaps_of(told)
    length = re.fullmatch(r"nothing was captured on span0 for (\d+\.\d) s: the link was down: no carrier", gap)
    assert length
    assert 3.0 <= float(length[1]) <= 7.0
    own = {point["start_ns"]: point for point in told if point["measurement"] == "sensor"}
    with_packets = [point["partial"] for point in own.values() if point["fields"]["received"]]
    assert not any(with_packets)
    assert sum(point["partial"] for point in own.values()) >= 3


def test_workers_are_bound_to_processors(lab: Lab, sensor: Sensor) -> None:
    """Each in turn to one of the list."""
    process = sensor.start("--to", "none", "--workers", "2", "--cpus", "0")
    lab.await_capture(process, rings=2)
    assert [os.sched_getaffinity(pid) for pid in workers_of(process.pid)] == [{0}, {0}]
    assert sensor.ended(process, signal.SIGTERM).status == 0


def test_wrong_numbers_of_workers_are_usage_errors() -> None:
    """Too many, none, processors that are not there, and a number of packets that nobody counts."""
    for options, said in (
        (("--workers", "0"), "no whole number"), (("--workers", "1000"), "more workers than are of use"),
        (("--cpus", "9999"), "there is no processor 9999"), (("--cpus", "a"), "no list of processors"),
        (("--workers", "2", "--packets", "5"), "--packets counts what one process captures"),
    ):  # fmt: skip
        assert said in complaint(vmsensor("capture", "lo", *options), USAGE)
    assert parse_cpus("0") == (0,)
