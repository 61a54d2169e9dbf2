"""Who took part: VMs, tenants, scopes and services have few names, and the right ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensor import native
from sensor.config import PRIVATE_NETWORKS, parse_network
from sensor.identity.inventory import Entry, Inventory
from sensor.identity.parties import SCOPES, resolve
from sensor.identity.registry import Registry
from sensor.protocols import ICMP
from sensor.services import EPHEMERAL_LOWEST, service_name
from sensor.watch import Fixed
from tests.records import overflow, pair, record, report_of, rows


@given(st.integers(0, 65535), st.sampled_from(["tcp", "udp", "sctp"]))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_a_service_is_a_name_a_low_port_or_dynamic(port: int, protocol: str) -> None:
    """An ephemeral port never becomes a tag."""
    name = service_name(protocol, port)
    assert name == "dynamic" or not name.isdecimal() or (int(name) == port < EPHEMERAL_LOWEST)


def test_services() -> None:
    """Names, numbers, and what has no ports."""
    assert service_name("tcp", 443) == "https"
    assert service_name("tcp", 12345) == "12345"
    assert service_name("tcp", 51000) == "dynamic"
    assert service_name("icmp", None) == "icmp"
    found = report_of(record(protocol=ICMP, client_port=8, server_port=0, c2s_packets=1)).table("vm_traffic")
    assert (list(found.tags["service"]), list(found.tags["protocol"])) == (["icmp"], ["icmp"])


def test_peers_on_ephemeral_ports_are_one_service() -> None:
    """A thousand flows between ephemeral ports are one row for each direction."""
    many = [record(client_port=40000 + i, server_port=50000 + i, c2s_packets=1, s2c_packets=1) for i in range(1000)]
    report = report_of(*many)
    assert [(row["service"], row["flows"]) for row in rows(report.table("vm_traffic"))] == [("dynamic", 1000)] * 2


def test_outsiders_are_one_vm() -> None:
    """However many addresses talk to a VM from outside, they are `external`."""
    many = [record(f"198.51.{i}.7", "10.0.0.9", server_port=443, c2s_packets=1, c2s_bytes=i) for i in range(50)]
    row = pair(report_of(*many), "external", "10.0.0.9")
    assert (row["flows"], row["bytes"], row["scope"]) == (50, sum(range(50)), "north-south")
    assert (row["src_tenant"], row["dst_tenant"]) == ("external", "default")


def test_flows_between_outsiders_count_once() -> None:
    """Both ends are the same name; a flow between them is still one flow."""
    row = pair(report_of(record("192.0.2.1", "198.51.100.1", c2s_packets=2, s2c_packets=3, flags=native.NEW)),
               "external", "external")  # fmt: skip
    assert (row["packets"], row["flows"], row["new_flows"], row["scope"]) == (5, 1, 1, "unknown")


def test_a_vm_that_talks_to_itself() -> None:
    """Both directions are one row, and the flow is one flow."""
    one = record("10.0.0.1", "10.0.0.1", c2s_packets=1, s2c_packets=1, c2s_bytes=40, s2c_bytes=60)
    row = pair(report_of(one), "10.0.0.1", "10.0.0.1")
    assert (row["flows"], row["packets"], row["bytes"]) == (1, 2, 100)


def test_tenants_are_domains() -> None:
    """VNI before VLAN before nothing; VLAN tags beside a VNI belong to the underlay, and VLAN 0 is only a priority."""
    domains = {"vni7": {"vni": 7, "vlan": (99,)}, "vni0": {"vni": 0}, "vlan10": {"vlan": (10,)}, "default": {},
               "vlan10.20": {"vlan": (10, 20)}, "vlan30": {"vlan": (0, 30)}}  # fmt: skip
    report = report_of(*[record(c2s_packets=i + 1, **domain) for i, domain in enumerate(domains.values())])
    found = {row["src_tenant"]: row["packets"] for row in rows(report.table("vm_traffic")) if row["packets"]}
    assert found == {tenant: i + 1 for i, tenant in enumerate(domains)}


SPECIAL = (
    "8.8.8.8", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "255.255.255.254", "0.0.0.0", "0.0.0.1",
    "10.0.0.9", "2001:db8::1", "ff02::1", "::", "::1", "fd00::1",
)  # fmt: skip


def test_an_inventory_of_somebody_else_changes_no_name() -> None:
    """Ends outside are known without a question where nobody can have them; asked one by one, they are the same."""
    somebody = Inventory((Entry("web", "shop", parse_network("198.51.100.7/32")),))
    ends = [record(end, "10.0.0.2" if "." in end else "fd00::2", vlan=(10,)) for end in SPECIAL]
    unasked, asked = (
        resolve(np.concatenate(ends), Registry(PRIVATE_NETWORKS, Fixed(inventory)))
        for inventory in (Inventory(), somebody)
    )
    for parties in (unasked, asked):
        assert parties.names[parties.client[0]] == "external"
        assert parties.names[parties.client[1]] == "multicast"
    for one, other in ((unasked.client, asked.client), (unasked.server, asked.server)):
        assert [unasked.names[vm] for vm in one] == [asked.names[vm] for vm in other]
        assert [unasked.tenants[vm] for vm in one] == [asked.tenants[vm] for vm in other]


def test_overlapping_addresses_stay_apart() -> None:
    """The same two addresses in two tenants are four VMs and four rows."""
    report = report_of(*[record(vni=vni, c2s_bytes=vni, s2c_bytes=1, c2s_packets=1, s2c_packets=1) for vni in (5, 6)])
    assert report.table("vm_traffic").rows == 4
    for vni in (5, 6):
        row = pair(report, "10.0.0.1", "10.0.0.2", src_tenant=f"vni{vni}")
        assert (row["bytes"], row["dst_tenant"], row["scope"]) == (vni, f"vni{vni}", "east-west")


def test_a_domain_that_only_differs_in_the_underlay_is_one_tenant() -> None:
    """A VNI carried in two underlay VLANs: one row, added up."""
    report = report_of(*[record(vni=5, vlan=(vlan,), c2s_packets=1, s2c_packets=1) for vlan in (100, 200)])
    assert pair(report, "10.0.0.1", "10.0.0.2")["packets"] == 2


@pytest.mark.parametrize(
    ("client", "server", "scope"),
    [
        ("10.0.0.1", "10.0.0.2", "east-west"),
        ("10.0.0.1", "192.168.7.1", "east-west"),
        ("10.0.0.1", "192.0.2.1", "north-south"),
        ("192.0.2.1", "10.0.0.1", "north-south"),
        ("192.0.2.1", "198.51.100.1", "unknown"),
        ("fd00::1", "fe80::1", "east-west"),
        ("fd00::1", "2001:db8::1", "north-south"),
    ],
)
def test_scopes(client: str, server: str, scope: str) -> None:
    """Where a flow runs, by what is monitored."""
    parties = resolve(record(client, server), Registry(PRIVATE_NETWORKS))
    assert SCOPES[parties.scope[0]] == scope


def test_monitored_prefixes_decide() -> None:
    """What is a VM is the user's word: a public prefix can be, a private address need not."""
    networks = (parse_network("192.0.2.0/25"), parse_network("2001:db8::/32"))
    one = np.concatenate([record("192.0.2.127", "10.0.0.1"), record("192.0.2.128", "10.0.0.1")])
    parties = resolve(one, Registry(networks))
    names = [(parties.names[c], parties.names[s]) for c, s in zip(parties.client, parties.server, strict=True)]
    assert names == [("192.0.2.127", "external"), ("external", "external")]
    six = resolve(record("2001:db8::5", "fd00::1"), Registry(networks))
    assert (six.names[six.client[0]], six.names[six.server[0]]) == ("2001:db8::5", "external")


def test_the_overflow_entry_is_other() -> None:
    """What had no place in the table is exact, nameless, and no flow."""
    row = pair(report_of(overflow(c2s_packets=7, c2s_bytes=700, c2s_payload_bytes=1)), "other", "other")
    assert (row["packets"], row["bytes"], row["flows"], row["scope"], row["service"]) == (7, 700, 0, "unknown", "other")
    assert (row["src_tenant"], row["dst_tenant"]) == ("other", "other")
