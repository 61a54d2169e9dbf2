"""Policies, bad networks, forged and foreign addresses: files with their errors, findings, and clean twins."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensor import native
from sensor.analysis.findings import Scene
from sensor.analysis.limits import DEFAULTS
from sensor.analysis.policy.judge import NO_RULE, judge
from sensor.analysis.policy.policyfile import load_policy
from sensor.analysis.policy.rules import Policy
from sensor.analysis.security.badnets import BadNetworkDetector, BadNetworks, load_networks
from sensor.analysis.security.spoof import SpoofDetector
from sensor.config import PRIVATE_NETWORKS
from sensor.errors import InputError, UsageError
from sensor.identity.heard import Heard
from sensor.identity.inventory import Inventory
from sensor.identity.inventoryfile import entries_from
from sensor.identity.parties import resolve
from sensor.identity.registry import Registry
from sensor.protocols import ICMP, UDP
from sensor.watch import Fixed
from tests.command import INPUT, USAGE, complaint, vmsensor
from tests.needs import PCAPS
from tests.records import SECOND, START, record

BEHAVIOUR = PCAPS / "behaviour"
LIFE = {"vm_appeared", "vm_silent", "vm_returned", "vm_terminated", "edge_new", "edge_vanished"}
INVENTORY = """vm,tenant,address,mac
web,acme,10.2.0.11,02:00:0a:02:00:0b
db,acme,10.2.0.13,02:00:0a:02:00:0d
peer,acme,10.2.0.15,
shop,globex,10.2.8.11,02:00:0a:02:08:0b
backup,ops,10.2.9.5,
"""
POLICY = """
[default]
north_south = "deny"

[[allow]]
from = "*"
to = { tenant = "ops", vm = "backup" }

[[allow]]
comment = "updates"
from = "*"
to = { tenant = "external", address = ["192.0.2.0/24", "2001:db8::/32"] }
service = "http"

[[allow]]
from = "external"
to = { tenant = "acme", vm = "w*" }
service = ["http", "tcp/8000-8099", "https"]
"""
TENANTS = ("acme", "globex", "ops")


@pytest.fixture
def options(tmp_path: Path) -> list[object]:
    """An inventory, a policy and a list of bad networks, as options."""
    return border_options(tmp_path)


def border_options(tmp_path: Path) -> list[object]:
    """The same, with the files in a directory."""
    files = {"inventory": ("vms.csv", INVENTORY), "policy": ("policy.toml", POLICY),
             "bad-networks": ("bad.txt", "# feed\n198.51.100.0/24 ; SBL1\n2001:db8:bad::/48\n")}  # fmt: skip
    given: list[object] = []
    for option, (name, text) in files.items():
        (tmp_path / name).write_text(text)
        given += [f"--{option}", tmp_path / name]
    return given


def events(capture: Path, *options: object) -> list[dict[str, Any]]:
    """Tags and fields of the events that somebody would have to look at."""
    done = vmsensor("read", capture, "--to", "json:-", *options)
    assert done.returncode == 0, done.stderr
    points = [json.loads(line) for line in done.stdout.splitlines()]
    told = [{**point["tags"], **point["fields"]} for point in points if point["measurement"] == "event"]
    return [event for event in told if event["kind"] not in LIFE]


def opened(told: list[dict[str, Any]]) -> set[tuple[str, str, str, str]]:
    """Kind, severity, subject and object of the events that were opened."""
    return {(e["kind"], e["severity"], e["subject"], e["object"]) for e in told if e["state"] == "open"}


# ---- from captures


def test_crossed_borders_are_events(options: list[object]) -> None:
    """Another tenant's service, outside talk that no rule expects, a bad network, a foreign source; nothing else."""
    assert opened(events(BEHAVIOUR / "attack-borders.pcap", *options)) == {
        ("policy_violation", "critical", "web", "shop:http"),
        ("policy_violation", "warning", "shop", "db:icmp"),
        ("unexpected_north_south", "warning", "db", "external:http"),
        ("unexpected_north_south", "warning", "web", "external:http"),
        ("bad_network", "critical", "web", "198.51.100.0/24"),
        ("foreign_address", "critical", "web", "10.2.8.11"),
    }


@pytest.mark.parametrize("capture", ["clean-borders.pcap", "clean-failover.pcap"])
def test_what_is_allowed_is_no_event(capture: str, options: list[object]) -> None:
    """Within the tenant, to the backup, for updates, from outside to the web server; a failover and its end."""
    wanted = options if capture == "clean-borders.pcap" else options[:2]
    assert events(BEHAVIOUR / capture, *wanted) == []


@pytest.mark.parametrize("window", ["1s", "10s", "60s"])
def test_arp_spoofing_names_who_and_whose(window: str) -> None:
    """Both forged addresses, by the address of the VM that forges them, whatever the window."""
    assert opened(events(BEHAVIOUR / "attack-arp-spoof.pcap", "--window", window)) == {
        ("arp_spoof", "critical", "10.2.0.66", ip) for ip in ("10.2.0.11", "10.2.0.15")
    }


def test_an_address_that_two_vms_have() -> None:
    """They only answer questions: no attack, but somebody has to know."""
    told = events(BEHAVIOUR / "attack-duplicate-address.pcap")
    assert opened(told) == {("duplicate_address", "warning", "02:00:0a:02:00:16", "10.2.0.20")}
    assert "02:00:0a:02:00:15" in told[0]["detail"]


def claims(*said: tuple[float, str, str, str]) -> list[Heard]:
    """Claims of an address: seconds, whether somebody has just asked for it, the card's last octet, the address."""
    heard = []
    for at, kind, card, ip in said:
        time_ns, mac = START + round(at * SECOND), f"02:00:00:00:00:{card}"
        if kind == "asked":
            heard.append(Heard(time_ns - 1000, "request", "02:00:00:00:00:99", target=ip))
        heard.append(Heard(time_ns, "binding", mac, ip=ip, gratuitous=kind == "unasked", reply=kind == "asked"))
    return heard


def listed(**values: str) -> Inventory:
    """An inventory of one VM."""
    return Inventory(tuple(entries_from({"tenant": "t", **values}, "row")))


def spoofs(*windows: list[Heard], inventory: Inventory | None = None) -> set[tuple[str, str, str]]:
    """What is found of claims alone, in windows of ten seconds."""
    detector, found = SpoofDetector(DEFAULTS), []
    nothing = np.zeros(0, native.RECORD)
    for number, heard in enumerate(windows):
        start = START + number * 10 * SECOND
        parties = resolve(nothing, Registry(PRIVATE_NETWORKS))
        found += detector.look(Scene(start, start + 10 * SECOND, nothing, parties, heard, inventory or Inventory()))
    return {(finding.kind, finding.subject, finding.object) for finding in found}


def test_forged_neighbour_advertisements() -> None:
    """Unasked ones, again and again, while the rightful card still answers; named by its own address."""
    target, own = "fe80::1", "fe80::66"
    heard = claims(
        (0, "asked", "01", target), (1, "asked", "66", own), (2, "unasked", "66", target), (3, "unasked", "66", target),
        (4, "unasked", "66", target), (5, "asked", "01", target), (6, "unasked", "66", target),
    )  # fmt: skip
    assert spoofs(heard) == {("nd_spoof", own, target)}


@pytest.mark.parametrize("introduced", [True, False])
def test_a_long_forgery_is_one_to_its_end(introduced: bool) -> None:
    """The rightful card says nothing of itself after the beginning, or ever; its traffic shows that it is there."""
    address, detector = "10.0.0.9", SpoofDetector(DEFAULTS)
    found = []
    for number in range(20):
        at = number * 10
        start = START + at * SECOND
        rows = record(address, "10.0.0.8", client_mac=[2, 0, 0, 0, 0, 1], c2s_packets=5, s2c_packets=5, start_ns=START,
                      end_ns=start + SECOND)  # fmt: skip
        heard = claims(*((at + second, "unasked", "66", address) for second in (3, 6, 9)))
        heard = [*claims((0, "asked", "01", address)), *heard] if introduced and number == 0 else heard
        parties = resolve(rows, Registry(PRIVATE_NETWORKS))
        found.append([
            one.kind for one in detector.look(Scene(start, start + 10 * SECOND, rows, parties, heard, Inventory()))
        ])  # fmt: skip
    assert found[1:] == [["arp_spoof"]] * 19


def test_an_address_that_is_taken_over_once_is_no_forgery() -> None:
    """By claims alone: a failover, and the failing back, within and across windows."""
    address = "10.0.0.9"
    over = claims(*((at, "unasked", "02", address) for at in (2, 2.1, 2.2, 2.3)))
    back = claims(*((at, "unasked", "01", address) for at in (14, 14.1, 14.2)))
    first = claims((0, "asked", "01", address))
    assert spoofs([*first, *over], back) == set()
    assert spoofs([*first, *over], back, claims((22, "unasked", "02", address))) != set()


def test_the_inventory_knows_whose_address_it_is() -> None:
    """The forger was heard first, and asks no more than once: it is named all the same."""
    address = "10.0.0.9"
    known = Inventory(
        tuple(entries_from({"vm": "db", "tenant": "t", "address": address, "mac": "02:00:00:00:00:01"}, "x"))
    )
    heard = claims((0, "asked", "66", address), (1, "asked", "01", address), (5, "asked", "66", address),
                   (6, "asked", "01", address))  # fmt: skip
    assert spoofs(heard, inventory=known) == {("arp_spoof", "02:00:00:00:00:66", address)}
    assert spoofs(heard) == {("duplicate_address", "02:00:00:00:00:01", address)}


def test_shared_cards_and_routers_may_share() -> None:
    """VRRP's card, the cards of a bond by the inventory, and one that it calls a router."""
    address, shared = "10.0.0.9", "00:00:5e:00:01:07"
    flips = [(at, "unasked", "01" if at % 2 else "02", address) for at in range(10)]
    assert spoofs(claims(*flips)) != set()
    masters = [replace(one, mac=shared) if one.mac.endswith("02") else one for one in claims(*flips)]
    assert spoofs(masters) == set()
    cards = [
        entries_from({"vm": "b", "tenant": "t", "address": address, "mac": f"02:00:00:00:00:{card}"}, "row")
        for card in ("01", "02")
    ]
    bond = Inventory(tuple(entry for entries in cards for entry in entries))
    assert spoofs(claims(*flips), inventory=bond) == set()
    router = Inventory(
        tuple(entries_from({"vm": "gw", "tenant": "t", "mac": "02:00:00:00:00:02", "role": "router"}, "x"))
    )
    assert spoofs(claims(*flips), inventory=router) == set()


def test_a_flood_of_cards_is_bounded_and_told(tmp_path: Path) -> None:
    """100,000 forged MAC addresses: counted, told as one event, and kept within bounds in memory and on disk."""
    frames = []
    for i in range(100_000):
        mac = bytes((2, 1)) + i.to_bytes(4, "big")
        ip = bytes((10, 9, i >> 8 & 255, i & 255))
        arp = struct.pack(">HHBBH", 1, 0x800, 6, 4, 1) + mac + ip + bytes(6) + ip
        frame = b"\xff" * 6 + mac + b"\x08\x06" + arp + bytes(18)
        frames.append(
            struct.pack("<IIII", 1_700_000_000 + i // 25_000, i % 25_000 * 40, len(frame), len(frame)) + frame
        )
    capture = tmp_path / "flood.pcap"
    capture.write_bytes(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1) + b"".join(frames))
    done = vmsensor("read", capture, "--to", "json:-", "--memory", tmp_path / "memory.json")
    assert done.returncode == 0, done.stderr
    points = [json.loads(line) for line in done.stdout.splitlines()]
    (sensor,) = (point["fields"] for point in points if point["measurement"] == "sensor")
    (event,) = ({**p["tags"], **p["fields"]} for p in points if p["measurement"] == "event")
    assert (event["kind"], event["severity"]) == ("mac_flood", "critical")
    assert sensor["received"] == sensor["fate_arp"] == 100_000
    assert sensor["notices"] + sensor["notices_lost"] == 100_000
    assert int(event["evidence"].split("=")[1]) + sensor["cards_lost"] == 100_000
    assert (tmp_path / "memory.json").stat().st_size < 2_000_000


# ---- what a policy says


def judged(policy: Policy, *rows: Any) -> list[int]:
    """The rule that allows each record."""
    lines = [line.split(",") for line in INVENTORY.splitlines()[1:]]
    entries = [entries_from({"vm": vm, "tenant": tenant, "address": ip}, "row") for vm, tenant, ip, _ in lines]
    registry = Registry(PRIVATE_NETWORKS, Fixed(Inventory(tuple(entry for found in entries for entry in found))))
    records = np.concatenate(rows)
    return judge(policy, records, resolve(records, registry), every=True).rule.tolist()


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Policy]:
    """Loads a policy from its text."""

    def write(text: str) -> Policy:
        path = tmp_path / "policy.toml"
        path.write_text(text)
        return load_policy(path, TENANTS)

    return write


def test_rules_are_told_by_tenant_vm_address_and_service(written: Callable[[str], Policy]) -> None:
    """The first that fits, or none; other ports, protocols, VMs and addresses do not fit."""
    policy = written(POLICY)
    web, db, shop, backup, outside, updates = (
        "10.2.0.11", "10.2.0.13", "10.2.8.11", "10.2.9.5", "203.0.113.9", "192.0.2.80"
    )  # fmt: skip
    assert judged(
        policy, record(web, backup, server_port=9999), record(shop, backup, protocol=ICMP),
        record(db, updates), record(db, updates, server_port=443), record(db, outside),
        record(outside, web, server_port=8099), record(outside, web, server_port=8100),
        record(outside, db), record(outside, web, protocol=UDP, server_port=443),
        record(outside, web, protocol=UDP, server_port=8000), record(web, shop),
    ) == [0, 0, 1, NO_RULE, NO_RULE, 2, NO_RULE, NO_RULE, 2, NO_RULE, NO_RULE]  # fmt: skip


def test_roles_that_nobody_saw_are_not_held_against_anyone(written: Callable[[str], Policy]) -> None:
    """A flow joined in the middle, of which it is a guess who serves, may be the allowed one from its other end."""
    policy = written('[[allow]]\nfrom = "acme"\nto = "globex"\nservice = "tcp/9000"\n')
    guessed = record("10.2.8.11", "10.2.0.11", client_port=9000, server_port=9001)
    sure = record("10.2.8.11", "10.2.0.11", client_port=9000, server_port=9001)

    guessed["role_source"], sure["role_source"] = native.ROLES.index("first"), native.ROLES.index("syn")
    assert judged(policy, guessed, sure) == [0, NO_RULE]


RULE = '[[allow]]\nfrom = "acme"\nto = "ops"\n'
BAD_POLICIES = {
    '[[allow]]\nfrom = "acne"\nto = "ops"\n': r":1: rule 1: from: tenant: 'acne': .*; did you mean 'acme'\?",
    f'{RULE}[[allow]]\nfrom = "acme"\n': r":4: rule 2: to: is missing; name a tenant",
    f'{RULE}service = "htps"\n': r"service: 'htps': not known .*; did you mean 'https'\?",
    f'{RULE}service = "tcp/70000"\n': r"service: 'tcp/70000' is no service; write",
    f"{RULE}service = []\n": r"service: is empty; name services, or leave the key out",
    '[[allow]]\nfrom = "acme"\nto = { address = "1.2.3" }\n': r"to: address: '1.2.3' is no address prefix",
    '[[allow]]\nfrom = 5\nto = "ops"\n': r"from: write a tenant in quotes, or \{ tenant",
    '[[allow]]\nform = "acme"\nto = "ops"\n': r"rule 1: 'form': not known in a rule; did you mean 'from'\?",
    "[defaults]\n": r"'defaults': not known in a policy; did you mean 'default'\?",
    '[default]\nnorth_south = "no"\n': r"default: north_south: 'no' is neither \"allow\" nor \"deny\"",
    "[[allow]\n": r"policy.toml: not valid TOML: ",
}


@pytest.mark.parametrize("text", BAD_POLICIES)
def test_a_bad_policy_is_one_clear_line(text: str, written: Callable[[str], Policy]) -> None:
    """File, line, rule and key, and what would be right."""
    with pytest.raises(UsageError, match=BAD_POLICIES[text]):
        written(text)


def test_domains_and_the_outside_need_no_inventory(tmp_path: Path) -> None:
    """Tenants without an inventory are called by VLAN or VNI; any other name needs one, and the message says so."""
    path = tmp_path / "policy.toml"
    path.write_text('[[allow]]\nfrom = "vlan10"\nto = "vni5003"\n[[allow]]\nfrom = "external"\nto = "default"\n')
    assert len(load_policy(path, ()).rules) == 2
    path.write_text('[[allow]]\nfrom = "acme"\nto = "external"\n')
    with pytest.raises(UsageError, match=r"tenants come from the inventory: give --inventory$"):
        load_policy(path, ())


@pytest.mark.parametrize(
    ("option", "name", "text", "status", "said"),
    [
        ("--policy", "p.toml", '[[allow]]\nfrom = "x"\nto = "*"\n', USAGE, "p.toml:1: rule 1: from: tenant: 'x'"),
        ("--policy", "p.toml", None, INPUT, "p.toml: cannot read the policy: No such file"),
        ("--bad-networks", "b.txt", "1.2.3.0/24\nhello\n", USAGE, "b.txt:2: 'hello' is no prefix"),
        ("--bad-networks", "b.txt", "0.0.0.0/0\n", USAGE, "b.txt:1: 0.0.0.0/0 is every address"),
        ("--bad-networks", "b.txt", None, INPUT, "b.txt: cannot read the list of bad networks"),
        ("--inventory", "v.csv", "vm,tenant,address\nweb,acme,10.0.0.300\n", USAGE, "v.csv:2: address: '10.0.0.300'"),
        ("--inventory", "v.csv", "vm,tenant,address\na,t,10.0.0.1\nb,t,10.0.0.1", USAGE, "v.csv:3: address: 10.0"),
    ],
)  # fmt: skip
def test_a_bad_file_ends_the_start_with_one_line(
    option: str, name: str, text: str | None, status: int, said: str, tmp_path: Path
) -> None:
    """What a user sees of an inventory, a policy or a list that is wrong."""
    if text is not None:
        (tmp_path / name).write_text(text)
    done = vmsensor("read", PCAPS / "demo.pcap", "--to", "none", option, tmp_path / name)
    assert said in complaint(done, status)


# ---- bad networks

networks = st.one_of(
    st.builds(lambda n, p: ip_network((n, p), strict=False), st.integers(0, 2**32 - 1), st.integers(1, 32)),
    st.builds(lambda n, p: ip_network((n, p), strict=False), st.integers(2**32, 2**128 - 1), st.integers(1, 128)),
)
addresses = st.one_of(
    st.integers(0, 2**32 - 1).map(ip_address), st.integers(2**32, 2**128 - 1).map(ip_address)
)  # fmt: skip


@given(st.lists(networks, max_size=20), st.lists(addresses, min_size=1, max_size=20))
def test_lookup_finds_what_a_walk_through_the_list_finds(listed: list[Any], asked: list[Any]) -> None:
    """Nested, adjacent and equal prefixes of both families, and addresses at their edges."""
    asked = [*asked, *(n.network_address for n in listed), *(n.broadcast_address for n in listed)]
    bad = BadNetworks(tuple((network, "") for network in listed))
    ip = np.array([list(a.packed.ljust(16, b"\0")) for a in asked], np.uint8)
    found = bad.find(ip, np.array([a.version for a in asked], np.uint8))
    for address, index in zip(asked, found.tolist(), strict=True):
        holding = [n for n in listed if n.version == address.version and address in n]
        assert (index >= 0) == bool(holding)
        assert index < 0 or bad.listed[index][0] in holding


@pytest.mark.parametrize(
    ("client", "server", "answers", "severity"),
    [("10.0.0.1", "198.51.100.1", 0, "critical"), ("198.51.100.1", "10.0.0.1", 3, "warning"),
     ("198.51.100.1", "10.0.0.1", 0, "info"), ("10.0.0.1", "203.0.113.1", 3, None)],
)  # fmt: skip
def test_who_calls_a_bad_network_matters_most(client: str, server: str, answers: int, severity: str | None) -> None:
    """A VM that calls there, one that answers, one that is merely tried; others are no matter."""
    rows = record(client, server, c2s_packets=3, s2c_packets=answers)
    parties = resolve(rows, Registry(PRIVATE_NETWORKS))
    detector = BadNetworkDetector(Fixed(BadNetworks(((ip_network("198.51.100.0/24"), "feed"),))))
    found = list(detector.look(Scene(START, START + 10 * SECOND, rows, parties, [], Inventory())))
    assert [(one.subject, one.object, one.severity) for one in found] == (
        [("10.0.0.1", "198.51.100.0/24", severity)] if severity else []
    )


def test_a_list_as_feeds_give_it_out(tmp_path: Path) -> None:
    """Comments of all kinds, blank lines, single addresses, host bits."""
    path = tmp_path / "bad.txt"
    path.write_text("; DROP\n\n# x\n192.0.2.7/24 ; SBL1\n198.51.100.1 # bot\n2001:db8::/32, lab\n")
    assert [(str(network), said) for network, said in load_networks(path).listed] == [
        ("192.0.2.0/24", "SBL1"), ("198.51.100.1/32", "bot"), ("2001:db8::/32", "lab")
    ]  # fmt: skip


def test_a_missing_file_is_an_input_error(tmp_path: Path) -> None:
    """As with every input."""
    with pytest.raises(InputError, match="cannot read the list of bad networks"):
        load_networks(tmp_path / "none.txt")
