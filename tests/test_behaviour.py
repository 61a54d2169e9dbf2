"""What VMs do and what is done to them, from captures: the events that have to be there, and none on clean twins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.command import vmsensor
from tests.needs import PCAPS

BEHAVIOUR = PCAPS / "behaviour"
WEB, ATTACKER = "10.2.0.11", "10.2.0.66"
INVENTORY = """vm,tenant,address,mac,vlan,vni,host,role
web-1,shop,10.2.0.11,,,7001,,
db-1,shop,10.2.0.13,,,7001,,
"""
LIFE = {"vm_appeared", "vm_silent", "vm_returned", "vm_terminated", "edge_new", "edge_vanished"}


def points(capture: str, *options: object) -> list[dict[str, Any]]:
    """All points of a capture, tags and fields beside each other."""
    done = vmsensor("read", PCAPS / capture, "--to", "json:-", *options)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return [{**line, **line["tags"], **line["fields"]} for line in lines]


def events(capture: str, *options: object) -> list[dict[str, Any]]:
    """The events of a capture that somebody would have to look at."""
    return [
        point for point in points(capture, *options) if point["measurement"] == "event" and point["kind"] not in LIFE
    ]


def test_a_migration_is_seen_with_its_blackout_and_its_rtt(tmp_path: Path) -> None:
    """One event with the new host; 0.6 s of silence, and a longer way since; the VM's metrics go on under its name."""
    (tmp_path / "vms.csv").write_text(INVENTORY)
    told = points("behaviour/life-migration.pcap", "--inventory", tmp_path / "vms.csv")
    (move,) = (point for point in told if point["measurement"] == "event")
    assert (move["kind"], move["subject"], move["object"], move["tenant"]) == (
        "vm_migrated", "web-1", "192.168.200.2", "shop"
    )  # fmt: skip
    evidence = dict(item.split("=") for item in move["evidence"].split())
    assert 550_000 < int(evidence["blackout_us"]) < 700_000
    assert int(evidence["rtt_after_us"]) > 3 * int(evidence["rtt_before_us"])
    pairs = {(p["src_vm"], p["dst_vm"], p["src_tenant"], p["scope"]) for p in told if p["measurement"] == "vm_traffic"}
    pairs = {
        pair for pair in pairs if pair[2] != "default"
    }  # the RARP, which is no IP, counts for the tunnel around it
    assert pairs == {("web-1", "db-1", "shop", "east-west"), ("db-1", "web-1", "shop", "east-west")}


def test_tenants_on_the_same_addresses_stay_apart(tmp_path: Path) -> None:
    """One five-tuple in two virtual networks is two tenants' VMs, each with its own name and traffic."""
    lines = [f"vm-{vni}-{last},tenant-{vni},10.1.0.{last},{vni}" for vni in (5003, 5004) for last in (11, 12)]
    (tmp_path / "vms.csv").write_text("vm,tenant,address,vni\n" + "\n".join(lines) + "\n")
    told = points("vxlan.pcap", "--inventory", tmp_path / "vms.csv")
    pairs = {
        (point["src_vm"], point["dst_vm"], point["src_tenant"]): point["packets"]
        for point in told
        if point["measurement"] == "vm_traffic" and point["protocol"] == "tcp" and point["src_vm"].startswith("vm-")
    }
    one_way = {vni: pairs[f"vm-{vni}-11", f"vm-{vni}-12", f"tenant-{vni}"] for vni in (5003, 5004)}
    assert one_way[5003] == one_way[5004] > 0
    assert len(pairs) == 4


def test_dependencies_of_three_tiers() -> None:
    """Who needs whom, since when, and how long it takes."""
    told = [point for point in points("behaviour/life-slow-database.pcap") if point["measurement"] == "dependency"]
    edges = {(point["client_vm"], point["server_vm"], point["service"]) for point in told}
    assert edges == {
        ("10.2.0.11", "10.2.0.12", "http-alt"), ("10.2.0.12", "10.2.0.13", "postgresql"),
        ("10.2.0.11", "10.2.0.14", "8081"),
    }  # fmt: skip
    database = [point for point in told if point["service"] == "postgresql"]
    assert [point["connections"] for point in database] == [1] + [0] * (len(database) - 1)
    assert {point["first_seen"] for point in database} == {database[0]["start_ns"]}
    assert database[-1]["response_p95_us"] > 10 * database[0]["response_p95_us"]


ATTACKS = {
    "port-scan": ("port_scan", ATTACKER, WEB),
    "host-sweep": ("host_sweep", ATTACKER, "tcp/445"),
    "syn-flood": ("syn_flood", "many sources", f"{WEB}:http"),
    "udp-flood": ("udp_flood", ATTACKER, WEB),
    "icmp-flood": ("icmp_flood", ATTACKER, WEB),
    "brute-force": ("brute_force", ATTACKER, "10.2.0.14:ssh"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_one_event_that_names_who(attack: str) -> None:
    """The kind, who does it and to whom; opened once, and nothing else is said."""
    told = events(
        f"behaviour/attack-{attack}.pcap", "--window", "1s" if attack in ("udp-flood", "icmp-flood") else "10s"
    )
    assert {(event["kind"], event["subject"], event["object"]) for event in told} == {ATTACKS[attack]}
    assert [event["state"] for event in told].count("open") == 1


@pytest.mark.parametrize("capture", sorted(f"behaviour/{path.name}" for path in BEHAVIOUR.glob("clean-*.pcap")))
def test_clean_twins_raise_nothing(capture: str) -> None:
    """What only looks like an attack is no event."""
    assert events(capture) == []


def test_learned_names_survive_a_restart(tmp_path: Path) -> None:
    """A VM that was known before is not new to the next run, and an edge keeps the time it was first seen."""
    memory = tmp_path / "memory.json"
    options = ("--memory", memory)
    first = [
        p["first_seen"]
        for p in points("behaviour/life-slow-database.pcap", *options)
        if p["measurement"] == "dependency"
    ]
    again = points("behaviour/life-slow-database.pcap", *options)
    assert {p["first_seen"] for p in again if p["measurement"] == "dependency"} == set(first)
    assert memory.stat().st_size > 100
