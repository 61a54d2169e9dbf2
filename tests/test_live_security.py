"""Real attacks between VMs, by real tools over the real mirror, are events that name who; ordinary traffic is none."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Say
from tests.lab import VM, Lab
from tests.live import Sensor
from tests.needs import need_tool

SECOND = 1_000_000_000
WINDOW = ("--window", "2s")
HARMLESS = {"vm_appeared", "vm_silent", "vm_returned", "edge_new", "edge_vanished"}
"""What is said of VMs and dependencies that come and go."""

pytestmark = pytest.mark.proof


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """An attacker, its victim, and a VM that minds its own business."""
    for tool in ("nmap", "hping3", "iperf3"):
        need_tool(tool)
    with Lab(["attacker", "victim", "other"]) as lab:
        yield lab


class Watched:
    """A sensor on the mirror port while something happens."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.lab, self.directory = lab, directory
        self.points: list[dict[str, Any]] = []
        self.began_ns = 0

    def run(self, *commands: tuple[VM, list[str]], seconds: float = 60) -> Watched:
        """Let VMs run commands one after the other, then read what the sensor wrote."""
        sensor, output = Sensor(self.lab, self.directory), self.directory / "points.json"
        process = sensor.capture("--to", f"json:{output}", *WINDOW)
        with self.lab.mirror():
            self.began_ns = time.time_ns()
            for vm, command in commands:
                vm.run(command, timeout=seconds)
            time.sleep(1.2)  # what waits for an answer in vain is known to do so
        ended = sensor.ended(process, signal.SIGTERM)
        assert ended.status == 0, ended.errors
        self.points = [json.loads(line) for line in output.read_text().splitlines()]
        return self

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        """Tags and fields of the events of some kinds, with the delay from the beginning to the end of their window."""
        return [
            {**point["tags"], **point["fields"], "delay_s": (point["end_ns"] - self.began_ns) / SECOND}
            for point in self.points
            if point["measurement"] == "event" and point["tags"]["kind"] in kinds
        ]

    def alarms(self) -> list[dict[str, Any]]:
        """Everything that someone would have to look at."""
        kinds = {point["tags"]["kind"] for point in self.points if point["measurement"] == "event"}
        return self.events(*(kinds - HARMLESS))


def first(what: str, events: list[dict[str, Any]]) -> str:
    """An event and how long it took, for people."""
    for event in events:
        ends = f"{event['subject']} -> {event['object']}"
        return f"{what}: {event['kind']} after {event['delay_s']:.1f} s: {ends}: {event['detail']}"
    return f"{what}: no event"


SCANS = {
    "nmap -sS": ["-sS", "-p", "1-500"],
    "nmap -sT": ["-sT", "-p", "1-500"],
    "nmap -sU": ["-sU", "-p", "1-60", "--max-retries", "0"],
}


@pytest.mark.parametrize("scan", SCANS)
def test_a_port_scan_names_the_scanner(scan: str, lab: Lab, tmp_path: Path, say: Say) -> None:
    """Half-open, whole and UDP scans of one VM are one event: the scanner, and whom it scans."""
    attacker, victim = lab.vm("attacker"), lab.vm("victim")
    command = ["nmap", "-n", "-Pn", "--disable-arp-ping", "-T4", *SCANS[scan], victim.ipv4]
    watched = Watched(lab, tmp_path).run((attacker, command))
    events = watched.events("port_scan")
    say(first(scan, events))
    assert {(event["subject"], event["object"]) for event in events} == {(attacker.ipv4, victim.ipv4)}
    assert [event["state"] for event in events].count("open") == 1


def test_a_host_sweep_names_the_scanner(lab: Lab, tmp_path: Path, say: Say) -> None:
    """A search for hosts on the local segment, which sends nothing but ARP requests."""
    attacker = lab.vm("attacker")
    watched = Watched(lab, tmp_path).run((attacker, ["nmap", "-n", "-sn", "10.77.0.0/24"]))
    events = watched.events("host_sweep")
    say(first("nmap -sn", events))
    assert {event["subject"] for event in events} == {attacker.ipv4}


def test_a_syn_flood_names_the_victim(lab: Lab, tmp_path: Path, say: Say) -> None:
    """Two seconds of forged SYNs are an event that names the victim and its service."""
    attacker, victim = lab.vm("attacker"), lab.vm("victim")
    flood = ["hping3", "-q", "-S", "-p", "80", "-i", "u500", "-c", "6000", "--rand-source", victim.ipv4]
    watched = Watched(lab, tmp_path).run((attacker, flood))
    events = watched.events("syn_flood")
    say(first("hping3 -S", events))
    assert events
    assert all(victim.ipv4 in event["object"] for event in events)
    assert {event["severity"] for event in events} == {"critical"}


def ordinary(lab: Lab, directory: Path, seconds: int) -> Watched:
    """Iperf3, HTTP and DNS between three VMs, for a while."""
    victim, other, attacker = lab.vm("victim"), lab.vm("other"), lab.vm("attacker")
    chatter = [sys.executable, "-m", "tests.chatter"]
    servers = [
        victim.popen([*chatter, "serve", victim.ipv4, str(seconds + 10)]),
        other.popen(["iperf3", "-s", "-B", other.ipv4]),
    ]
    clients = [vm.popen([*chatter, "talk", victim.ipv4, str(seconds - 2), str(i)]) for i, vm in
               enumerate((other, attacker))]  # fmt: skip
    watched = Watched(lab, directory)
    try:
        bulk = ["iperf3", "-c", other.ipv4, "-b", "20M", "-t", str(max(seconds // 2 - 1, 1))]
        watched.run((attacker, bulk), (attacker, [*bulk, "-u", "-l", "1200"]), seconds=seconds + 30)
    finally:
        for process in (*clients, *servers):
            process.terminate()
            process.communicate(timeout=10)
    return watched


@pytest.mark.proof
@pytest.mark.alone  # a sender that has to wait for a processor looks like a slow network
def test_ordinary_traffic_is_no_event(lab: Lab, tmp_path: Path) -> None:
    """Twenty seconds of bulk transfers, pages and names: nothing that anybody would have to look at."""
    watched = ordinary(lab, tmp_path, 20)
    assert watched.alarms() == []
    assert sum(point["fields"]["bytes"] for point in watched.points if point["measurement"] == "vm_traffic") > 10**7


@pytest.mark.proof
@pytest.mark.alone  # a sender that has to wait for a processor looks like a slow network
def test_ten_minutes_of_ordinary_traffic(lab: Lab, tmp_path: Path, say: Say) -> None:
    """Ten minutes of bulk transfers, pages and names without a single false alarm."""
    watched = ordinary(lab, tmp_path, 600)
    windows = sum(point["measurement"] == "sensor" for point in watched.points)
    say(f"ordinary traffic: {len(watched.alarms())} false alarms in {windows} windows of 2 s")
    assert watched.alarms() == []


def test_arp_spoofing_names_the_forger(lab: Lab, tmp_path: Path, say: Say) -> None:
    """A VM tells another, unasked, that it has the address of a third, which goes on talking to others."""
    attacker, victim, other = lab.vm("attacker"), lab.vm("victim"), lab.vm("other")
    chatter = [sys.executable, "-m", "tests.chatter"]
    server = attacker.popen([*chatter, "serve", attacker.ipv4, "20"])
    time.sleep(0.5)
    talker = victim.popen([*chatter, "talk", attacker.ipv4, "12", "3"])
    try:
        watched = Watched(lab, tmp_path).run(
            (attacker, [sys.executable, "-m", "tests.forger", victim.ipv4, other.mac, "9"])
        )
    finally:
        for process in (talker, server):
            process.terminate()
            process.communicate(timeout=10)
        other.run(["ip", "neigh", "flush", "dev", "eth0"])
    events = watched.events("arp_spoof")
    say(first("forged ARP", events))
    assert {(event["subject"], event["object"]) for event in events} == {(attacker.ipv4, victim.ipv4)}
    assert victim.mac in events[0]["detail"]
