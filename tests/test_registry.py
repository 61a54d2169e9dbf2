"""Who has an address: the inventory first, then what was learned, then the address; tenants stay apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sensor import native
from sensor.config import PRIVATE_NETWORKS
from sensor.identity.heard import Heard
from sensor.identity.inventory import Inventory
from sensor.identity.inventoryfile import load_inventory
from sensor.identity.learned import Learned
from sensor.identity.parties import SCOPES, resolve
from sensor.identity.registry import Registry
from sensor.watch import Fixed
from tests.records import START, record

WEB, DB, ROUTER = ("02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:fe")
TWO_TENANTS = f"""vm,tenant,address,mac,vlan,vni,host,role
web,shop,10.0.0.1,{WEB},,5001,host-1,
db,shop,10.0.0.2,{DB},,5001,host-2,
web,bank,10.0.0.1,,,5002,,
db,bank,10.0.0.2,,,5002,,
nat,bank,203.0.113.0/28,,,5002,,gateway
gw,shop,10.0.0.254,{ROUTER},,5001,,router
"""


def mac(text: str) -> list[int]:
    """The octets of a MAC address."""
    return [int(octet, 16) for octet in text.split(":")]


def inventory(directory: Path, text: str = TWO_TENANTS) -> Inventory:
    """An inventory from a file."""
    path = directory / "vms.csv"
    path.write_text(text)
    return load_inventory(path)


def ends(one: native.NumpyArray, registry: Registry) -> tuple[tuple[str, str], tuple[str, str], str]:
    """(VM, tenant) of client and server, and the scope."""
    parties = resolve(one, registry)
    client, server = parties.client[0], parties.server[0]
    names, tenants = parties.names, parties.tenants
    return (names[client], tenants[client]), (names[server], tenants[server]), SCOPES[parties.scope[0]]


def test_the_same_addresses_in_two_virtual_networks(tmp_path: Path) -> None:
    """Each tenant's own VMs, by VNI."""
    registry = Registry(PRIVATE_NETWORKS, Fixed(inventory(tmp_path)))
    assert ends(record(vni=5001), registry) == (("web", "shop"), ("db", "shop"), "east-west")
    assert ends(record(vni=5002), registry) == (("web", "bank"), ("db", "bank"), "east-west")
    assert ends(record(), registry) == (("10.0.0.1", "default"), ("10.0.0.2", "default"), "east-west")


def test_an_unknown_address_in_a_known_network(tmp_path: Path) -> None:
    """Its tenant is the network's, its name the address; another tenant's public address is a VM, too."""
    registry = Registry(PRIVATE_NETWORKS, Fixed(inventory(tmp_path)))
    client, server, scope = ends(record("10.0.0.77", "203.0.113.3", vni=5002), registry)
    assert (client, server, scope) == (("10.0.0.77", "bank"), ("nat", "bank"), "east-west")


def test_a_vm_with_a_new_address_is_known_by_its_card(tmp_path: Path) -> None:
    """The MAC address names it; one with a router's role names nobody, and nobody outside."""
    registry = Registry(PRIVATE_NETWORKS, Fixed(inventory(tmp_path)))
    moved = record("10.0.0.99", "10.0.0.2", vni=5001, client_mac=mac(WEB), server_mac=mac(DB))
    assert ends(moved, registry)[0] == ("web", "shop")
    routed = record("10.9.0.1", "8.8.8.8", vni=5001, client_mac=mac(ROUTER), server_mac=mac(WEB))
    assert ends(routed, registry)[:2] == (("10.9.0.1", "shop"), ("external", "external"))


def test_a_card_with_many_addresses_is_a_router() -> None:
    """Its MAC address says nothing of who is behind it, whatever name it has been given."""
    learned = Learned()
    learned.hear([Heard(START, "hostname", ROUTER, ip="10.0.0.254", name="edge")])
    registry = Registry(PRIVATE_NETWORKS, learned=learned)
    many = np.concatenate([record(f"10.1.0.{i}", "10.0.0.2", client_mac=mac(ROUTER)) for i in range(1, 20)])
    assert "edge" not in resolve(many, registry).names
    assert ends(record("10.0.0.254", client_mac=mac(ROUTER)), registry)[0] == ("edge", "default")


def test_host_names_name_what_no_inventory_knows(tmp_path: Path) -> None:
    """A name from DHCP, in its own domain only; the inventory's name wins."""
    learned = Learned()
    said = [Heard(START, "hostname", DB, ip="10.0.0.2", name="postgres-1", vni=vni) for vni in (5001, 5003)]
    learned.hear(said)
    registry = Registry(PRIVATE_NETWORKS, Fixed(inventory(tmp_path)), learned)
    assert ends(record(vni=5003), registry)[1] == ("postgres-1", "vni5003")
    assert ends(record(vni=5001), registry)[1] == ("db", "shop")
    assert ends(record(vni=5004), registry)[1] == ("10.0.0.2", "vni5004")


def test_answers_follow_what_is_learned() -> None:
    """A name that is learned later takes effect with the next window."""
    registry = Registry(PRIVATE_NETWORKS)
    assert ends(record(), registry)[0] == ("10.0.0.1", "default")
    registry.learned.hear([Heard(START, "hostname", WEB, ip="10.0.0.1", name="web-1")])
    registry.refresh()
    assert ends(record(), registry)[0] == ("web-1", "default")


def test_groups_are_no_vms() -> None:
    """Multicast, broadcast and the unspecified address have names of their own, and no VM each."""
    registry = Registry(PRIVATE_NETWORKS)
    assert ends(record("10.0.0.1", "224.0.0.251", vlan=(10,)), registry)[1:] == (("multicast", "vlan10"), "east-west")
    assert ends(record("fd00::1", "ff02::fb"), registry)[1] == ("multicast", "default")
    assert ends(record("0.0.0.0", "255.255.255.255"), registry)[:2] == (
        ("unspecified", "default"), ("multicast", "default")
    )  # fmt: skip


def test_names_come_in_a_fixed_order() -> None:
    """However the hash that groups endpoints falls out, the same window gives the same order."""
    many = np.concatenate([record(f"10.0.{i % 7}.{i}", f"10.1.{i % 5}.{i}", vni=i % 3) for i in range(200)])
    parties = resolve(many, Registry(PRIVATE_NETWORKS))
    shuffled = resolve(many[::-1], Registry(PRIVATE_NETWORKS))
    assert (parties.names, parties.tenants) == (shuffled.names, shuffled.tenants)
    assert (parties.client[::-1] == shuffled.client).all()
