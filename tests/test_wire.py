"""What is read from ARP, RARP, neighbour discovery, DHCP, LLDP and CDP, as C hands them up; and what cannot be."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensor import native
from sensor.flowtable import FlowTable, TableOptions
from sensor.identity.vendors import hypervisor_of
from sensor.identity.wire import Heard, Reader, host_name
from sensor.native import META, NumpyArray
from tests.needs import PCAPS
from tests.oracles.capture_file import open_capture

WEB, APP = "52:54:00:0a:00:15", "52:54:00:0a:00:16"
CAPTURES = ("names-arp", "names-dhcp", "names-nd", "names-switch")


@cache
def notices(capture: str) -> NumpyArray:
    """What C hands up of a capture."""
    table = FlowTable(TableOptions(window_ns=3600 * 10**9))
    for frame in open_capture(Path(PCAPS, f"{capture}.pcap")).frames:
        meta = np.zeros(1, META)
        meta["sec"], meta["fraction"] = divmod(frame.time_us, 10**6)
        meta["caplen"] = len(frame.octets)
        assert table.ingest(frame.octets, meta.tobytes(), 0, 1000) == 1
    return table.take_notices()


def heard(capture: str) -> list[Heard]:
    """What it says; all of it can be read."""
    reader = Reader()
    found = reader.read(notices(capture))
    assert reader.unreadable == 0
    return found


def test_arp_binds_and_asks() -> None:
    """A probe binds nothing, an announcement asks nothing, a reply answers; the same in a VLAN and in VXLAN."""
    told = [said for said in heard("names-arp") if said.kind != "rarp"]
    plain = [(s.kind, s.mac, s.ip, s.target, s.gratuitous, s.reply) for s in told]
    half = len(plain) // 2
    assert plain[:half] == plain[half:] == [
        ("request", WEB, None, "10.3.0.21", False, False),
        ("binding", WEB, "10.3.0.21", None, True, False),
        ("request", WEB, "10.3.0.21", "10.3.0.22", False, False),
        ("binding", WEB, "10.3.0.21", None, False, False),
        ("binding", APP, "10.3.0.22", None, False, True),
        ("binding", APP, "10.3.0.22", None, True, True),
    ]  # fmt: skip
    assert {(said.vlan, said.vni, said.vtep) for said in told} == {((30,), None, None), ((), 5003, "192.168.100.1")}


def test_rarp_announces_a_card_and_its_new_host() -> None:
    """In the overlay, the tunnel's end is where the card is now."""
    told = [(said.mac, said.vni, said.vtep) for said in heard("names-arp") if said.kind == "rarp"]
    assert told == [(WEB, None, None), (WEB, 5003, "192.168.100.3")]


def test_dhcp_tells_names_and_addresses() -> None:
    """The name from the client's own messages, the binding from the ACK; behind a relay the name alone counts."""
    told = heard("names-dhcp")
    assert {said.name for said in told if said.kind == "hostname"} == {"web-1", "web-1.shops.example"}
    assert {said.mac for said in told} == {WEB}
    assert {said.ip for said in told if said.kind == "binding"} == {"10.3.0.21", "2001:db8:3::21"}
    assert None in {said.ip for said in told if said.kind == "hostname"}


def test_neighbour_discovery() -> None:
    """Duplicate address detection asks without an address; an unsolicited advertisement is gratuitous."""
    told = heard("names-nd")
    assert [(said.ip, said.target) for said in told if said.kind == "request"] == [
        (None, "2001:db8:3::21"), ("2001:db8:3::21", "2001:db8:3::22"), ("2001:db8:3::22", "2001:db8:3::21")
    ]  # fmt: skip
    assert Counter((said.gratuitous, said.reply) for said in told if said.kind == "binding") == {
        (False, False): 3, (True, False): 1, (False, True): 2
    }  # fmt: skip


def test_switches_name_the_port_that_feeds_the_mirror() -> None:
    """LLDP with a system name, or by its chassis; CDP; a telephone feeds no mirror."""
    assert [(said.name, said.port) for said in heard("names-switch")] == [
        ("leaf-1.example", "Ethernet12"), ("00:1c:73:00:00:01", "Ethernet12"),
        ("dist-2.example(FDO1)", "GigabitEthernet1/0/24"),
    ]  # fmt: skip


@pytest.mark.parametrize("capture", CAPTURES[:3])
def test_whatever_is_cut_says_nothing_false(capture: str) -> None:
    """Cut at any length, a packet says what it says whole or less, and never raises."""
    whole = heard(capture)
    for size in range(513):
        rows = notices(capture).copy()
        rows["size"] = np.minimum(rows["size"], size)
        reader = Reader()
        found = reader.read(rows)
        assert {(said.kind, said.mac, said.ip, said.target) for said in found} <= {
            (said.kind, said.mac, ip, said.target) for said in whole for ip in (said.ip, None)
        }  # fmt: skip
        names = {said.name for said in found if said.kind == "hostname"}
        assert names <= {said.name for said in whole}


@given(st.integers(0, len(native.NOTICES) - 1), st.binary(max_size=512), st.integers(0, 255))
@settings(max_examples=400, deadline=None, derandomize=True)
def test_random_octets_never_raise(kind: int, octets: bytes, first: int) -> None:
    """They are unreadable, or say nothing; each is counted once at most."""
    rows = np.zeros(1, native.NOTICE)
    rows["kind"], rows["size"], rows["ip_version"] = kind, len(octets), 6 if kind > 3 else 0
    rows["octets"][0, : len(octets)] = list(octets)
    rows["src_mac"] = rows["dst_mac"] = first
    reader = Reader()
    assert len(reader.read(rows)) + reader.unreadable <= 8


@pytest.mark.parametrize("capture", CAPTURES)
def test_flipped_octets_never_raise(capture: str) -> None:
    """One octet changed at a time, everywhere."""
    rows = notices(capture)
    for at in range(int(rows["size"].max())):
        changed = rows.copy()
        changed["octets"][:, at] ^= 0x81
        Reader().read(changed)


@pytest.mark.parametrize(
    ("said", "name"),
    [
        (b"web-1", "web-1"), (b"web-1.example.", "web-1.example"), (b"web\0\0", "web"), (b"", None),
        (b"localhost", None),
        (b"localhost.localdomain", None), (b"a\nb", None), (b"\xff\xfe", None), (b"10.0.0.1", None), (b"fd00::1", None),
        (b"x" * 256, None), (b"external", None), ("büro".encode(), "büro"),
    ],
)  # fmt: skip
def test_host_names_are_cleaned(said: bytes, name: str | None) -> None:
    """What names nobody, cannot be shown, or would pass for an address or for the sensor's own words is no name."""
    assert host_name(said) == name


def test_hypervisors_by_mac_prefix() -> None:
    """The prefixes that hypervisors give their VMs' cards."""
    known = {"00:50:56:01:02:03", "52:54:00:00:00:01", "00:15:5d:00:00:01", "00:16:3e:00:00:01", "08:00:27:00:00:01"}
    assert len({hypervisor_of(mac) for mac in known}) == len(known)
    assert hypervisor_of("02:00:00:00:00:01") is None
